"""Those who wait for lines to become final: woken by what this process commits and by hints from the others.

A hint says only "something changed at this side of this cell"; the waiter then reads the work table, which is the
truth. Hints may be lost, so every waiter also looks again by itself once a second. No waiter outlives its deadline.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from chukan.clock import Clock

LOOK_AGAIN_S: Final = 1.0
R = TypeVar("R")


class Waiters:
    """Conditions per agency; ``changed`` wakes those of one agency, ``hint`` those of all agencies of a cell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: dict[tuple[str, int], set[asyncio.Event]] = defaultdict(set)

    def changed(self, cell: str, agency: int) -> None:
        """Something of this agency was committed here."""
        for event in self._events.get((cell, agency), ()):
            event.set()

    def hint(self, cell: str) -> None:
        """Somebody committed something in this cell."""
        for (where, _), events in self._events.items():
            if where == cell:
                for event in events:
                    event.set()

    async def until(self, cell: str, agency: int, look: Callable[[], Awaitable[tuple[bool, R]]], timeout_s: float) -> R:
        """Look now and after each change until ``look`` says done or the time is over; the last look's result."""
        deadline = self._clock.monotonic() + timeout_s
        event = asyncio.Event()
        self._events[cell, agency].add(event)
        try:
            while True:
                event.clear()
                done, result = await look()
                left = deadline - self._clock.monotonic()
                if done or left <= 0:
                    return result
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, LOOK_AGAIN_S)):
                        await event.wait()
        finally:
            waiting = self._events[cell, agency]
            waiting.discard(event)
            if not waiting:
                del self._events[cell, agency]
