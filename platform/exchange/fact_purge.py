"""Deletes the facts of requests to acquire a code 28 days after they came (符号取得の依頼), whatever became of them.

The instant is this process's clock; the named set function deletes what is older, a bounded page of agencies at a time,
never on the path of a request. What is past its time is shown to nobody in between (``tenants.acquisition_asks``).
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.acquisition_asks import KEEP
from chukan.tenants.sets import CellSets

ROUND_S: Final = 600.0
PAGE_S: Final = 1.0
_log = log.get("exchange.fact_purge")


class FactPurge:
    """Goes through the agencies of every cell while ``run`` runs."""

    def __init__(self, sets: Mapping[str, CellSets], clock: Clock) -> None:
        self._sets = sets
        self._clock = clock

    async def run(self) -> None:
        """Go round and round until cancelled; a cell that is away holds up no other."""
        async with asyncio.TaskGroup() as group:
            for cell in self._sets:
                group.create_task(self._rounds(cell), name=f"fact purge {cell}")

    async def _rounds(self, cell: str) -> None:
        while True:
            try:
                gone = await self.round(cell)
            except Problem as problem:
                _log.warning("facts not purged", cell=cell, code=problem.code)
            else:
                if gone:
                    _log.info("facts purged", cell=cell, count=gone)
            await asyncio.sleep(ROUND_S)

    async def round(self, cell: str) -> int:
        """Go once through a cell's agencies; returns how many requests went. Raises ``Problem``."""
        before = self._clock.now() - KEEP
        after, total = await self._sets[cell].purge_acquisition_asks(0, before)
        while after:
            await asyncio.sleep(PAGE_S)
            after, gone = await self._sets[cell].purge_acquisition_asks(after, before)
            total += gone
        return total
