"""Deletes the facts of requests to acquire a code 28 days after they came (符号取得の依頼), whatever became of them.

The instant is this process's clock; the named set function deletes what is older, a bounded page of agencies at a time,
never on the path of a request. What is past its time is shown to nobody in between (``tenants.acquisition_asks``).
"""

import asyncio
from collections.abc import Mapping

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.exchange.rounds import PAGE_S, go_round
from chukan.tenants.acquisition_asks import KEEP
from chukan.tenants.sets import CellSets

_log = log.get("exchange.fact_purge")


class FactPurge:
    """Goes through the agencies of every cell while ``run`` runs."""

    def __init__(self, sets: Mapping[str, CellSets], clock: Clock) -> None:
        self._sets = sets
        self._clock = clock

    async def run(self) -> None:
        """Go round and round until cancelled; a cell that is away holds up no other."""
        await go_round("fact purge", self._sets, self._turn, _put_off)

    async def _turn(self, cell: str) -> None:
        gone = await self.round(cell)
        if gone:
            _log.info("facts purged", cell=cell, count=gone)

    async def round(self, cell: str) -> int:
        """Go once through a cell's agencies; returns how many requests went. Raises ``Problem``."""
        before = self._clock.now() - KEEP
        after, total = await self._sets[cell].purge_acquisition_asks(0, before)
        while after:
            await asyncio.sleep(PAGE_S)
            after, gone = await self._sets[cell].purge_acquisition_asks(after, before)
            total += gone
        return total


def _put_off(cell: str, problem: Problem) -> None:
    _log.warning("facts not purged", cell=cell, code=problem.code)
