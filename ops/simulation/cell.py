"""A simulated cell on the wire: what a call of a set function meets on its way, and the journal of every commit.

A call arrives after a delay, is one commit at one instant, and its reply takes another delay. It can fail before the
commit, or after it (then the caller does not know); the cell can be away; a failover drops what is under way and makes
every grant void. The journal is written by the cell and not by who called, so that the checkers need nobody's word.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

from chukan.errors import Problem
from chukan.ops.simulation import rules
from chukan.ops.simulation.loop import START, Process, SimulatedLoop
from chukan.ops.simulation.tables import CellTables, Transaction
from chukan.ops.simulation.weather import Weather
from chukan.tenants.states import Side

R = TypeVar("R")
NOBODY: Final = contextvars.Context()
"""The context of what belongs to no process: the ground itself, which never freezes."""
IDLE_SPARED: Final = 0.8
"""Share of the calls without work to do that meet no weather: most of a run is such calls."""


class Entry(NamedTuple):
    """One commit."""

    at_s: float
    cell: str
    process: str
    function: str
    given: Any
    result: Any


@dataclass
class Journal:
    """Every commit of every cell, in the one order in which they happened."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Note a commit."""
        self.entries.append(entry)


Tell = Callable[[str, str], None]


class SimulatedCell:
    """One cell: tables, clock, weather and journal."""

    def __init__(
        self, tables: CellTables, loop: SimulatedLoop, draw: Random, weather: Weather, journal: Journal, tell: Tell
    ) -> None:
        self.tables = tables
        self.name = tables.name
        self.journal = journal
        self.skew_s = draw.uniform(-0.5, 0.5)
        self.away = False
        self._loop = loop
        self._draw = draw
        self._weather = weather
        self._tell = tell
        self._line = 0
        """Raised at a failover: connections of before are lost."""
        self._heard: dict[Process, Callable[[str, Side, str], None]] = {}

    def now(self) -> dt.datetime:
        """The cell's own instant."""
        return START + dt.timedelta(seconds=self._loop.now_s + self.skew_s)

    # ------------------------------------------------------------ calls

    def execute(self, process: str, function: str, work: Callable[[Transaction], R], given: object = None) -> R:
        """Do one call as one commit, now; a ``Problem`` leaves nothing behind."""
        tx = Transaction(self.now())
        try:
            result = work(tx)
        except BaseException:
            tx.roll_back()
            raise
        if tx.wrote:
            self.journal.add(Entry(self._loop.now_s, self.name, process, function, given, result))
        return result

    async def call(
        self, process: Process, function: str, work: Callable[[Transaction], R], given: object, *, idle: bool
    ) -> R:
        """Make a call over a connection of a process; ``idle`` calls have nothing to do and cost no time."""
        process.check_alive()
        if self.away:
            await self._refused()
        if idle and self._draw.random() < IDLE_SPARED:
            return self.execute(process.name, function, work, given)
        fate = self._weather.cell(self._draw)
        if fate.quick:
            return self.execute(process.name, function, work, given)
        reply: asyncio.Future[R] = self._loop.create_future()
        arrive = partial(self._arrive, reply, process.name, function, work, given, fate.after, fate.back_s, self._line)
        if fate.before is not None:
            arrive = partial(self._fail, reply, fate.before)
            self._tell(f"{process.name} → {self.name}", f"{function}: {fate.before} before the commit")
        elif fate.after is not None:
            self._tell(f"{process.name} → {self.name}", f"{function}: {fate.after} after the commit")
        self._loop.call_later(fate.there_s, arrive, context=NOBODY)
        return await reply

    async def _refused(self) -> None:
        refused: asyncio.Future[None] = self._loop.create_future()
        self._loop.call_later(self._draw.uniform(0.01, 0.2), self._fail, refused, "no_primary", context=NOBODY)
        await refused

    def _arrive(
        self,
        reply: asyncio.Future[R],
        process: str,
        function: str,
        work: Callable[[Transaction], R],
        given: object,
        after: str | None,
        back_s: float,
        line: int,
    ) -> None:
        if self.away or line != self._line:
            self._fail(reply, "no_primary")
            return
        try:
            result = self.execute(process, function, work, given)
        except Problem as problem:
            self._loop.call_later(back_s, self._fail, reply, problem.code, context=NOBODY)
            return
        finish = partial(self._fail, reply, after) if after is not None else partial(self._done, reply, result, line)
        self._loop.call_later(back_s, finish, context=NOBODY)

    def _done(self, reply: asyncio.Future[R], result: R, line: int) -> None:
        if line != self._line:
            self._fail(reply, "unavailable")
        elif not reply.done():
            reply.set_result(result)

    @staticmethod
    def _fail(reply: asyncio.Future[Any], code: str) -> None:
        if not reply.done():
            reply.set_exception(Problem(code, retry_after_s=1))

    # ------------------------------------------------------------ the cell's own fate

    def go_away(self) -> None:
        """The primary is lost: nothing is answered until ``come_back``."""
        self.away = True
        self._line += 1
        self._tell(self.name, "is away, connections are lost")

    def come_back(self, *, failed_over: bool) -> None:
        """There is a primary again; after a failover every epoch is raised before work resumes."""
        self.away = False
        if failed_over:
            self.execute("site", "raise_epochs", partial(rules.raise_epochs, self.tables))
        self._tell(self.name, "is back after a failover" if failed_over else "is back")

    # ------------------------------------------------------------ hints

    def listen(self, process: Process, heard: Callable[[str, Side, str], None]) -> None:
        """Have hints brought to a process."""
        self._heard[process] = heard

    def notify(self, side: Side, payload: str) -> None:
        """Bring a hint to everybody who listens; some are lost."""
        for process, heard in list(self._heard.items()):
            if process.dead:
                del self._heard[process]
            elif not self._weather.hint_lost(self._draw):
                late_s = self._draw.uniform(0.0, 0.05)
                self._loop.call_later(late_s, heard, self.name, side, payload, context=process.context)
