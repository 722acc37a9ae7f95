"""The provider's side (情報提供): from notice to sealed answer in one commit, or to a hold.

``prepare`` turns verified notices into rows: it looks up person and copies as a set per cell, lets the pure flow
judge each line, builds the content, seals answers per (inquirer's key) with one encapsulation, and writes the
record. The commit re-checks in the cell what the line was decided on; a line that changed meanwhile comes back as
``again``. Invariant 4 holds here: nothing is sealed for a line that the flow did not judge as provided.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from chukan.clock import today_jst
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.memos import NoticeMemo, seal_notice
from chukan.platform.exchange.recording import provision_record
from chukan.platform.flows import provision as flow
from chukan.platform.proofs import Binding, Proof, held_notice
from chukan.platform.sealed import seal_batch
from chukan.platform.wire.agency import Gap
from chukan.platform.wire.network import Answer, AnswerOutcome, ProviderPermit, SealedAnswer, SignedPermit
from chukan.tenants.copies import open_hit
from chukan.tenants.delegations import Half, may_act
from chukan.tenants.directory import AgencyRow
from chukan.tenants.own_flags import Flag
from chukan.tenants.rows import LookupHit, LookupRow, ProvideRow
from chukan.tenants.states import Outcome, ProvisionState

LOOKUP_TIMEOUT_S: Final = 15.0
COMMON_DATA_AGE_MAX_S: Final = 10.0
_WORDS: Final[dict[Outcome, AnswerOutcome]] = {
    Outcome.PROVIDED: "provided",
    Outcome.PROVIDED_WITH_GAPS: "provided_with_gaps",
    Outcome.NO_RECORD: "no_record",
    Outcome.NO_CODE: "no_code",
    Outcome.UNDER_REVIEW: "under_review",
    Outcome.REFUSED: "refused",
    Outcome.STOPPED: "stopped",
    Outcome.NOT_PERMITTED: "not_permitted",
    Outcome.FAILED: "failed",
}
ReadFlags = Callable[[AgencyRow, Sequence[tuple[bytes, str]]], Awaitable[list[Flag]]]
_ITEMS: Final = msgspec.json.Decoder(dict[str, str | Gap])


@dataclass(slots=True)
class Asked:
    """One verified notice on its way to a row."""

    inbox: uuid.UUID
    signed: SignedPermit
    permit: ProviderPermit
    agency: AgencyRow
    line: uuid.UUID
    hit: LookupHit | None = None
    judgement: flow.Judgement | None = None
    content: bytes | None = None
    delegated: bool = False
    """Whether the agency holds the delegation that the permit rests on (``provider_for``)."""
    unread: Problem | None = None
    """Why the agency's delegations or flags could not be read."""
    own_flagged: bool = False
    """Whether the agency keeps from the portal what it asks for (自己情報提供不可フラグ)."""
    proof: Proof | None = None
    """Where the notice stood, in which list of the network; None where it did not come over the wire."""
    sealed: SealedAnswer | None = None
    copies: list[uuid.UUID] = field(default_factory=list)


class Provisions:
    """Looks up, judges, builds and seals; committing is the caller's."""

    def __init__(self, context: Context, held: Callable[[AgencyRow], Awaitable[list[Half]]], flags: ReadFlags) -> None:
        """Take what reads an agency's own tables.

        Args:
            context: what the flows stand on.
            held: returns the delegations of an agency; asked only where a permit says that it rests on one.
            flags: returns what an agency keeps from the person's own query about (person, kind); asked for such alone.
        """
        self._held = held
        self._flags = flags
        self._context = context
        self._skew = dt.timedelta(seconds=context.settings.exchange.permit_skew_s)
        self._lookups = context.stages("lookup", lambda sets: sets.lookup)

    def current_number(self) -> int:
        """Number of the common data that provisions may be decided on.

        Raises:
            Problem: common_data_stale, when our knowledge is older than ten seconds (a kill switch may be thrown).
        """
        common = self._context.common
        if common.age_s() > COMMON_DATA_AGE_MAX_S:
            raise Problem("common_data_stale", retry_after_s=2)
        return common.directory.number

    async def look_up(self, lines: Sequence[Asked]) -> None:
        """Fill in ``hit`` for all lines, one set per cell."""
        by_cell: dict[str, list[Asked]] = defaultdict(list)
        for line in lines:
            by_cell[line.agency.cell].append(line)
        for cell, here in by_cell.items():
            rows = [self._lookup_row(line) for line in here]
            for line, hit in zip(here, await self._lookups[cell].submit_many(rows, LOOKUP_TIMEOUT_S), strict=True):
                line.hit = hit

        await self._look_for_delegations(lines)
        await self._look_for_flags(lines)

    async def _look_for_flags(self, lines: Sequence[Asked]) -> None:
        """Fill in ``own_flagged``, once an agency. After the look-up: a flag set later has raised the hold version."""
        own: dict[int, list[Asked]] = defaultdict(list)
        for line in lines:
            if self._context.law.own.has_procedure(line.permit.procedure) and line.hit is not None and line.hit.person:
                own[line.agency.number].append(line)
        for here in own.values():
            wanted = [(line.hit.person, line.permit.kind) for line in here if line.hit and line.hit.person]
            try:
                found = await self._flags(here[0].agency, wanted)
            except Problem as problem:
                for line in here:
                    line.unread = problem
                continue
            for line in here:
                line.own_flagged = any(_stops(flag, line) for flag in found)

    async def _look_for_delegations(self, lines: Sequence[Asked]) -> None:
        """Fill in ``delegated``, once an agency; one whose own cannot be read harms nobody else's lines."""
        resting: dict[int, list[Asked]] = defaultdict(list)
        for line in lines:
            if line.permit.provider_for is not None:
                resting[line.agency.number].append(line)
        today = today_jst(self._context.clock)
        for here in resting.values():
            try:
                halves = await self._held(here[0].agency)
            except Problem as problem:
                for line in here:
                    line.unread = problem
                continue
            for line in here:
                delegator = line.permit.provider_for
                line.delegated = delegator is not None and may_act(
                    halves, "provider", delegator, line.permit.affair, today
                )

    def _lookup_row(self, line: Asked) -> LookupRow:
        permit, condition = line.permit, line.permit.condition
        return LookupRow(
            agency=line.agency.number,
            code=self._context.keys(line.agency.number).digest("code", permit.code),
            kind=permit.kind,
            period=condition.period,
            year=condition.year,
            on=today_jst(self._context.clock),
            start=condition.start,
            end=condition.end,
        )

    def judge(self, line: Asked) -> flow.Judgement:
        """Let the flow decide about one looked-up line; ``Problem`` where delegations or flags could not be read."""
        assert line.hit is not None  # noqa: S101 - look_up came first
        if line.unread is not None:
            raise line.unread
        context, permit = self._context, line.permit
        # Whose affair and whose information it is, the network has said under its signature (委任元).
        decision = context.law.decide(
            inquirer=permit.on_behalf_of or permit.inquirer,
            provider=permit.provider_for or permit.provider,
            affair=permit.affair,
            procedure=permit.procedure,
            kind=permit.kind,
            day=today_jst(context.clock),
            consent=permit.consent,
        )
        line.judgement = flow.judge(
            permit,
            now=context.clock.now(),
            skew=self._skew,
            opened_at=context.openings.opened_at(line.agency.cell),
            decision=decision,
            stopped=context.common.directory.is_stopped(permit.kind, permit.procedure),
            found=flow.Found(link=line.hit.link, held=line.hit.held, copies=len(line.hit.copies)),
            delegated=line.delegated,
            own_refusal=context.law.own_refusal(
                permit.affair, on_behalf_of=permit.on_behalf_of, withheld=permit.withheld
            ),
            own_flagged=line.own_flagged,
        )
        if line.judgement.outcome is Outcome.PROVIDED:
            self.build(line)
        return line.judgement

    def build(self, line: Asked) -> None:
        """Open the selected copies and put together what may leave; sets content and the final outcome."""
        assert line.hit is not None  # noqa: S101 - look_up came first
        context, permit, person = self._context, line.permit, line.hit.person
        assert person is not None  # noqa: S101 - a copy was found through its person
        keys = context.keys(line.agency.number)
        allowed = context.law.allowed_items(permit.procedure, permit.kind, today_jst(context.clock))
        clear = [
            flow.ClearCopy(
                layout=copy.layout,
                effective_from=copy.effective_from,
                period=copy.period,
                items=_ITEMS.decode(open_hit(keys, person, permit.kind, copy).items),
            )
            for copy in line.hit.copies
        ]
        content, outcome = flow.content(permit, context.law, allowed, clear)
        line.content = msgspec.json.encode(content)
        line.copies = [copy.id for copy in line.hit.copies]
        line.judgement = flow.Judgement(ProvisionState.ANSWERED, outcome)

    def seal(self, lines: Sequence[Asked]) -> None:
        """Seal all contents: one encapsulation per inquirer's key and provider in this set."""
        groups: dict[tuple[int, str, bytes], list[tuple[Asked, bytes]]] = defaultdict(list)
        for line in lines:
            if line.content is not None:
                permit = line.permit
                groups[line.agency.number, permit.answer_key, permit.answer_key_public].append((line, line.content))
        for (_, key, public), here in groups.items():
            pairs = [(line.permit.permit, content) for line, content in here]
            for (line, _content), sealed in zip(
                here, seal_batch(public, key, pairs, self._context.chance), strict=True
            ):
                line.sealed = sealed

    def row(self, line: Asked) -> ProvideRow:
        """The row that carries a judged (and sealed) line to its cell."""
        assert line.hit is not None and line.judgement is not None  # noqa: S101, PT018 - judged lines only
        context, judgement, permit = self._context, line.judgement, line.permit
        keys = context.keys(line.agency.number)
        now = context.clock.now()
        memo = NoticeMemo(signed=line.signed, permit=permit, received_at=now, copies=tuple(line.copies))
        record = message = None
        answer = self._answer(line, judgement, now)
        if judgement.state is not ProvisionState.HELD:
            bound = None
            if line.proof is not None:
                bound = Binding(context.chance, "notice", line.proof, line.signed, permit, sent=answer)
                message = bound.row(keys, line.line)
            record = provision_record(
                keys,
                context.chance,
                line.line,
                memo,
                judgement.outcome,
                judgement.reason,
                person=line.hit.person,
                at=now,
                salt=None if bound is None else bound.salt,
            )
        elif line.proof is not None:
            message = held_notice(keys, context.chance, line.line, line.proof)
        return ProvideRow(
            agency=line.agency.number,
            generation=line.agency.generation,
            inbox=line.inbox,
            id=line.line,
            permit=keys.digest("permit", permit.permit.bytes),
            permit_until=permit.expires_at,
            permit_issued=permit.issued_at,
            notice=seal_notice(keys, line.line, memo),
            state=judgement.state,
            outcome=judgement.outcome,
            reason=judgement.reason,
            person=line.hit.person,
            link_version=line.hit.link_version,
            hold_version=line.hit.hold_version,
            snapshot=line.hit.snapshot,
            deadline=permit.expires_at,
            outbox=None if answer is None else keys.seal("outbox", line.line.bytes, answer),
            record=record,
            message=message,
        )

    def _answer(self, line: Asked, judgement: flow.Judgement, now: dt.datetime) -> bytes | None:
        if judgement.state is ProvisionState.LAPSED:
            return None
        message = line.line if judgement.state is ProvisionState.ANSWERED else self._context.chance.uuid7()
        return answer_bytes(message, line.permit, judgement.outcome, judgement.reason, line.sealed, now)

    async def close(self) -> None:
        """Finish what is in flight."""
        for stage in self._lookups.values():
            await stage.close()


def _stops(flag: Flag, line: Asked) -> bool:
    assert line.hit is not None and line.hit.person is not None  # noqa: S101, PT018 - only such lines are asked for
    return flag.stops(
        line.hit.person, line.permit.kind, [(copy.period, copy.effective_from) for copy in line.hit.copies]
    )


def answer_bytes(
    message: uuid.UUID,
    permit: ProviderPermit,
    outcome: Outcome,
    reason: str | None,
    sealed: SealedAnswer | None,
    now: dt.datetime,
    *,
    withheld: bool = False,
) -> bytes:
    """The exact bytes of an answer; permit, route and provider are the permit's own (PRV-08)."""
    return msgspec.json.encode(
        Answer(
            id=message,
            permit=permit.permit,
            route=permit.route,
            provider=permit.provider,
            outcome=_WORDS[outcome],
            answered_at=now,
            withheld=permit.withheld or withheld,
            reason=reason,
            sealed=sealed,
        )
    )
