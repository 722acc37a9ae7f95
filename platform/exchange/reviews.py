"""Manual review of held provisions (自動応答不可): a first officer prepares, a second one approves or refuses (PRV-05).

Nothing leaves without both. At the moment of approval everything is judged anew (time, law, stop, link, copies),
for days may have passed; the decision commits only if what it was made on still stands in the cell. What was prepared
about one person provides nothing of another: after a repair of the link, or a new hold, a first officer looks again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Literal

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.memos import NoticeMemo, open_notice
from chukan.platform.exchange.provisions import Asked, Provisions, answer_bytes
from chukan.platform.exchange.recording import provision_record
from chukan.platform.exchange.two_persons import require_second
from chukan.platform.flows.provision import BEFORE_RESTORE, Judgement, escalated
from chukan.platform.proofs import Binding
from chukan.platform.wire.agency import Review, ReviewDecision, ReviewPrepare, Reviews
from chukan.platform.wire.network import SealedAnswer
from chukan.tenants import drafts
from chukan.tenants.copies import open_hit
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_accounts import EVERY_AFFAIR, Affairs
from chukan.tenants.partition import Partition
from chukan.tenants.rows import DecideRow, LookupHit, ProvisionView
from chukan.tenants.states import Outcome, ProvisionState, Side

_log = log.get("exchange.reviews")
TRIES: Final = 3
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


class OfficerReviews:
    """Implements ``services.ReviewService``; ``door`` opens an agency's own partition."""

    def __init__(
        self, context: Context, provisions: Provisions, door: Door, decided: Callable[[AgencyRow], None]
    ) -> None:
        self._context = context
        self._provisions = provisions
        self._door = door
        self._decided = decided

    async def list(self, agency: AgencyRow, affairs: Affairs = EVERY_AFFAIR) -> Reviews:
        """All held provisions of the agency of these affairs, oldest deadline first (at most 1,000)."""
        rows = await self._context.cell(agency).provision_views(agency.number, state=ProvisionState.HELD)
        found = await self._drafts(agency, rows)
        held = [(row, self._line(agency, row)) for row in rows]
        held = [(row, line) for row, line in held if affairs.allows(line.permit.affair)]
        await self._provisions.look_up([line for _, line in held])
        views = [self._view(agency, row, line, found) for row, line in held]
        return Reviews(reviews=sorted(views, key=lambda view: view.expires_at))

    async def prepare(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        review: uuid.UUID,
        body: ReviewPrepare,
        affairs: Affairs = EVERY_AFFAIR,
    ) -> Review:
        """Store the first officer's proposal. Raises ``Problem`` affair_not_granted beside those of the port."""
        row = await self._held(agency, review)
        self._require(affairs, agency, row)
        line = self._line(agency, row)
        await self._provisions.look_up([line])
        draft = drafts.Draft(
            provision=review,
            decision=body.decision,
            withheld=body.withheld,
            officer=officer.id,
            note=body.note,
            at=self._context.clock.now(),
            seen=_seen(line),
        )
        async with self._door(agency) as partition:
            await drafts.save(partition, self._context.keys(agency.number), draft)
        _log.info("review prepared", agency=agency.number, line_id=review, peer=officer.id, outcome=body.decision)
        return self._view(agency, row, line, {review: draft})

    async def approve(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        review: uuid.UUID,
        body: ReviewDecision,
        affairs: Affairs = EVERY_AFFAIR,
    ) -> Review:
        """Carry out the proposal of another officer: the one that was looked at, where ``body`` names it."""
        draft = await self._proposal(agency, officer, review, affairs)
        if body.prepared_at is not None and body.prepared_at != draft.at:
            raise Problem("review_changed")
        provided_on = draft if draft.decision == "provide" else None
        return await self._decide(agency, officer, review, provided_on, withheld=draft.withheld)

    async def refuse(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        review: uuid.UUID,
        body: ReviewDecision,
        affairs: Affairs = EVERY_AFFAIR,
    ) -> Review:
        """Refuse the provision, whatever was proposed by another officer."""
        _ = body
        draft = await self._proposal(agency, officer, review, affairs)
        return await self._decide(agency, officer, review, None, withheld=draft.withheld)

    # ------------------------------------------------------------ inside

    async def _held(self, agency: AgencyRow, review: uuid.UUID) -> ProvisionView:
        rows = await self._context.cell(agency).provision_views(agency.number, ids=[review])
        if not rows:
            raise Problem("not_found")
        if rows[0].state is not ProvisionState.HELD:
            await self._context.cell(agency).confirm()
            raise Problem("already_final")
        return rows[0]

    async def _drafts(self, agency: AgencyRow, rows: Sequence[ProvisionView]) -> dict[uuid.UUID, drafts.Draft]:
        if not rows:
            return {}
        async with self._door(agency) as partition:
            return await drafts.read(partition, self._context.keys(agency.number), [row.id for row in rows])

    def _require(self, affairs: Affairs, agency: AgencyRow, row: ProvisionView) -> None:
        if not affairs.allows(self._memo(agency, row).permit.affair):
            raise Problem("affair_not_granted")

    async def _proposal(
        self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, affairs: Affairs
    ) -> drafts.Draft:
        row = await self._held(agency, review)
        self._require(affairs, agency, row)
        draft = (await self._drafts(agency, [row])).get(review)
        if draft is None:
            raise Problem("review_not_prepared")
        await require_second(self._context, self._door, agency, officer.id, draft.officer)
        return draft

    def _memo(self, agency: AgencyRow, row: ProvisionView) -> NoticeMemo:
        return open_notice(self._context.keys(agency.number), row.id, row.notice)

    def _line(self, agency: AgencyRow, row: ProvisionView) -> Asked:
        memo = self._memo(agency, row)
        return Asked(inbox=row.id, signed=memo.signed, permit=memo.permit, agency=agency, line=row.id)

    async def _decide(
        self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, draft: drafts.Draft | None, *, withheld: bool
    ) -> Review:
        """Provide on a first officer's draft, or refuse where there is none to provide on."""
        for _ in range(TRIES):
            row = await self._held(agency, review)
            line = self._line(agency, row)
            if line.permit.issued_at < self._context.openings.opened_at(agency.cell):
                # It may have been answered already, in a history that a restore left behind.
                raise Problem(BEFORE_RESTORE)
            await self._provisions.look_up([line])
            if draft is not None and not _stands(draft, line):
                raise Problem("review_not_prepared")
            if draft is not None and self._is_behind(line):
                await self._context.common.refresh()
                continue
            judgement = Judgement(ProvisionState.ANSWERED, Outcome.REFUSED, "officer")
            if draft is not None:
                judgement = self._judge(line)
            sealed = None
            if judgement.outcome in {Outcome.PROVIDED, Outcome.PROVIDED_WITH_GAPS}:
                self._provisions.seal([line])
                sealed = line.sealed
            decision = self._row(agency, row, line, judgement, sealed, withheld=withheld)
            status = (await self._context.cell(agency).decide_provisions([decision]))[0]
            if status == "applied":
                self._context.meter.outcome(Side.PROVIDER, judgement.outcome.word)
                outcome = judgement.outcome.word
                _log.info("review decided", agency=agency.number, line_id=review, peer=officer.id, outcome=outcome)
                self._decided(agency)
                return self._view(agency, row, line, {}, state="decided")
            if status == "late":
                raise Problem("already_final")
            await self._context.common.refresh()
        raise Problem("busy", retry_after_s=1)

    def _is_behind(self, line: Asked) -> bool:
        """Whether the cell has newer common data than we would judge by: a kill switch may be among them."""
        assert line.hit is not None  # noqa: S101 - look_up came first
        return line.hit.snapshot != self._provisions.current_number()

    def _judge(self, line: Asked) -> Judgement:
        """Judge anew, the hold itself being what the officers just decided about."""
        assert line.hit is not None  # noqa: S101 - look_up came first
        line.hit = replace(line.hit, held=False)
        judgement = self._provisions.judge(line)
        if judgement.state is ProvisionState.LAPSED:
            raise Problem("permit_expired")
        if judgement.state is ProvisionState.HELD:
            raise Problem("link_suspended")
        return judgement

    def _row(
        self,
        agency: AgencyRow,
        row: ProvisionView,
        line: Asked,
        judgement: Judgement,
        sealed: SealedAnswer | None,
        *,
        withheld: bool,
    ) -> DecideRow:
        assert line.hit is not None  # noqa: S101 - look_up came first
        context = self._context
        keys = context.keys(agency.number)
        now = context.clock.now()
        memo = self._memo(agency, row)
        answer = answer_bytes(row.id, line.permit, judgement.outcome, judgement.reason, sealed, now, withheld=withheld)
        bound = Binding(context.chance, "decision", None, memo.signed, memo.permit, sent=answer)
        return DecideRow(
            agency=agency.number,
            generation=agency.generation,
            id=row.id,
            outcome=judgement.outcome,
            reason=judgement.reason,
            person=line.hit.person,
            link_version=line.hit.link_version,
            hold_version=line.hit.hold_version,
            snapshot=line.hit.snapshot,
            outbox=keys.seal("outbox", row.id.bytes, answer),
            record=provision_record(
                keys,
                context.chance,
                row.id,
                memo,
                judgement.outcome,
                judgement.reason,
                person=line.hit.person,
                at=now,
                withheld=withheld,
                salt=bound.salt,
            ),
            message=bound.row(keys, row.id),
        )

    def _view(
        self,
        agency: AgencyRow,
        row: ProvisionView,
        line: Asked,
        found: Mapping[uuid.UUID, drafts.Draft],
        state: Literal["held", "prepared", "decided"] = "held",
    ) -> Review:
        permit = line.permit
        draft = found.get(row.id)
        stale = state == "held" and draft is not None and not _stands(draft, line)
        prepared = state == "held" and draft is not None and not stale
        return Review(
            id=row.id,
            inquirer=permit.inquirer,
            affair=permit.affair,
            procedure=permit.procedure,
            kind=permit.kind,
            items=permit.items,
            asked_at=permit.asked_at,
            expires_at=permit.expires_at,
            state="prepared" if prepared else state,
            prepared_by=None if draft is None else draft.officer,
            addressee=self._addressee(agency, permit.kind, line.hit),
            escalated=state == "held" and escalated(permit, self._context.clock.now()),
            proposed=None if draft is None else draft.decision,
            withheld=draft is not None and draft.withheld,
            note="" if draft is None else draft.note,
            prepared_at=None if draft is None else draft.at,
            stale=stale,
        )

    def _addressee(self, agency: AgencyRow, kind: str, hit: LookupHit | None) -> str | None:
        """The agency's own number of the person, from a copy found: its officer must know whom this is about."""
        if hit is None or hit.person is None or not hit.copies:
            return None
        return open_hit(self._context.keys(agency.number), hit.person, kind, hit.copies[0]).addressee


def _stands(draft: drafts.Draft, line: Asked) -> bool:
    """Tell whether a proposal can still be carried out: to provide only where what was seen is what is found now."""
    return draft.decision == "refuse" or (draft.seen is not None and draft.seen.still_holds(_seen(line)))


def _seen(line: Asked) -> drafts.Seen:
    """What an officer who looks at a looked-up line sees: whose it is, and whether a hold stands."""
    assert line.hit is not None  # noqa: S101 - look_up came first
    return drafts.Seen(person=line.hit.person, link_version=line.hit.link_version, held=line.hit.held)
