"""The port of a key store (鍵ストア): what one centre's store must be able to do, whatever it is made of (DESIGN §9).

An HSM holds the master keys and does the wrapping behind the same calls (``key_token``) as ``key_files`` does for the
demo.

Invariant: a key that is shown, printed or logged by mistake shows nothing of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

Purpose = Literal["data", "index", "answer"]


class Name(NamedTuple):
    """Names one key of an agency."""

    purpose: Purpose
    version: int


class Held(NamedTuple):
    """A key as a store gives it back: the clear secret (32 bytes) and whether both centres confirmed it."""

    secret: bytes
    confirmed: bool

    def __repr__(self) -> str:
        return f"Held(confirmed={self.confirmed})"


class KeyStore(Protocol):
    """One centre's key store. Every call may raise ``OSError`` when the store cannot be reached."""

    def prepare(self) -> None:
        """Make the store, once, when a site is set up; harmless on one that exists. ``Problem`` as ``check``."""
        ...

    def check(self) -> None:
        """Refuse a store of another environment or make; ``Problem`` other_environment, key_store_mismatch."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Keep every other process from writing to this store meanwhile."""
        ...

    def agencies(self) -> list[int]:
        """Return the numbers of the agencies that have keys here."""
        ...

    def mark(self, agency: int) -> bytes:
        """Return what changes whenever the agency's keys are written or destroyed; cheap, and asks no HSM."""
        ...

    def read(self, agency: int) -> dict[Name, Held]:
        """Return the agency's keys, unwrapped; empty when it has none.

        Raises ``Problem`` agency_closed when they were destroyed, keys_unconfirmed when they do not unwrap,
        other_environment.
        """
        ...

    def write(self, agency: int, keys: Mapping[Name, Held]) -> None:
        """Replace the agency's keys, durably and all or nothing. Makes the agency's master key at the first time."""
        ...

    def retire(self, agency: int, below: int) -> None:
        """Destroy the agency's data keys whose version is below, and remember it; safe to repeat."""
        ...

    def retired(self, agency: int) -> int:
        """Return below which version the agency's data keys were destroyed; 0 where none was."""
        ...

    def owes(self, agency: int, below: int) -> bool:
        """Tell whether data keys of versions below may still lie here, also where a retirement was interrupted."""
        ...

    def destroy(self, agency: int) -> None:
        """Destroy the agency's keys and master key, and remember that it was done."""
        ...
