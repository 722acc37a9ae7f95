"""Forgetting: keys and sent bytes whose time is over are deleted, a bounded page of agencies at a time.

What is kept and for how long is the set function's rule (at least seven days, DESIGN §5); this only asks for it now and
then, in every exchange, and never on the path of a request.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from chukan import log
from chukan.errors import Problem
from chukan.tenants.sets import CellSets

ROUND_S: Final = 600.0
PAGE_S: Final = 1.0
_log = log.get("exchange.forgetting")


class Forgetting:
    """Goes through the agencies of every cell while ``run`` runs."""

    def __init__(self, sets: Mapping[str, CellSets]) -> None:
        self._sets = sets

    async def run(self) -> None:
        """One round through all cells, a pause, and again until cancelled."""
        while True:
            for cell in self._sets:
                try:
                    await self.round(cell)
                except Problem as problem:
                    _log.warning("forgetting put off", cell=cell, code=problem.code)
            await asyncio.sleep(ROUND_S)

    async def round(self, cell: str) -> None:
        """Go once through a cell's agencies. Raises ``Problem`` where the cell does not answer."""
        after = await self._sets[cell].forget(0)
        while after:
            await asyncio.sleep(PAGE_S)
            after = await self._sets[cell].forget(after)
