"""What the network pushes: notices to providers, answers to inquirers, acquired linkage codes.

Any exchange takes any push (no lease is needed). An ack lists only lines whose cell has committed; ``again`` asks the
network to push once more; ``refused`` is final and counted, because a forged or foreign message is an attack or a
fault. One line's trouble never harms another: everything is decided and answered line by line.

Invariant: the order of a list is forgotten before anything gets an id or a row. Kept, it would lay the ids, the places
of rows and the numbers in the logs of both sides beside each other, line by line, for whoever has the dumps alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.memos import open_request
from chukan.platform.exchange.provisions import Asked, Provisions
from chukan.platform.exchange.recording import inquiry_record
from chukan.platform.exchange.views import read_content
from chukan.platform.flows import inquiry as flow
from chukan.platform.flows.provision import BEFORE_RESTORE
from chukan.platform.permits import PermitVerifier
from chukan.platform.proofs import Binding, Proof, proof_of
from chukan.platform.wire.network import Ack, AcquiredCode, AnswerDelivery, InquirerPermit, Notice, ProviderPermit
from chukan.tenants.directory import AgencyRow
from chukan.tenants.rows import AnswerRow, CodePut, MessageRow, RecordRow, RequestHit
from chukan.tenants.states import Outcome, Side

_log = log.get("exchange.inbox")
COMMIT_TIMEOUT_S: Final = 30.0
_DRAW_BYTES: Final = 8
TEMPORARY: Final = frozenset(
    {
        "no_primary",
        "unavailable",
        "busy",
        "agency_moved",
        "common_data_stale",
        "deadline_exceeded",
        "keys_unconfirmed",
        "cell_restored",
    }
)
T = TypeVar("T")
OUTCOMES: Final = {outcome.word: outcome for outcome in Outcome}


def refusal(context: Context, message: uuid.UUID, problem: Problem) -> Ack:
    """Return the acknowledgement of a pushed item that is not taken: again later, or never; the latter is counted."""
    if problem.code in TEMPORARY:
        return Ack(id=message, status="again", reason=problem.code)
    context.meter.problem(problem.code)
    _log.warning("push refused", code=problem.code)
    return Ack(id=message, status="refused", reason=problem.code)


class _Delivered(NamedTuple):
    """An answer with its verified permit, whose it is, and where it stood in the network's list."""

    item: AnswerDelivery
    permit: InquirerPermit
    agency: AgencyRow
    proof: Proof | None


class Inbox:
    """Implements the network's push port; ``answered`` and ``asked`` tell the waiters and workers what changed."""

    def __init__(
        self,
        context: Context,
        provisions: Provisions,
        verifier: PermitVerifier,
        *,
        answered: Callable[[AgencyRow, Collection[uuid.UUID]], None],
        asked: Callable[[AgencyRow], None],
    ) -> None:
        self._context = context
        self._provisions = provisions
        self._verifier = verifier
        self._answered = answered
        self._asked = asked
        self._provide = context.stages("provide", lambda sets: sets.provide)
        self._deliver = context.stages("deliver", lambda sets: sets.deliver_answers)
        self._requests = context.stages("read_requests", lambda sets: sets.read_requests)
        self._codes = context.stages("put_codes", lambda sets: sets.put_codes)

    # ------------------------------------------------------------ notices

    async def notices(self, items: Sequence[Notice]) -> list[Ack]:
        """Take notices: each becomes a sealed answer, a hold, or a refusal."""
        acks: dict[uuid.UUID, Ack] = {}
        try:
            self._provisions.current_number()
        except Problem as problem:
            return [Ack(id=item.id, status="again", reason=problem.code) for item in items]
        lines = []
        for item in self._shuffled(items):
            try:
                lines.append(self._open_notice(item, proof_of(items, item.id)))
            except Problem as problem:
                acks[item.id] = self._no(item.id, problem)
        await self._by_cell(lines, lambda line: line.agency.cell, self._provide_set, acks, lambda line: line.inbox)
        return [acks[item.id] for item in items]

    def _open_notice(self, item: Notice, proof: Proof | None) -> Asked:
        permit = self._verifier.verify(item.permit)
        if not isinstance(permit, ProviderPermit):
            raise Problem("permit_not_for_us")
        agency = self._context.common.directory.agency(permit.provider)
        return Asked(item.id, item.permit, permit, agency, self._context.chance.uuid7(), proof=proof)

    async def _provide_set(self, lines: list[Asked], acks: dict[uuid.UUID, Ack]) -> None:
        provisions = self._provisions
        await provisions.look_up(lines)
        number = provisions.current_number()
        ready: list[Asked] = []
        for line in lines:
            try:
                if line.hit is None or line.hit.snapshot != number:
                    raise Problem("common_data_stale")  # noqa: TRY301 - one way out for every reason of this line
                provisions.judge(line)
                ready.append(line)
            except Problem as problem:
                acks[line.inbox] = self._no(line.inbox, problem)
        provisions.seal(ready)
        cell = lines[0].agency.cell
        statuses = await self._provide[cell].submit_each([provisions.row(line) for line in ready], COMMIT_TIMEOUT_S)
        for line, status in zip(ready, statuses, strict=True):
            acks[line.inbox] = self._provided(line, self._or_no(line.inbox, status))

    def _provided(self, line: Asked, status: str | Ack) -> Ack:
        if isinstance(status, Ack):
            return status
        if status == "again":
            return Ack(id=line.inbox, status="again", reason="changed")
        if status == "replayed":
            self._context.meter.problem("permit_replayed")
            _log.warning("permit used twice", agency=line.agency.number, code="permit_replayed")
            return Ack(id=line.inbox, status="refused", reason="permit_replayed")
        if status == "before_restore":
            # The network gives a new permit for the same request.
            self._context.meter.problem(BEFORE_RESTORE)
            _log.warning("permit of before a restore", agency=line.agency.number, code=BEFORE_RESTORE)
            return Ack(id=line.inbox, status="refused", reason=BEFORE_RESTORE)
        if status == "stored" and line.judgement is not None:
            if line.judgement.outcome is Outcome.EXPIRED:
                # Recorded, answered with nothing, and told: a permit that arrives dead is late or an attack (PRV-01).
                self._context.meter.problem("permit_expired")
                _log.warning("permit past its time", agency=line.agency.number, code="permit_expired")
            self._context.meter.outcome(Side.PROVIDER, line.judgement.outcome.word)
            self._asked(line.agency)
        return Ack(id=line.inbox, status="accepted")

    # ------------------------------------------------------------ answers

    async def answers(self, items: Sequence[AnswerDelivery]) -> list[Ack]:
        """Take answers: each closes its line (or marks it under review), with the inquirer's record."""
        acks: dict[uuid.UUID, Ack] = {}
        known: list[_Delivered] = []
        for item in self._shuffled(items):
            try:
                known.append(self._open_delivery(item, proof_of(items, item.id)))
            except Problem as problem:
                acks[item.id] = self._no(item.id, problem)
        await self._by_cell(known, lambda line: line.agency.cell, self._deliver_set, acks, lambda line: line.item.id)
        return [acks[item.id] for item in items]

    def _open_delivery(self, item: AnswerDelivery, proof: Proof | None) -> _Delivered:
        permit = self._verifier.verify(item.permit)
        if not isinstance(permit, InquirerPermit):
            raise Problem("permit_not_for_us")
        if permit.request != item.request or permit.inquirer != item.inquirer:
            raise Problem("permit_forged")
        return _Delivered(item, permit, self._context.common.directory.agency(item.inquirer), proof)

    async def _deliver_set(self, lines: list[_Delivered], acks: dict[uuid.UUID, Ack]) -> None:
        cell = lines[0].agency.cell
        pairs = [(line.agency.number, line.item.request) for line in lines]
        hits = await self._requests[cell].submit_many(pairs, COMMIT_TIMEOUT_S)
        rows: list[AnswerRow] = []
        agencies: list[AgencyRow] = []
        for line, hit in zip(lines, hits, strict=True):
            if hit is None or hit.person is None:
                acks[line.item.id] = self._no(line.item.id, Problem("not_found"))
            else:
                rows.append(self._answer_row(line, hit))
                agencies.append(line.agency)
        statuses = await self._deliver[cell].submit_each(rows, COMMIT_TIMEOUT_S)
        final: dict[int, list[uuid.UUID]] = defaultdict(list)
        for row, agency, outcome in zip(rows, agencies, statuses, strict=True):
            status = self._or_no(row.inbox, outcome)
            if isinstance(status, Ack):
                acks[row.inbox] = status
                continue
            if status == "unknown":
                acks[row.inbox] = self._no(row.inbox, Problem("not_found"))
                continue
            if status == "applied":
                if row.record is not None:
                    self._context.meter.outcome(Side.INQUIRER, row.outcome.word)
                final[agency.number].append(row.id)
            acks[row.inbox] = Ack(id=row.inbox, status="accepted", reason=None if status == "applied" else status)
        for agency in {agency.number: agency for agency in agencies}.values():
            if agency.number in final:
                self._answered(agency, final[agency.number])

    def _answer_row(self, line: _Delivered, hit: RequestHit) -> AnswerRow:
        item, permit, agency, proof = line
        context, person = self._context, hit.person
        assert person is not None  # noqa: S101 - checked by the caller
        keys = context.keys(agency.number)
        now = context.clock.now()
        memo = open_request(keys, item.request, hit.request)
        readable = item.sealed is None or read_content(keys, item, permit.permit) is not None
        step = flow.on_delivery(OUTCOMES[item.outcome], item.reason, readable=readable)
        record = amendment = message = amending = None
        if step.final:

            def written(*, amends: bool) -> tuple[RecordRow, MessageRow | None]:
                bound = None if proof is None else Binding(context.chance, "answer", proof, item.permit, permit)
                made = inquiry_record(
                    keys,
                    context.chance,
                    agency,
                    item.request,
                    memo,
                    step,
                    person=person,
                    at=now,
                    reference=str(permit.permit),
                    provided_at=item.answered_at,
                    withheld=item.withheld,
                    amends=amends,
                    salt=None if bound is None else bound.salt,
                )
                return made, None if bound is None else bound.row(keys, made.id)

            (record, message), (amendment, amending) = written(amends=False), written(amends=True)
        answer = keys.seal("answer", item.request.bytes, msgspec.json.encode(item)) if step.final else None
        return AnswerRow(
            agency=agency.number,
            generation=agency.generation,
            inbox=item.id,
            id=item.request,
            state=step.state,
            outcome=step.outcome,
            reason=step.reason,
            answer=answer,
            record=record,
            amendment=amendment,
            message=message,
            amending=amending,
        )

    # ------------------------------------------------------------ linkage codes

    async def codes(self, items: Sequence[AcquiredCode]) -> list[Ack]:
        """Take acquired linkage codes; the acquisition number is deleted in the same commit (SYM-06)."""
        acks: dict[uuid.UUID, Ack] = {}
        known: list[tuple[AcquiredCode, AgencyRow]] = []
        for item in self._shuffled(items):
            try:
                known.append((item, self._context.common.directory.agency(item.agency)))
            except Problem as problem:
                acks[item.id] = self._no(item.id, problem)
        await self._by_cell(known, lambda line: line[1].cell, self._code_set, acks, lambda line: line[0].id)
        return [acks[item.id] for item in items]

    async def _code_set(self, lines: list[tuple[AcquiredCode, AgencyRow]], acks: dict[uuid.UUID, Ack]) -> None:
        cell = lines[0][1].cell
        rows = [self._code_put(item, agency) for item, agency in lines]
        statuses = await self._codes[cell].submit_each(rows, COMMIT_TIMEOUT_S)
        for row, outcome in zip(rows, statuses, strict=True):
            status = self._or_no(row.inbox, outcome)
            if isinstance(status, Ack):
                acks[row.inbox] = status
            elif status == "unknown":
                acks[row.inbox] = self._no(row.inbox, Problem("not_found"))
            else:
                acks[row.inbox] = Ack(id=row.inbox, status="accepted", reason=None if status == "applied" else status)

    def _code_put(self, item: AcquiredCode, agency: AgencyRow) -> CodePut:
        keys = self._context.keys(agency.number)
        number = keys.digest("number", item.number.encode())
        if item.code is None:
            return CodePut(agency=agency.number, inbox=item.id, number_digest=number, code_digest=None, code=None)
        # The person is not known before the commit finds the number: the code's own digest names its row in the seal.
        digest = keys.digest("code", item.code)
        return CodePut(
            agency=agency.number,
            inbox=item.id,
            number_digest=number,
            code_digest=digest,
            code=keys.seal("code", digest, item.code),
        )

    # ------------------------------------------------------------ common

    def _shuffled(self, items: Sequence[T]) -> list[T]:
        drawn = self._context.chance.token(_DRAW_BYTES * len(items))
        keyed = [(drawn[_DRAW_BYTES * n : _DRAW_BYTES * (n + 1)], n) for n in range(len(items))]
        return [items[n] for _, n in sorted(keyed)]

    async def _by_cell(
        self,
        lines: Sequence[T],
        cell_of: Callable[[T], str],
        work: Callable[[list[T], dict[uuid.UUID, Ack]], Awaitable[None]],
        acks: dict[uuid.UUID, Ack],
        inbox_of: Callable[[T], uuid.UUID],
    ) -> None:
        """Work on each cell's lines as a set; a cell in trouble answers ``again`` for its own lines only."""
        cells: dict[str, list[T]] = defaultdict(list)
        for line in lines:
            cells[cell_of(line)].append(line)

        async def take(cell: str, here: list[T]) -> None:
            await self._context.openings.admit(cell)
            await work(here, acks)

        results = await asyncio.gather(*(take(*each) for each in cells.items()), return_exceptions=True)
        for here, result in zip(cells.values(), results, strict=True):
            if isinstance(result, Problem):
                for line in here:
                    acks.setdefault(inbox_of(line), self._no(inbox_of(line), result))
            elif isinstance(result, BaseException):
                raise result

    def _or_no(self, message: uuid.UUID, outcome: str | Exception) -> str | Ack:
        if isinstance(outcome, Problem):
            return self._no(message, outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _no(self, message: uuid.UUID, problem: Problem) -> Ack:
        return refusal(self._context, message, problem)

    async def close(self) -> None:
        """Finish what is in flight."""
        for stages in (self._provide, self._deliver, self._requests, self._codes):
            for stage in stages.values():
                await stage.close()
