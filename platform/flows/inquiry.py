"""The inquirer's flow (情報照会) as pure functions: judge a line at acceptance, and what each later event makes of it.

Deny by default (invariant 4): a line is admitted only with a YES of the matching list in force on the day, no stop, and
an active linkage code. What is malformed is refused before acceptance (no record); what is well-formed but may not be
asked is accepted and closed at once, with the inquirer's record.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from chukan.errors import Problem
from chukan.platform.flows.transitions import Event, allowed
from chukan.platform.law import Decision, Law, Verdict
from chukan.platform.wire.agency import QueryLine
from chukan.platform.wire.network import InquirerPermit, PermitReply
from chukan.tenants.states import STATE_OF_OUTCOME, InquiryState, LinkStatus, Outcome, Side

LINE_DEADLINE: Final = dt.timedelta(minutes=30)
"""How long a line may wait for a permit before it expires; the network may be away that long."""
PERMIT_GRACE: Final = dt.timedelta(seconds=30)
"""How long after a permit's expiry an answer may still be on its way: the network's receipt instant decided already."""
DELEGATION_MISSING: Final = "delegation_missing"
"""Reason of a refusal on either side: no delegation in force is registered for this."""
RETRY_FIRST_S: Final = 0.5
RETRY_LAST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Refused:
    """Malformed: not accepted, no record. ``problem`` never holds the offending value."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a line; ``outcome`` NONE while it is open."""

    event: Event
    state: InquiryState
    outcome: Outcome = Outcome.NONE
    reason: str | None = None
    items: tuple[str, ...] = ()
    deadline: dt.datetime | None = None

    @property
    def final(self) -> bool:
        """Whether this step closes the line, and so writes its record."""
        return self.outcome not in {Outcome.NONE, Outcome.UNDER_REVIEW}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a line at acceptance, beside the line itself."""

    inquirer: str
    today: dt.date
    now: dt.datetime
    provider_known: bool
    stopped: bool
    link: LinkStatus | None
    delegated: bool = False
    """Whether the agency holds a delegation (委任) of the one on whose behalf it asks, for this affair, today."""


def check(line: QueryLine, law: Law, facts: Facts) -> tuple[str, ...]:
    """The items that the line asks for, after checking its form (INQ-01, INQ-07).

    Raises:
        Problem: unknown_kind, unknown_affair, unknown_procedure, unknown_agency, unknown_item, bad_condition.
    """
    if not law.known_kind(line.kind):
        raise Problem("unknown_kind", pointer="/kind")
    if not law.known_affair(line.affair):
        raise Problem("unknown_affair", pointer="/affair")
    procedure = law.procedures.get(line.procedure)
    if procedure is None:
        raise Problem("unknown_procedure", pointer="/procedure")
    if procedure.affair != line.affair:
        raise Problem("procedure_not_of_affair", pointer="/procedure")
    if not facts.provider_known:
        raise Problem("unknown_agency", pointer="/provider")
    if line.on_behalf_of == facts.inquirer or line.provider_for == line.provider:
        raise Problem("delegation_of_itself", pointer="/on_behalf_of" if line.provider_for is None else "/provider_for")
    condition = line.condition
    law.validate_condition(line.kind, condition.period, condition.year, condition.start, condition.end)
    if line.items is None:
        return ()
    layouts = [layout for kind, version in law.layouts if kind == line.kind and (layout := law.layout(kind, version))]
    for position, item in enumerate(line.items):
        if not any(item in layout.items for layout in layouts):
            raise Problem("unknown_item", pointer=f"/items/{position}")
    return tuple(dict.fromkeys(line.items))


def judge(line: QueryLine, law: Law, facts: Facts) -> Refused | Step:
    """Decide about one line at acceptance: refused, closed at once, or admitted."""
    try:
        asked = check(line, law, facts)
    except Problem as problem:
        return Refused(problem)
    # The law's classes are those of the agencies whose affair and whose information it is (委任元).
    decision = law.decide(
        inquirer=line.on_behalf_of or facts.inquirer,
        provider=line.provider_for or line.provider,
        affair=line.affair,
        procedure=line.procedure,
        kind=line.kind,
        day=facts.today,
        consent=line.consent,
    )
    may = law.allowed_items(line.procedure, line.kind, facts.today)
    items = asked or _all_items(law, line.kind, may, facts.today)
    reason = _against(line, decision, facts)
    if reason is None and (not items or not may.issuperset(items)):
        reason = "item_not_allowed"
    if reason is not None:
        return _closed(Outcome.NOT_PERMITTED, reason, items)
    if facts.stopped:
        return _closed(Outcome.STOPPED, "kind_stopped", items)
    if facts.link is not LinkStatus.ACTIVE:
        return _closed(Outcome.NO_CODE, "no_code" if facts.link is None else f"link_{facts.link.name.lower()}", items)
    allowed(Side.INQUIRER, None, Event.ACCEPT, InquiryState.ACCEPTED)
    return Step(Event.ACCEPT, InquiryState.ACCEPTED, items=items, deadline=facts.now + LINE_DEADLINE)


def _against(line: QueryLine, decision: Decision, facts: Facts) -> str | None:
    """The reason for which the line may not be asked, or None: no delegation, or no YES of the list."""
    if line.on_behalf_of is not None and not facts.delegated:
        return DELEGATION_MISSING
    if decision.verdict is Verdict.YES:
        return None
    return "list_unknown" if decision.verdict is Verdict.UNKNOWN else decision.reason


def _all_items(law: Law, kind: str, may: frozenset[str], today: dt.date) -> tuple[str, ...]:
    """What "all that the procedure allows" means on a day: the allowed items of the newest layout in force."""
    layouts = law.layouts_in_force(kind, today)
    return tuple(item for item in layouts[-1].items if item in may) if layouts else ()


def _closed(outcome: Outcome, reason: str, items: tuple[str, ...]) -> Step:
    state = STATE_OF_OUTCOME[outcome]
    allowed(Side.INQUIRER, None, Event.CLOSE_LOCALLY, state)
    return Step(Event.CLOSE_LOCALLY, state, outcome, reason, items)


_REPLIES: Final = {
    "no_code": Outcome.NO_CODE,
    "not_permitted": Outcome.NOT_PERMITTED,
    "stopped": Outcome.STOPPED,
    "bad_request": Outcome.FAILED,
}


def on_permit_reply(
    state: InquiryState, reply: PermitReply, permit: InquirerPermit | None, grace: dt.timedelta = PERMIT_GRACE
) -> Step:
    """What the network's reply makes of an open line; ``permit`` is the verified face where one was given."""
    if reply.outcome == "permitted":
        if permit is None:
            return _refused(state, Outcome.FAILED, "permit_forged")
        allowed(Side.INQUIRER, state, Event.PERMIT, InquiryState.PERMITTED)
        return Step(Event.PERMIT, InquiryState.PERMITTED, deadline=permit.expires_at + grace)
    return _refused(state, _REPLIES[reply.outcome], reply.reason or reply.outcome)


def _refused(state: InquiryState, outcome: Outcome, reason: str) -> Step:
    target = STATE_OF_OUTCOME[outcome]
    allowed(Side.INQUIRER, state, Event.NETWORK_REFUSED, target)
    return Step(Event.NETWORK_REFUSED, target, outcome, reason)


def on_send_failed(state: InquiryState) -> Step:
    """The reply is unknown: the same bytes are asked again later."""
    allowed(Side.INQUIRER, state, Event.SEND_FAILED, InquiryState.PERMIT_REQUESTED)
    return Step(Event.SEND_FAILED, InquiryState.PERMIT_REQUESTED)


def on_deadline(state: InquiryState) -> Step:
    """The line's time is over (期限切れ)."""
    allowed(Side.INQUIRER, state, Event.DEADLINE, InquiryState.EXPIRED)
    return Step(Event.DEADLINE, InquiryState.EXPIRED, Outcome.EXPIRED, "deadline")


def on_cancel(state: InquiryState) -> Step:
    """The agency takes its query back (中断).

    Raises:
        Problem: already_final, when the line has its outcome.
    """
    try:
        allowed(Side.INQUIRER, state, Event.CANCEL, InquiryState.CANCELLED)
    except ValueError:
        raise Problem("already_final") from None
    return Step(Event.CANCEL, InquiryState.CANCELLED, Outcome.CANCELLED, "cancelled")


def on_delivery(outcome: Outcome, reason: str | None, *, readable: bool) -> Step:
    """What a delivered answer makes of an open line; ``readable`` False when its content cannot be opened."""
    if not readable:
        return Step(Event.UNREADABLE, InquiryState.FAILED, Outcome.FAILED, "unreadable")
    event = Event.REVIEW if outcome is Outcome.UNDER_REVIEW else Event.ANSWER
    return Step(event, STATE_OF_OUTCOME[outcome], outcome, reason)


def retry_delay_s(tries: int) -> float:
    """Seconds until the next try: doubling from half a second to half a minute."""
    return min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(tries, 10))
