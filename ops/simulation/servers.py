"""The exchange with the simulated ground under it; nothing of what it decides or does is replaced.

``SimulatedExchange`` is the shipped ``Exchange`` with its two doors led to the simulated cells.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, cast

from chukan.ops.simulation.cell import SimulatedCell
from chukan.ops.simulation.loop import Process
from chukan.ops.simulation.sets import SimulatedSets
from chukan.ops.simulation.tables import AgencyTables, Transaction
from chukan.ops.simulation.weather import Weather
from chukan.platform.exchange.exchange import Exchange
from chukan.replication.primary import Cells, Proxy
from chukan.tenants.directory import AgencyRow
from chukan.tenants.partition import Partition
from chukan.tenants.sets import CellSets
from chukan.tenants.states import Side

Work = Callable[[AgencyTables, Transaction], Any]
_DRAFT: Final = ("provision", "decision", "withheld", "officer", "note", "at")


class SilentMeter:
    """Counts nothing."""

    def stage(self, name: str, size: int, seconds: float, *, failed: bool) -> None:
        """Pass over it."""

    def outcome(self, side: Side, outcome: str, count: int = 1) -> None:
        """Pass over it."""

    def problem(self, code: str) -> None:
        """Pass over it."""

    def leases(self, cell: str, side: Side, count: int) -> None:
        """Pass over it."""

    def evidence_age(self, cell: str, seconds: float, *, of: str = "records") -> None:
        """Nothing is counted."""

    def evidence_broken(self, cell: str, refused: str, logs: int) -> None:
        """Nothing is counted."""

    def sequencer_age(self, cell: str, seconds: float) -> None:
        """Pass over it."""


class SimulatedCells(Cells):
    """One process's connections to the simulated cells."""

    def __init__(self, process: Process, cells: Mapping[str, SimulatedCell], draw: Random, weather: Weather) -> None:
        self._process = process
        self._simulated = cells
        self._draw = draw
        self._weather = weather

    async def open(self) -> None:
        """There is nothing to open."""

    def leader(self, name: str) -> None:
        """A simulated cell is one server."""
        _ = name

    async def hear(self, name: str, channels: Sequence[str], heard: Callable[[str, str], None]) -> None:
        """Listen for as long as the process lives."""
        by_side = dict(zip(Side, channels, strict=True))
        for channel in channels:
            heard(channel, "")
        self._simulated[name].listen(self._process, lambda _cell, side, payload: heard(by_side[side], payload))
        await asyncio.Event().wait()

    def sets(self, cell: str) -> CellSets:
        """The set functions of a cell."""
        return SimulatedSets(self._simulated[cell], self._process, self._draw, self._weather)

    async def draft(self, cell: str, work: Work, agency: int, given: object) -> Any:  # noqa: ANN401 - rows as the driver gives them
        """Do something with an agency's drafts, as one transaction."""
        place = self._simulated[cell]
        return await place.call(
            self._process, "draft", lambda tx: work(place.tables.agency(agency), tx), given, idle=False
        )


class DraftsPartition(Partition):
    """Door 1, as far as the exchange's services use it: the review drafts of one agency, whose officers act by card."""

    def __init__(self, cells: SimulatedCells, agency: AgencyRow) -> None:
        super().__init__(cast("Proxy", None), agency.number, 30.0)
        self._cells = cells
        self._cell = agency.cell

    async def execute(self, sql: str, *values: object) -> int:
        """Save a draft."""
        _only_drafts(sql)
        row = dict(zip(_DRAFT, values, strict=True))
        key = cast("uuid.UUID", row["provision"])
        work: Work = lambda table, tx: tx.put(table.drafts, key, row)  # noqa: E731 - a name for its type
        await self._cells.draft(self._cell, work, self.agency, (self.agency, row))
        return 1

    async def fetchrow(self, sql: str, *values: object) -> None:
        """Look for an officer's account: there are none."""
        _ = values
        if '"officers"' not in sql and ".officers " not in sql:
            raise AssertionError("the simulation knows of no other row")

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """Read drafts."""
        _only_drafts(sql)
        wanted = cast("Sequence[Any]", values[0])
        found: list[Any] = await self._cells.draft(
            self._cell,
            lambda table, _tx: [table.drafts[one] for one in wanted if one in table.drafts],
            self.agency,
            None,
        )
        return found


def _only_drafts(sql: str) -> None:
    if "review_drafts" not in sql:
        raise NotImplementedError("the simulation models no other table behind door 1")


class SimulatedExchange(Exchange):
    """The exchange on simulated cells."""

    def set_functions(self, cell: str) -> CellSets:
        """Door 2 leads to the simulated cell."""
        return cast("SimulatedCells", self.cells).sets(cell)

    @asynccontextmanager
    async def door(self, agency: AgencyRow) -> AsyncIterator[Partition]:
        """Door 1 leads there too."""
        yield DraftsPartition(cast("SimulatedCells", self.cells), agency)
