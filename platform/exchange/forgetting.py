"""Forgetting: keys and sent bytes whose time is over are deleted, and counts folded, a page of agencies at a time.

What is kept and for how long is the set functions' rule (keys at least seven days, DESIGN §5; records seven years,
施行令30条), and that a folded count is the same count (統計); this only asks for it now and then, in every exchange,
and never on the path of a request.
"""

import asyncio
from collections.abc import Mapping
from functools import partial

from chukan import log
from chukan.clock import Clock, today_jst
from chukan.errors import Problem
from chukan.platform.exchange.rounds import PAGE_S, go_round
from chukan.tenants.retention import kept_from
from chukan.tenants.sets import CellSets

_log = log.get("exchange.forgetting")


class Forgetting:
    """Goes through the agencies of every cell while ``run`` runs."""

    def __init__(self, sets: Mapping[str, CellSets], clock: Clock) -> None:
        self._sets = sets
        self._clock = clock

    async def run(self) -> None:
        """Go round and round until cancelled, in each cell by itself: one that is away holds up no other."""
        await go_round("forgetting", self._sets, self.round, _put_off)

    async def round(self, cell: str) -> None:
        """Go once through a cell's agencies. Raises ``Problem`` where the cell does not answer."""
        sets = self._sets[cell]
        expire = partial(sets.expire_records, before=kept_from(today_jst(self._clock)))
        ended = partial(sets.purge_sessions, before=self._clock.now())
        messages = partial(sets.expire_messages, before=kept_from(today_jst(self._clock)))
        for page in (sets.forget, expire, messages, ended, sets.fold_statistics):
            after = await page(0)
            while after:
                await asyncio.sleep(PAGE_S)
                after = await page(after)


def _put_off(cell: str, problem: Problem) -> None:
    _log.warning("forgetting put off", cell=cell, code=problem.code)
