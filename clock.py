"""The clock as a port: UTC inside, Japan's time at the edge, monotonic time for durations.

Nothing else in Chukan asks the machine what time it is; the tidy test refuses ``datetime.now`` elsewhere. So a
simulation can replay a seed, and a test can stand at the last second of a permit's validity without waiting for it.

Invariant: ``now()`` is always an aware ``datetime`` in UTC; ``monotonic()`` never goes back and has no meaning outside
the process.
"""

import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Protocol

# Japan has had no summer time since 1951; a fixed offset needs no time-zone database on the host.
JST = timezone(timedelta(hours=9), "JST")


class Clock(Protocol):
    """Tells the instant and measures durations."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; only differences mean something."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move; both of its hands move together."""

    def __init__(self, start: datetime) -> None:
        """Stand at ``start``, which must be aware (``ValueError`` otherwise)."""
        if start.tzinfo is None:
            raise ValueError("a clock starts at an aware instant")
        self._now = start.astimezone(UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the instant at which the clock stands, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds that the clock was advanced by so far."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``; ``ValueError`` when negative, for time does not go back."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


def to_jst(instant: datetime) -> datetime:
    """Return the same instant in Japan's time; ``ValueError`` for a naive one, whose meaning nobody knows."""
    if instant.tzinfo is None:
        raise ValueError("a naive datetime names no instant")
    return instant.astimezone(JST)


def today_jst(clock: Clock) -> date:
    """Return the calendar day in Japan: the day on which a law's list is in force."""
    return to_jst(clock.now()).date()
