"""What every part of an exchange is given: ports, keys, law, the cells' set functions, and the common data in force.

A plain bag of references, made once at start; it must never grow behaviour. Tests and simulations fill it with other
implementations of the same ports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.exchange.masters import MastersInForce
from chukan.platform.exchange.openings import Openings
from chukan.platform.law import Law
from chukan.platform.law.calendar import Calendar
from chukan.platform.stages import Stage
from chukan.settings import Settings
from chukan.tenants.directory import AgencyRow, Directory
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.sets import CellSets
from chukan.tenants.states import Side

I = TypeVar("I")  # noqa: E741 - items in, results out
R = TypeVar("R")


class Meter(Protocol):
    """What the exchange tells about itself; ``platform.metrics`` counts it for Prometheus."""

    def stage(self, name: str, size: int, seconds: float, *, failed: bool) -> None:
        """One set went through a stage."""
        ...

    def outcome(self, side: Side, outcome: str, count: int = 1) -> None:
        """Lines reached an outcome on one side."""
        ...

    def problem(self, code: str) -> None:
        """Something was refused, by registered code."""
        ...

    def leases(self, cell: str, side: Side, count: int) -> None:
        """Shards that this process works on."""
        ...

    def sequencer_age(self, cell: str, seconds: float) -> None:
        """Age of the oldest record without a position in its log."""
        ...

    def evidence_age(self, cell: str, seconds: float, *, of: str = "records") -> None:
        """Age of the oldest leaf without a signed checkpoint, of the records' or the operations' logs."""
        ...

    def evidence_broken(self, cell: str, refused: str, logs: int) -> None:
        """Logs that are not the ones that were signed or seen, and are not signed or cosigned on."""
        ...


class CommonData(Protocol):
    """The common data in force, and how old our knowledge of it is."""

    @property
    def directory(self) -> Directory:
        """The newest verified directory. Raises Problem ``common_data_stale`` before the first one was read."""
        ...

    def age_s(self) -> float:
        """Seconds since every reachable cell last confirmed the number in force."""
        ...

    async def refresh(self) -> None:
        """Read it again at once."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one exchange."""

    settings: Settings
    clock: Clock
    chance: Chance
    masters: MastersInForce
    keystores: KeyStores
    sets: Mapping[str, CellSets]
    common: CommonData
    openings: Openings
    meter: Meter

    @property
    def law(self) -> Law:
        """The law that the common data in force names; raises Problem ``common_data_stale`` where it is not held."""
        return self.masters.of(self.common.directory).law

    @property
    def calendar(self) -> Calendar:
        """The service calendar that goes with it; raises the same."""
        return self.masters.of(self.common.directory).calendar

    def keys(self, agency: int) -> AgencyKeys:
        """The agency's keys; raises Problem ``keys_unconfirmed``."""
        return self.keystores.load(agency)

    def code_of(self, agency: int) -> str | None:
        """The code of an open agency by its number, None where there is none."""
        try:
            return self.common.directory.by_number(agency).code
        except Problem:
            return None

    def stages(
        self, name: str, work: Callable[[CellSets], Callable[[list[I]], Awaitable[list[R]]]], *, cap: int = 256
    ) -> dict[str, Stage[I, R]]:
        """One stage per cell, whose work is that cell's set function."""
        return {
            cell: Stage(f"{name}_{cell}", work(sets), clock=self.clock, cap=cap, observe=self.meter.stage)
            for cell, sets in self.sets.items()
        }

    def cell(self, agency: AgencyRow) -> CellSets:
        """The set functions of the cell that the agency lives in; raises Problem ``no_primary``."""
        try:
            return self.sets[agency.cell]
        except KeyError:
            raise Problem("no_primary", retry_after_s=5) from None
