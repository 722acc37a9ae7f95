"""The form of a row in the table of decoders (``decoders``), and the keys and the clock that its rows are made with."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.clock import ManualClock
from chukan.errors import Problem

NOW: Final = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
CLOCK: Final = ManualClock(NOW)
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SEAL: Final = X25519PrivateKey.from_private_bytes(bytes(range(32)))
AGENCY: Final = "1310100000000001"


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder: ``allowed`` is what it says that it raises."""

    name: str
    call: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    allowed: tuple[type[Exception], ...] = (Problem,)


def tellable(value: object) -> object:
    """Fail where the database would not take a value that a decoder gave out."""
    if isinstance(value, str):
        assert "\0" not in value, "a text with NUL"
    elif isinstance(value, dt.datetime):
        value.astimezone(dt.UTC)
    elif isinstance(value, tuple | list):
        for each in value:
            tellable(each)
    return value
