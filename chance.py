"""Randomness as a port: tokens, and time-ordered ids (UUIDv7, RFC 9562 §5.7).

Nothing else in Chukan draws random bits; the tidy test refuses the ``random`` module elsewhere. ``SystemChance`` takes
them from the operating system and is the only one that may make keys, salts or nonces. ``SeededChance`` gives the same
sequence for the same seed and clock: it serves simulations and tests, never a real site.
"""

import os
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

from chukan.clock import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_TIME_BITS = 48
_UUID7 = 7


class Chance(Protocol):
    """Draws random bytes and ids."""

    def token(self, n: int) -> bytes:
        """Return ``n`` random bytes."""
        ...

    def uuid7(self) -> uuid.UUID:
        """Return a UUIDv7 whose first 48 bits are the clock's milliseconds."""
        ...


class SystemChance:
    """The operating system's randomness."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def token(self, n: int) -> bytes:
        """Return ``n`` bytes that nobody can predict."""
        return os.urandom(n)

    def uuid7(self) -> uuid.UUID:
        """Return an id with 74 unpredictable bits."""
        return make_uuid7(self._clock.now(), os.urandom(10))


class SeededChance:
    """A reproducible sequence, for simulations and tests only."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self._random = random.Random(seed)  # noqa: S311 (reproducible on purpose; never makes a secret)
        self._clock = clock

    def token(self, n: int) -> bytes:
        """Return the next ``n`` bytes of the sequence."""
        return self._random.randbytes(n)

    def uuid7(self) -> uuid.UUID:
        """Return an id made of the clock's time and the next bits of the sequence."""
        return make_uuid7(self._clock.now(), self._random.randbytes(10))


def make_uuid7(at: datetime, randomness: bytes) -> uuid.UUID:
    """Return the UUIDv7 of an instant and 10 random bytes, of which 74 bits are used (12 and 62)."""
    milliseconds = (at - _EPOCH) // _MILLISECOND
    if not 0 <= milliseconds < 1 << _TIME_BITS:
        raise ValueError("the instant does not fit into a UUIDv7")
    drawn = int.from_bytes(randomness[:10], "big")
    rand_a = (drawn >> 62) & 0xFFF
    rand_b = drawn & ((1 << 62) - 1)
    return uuid.UUID(int=milliseconds << 80 | _UUID7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def uuid7_time(value: uuid.UUID) -> datetime:
    """Return the instant in a UUIDv7, in UTC to the millisecond; ``ValueError`` for any other kind of UUID.

    Its 48 bits reach beyond the year 9999: what lies there is told as the last instant that there is.
    """
    if value.version != _UUID7 or value.variant != uuid.RFC_4122:
        raise ValueError("not a UUIDv7")
    return _EPOCH + min(value.int >> 80, _LAST) * _MILLISECOND
