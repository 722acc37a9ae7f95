"""Workers: what waits for this side of this cell is taken as a set, sent to the network as a list, settled as a set.

A worker is woken by what this process commits and by hints from the others, and looks by itself every second.
Shards are split into two flights, so that a batch forms while the other one is at the network; one flight never has
a line twice. A trouble of the network makes lines wait (with growing pauses until their deadline), never disappear;
a trouble of the cell makes the worker wait. The broad ``except`` here is the task boundary: a worker must outlive
whatever one set does to it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.leases import Leases
from chukan.platform.exchange.memos import open_notice, open_request
from chukan.platform.exchange.query_rows import settle
from chukan.platform.exchange.recording import inquiry_record, provision_record
from chukan.platform.flows import inquiry as flow
from chukan.platform.peer import NetworkPeer, NetworkTrouble
from chukan.platform.permits import PermitVerifier
from chukan.platform.proofs import Binding, Proof, proof_of
from chukan.platform.proofs import receipt as receipt_message
from chukan.platform.wire.network import InquirerPermit, PermitReply, Receipt
from chukan.tenants.directory import AgencyRow
from chukan.tenants.hints import EVERYWHERE
from chukan.tenants.rows import Grant, InquirySettle, InquiryWork, ProvisionSettle, ProvisionWork
from chukan.tenants.states import Outcome, ProvisionState, Side

_log = log.get("exchange.workers")
FLIGHTS: Final = 2
SET_MAX: Final = 256
SWEEP_S: Final = 1.0
TROUBLE_S: Final = 0.5
PURGE_S: Final = 60.0
PURGE_MAX: Final = 1000
SETTLED_KEEP: Final = dt.timedelta(days=1)
GIVE_UP: Final = dt.timedelta(days=1)
"""How long after its permit's expiry an answer without any receipt is still sent."""
R = TypeVar("R", PermitReply, Receipt)


class _MessageId(msgspec.Struct):
    id: uuid.UUID


class Worker(ABC):
    """Two flights over the leased shards of one side of one cell."""

    side: Side

    def __init__(self, context: Context, cell: str, owner: str, peer: NetworkPeer) -> None:
        self._context = context
        self._cell = cell
        self._sets = context.sets[cell]
        self._peer = peer
        self._wakes = [asyncio.Event() for _ in range(FLIGHTS)]
        self.leases = Leases(context, cell, self.side, owner, self._wake_all)

    def wake(self, shards: Iterable[int] = EVERYWHERE) -> bool:
        """There may be work in these shards; tell whether all of them are ours, so that nobody else need know."""
        ours = True
        for shard in shards:
            if self.leases.holds(shard):
                self._wakes[shard % FLIGHTS].set()
            else:
                ours = False
        return ours

    def _wake_all(self) -> None:
        for event in self._wakes:
            event.set()

    async def run(self) -> None:
        """Renew leases and fly until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.leases.run(), name=f"leases {self._cell} {self.side.name}")
            for flight in range(FLIGHTS):
                group.create_task(self._fly(flight), name=f"worker {self._cell} {self.side.name} {flight}")
            group.create_task(self._tidy_up(), name=f"purge {self._cell} {self.side.name}")

    async def _tidy_up(self) -> None:
        """Delete what has been kept long enough, a bounded batch at a time."""
        while True:
            try:
                while await self._purge(self.leases.grants()) >= PURGE_MAX:
                    continue
            except Problem as problem:
                _log.warning("purge put off", cell=self._cell, stage=self.side.name, code=problem.code)
            await asyncio.sleep(PURGE_S)

    async def _purge(self, grants: list[Grant]) -> int:
        """Purge at most ``PURGE_MAX`` lines of the leased shards; how many were purged."""
        _ = grants
        return 0

    async def _fly(self, flight: int) -> None:
        wake = self._wakes[flight]
        while True:
            wake.clear()
            taken = await self._once([grant for grant in self.leases.grants() if grant.shard % FLIGHTS == flight])
            if taken >= SET_MAX:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await wake.wait()

    async def _once(self, grants: list[Grant]) -> int:
        if not grants:
            return 0
        started = self._context.clock.monotonic()
        failed = True
        taken = 0
        try:
            taken = await self._work(grants)
            failed = False
        except Problem as problem:
            if problem.code == "stale_lease":
                self.leases.lost()
            _log.warning("set not worked", cell=self._cell, stage=self.side.name, code=problem.code)
            await asyncio.sleep(TROUBLE_S)
        except Exception as error:  # noqa: BLE001 - task boundary: one set's fault must not end the worker
            _log.error("worker fault", cell=self._cell, stage=self.side.name, exc_info=error)
            await asyncio.sleep(TROUBLE_S)
        if taken or failed:
            seconds = self._context.clock.monotonic() - started
            self._context.meter.stage(f"work_{self.side.name.lower()}_{self._cell}", taken, seconds, failed=failed)
        return taken

    def _agency(self, number: int) -> AgencyRow:
        """The agency of a usable row, open or closed."""
        found = self._context.common.directory.find(number)
        if found is None:
            raise Problem("unknown_agency")
        return found

    def _usable(self, number: int) -> bool:
        """Whether an agency's rows can be worked on: one that is just being destroyed must not hold up the others."""
        try:
            self._agency(number)
            self._context.keys(number)
        except Problem as problem:
            _log.warning("rows left alone", cell=self._cell, agency=number, code=problem.code)
            return False
        return True

    async def _in_parts(
        self, call: Callable[[Sequence[bytes]], Awaitable[list[R]]], bodies: Sequence[bytes]
    ) -> list[tuple[R, Proof | None]]:
        """The network's replies to a list, each with what proves it; what gets no reply is not among them.

        A list that is refused because of an item is asked again in halves, so that one bad item harms itself alone.
        """
        try:
            replies = await call(bodies)
            return [(reply, proof_of(replies, str(reply.id))) for reply in replies]
        except NetworkTrouble as trouble:
            if trouble.about_items and len(bodies) > 1:
                half = len(bodies) // 2
                return await self._in_parts(call, bodies[:half]) + await self._in_parts(call, bodies[half:])
            code = trouble.code
        except Problem as problem:
            code = problem.code
        _log.warning("no reply", cell=self._cell, stage=self.side.name, code=code, count=len(bodies))
        return []

    @abstractmethod
    async def _work(self, grants: list[Grant]) -> int:
        """Take one set, carry it one step further, and return its size."""


class InquiryWorker(Worker):
    """Asks for permits, and closes lines whose time is over (期限切れ)."""

    side = Side.INQUIRER

    def __init__(
        self,
        context: Context,
        cell: str,
        owner: str,
        peer: NetworkPeer,
        verifier: PermitVerifier,
        changed: Callable[[str, int, Collection[uuid.UUID]], None],
        announced: Callable[[AgencyRow], bool],
    ) -> None:
        """``announced`` tells whether the network has an agency's answer key: before that it would refuse for good."""
        super().__init__(context, cell, owner, peer)
        self._verifier = verifier
        self._changed = changed
        self._announced = announced

    async def _work(self, grants: list[Grant]) -> int:
        rows = [row for row in await self._sets.take_inquiries(grants, SET_MAX) if self._usable(row.agency)]
        if not rows:
            return 0
        now = self._context.clock.now()
        over = [row for row in rows if now >= row.deadline or row.outbox is None]
        asking = [row for row in rows if now < row.deadline and row.outbox is not None]
        ready = {agency for agency in {row.agency for row in asking} if self._may_ask(agency)}
        settles = [self._expire(row, now) for row in over]
        settles += [self._again(row) for row in asking if row.agency not in ready]
        settles += await self._ask([row for row in asking if row.agency in ready])
        statuses = await self._sets.settle_inquiries(grants, settles)
        final: dict[int, list[uuid.UUID]] = defaultdict(list)
        for step, status in zip(settles, statuses, strict=True):
            if status == "applied" and step.record is not None:
                self._context.meter.outcome(Side.INQUIRER, step.outcome.word)
                final[step.agency].append(step.id)
        for agency, lines in final.items():
            self._changed(self._cell, agency, lines)
        return len(rows)

    async def _purge(self, grants: list[Grant]) -> int:
        """Results are deleted after the keep period (INQ-09); their records stay."""
        if not grants:
            return 0
        kept = dt.timedelta(days=self._context.settings.exchange.result_keep_days)
        return await self._sets.purge_results(grants, self._context.clock.now() - kept, PURGE_MAX)

    def _may_ask(self, number: int) -> bool:
        """A closed agency asks nothing any more: its open lines expire at their deadline."""
        agency = self._agency(number)
        return agency.state == "open" and self._announced(agency)

    def _expire(self, row: InquiryWork, now: dt.datetime) -> InquirySettle:
        return self._final(row, flow.on_deadline(row.state), now, None)

    def _final(
        self,
        row: InquiryWork,
        step: flow.Step,
        now: dt.datetime,
        reference: str | None,
        bound: Binding | None = None,
    ) -> InquirySettle:
        keys = self._context.keys(row.agency)
        agency = self._agency(row.agency)
        memo = open_request(keys, row.id, row.request)
        person = keys.digest("addressee", memo.line.addressee.encode())
        record = inquiry_record(
            keys,
            self._context.chance,
            agency,
            row.id,
            memo,
            step,
            person=person,
            at=now,
            reference=reference,
            salt=None if bound is None else bound.salt,
        )
        message = None if bound is None else bound.row(keys, row.id)
        return settle(row.agency, row.id, step, now, record=record, message=message)

    async def _ask(self, rows: Sequence[InquiryWork]) -> list[InquirySettle]:
        if not rows:
            return []
        bodies = [self._context.keys(row.agency).open("outbox", row.id.bytes, row.outbox or b"") for row in rows]
        by_line = {each[0].id: each for each in await self._in_parts(self._peer.permit_requests, bodies)}
        return [self._replied(row, *by_line.get(row.id, (None, None))) for row in rows]

    def _again(self, row: InquiryWork) -> InquirySettle:
        now = self._context.clock.now()
        due = min(row.deadline, now + dt.timedelta(seconds=flow.retry_delay_s(row.tries)))
        step = flow.on_send_failed(row.state)
        return settle(row.agency, row.id, step, now, due=due, deadline=row.deadline, drop_outbox=False)

    def _replied(self, row: InquiryWork, reply: PermitReply | None, proof: Proof | None) -> InquirySettle:
        if reply is None:
            return self._again(row)
        now = self._context.clock.now()
        grace = dt.timedelta(seconds=self._context.settings.exchange.permit_grace_s)
        step = flow.on_permit_reply(row.state, reply, self._permit(row, reply), grace)
        if step.final:
            bound = None if proof is None else Binding(self._context.chance, "reply", proof, whole=reply.permit is None)
            return self._final(row, step, now, reply.reference, bound)
        evidence = self._context.keys(row.agency).seal("permit", row.id.bytes, msgspec.json.encode(reply))
        return settle(row.agency, row.id, step, now, permit=evidence)

    def _permit(self, row: InquiryWork, reply: PermitReply) -> InquirerPermit | None:
        """The verified inquirer's face, None where it is missing, forged, or about another line."""
        if reply.permit is None:
            return None
        try:
            permit = self._verifier.verify(reply.permit)
        except Problem as problem:
            self._context.meter.problem(problem.code)
            return None
        if not isinstance(permit, InquirerPermit) or permit.request != row.id:
            self._context.meter.problem("permit_not_for_us")
            return None
        return permit


class ProvisionWorker(Worker):
    """Sends sealed answers until the network gives a receipt; lets held lines lapse when nobody decides in time."""

    side = Side.PROVIDER

    async def _work(self, grants: list[Grant]) -> int:
        rows = [row for row in await self._sets.take_provisions(grants, SET_MAX) if self._usable(row.agency)]
        if not rows:
            return 0
        now = self._context.clock.now()
        held_over = [row for row in rows if row.state is ProvisionState.HELD and now >= row.deadline]
        sending = [row for row in rows if row not in held_over and row.outbox is not None]
        settles = [self._lapse(row, now) for row in held_over]
        settles += await self._send(sending)
        if settles:
            await self._sets.settle_provisions(grants, settles)
        for step in settles:
            if step.record is not None:
                self._context.meter.outcome(Side.PROVIDER, step.outcome.word)
        return len(rows)

    def _lapse(self, row: ProvisionWork, now: dt.datetime, *, amends: bool = False) -> ProvisionSettle:
        keys = self._context.keys(row.agency)
        record = provision_record(
            keys,
            self._context.chance,
            row.id,
            open_notice(keys, row.id, row.notice),
            Outcome.EXPIRED,
            "lapsed" if amends else "undecided",
            person=row.person,
            at=now,
            amends=amends,
        )
        return ProvisionSettle(
            agency=row.agency,
            id=row.id,
            state=ProvisionState.LAPSED,
            outcome=Outcome.EXPIRED,
            due=now + SETTLED_KEEP,
            record=record,
        )

    async def _send(self, rows: Sequence[ProvisionWork]) -> list[ProvisionSettle]:
        if not rows:
            return []
        bodies = [self._context.keys(row.agency).open("outbox", row.id.bytes, row.outbox or b"") for row in rows]
        messages = [msgspec.json.decode(body, type=_MessageId).id for body in bodies]
        receipts = {each[0].id: each for each in await self._in_parts(self._peer.answers, bodies)}
        return [
            self._received(row, *receipts.get(message, (None, None)))
            for row, message in zip(rows, messages, strict=True)
        ]

    def _received(self, row: ProvisionWork, receipt: Receipt | None, proof: Proof | None) -> ProvisionSettle:
        now = self._context.clock.now()
        if receipt is None and row.state is ProvisionState.ANSWERED and now > row.deadline + GIVE_UP:
            return self._lapse(row, now, amends=True)
        if receipt is None:
            due = now + dt.timedelta(seconds=flow.retry_delay_s(row.tries))
            if row.state is ProvisionState.HELD:
                due = min(due, row.deadline)
            return ProvisionSettle(
                agency=row.agency, id=row.id, state=row.state, outcome=row.outcome, due=due, drop_outbox=False
            )
        if row.state is ProvisionState.HELD:
            return ProvisionSettle(agency=row.agency, id=row.id, state=row.state, outcome=row.outcome, due=row.deadline)
        message = None
        if proof is not None:
            # A receipt has no content and names the line: it is kept as it is.
            keys = self._context.keys(row.agency)
            message = receipt_message(keys, self._context.chance, row.id, proof)
        if receipt.status == "accepted":
            return ProvisionSettle(
                agency=row.agency,
                id=row.id,
                state=ProvisionState.RECEIPTED,
                outcome=row.outcome,
                due=now + SETTLED_KEEP,
                message=message,
            )
        return replace(self._lapse(row, now, amends=True), message=message)
