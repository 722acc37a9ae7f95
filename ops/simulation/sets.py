"""The set functions of a simulated cell as an exchange calls them: ``tenants.sets.CellSets``, method by method.

Each method is one call over the simulated wire (``cell``) of one rule (``rules`` and its neighbours). A method that is
not here reaches for a connection that does not exist and fails loudly: nothing can pass unmodelled.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar, cast

from chukan.ops.simulation import code_rules, inquiry_rules, provision_rules, rules
from chukan.ops.simulation.cell import SimulatedCell
from chukan.ops.simulation.loop import Process
from chukan.ops.simulation.tables import BEGINNING, Transaction
from chukan.ops.simulation.weather import Weather
from chukan.replication.primary import Pool
from chukan.tenants.hints import Hint
from chukan.tenants.rows import (
    AcceptBatch,
    AcceptedBatch,
    AcceptLine,
    AnswerRow,
    CodeNumber,
    CodeOpen,
    CodePut,
    CodeRow,
    Collected,
    DecideRow,
    Grant,
    InquirySettle,
    InquiryView,
    InquiryWork,
    LookupHit,
    LookupRow,
    ProvideRow,
    ProvisionSettle,
    ProvisionView,
    ProvisionWork,
    RequestHit,
)
from chukan.tenants.sets import CellSets, CommonRow, Opening, SnapshotRow
from chukan.tenants.sets.corrections import DueCorrection
from chukan.tenants.states import InquiryState, ProvisionState, Side

R = TypeVar("R")


class SimulatedSets(CellSets):
    """One process's connection to one cell."""

    def __init__(self, cell: SimulatedCell, process: Process, draw: Random, weather: Weather) -> None:
        super().__init__(cast("Pool", None))
        self._cell = cell
        self._tables = cell.tables
        self._process = process
        self._draw = draw
        self._weather = weather

    async def _do(
        self, function: str, work: Callable[[Transaction], R], given: object = None, *, idle: bool = False
    ) -> R:
        return await self._cell.call(self._process, function, work, given, idle=idle)

    def _rule(self, rule: Callable[..., R], *given: Any) -> Callable[[Transaction], R]:  # noqa: ANN401 - any rule's
        return lambda tx: rule(self._tables, tx, *given)

    # ------------------------------------------------------------ inquirer

    async def accept(self, batches: Sequence[AcceptBatch], lines: Sequence[AcceptLine]) -> list[AcceptedBatch]:
        """Make POSTed lists durable."""
        if not batches:
            return []
        return await self._do("accept", self._rule(inquiry_rules.accept, batches, lines), (batches, lines))

    async def inquiry_views(
        self,
        agency: int,
        *,
        batch: uuid.UUID | None = None,
        ids: Sequence[uuid.UUID] | None = None,
        state: InquiryState | None = None,
        after: uuid.UUID | None = None,
        limit: int = 1000,
    ) -> list[InquiryView]:
        """States of one agency's lines."""
        rule = partial(
            inquiry_rules.inquiry_views,
            self._tables,
            agency,
            batch=batch,
            ids=ids,
            state=state,
            after=after,
            limit=limit,
        )
        return await self._do("inquiry_views", lambda _tx: rule())

    async def take_inquiries(self, grants: Sequence[Grant], limit: int) -> list[InquiryWork]:
        """Open lines that are due."""
        if not grants:
            return []
        idle = not self._tables.inquiries
        return await self._do("take_inquiries", self._rule(inquiry_rules.take_inquiries, grants, limit), idle=idle)

    async def read_requests(self, pairs: Sequence[tuple[int, uuid.UUID]]) -> list[RequestHit | None]:
        """The facts of the named lines."""
        if not pairs:
            return []
        return await self._do("read_requests", lambda _tx: inquiry_rules.read_requests(self._tables, pairs))

    async def settle_inquiries(self, grants: Sequence[Grant], rows: Sequence[InquirySettle]) -> list[str]:
        """Steps under leases."""
        if not rows:
            return []
        work = self._rule(inquiry_rules.settle_inquiries, grants, rows)
        return await self._do("settle_inquiries", work, (grants, rows))

    async def close_inquiries(self, rows: Sequence[InquirySettle]) -> list[str]:
        """Steps without a lease."""
        if not rows:
            return []
        return await self._do("close_inquiries", self._rule(inquiry_rules.close_inquiries, rows), rows)

    async def deliver_answers(self, rows: Sequence[AnswerRow]) -> list[str]:
        """Answers pushed by the network."""
        if not rows:
            return []
        return await self._do("deliver_answers", self._rule(inquiry_rules.deliver_answers, rows), rows)

    async def collect(self, agency: int, generation: int, ids: Sequence[uuid.UUID]) -> list[Collected]:
        """Collect answers."""
        if not ids:
            return []
        work = self._rule(inquiry_rules.collect, agency, generation, ids)
        return await self._do("collect", work, (agency, list(ids)))

    async def purge_results(self, grants: Sequence[Grant], before: dt.datetime, limit: int) -> int:
        """Delete answers of long ago."""
        if not grants:
            return 0
        return await self._do(
            "purge_results", self._rule(inquiry_rules.purge_results, grants, before, limit), idle=True
        )

    # ------------------------------------------------------------ provider

    async def lookup(self, rows: Sequence[LookupRow]) -> list[LookupHit]:
        """What the agencies' own data say."""
        if not rows:
            return []
        return await self._do("lookup", lambda _tx: provision_rules.lookup(self._tables, rows))

    async def provide(self, rows: Sequence[ProvideRow]) -> list[str]:
        """From notice to sealed answer."""
        if not rows:
            return []
        locked = frozenset({row.agency for row in rows}) if self._weather.is_locked(self._draw) else frozenset()
        return await self._do("provide", self._rule(provision_rules.provide, rows, locked), rows)

    async def take_provisions(self, grants: Sequence[Grant], limit: int) -> list[ProvisionWork]:
        """Open provisions that are due."""
        if not grants:
            return []
        idle = not self._tables.provisions
        return await self._do("take_provisions", self._rule(provision_rules.take_provisions, grants, limit), idle=idle)

    async def settle_provisions(self, grants: Sequence[Grant], rows: Sequence[ProvisionSettle]) -> list[str]:
        """Steps under leases."""
        if not rows:
            return []
        work = self._rule(provision_rules.settle_provisions, grants, rows)
        return await self._do("settle_provisions", work, (grants, rows))

    async def decide_provisions(self, rows: Sequence[DecideRow]) -> list[str]:
        """Officers' final decisions."""
        if not rows:
            return []
        return await self._do("decide_provisions", self._rule(provision_rules.decide_provisions, rows), rows)

    async def provision_views(
        self,
        agency: int,
        *,
        state: ProvisionState | None = None,
        ids: Sequence[uuid.UUID] | None = None,
        limit: int = 1000,
    ) -> list[ProvisionView]:
        """One agency's provisions."""
        rule = partial(provision_rules.provision_views, self._tables, agency, state=state, ids=ids, limit=limit)
        return await self._do("provision_views", lambda _tx: rule())

    async def take_corrections(
        self,
        after: int,
        now: dt.datetime,  # noqa: ARG002 - the set function's own signature
        next_at: dt.datetime,  # noqa: ARG002
        *,
        agencies: int = 50,  # noqa: ARG002
        limit: int = 100,  # noqa: ARG002
    ) -> tuple[int, list[DueCorrection]]:
        """Nobody corrects a record in a simulated cell, so none waits to be told."""
        return await self._do("take_corrections", lambda _tx: (min(after, 0), []), idle=True)

    # ------------------------------------------------------------ codes

    async def open_codes(self, rows: Sequence[CodeOpen]) -> list[CodeRow]:
        """Open acquisitions."""
        return await self._do("open_codes", self._rule(code_rules.open_codes, rows)) if rows else []

    async def set_numbers(self, rows: Sequence[CodeNumber]) -> list[CodeRow]:
        """Keep acquisition numbers."""
        return await self._do("set_numbers", self._rule(code_rules.set_numbers, rows)) if rows else []

    async def put_codes(self, rows: Sequence[CodePut]) -> list[str]:
        """Store codes that arrived."""
        return await self._do("put_codes", self._rule(code_rules.put_codes, rows)) if rows else []

    async def find_codes(self, pairs: Sequence[tuple[int, bytes]]) -> list[CodeRow | None]:
        """The links of persons."""
        if not pairs:
            return []
        return await self._do("find_codes", lambda _tx: code_rules.find_codes(self._tables, pairs))

    # ------------------------------------------------------------ shared

    async def worker_share(self, owner: str, side: Side, ttl_s: float) -> int:
        """Say that a worker is alive."""
        return await self._do("worker_share", self._rule(rules.worker_share, owner, side, ttl_s), idle=True)

    async def lease(self, owner: str, side: Side, want: int, ttl_s: float) -> list[Grant]:
        """Renew, give back and take leases."""
        work = self._rule(rules.lease, owner, side, want, ttl_s)
        return await self._do("lease", work, (owner, side), idle=True)

    async def release(self, owner: str) -> None:
        """Give all leases back."""
        await self._do("release", self._rule(rules.release, owner), owner)

    async def succeed(self, owner: str, side: Side) -> int:
        """Give back what former processes of the same name hold."""
        return await self._do("succeed", self._rule(rules.succeed, owner, side), (owner, side), idle=True)

    async def sequence(self, owner: str, limit: int) -> int:
        """Give records their place; another exchange's sequencer may hold the lock."""
        _ = owner
        if self._weather.is_locked(self._draw):
            return -1
        return await self._do("sequence", self._rule(rules.sequence, limit), idle=not self._tables.to_sequence)

    async def operations_sequence(self, limit: int) -> int:
        """No act of a person is entered in a simulated cell, so none waits for its place."""
        return await self._do("operations_sequence", lambda _tx: min(limit, 0), idle=True)

    async def logs_aside(self) -> int:
        """How many logs wait for a record that is not there."""
        return await self._do("logs_aside", lambda _: len(self._tables.log_aside), idle=True)

    async def sequencer_age(self) -> float:
        """Age of the oldest record without a place."""
        return await self._do("sequencer_age", lambda tx: rules.sequencer_age(self._tables, tx.now), idle=True)

    async def fold_statistics(self, after: int, *, agencies: int = 50, limit: int = 50_000) -> int:
        """Fold what sets have counted; another exchange may be at it."""
        if self._weather.is_locked(self._draw):
            return 0
        return await self._do("fold_statistics", self._rule(rules.fold_statistics, after, agencies, limit))

    async def snapshot(self) -> SnapshotRow | None:
        """The common data in force in this cell."""
        return await self._do("snapshot", lambda _tx: self._tables.snapshot, idle=True)

    async def opening(self) -> Opening:
        """No simulated cell was ever restored."""
        return await self._do("opening", lambda _tx: Opening(self._tables.epoch, BEGINNING), idle=True)

    async def take_snapshots(self, have: Sequence[int] = ()) -> list[CommonRow]:
        """The common data in force in this cell, taken if they are due, and those that wait."""
        _ = have
        return await self._do("take_snapshots", self._rule(rules.take_snapshots), idle=not self._tables.waiting)

    async def confirm_snapshot(self, number: int, signature: bytes) -> None:
        """Say that every cell has what waits here."""
        await self._do("confirm_snapshot", self._rule(rules.confirm_snapshot, number, signature))

    async def confirm(self) -> None:
        """Commit something, so that what was read before is durable."""
        await self._do("confirm", lambda _tx: None)

    async def notify(self, side: Side, hint: Hint) -> None:
        """Send a hint."""
        self._process.check_alive()
        self._cell.notify(side, hint.payload())
