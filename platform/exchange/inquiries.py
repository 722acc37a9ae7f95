"""The inquirer's service (情報照会): accept lists durably, show and wait for their state, hand out content, cancel.

A 2xx leaves only after the set's commit (invariant 2). A repeated Idempotency-Key gets the first batch (invariant
5). Lines that are malformed are answered with a problem each and leave no trace but a count; lines that may not be
asked are accepted and closed in the same commit with the inquirer's record (invariant 3).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.cancelling import take_back
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.facts import Persons, refuse_old_key
from chukan.platform.exchange.judging import Held, Judged, Judging, nothing_held
from chukan.platform.exchange.memos import RequestMemo, open_request, seal_request
from chukan.platform.exchange.query_rows import request_bytes, view_of_new
from chukan.platform.exchange.recording import inquiry_record
from chukan.platform.exchange.resending import Again, resendable
from chukan.platform.exchange.views import batch_of, open_content, refused_view, view_of
from chukan.platform.exchange.waiters import Waiters
from chukan.platform.flows import inquiry as flow
from chukan.platform.law.calendar import Function
from chukan.platform.wire.agency import Batch, Queries, QueryLine, QueryLineView, QueryPage
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.rows import (
    AcceptBatch,
    AcceptedBatch,
    AcceptLine,
    InquiryView,
)
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.sets import CellSets
from chukan.tenants.states import OPEN_INQUIRY, InquiryState, Side

_log = log.get("exchange.inquiries")
SMALL_LIST: Final = 64
"""Lists up to this size share a commit with other callers'; longer ones are a set of their own."""
ACCEPT_TIMEOUT_S: Final = 30.0
PAGE_MAX: Final = 1000
AGAIN_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Pauses before a list is judged anew because a link or a delegation changed between its judgement and its commit."""
_OPEN: Final = frozenset(state.name.lower() for state in OPEN_INQUIRY)
_NAMED: Final = 5
"""Version of the ids that follow from other ids: batches of a file's parts, and of lines that were sent again."""

Accepting = tuple[AcceptBatch, list[AcceptLine]]
Numbered = Sequence[tuple[int, QueryLine]]
"""Lines with their ordinals."""


class Inquiries:
    """Implements ``services.InquiryService``; ``wake`` is told which agency has new lines to work on."""

    def __init__(
        self,
        context: Context,
        persons: Persons,
        waiters: Waiters,
        wake: Callable[[AgencyRow], None],
        held: Held = nothing_held,
    ) -> None:
        """``held`` returns the delegations of an agency; it is asked only where a line says that it rests on one."""
        self._context = context
        self._judging = Judging(context, persons, held)
        self._waiters = waiters
        self._wake = wake
        self._stages = context.stages("accept", _accept_in, cap=SMALL_LIST)

    # ------------------------------------------------------------ accept

    async def accept(self, agency: AgencyRow, caller: ClientRow, body: Queries, key: str, raw: bytes) -> Batch:
        """Make the list durable; raises Problem ``idempotency_key_reused``, ``busy``, ``no_primary``."""
        context = self._context
        refuse_old_key(key, context.clock)
        keys = context.keys(agency.number)
        opening = AcceptBatch(
            agency=agency.number,
            generation=agency.generation,
            key=keys.digest("key", key.encode()),
            body=keys.digest("body", raw),
            batch=context.chance.uuid7(),
        )
        accepted, lines, refused = await self._store(agency, caller, opening, list(enumerate(body.lines)))
        for code, count in Counter(problem.code for problem in refused.values()).items():
            _log.info("lines refused", agency=agency.number, code=code, count=count, peer=caller.id)
        if not accepted.same_body:
            raise Problem("idempotency_key_reused")
        if not accepted.fresh:
            views = [
                view_of(row) for row in await self._cell(agency).inquiry_views(agency.number, batch=accepted.batch)
            ]
            stored = {view.line for view in views}
            again = {n: refused.get(n, Problem("bad_line")) for n in range(len(body.lines)) if n not in stored}
            return batch_of(accepted.batch, views, again, len(body.lines))
        self._accepted(agency, lines)
        now = context.clock.now()
        return batch_of(opening.batch, [view_of_new(line, now) for line in lines], refused, len(body.lines))

    async def accept_part(
        self, agency: AgencyRow, caller: ClientRow, batch: uuid.UUID, numbered: Numbered, content: bytes
    ) -> dict[int, Problem]:
        """Make a part of a file durable as the batch of that name, once; return the lines that were refused.

        ``content`` is what must be the same when the part comes again. Not for the shared stage: of two sets at once
        the second one waits in its own commit and finds the first.
        """
        keys = self._context.keys(agency.number)
        opening = AcceptBatch(
            agency=agency.number,
            generation=agency.generation,
            key=keys.digest("key", b"file part " + batch.bytes),
            body=keys.digest("body", content),
            batch=batch,
        )
        accepted, lines, refused = await self._store(agency, caller, opening, numbered, function="batch")
        if not accepted.same_body:
            raise Problem("file_conflict")
        if accepted.fresh:
            self._accepted(agency, lines)
            return refused
        stored = {row.ordinal for row in await self._cell(agency).inquiry_views(agency.number, batch=batch)}
        return {n: refused.get(n, Problem("bad_line")) for n, _ in numbered if n not in stored}

    async def _store(
        self,
        agency: AgencyRow,
        caller: ClientRow,
        opening: AcceptBatch,
        numbered: Numbered,
        *,
        function: Function = "online",
    ) -> tuple[AcceptedBatch, list[AcceptLine], dict[int, Problem]]:
        """Judge lines and commit them as a batch, anew where what they were judged on changed in between.

        Raises ``Problem`` busy where it went on changing.
        """
        for pause_s in AGAIN_S:
            lines, refused = await self._prepare(agency, caller, opening.batch, numbered, function=function)
            accepted = await self._commit(agency, opening, lines, alone=function == "batch")
            if not accepted.again:
                return accepted, lines, refused
            await asyncio.sleep(pause_s)
        raise Problem("busy", retry_after_s=1)

    def _accepted(self, agency: AgencyRow, lines: Sequence[AcceptLine]) -> None:
        for line in lines:
            if line.record is not None:
                self._context.meter.outcome(Side.INQUIRER, line.outcome.word)
        self._wake(agency)

    async def _prepare(
        self,
        agency: AgencyRow,
        caller: ClientRow,
        batch: uuid.UUID,
        numbered: Numbered,
        again: Mapping[int, Again] = MappingProxyType({}),
        *,
        function: Function = "online",
    ) -> tuple[list[AcceptLine], dict[int, Problem]]:
        """Judge lines under their ordinals: rows to store, and a problem for each that is malformed.

        A line of ``again`` (by its ordinal) stands in a batch of its own. Outside the hours of the function the lines
        wait for its opening (運用カレンダー); that those may come at all was decided before.
        """
        context = self._context
        keys = context.keys(agency.number)
        now = context.clock.now()
        wait = self._wait(function, now)
        lines: list[AcceptLine] = []
        refused: dict[int, Problem] = {}
        judged = await self._judging.judge(agency, [line for _, line in numbered], now)
        for (ordinal, line), told in zip(numbered, judged, strict=True):
            if isinstance(told.verdict, flow.Refused):
                refused[ordinal] = told.verdict.problem
                context.meter.problem(told.verdict.problem.code)
                continue
            old = again.get(ordinal)
            memo = RequestMemo(
                line=line,
                items=list(told.verdict.items),
                asked_at=now,
                caller=caller.id,
                law=str(context.law.number),
                resends=old and old.old,
            )
            place = old.batch if old else batch
            lines.append(self._line(agency, keys, place, ordinal, memo, told.verdict, told, wait))
        return lines, refused

    def _wait(self, function: Function, now: dt.datetime) -> dt.timedelta:
        """How long until the function is open; raises ``Problem`` outside_hours where it opens within no year."""
        found = self._context.calendar.standing(function, now)
        if not found.open and found.reopens is None:
            raise Problem("outside_hours", expected="no opening is known")
        return (found.reopens or now) - now

    def _line(
        self,
        agency: AgencyRow,
        keys: AgencyKeys,
        batch: uuid.UUID,
        ordinal: int,
        memo: RequestMemo,
        step: flow.Step,
        told: Judged,
        wait: dt.timedelta,
    ) -> AcceptLine:
        context = self._context
        line = context.chance.uuid7()
        person = keys.digest("addressee", memo.line.addressee.encode())
        record = outbox = None
        if step.final:
            record = inquiry_record(keys, context.chance, agency, line, memo, step, person=person, at=memo.asked_at)
        elif told.link is not None:
            outbox = keys.seal("outbox", line.bytes, request_bytes(agency, keys, line, memo, told.link))
        assert (record is None) != (outbox is None)  # noqa: S101 - either the line is over or something is sent
        return AcceptLine(
            agency=agency.number,
            batch=batch,
            id=line,
            ordinal=ordinal,
            state=step.state,
            outcome=step.outcome,
            reason=step.reason,
            due=memo.asked_at + wait,
            deadline=(step.deadline or memo.asked_at) + wait,
            person=person,
            request=seal_request(keys, line, memo),
            outbox=outbox,
            record=record,
            link_version=None if outbox is None or told.link is None else told.link.version,
            delegation=None if outbox is None or told.half is None else told.half.id,
        )

    async def _commit(
        self, agency: AgencyRow, opening: AcceptBatch, lines: list[AcceptLine], *, alone: bool
    ) -> AcceptedBatch:
        if len(lines) <= SMALL_LIST and not alone:
            return await self._stages[agency.cell].submit((opening, lines), ACCEPT_TIMEOUT_S)
        return (await self._cell(agency).accept([opening], lines))[0]

    async def resend(self, agency: AgencyRow, officer: ClientRow, reference: uuid.UUID) -> Batch:
        """Send lines that ended without an answer once more, in one commit; a repeat finds the lines of the first time.

        Raises:
            Problem: not_found, not_resendable.
        """
        batch, rows = await self._rows(agency, reference)
        failed = resendable(rows, self._context.clock.now())
        if not failed:
            await self._cell(agency).confirm()
            raise Problem("not_resendable")
        keys = self._context.keys(agency.number)
        hits = await self._cell(agency).read_requests([(agency.number, row.id) for row in failed])
        again = {
            row.ordinal: Again(row.id, row.ordinal, open_request(keys, row.id, hit.request).line)
            for row, hit in zip(failed, hits, strict=True)
            if hit is not None
        }
        numbered = [(ordinal, each.line) for ordinal, each in again.items()]
        for pause_s in AGAIN_S:
            lines, refused = await self._prepare(agency, officer, batch, numbered, again)
            openings = [again[line.ordinal].opening(agency, keys) for line in lines]
            accepted = await self._cell(agency).accept(openings, lines)
            fresh = [line for line, result in zip(lines, accepted, strict=True) if result.fresh]
            self._accepted(agency, fresh)
            if not any(result.again for result in accepted):
                break
            await asyncio.sleep(pause_s)
        else:
            raise Problem("busy", retry_after_s=1)
        _log.info("lines sent again", agency=agency.number, count=len(fresh), peer=officer.id)
        now = self._context.clock.now()
        views = [view_of_new(line, now) for line in fresh]
        for result in accepted:
            if not result.fresh:
                views += [
                    view_of(row) for row in await self._cell(agency).inquiry_views(agency.number, batch=result.batch)
                ]
        shown = [msgspec.structs.replace(view, resends=again[view.line].old) for view in views]
        return Batch(batch=batch, lines=sorted([*shown, *self._refused(refused)], key=lambda view: view.line))

    @staticmethod
    def _refused(refused: Mapping[int, Problem]) -> list[QueryLineView]:
        return [refused_view(ordinal, problem) for ordinal, problem in refused.items()]

    # ------------------------------------------------------------ views

    def _cell(self, agency: AgencyRow) -> CellSets:
        return self._context.cell(agency)

    async def _rows(self, agency: AgencyRow, reference: uuid.UUID) -> tuple[uuid.UUID, list[InquiryView]]:
        """The lines of a batch, or the one line, by an id of either; raises Problem ``not_found``."""
        rows = await self._cell(agency).inquiry_views(agency.number, batch=reference)
        if not rows:
            rows = await self._cell(agency).inquiry_views(agency.number, ids=[reference])
        if not rows:
            raise Problem("not_found")
        return rows[0].batch, rows

    async def view(self, agency: AgencyRow, reference: uuid.UUID) -> Batch:
        """State of a batch or of one line; a line that stands alone tells which one it was sent in the place of."""
        batch, rows = await self._rows(agency, reference)
        views = [view_of(row) for row in rows]
        if len(rows) == 1 and batch.version == _NAMED:
            (hit,) = await self._cell(agency).read_requests([(agency.number, rows[0].id)])
            if hit is not None:
                memo = open_request(self._context.keys(agency.number), rows[0].id, hit.request)
                views = [msgspec.structs.replace(views[0], resends=memo.resends)]
        return Batch(batch=batch, lines=views)

    async def settled(self, agency: AgencyRow, known: Batch, timeout_s: float) -> Batch | None:
        """Like ``wait``, for what the caller was shown just now; None: all of its open lines were heard to be final."""
        began = self._context.clock.monotonic()
        if await self._waiters.told(agency.cell, agency.number, _open_lines(known), timeout_s):
            return None
        return await self.wait(agency, known.batch, timeout_s - (self._context.clock.monotonic() - began))

    async def wait(self, agency: AgencyRow, batch: uuid.UUID, timeout_s: float) -> Batch:
        """The same once no line is open any more, or when the time is over."""

        async def look() -> tuple[bool, Batch]:
            found, rows = await self._rows(agency, batch)
            done = all(row.state not in OPEN_INQUIRY for row in rows)
            return done, Batch(batch=found, lines=[view_of(row) for row in rows])

        return await self._waiters.until(agency.cell, agency.number, look, timeout_s, _open_lines)

    async def collect(self, agency: AgencyRow, reference: uuid.UUID, known: Batch | None = None) -> Batch:
        """State and content; answered lines become collected in the same commit that reads them.

        ``known`` spares looking for the batch's lines.
        """
        if known is None:
            batch, rows = await self._rows(agency, reference)
            ids = [row.id for row in rows]
        else:
            batch, ids = known.batch, [line.id for line in known.lines if line.id is not None]
        keys = self._context.keys(agency.number)
        found = await self._cell(agency).collect(agency.number, agency.generation, ids)
        lines = [view_of(row, open_content(keys, row)) for row in sorted(found, key=lambda row: row.ordinal)]
        return Batch(batch=batch, lines=lines)

    async def page(self, agency: AgencyRow, state: str | None, after: str | None, limit: int) -> QueryPage:
        """Lines of the agency by state, oldest first; ``after`` is the id of the last line of the page before."""
        try:
            wanted = InquiryState[state.upper()] if state is not None else None
            cursor = uuid.UUID(after) if after is not None else None
        except (KeyError, ValueError):
            raise Problem("invalid_field", pointer="/state" if state else "/after") from None
        size = min(limit, PAGE_MAX)
        rows = await self._cell(agency).inquiry_views(agency.number, state=wanted, after=cursor, limit=size)
        following = str(rows[-1].id) if len(rows) == size else None
        return QueryPage(lines=[view_of(row) for row in rows], next=following)

    # ------------------------------------------------------------ cancel

    async def cancel(self, agency: AgencyRow, caller: ClientRow, reference: uuid.UUID) -> Batch:
        """Take back open lines; a single line that is final raises Problem ``already_final``."""
        batch, rows = await self._rows(agency, reference)
        open_rows = [row for row in rows if row.state in OPEN_INQUIRY]
        if not open_rows:
            await self._cell(agency).confirm()
            raise Problem("already_final")
        taken = await take_back(self._context, agency, [(row.id, row.state) for row in open_rows])
        _log.info("lines cancelled", agency=agency.number, count=taken, peer=caller.id)
        self._waiters.changed(agency.cell, agency.number)
        return await self.view(agency, batch if len(rows) > 1 else rows[0].id)

    async def close(self) -> None:
        """Finish what is in flight."""
        for stage in self._stages.values():
            await stage.close()


def _open_lines(batch: Batch) -> list[uuid.UUID]:
    return [line.id for line in batch.lines if line.id is not None and line.state in _OPEN]


def _accept_in(sets: CellSets) -> Callable[[list[Accepting]], Awaitable[list[AcceptedBatch]]]:
    async def accept(items: list[Accepting]) -> list[AcceptedBatch]:
        return await sets.accept([opening for opening, _ in items], [line for _, lines in items for line in lines])

    return accept
