"""Work on the logs that is done again and again beside everything else: signing, cosigning, giving places.

Invariant: whatever fails is said and tried again after a while, so that no failure ends a loop; a restored cell that is
not open yet fails nobody loudly. A loop ends when it is told to, or cancelled. It must never decide what work there is.
"""

import abc
import asyncio
import contextlib
from typing import Final

from chukan.errors import Problem

PAUSE_S: Final = 1.0
FAILED_S: Final = 5.0
"""Pause after a failure."""


class Repeating(abc.ABC):
    """Base of a loop; a subclass says what a turn is, and how a failure is told."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let ``run`` return after the turn in flight."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop``; returns only then, or when cancelled."""
        while not self._stopping.is_set():
            pause = PAUSE_S
            try:
                if await self._turn():
                    continue
            except Exception as error:  # noqa: BLE001 - a task's boundary: whatever failed, it is tried again and seen by its age
                if not (isinstance(error, Problem) and error.code == "cell_restored"):
                    self._failed(error)
                pause = FAILED_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    @abc.abstractmethod
    async def _turn(self) -> bool:
        """Do what there is to do; True where more waits, and no pause is due."""

    @abc.abstractmethod
    def _failed(self, error: Exception) -> None:
        """Say that a turn failed."""
