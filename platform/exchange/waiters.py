"""Those who wait for lines to become final: woken by what this process commits and by hints from the others.

What is heard says only "look"; the waiter then reads the work table, which is the truth. Whoever waits for certain
lines is not woken before the last of them was heard of, so that a list of a thousand is looked at once and not with
each set of answers. What is heard may be lost, so every waiter also looks by itself once a second. No waiter outlives
its deadline.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Final, TypeVar

from chukan.clock import Clock
from chukan.tenants.states import shard_of

LOOK_AGAIN_S: Final = 1.0
R = TypeVar("R")


class _Waiter:
    """Somebody who waits; ``lines`` are those not heard of yet, None for whoever wants to hear of every change."""

    __slots__ = ("lines", "woken")

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.lines: set[uuid.UUID] | None = None

    def heard(self, lines: Iterable[uuid.UUID] | None) -> None:
        """Something happened to these lines; None where it is not known to which."""
        if self.lines is not None and lines is not None:
            self.lines.difference_update(lines)
        if not self.lines or lines is None:
            self.woken.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when it is woken, at the latest when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.woken.wait()


class Waiters:
    """Waiters of each agency: ``changed`` tells those of one agency, ``hint`` those of all agencies of some shards."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[tuple[str, int], set[_Waiter]] = defaultdict(set)

    def changed(self, cell: str, agency: int, lines: Collection[uuid.UUID] | None = None) -> None:
        """Something of this agency was committed here: these lines are final (None: it may be any)."""
        for waiter in self._waiting.get((cell, agency), ()):
            waiter.heard(lines)

    def hint(self, cell: str, shards: frozenset[int]) -> None:
        """Somebody committed something of agencies in these shards of a cell."""
        for (where, agency), waiting in self._waiting.items():
            if where == cell and shard_of(agency) in shards:
                for waiter in waiting:
                    waiter.heard(None)

    async def until(
        self,
        cell: str,
        agency: int,
        look: Callable[[], Awaitable[tuple[bool, R]]],
        timeout_s: float,
        awaited: Callable[[R], Iterable[uuid.UUID]] | None = None,
    ) -> R:
        """Look now and after each change until ``look`` says done or the time is over; the last look's result.

        ``awaited`` returns the lines that a look found open: then it is looked again once all of them were heard of.
        """
        deadline = self._clock.monotonic() + timeout_s
        waiter = self._enter(cell, agency)
        try:
            while True:
                # What happens while it is being looked wakes too: the look may have come before it.
                waiter.woken.clear()
                waiter.lines = None
                done, result = await look()
                left = deadline - self._clock.monotonic()
                if done or left <= 0:
                    return result
                if awaited is not None:
                    waiter.lines = set(awaited(result))
                await waiter.wait(min(left, LOOK_AGAIN_S))
        finally:
            self._leave(cell, agency, waiter)

    async def told(self, cell: str, agency: int, lines: Iterable[uuid.UUID], timeout_s: float) -> bool:
        """Wait, without looking, until each of these lines was heard to be final; False where it is time to look.

        That is after a second, or when something happened that may concern any line.
        """
        waiter = self._enter(cell, agency)
        waiter.lines = left = set(lines)
        try:
            await waiter.wait(min(timeout_s, LOOK_AGAIN_S))
            return not left
        finally:
            self._leave(cell, agency, waiter)

    def _enter(self, cell: str, agency: int) -> _Waiter:
        waiter = _Waiter()
        self._waiting[cell, agency].add(waiter)
        return waiter

    def _leave(self, cell: str, agency: int, waiter: _Waiter) -> None:
        waiting = self._waiting[cell, agency]
        waiting.discard(waiter)
        if not waiting:
            del self._waiting[cell, agency]
