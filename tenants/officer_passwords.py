"""Passwords of officers (パスワード): Argon2id hashes (RFC 9106), made and compared beside the loop, a few at a time.

A comparison takes as long for an officer who does not exist as for one who does. It costs 64 MiB and a tenth of a
second of one core, on purpose; so only ``AT_WORK`` run at a time and ``WAITING_MAX`` wait, and who comes then is told
to come back. Invariant: a password is kept nowhere, and neither it nor its hash is in any exception or log line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from chukan.errors import Problem

LENGTH_MIN: Final = 12
LENGTH_MAX: Final = 128
AT_WORK: Final = 2
WAITING_MAX: Final = 16
_DISTINCT_MIN: Final = 5
_BUSY_S: Final = 2
T = TypeVar("T")


def check_strength(password: str, officer: str) -> None:
    """Refuse what is guessed first: too short, with the officer's id in it, or few characters again and again.

    Raises ``Problem`` password_weak.
    """
    folded = password.casefold()
    too_plain = len(set(folded)) < _DISTINCT_MIN or officer.casefold() in folded
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX or too_plain:
        raise Problem("password_weak", limit=LENGTH_MIN)


class Passwords:
    """Makes and compares hashes; one for a process."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
        self._places = asyncio.Semaphore(AT_WORK)
        self._waiting = 0
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """Return a salted hash. Raises ``Problem`` busy."""
        return await self._work(lambda: self._hasher.hash(password))

    async def matches(self, hashed: str, password: str) -> bool:
        """Compare; with an empty hash (nobody's) it takes as long, and is False. Raises ``Problem`` busy."""
        return await self._work(lambda: self._compare(hashed, password))

    def _compare(self, hashed: str, password: str) -> bool:
        if not hashed:
            if self._nobody is None:
                self._nobody = self._hasher.hash("nobody has this password")
            hashed, password = self._nobody, f"\0{password}"
        try:
            return self._hasher.verify(hashed, password)
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False

    async def _work(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Problem("busy", retry_after_s=_BUSY_S)
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
