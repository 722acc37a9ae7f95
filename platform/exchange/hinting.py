"""Tells the other exchanges what was committed here (呼び水): one hint at a time for each side of each cell.

What happens while one is on its way goes with the next, so their number does not grow with the load.

What it must never do: make a commit wait, or fail anything but itself.
"""

from __future__ import annotations

import asyncio

from chukan import log
from chukan.errors import Problem
from chukan.tenants.hints import Hint
from chukan.tenants.sets import CellSets
from chukan.tenants.states import Side

_log = log.get("exchange.hints")


class Hints:
    """The hints of this process to one side of one cell."""

    def __init__(self, cell: str, side: Side, sets: CellSets, origin: str) -> None:
        """``origin`` is the name under which this process knows its own hints again."""
        self._cell = cell
        self._side = side
        self._sets = sets
        self._origin = origin
        self._work: set[int] = set()
        self._done: set[int] = set()
        self._sending: asyncio.Task[None] | None = None

    def work(self, shard: int) -> None:
        """Tell that a worker has something to do in a shard."""
        self._work.add(shard)
        self._send()

    def done(self, shard: int) -> None:
        """Tell that lines of a shard are final."""
        self._done.add(shard)
        self._send()

    def _send(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._run(), name=f"hint {self._cell} {self._side.name}")

    async def _run(self) -> None:
        try:
            while self._work or self._done:
                hint = Hint(self._origin, frozenset(self._work), frozenset(self._done))
                self._work.clear()
                self._done.clear()
                await self._sets.notify(self._side, hint)
        except Problem as problem:
            _log.info("hint not sent", cell=self._cell, code=problem.code)
        finally:
            self._sending = None
