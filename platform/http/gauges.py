"""Asks the cells now and then what stands in them, and tells the metrics: backlog, queue age, ages of copies and log.

The questions are bounded by themselves (``tenants.sets``), one cell's silence does not hold up another's, and a figure
that cannot be had is simply not renewed: the canary says why.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.flows.provision import ESCALATED_BEFORE_END
from chukan.platform.metrics import Metrics
from chukan.tenants.directory import AgencyRow, Directory
from chukan.tenants.sets import CellSets
from chukan.tenants.states import InquiryState, ProvisionState, Side

EVERY_S: Final = 10.0
PAGES_MAX: Final = 5
PAGE_AGENCIES: Final = 50
"""Ages of copies are read page by page: the whole of a cell in turns."""

_STATES: Final[Mapping[Side, type[InquiryState | ProvisionState]]] = {
    Side.INQUIRER: InquiryState,
    Side.PROVIDER: ProvisionState,
}
_log = log.get("http.gauges")


class Gauges:
    """Looks at every cell while ``run`` runs."""

    def __init__(
        self, sets: Mapping[str, CellSets], directory: Callable[[], Directory], metrics: Metrics, clock: Clock
    ) -> None:
        """``directory`` returns the common data in force; it may raise ``Problem`` common_data_stale."""
        self._sets = sets
        self._directory = directory
        self._metrics = metrics
        self._clock = clock
        self._after = dict.fromkeys(sets, 0)
        self._ages: dict[str, dict[tuple[int, str], dt.datetime]] = {cell: {} for cell in sets}
        self._backlogs: dict[str, dict[int, int]] = {cell: {} for cell in sets}
        self._lapsing: dict[str, dict[int, int]] = {cell: {} for cell in sets}
        self._shown: set[tuple[str, Side, int]] = set()
        self._aside: dict[str, int] = {}

    async def run(self) -> None:
        """Look until cancelled, at each cell by itself."""
        async with asyncio.TaskGroup() as group:
            for cell in self._sets:
                group.create_task(self._watch(cell), name=f"gauges {cell}")

    async def _watch(self, cell: str) -> None:
        while True:
            await self._look(cell)
            self.tell()
            await asyncio.sleep(EVERY_S)

    async def _look(self, cell: str) -> None:
        try:
            await self.look(cell)
        except Problem as problem:
            _log.info("no figures of a cell", cell=cell, code=problem.code)

    async def look(self, cell: str) -> None:
        """Ask one cell once. Raises ``Problem`` where it does not answer."""
        sets, now = self._sets[cell], self._clock.now()
        rows = {(cell, row.side, row.state): row for row in await sets.backlog()}
        for key in self._shown | rows.keys():
            if key[0] == cell:
                row = rows.get(key)
                late_s = None if row is None else max(0.0, (now - row.oldest_due).total_seconds())
                count = 0 if row is None else row.count
                self._metrics.backlog(cell, key[1], _STATES[key[1]](key[2]).name.lower(), count, late_s)
        self._shown |= rows.keys()
        self._backlogs[cell] = await sets.agency_backlog()
        self._tell_of_reviews(cell, await sets.reviews_lapsing(now + ESCALATED_BEFORE_END))
        self._metrics.sequencer_age(cell, await sets.sequencer_age())
        await self._look_aside(cell)
        await self._read_ages(cell)

    def _tell_of_reviews(self, cell: str, lapsing: dict[int, int]) -> None:
        """Keep what is escalated, and say of which agency more is than before."""
        for agency, count in lapsing.items():
            if count > self._lapsing[cell].get(agency, 0):
                _log.warning("reviews are about to lapse", agency=agency, count=count)
        self._lapsing[cell] = lapsing

    async def _look_aside(self, cell: str) -> None:
        """Tell of the logs that are set aside, loudly when there are more of them than before."""
        aside = await self._sets[cell].logs_aside()
        self._metrics.evidence_broken(cell, "sequencing", aside)
        if aside > self._aside.get(cell, 0):
            _log.critical("a record that waits for its place in a log is not there", cell=cell, count=aside)
        self._aside[cell] = aside

    async def _read_ages(self, cell: str) -> None:
        """Read the next pages of a cell's agencies, as the directory lists them."""
        numbers = [row.number for row in self._agencies() if row.cell == cell]
        for _ in range(PAGES_MAX):
            page = [number for number in numbers if number > self._after[cell]][:PAGE_AGENCIES]
            if not page:
                self._after[cell] = 0
                return
            found = await self._sets[cell].copy_ages(page[0] - 1, len(page))
            self._ages[cell].update({(row.agency, row.kind): row.at for row in found})
            self._after[cell] = page[-1]

    def _agencies(self) -> list[AgencyRow]:
        open_rows = [row for row in self._directory().snapshot.agencies if row.state == "open"]
        return sorted(open_rows, key=lambda row: row.number)

    def tell(self) -> None:
        """Tell what was read of all cells, page by page or at once."""
        self._metrics.agency_backlog({k: n for counts in self._backlogs.values() for k, n in counts.items()})
        self._metrics.reviews_lapsing({k: n for counts in self._lapsing.values() for k, n in counts.items()})
        now = self._clock.now()
        self._metrics.copy_ages(
            {key: max(0.0, (now - at).total_seconds()) for ages in self._ages.values() for key, at in ages.items()}
        )
