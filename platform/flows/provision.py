"""The provider's flow (情報提供) as pure functions: judge a notice, choose what may leave, and mark every gap.

Nothing leaves without a verified, current, unused permit **and** a YES of our own matching list **and** no stop **and**
no hold (invariant 4, PRV-01). An answer's items are a subset of the permit's and of what the procedure allows (PRV-06);
an item without a value carries a reason code and is never a zero (PRV-10).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chukan.errors import Problem
from chukan.platform.law import Decision, Law, Verdict, select_items
from chukan.platform.wire.agency import AnswerContent, AnsweredCopy, Gap
from chukan.platform.wire.network import ProviderPermit
from chukan.tenants.states import LinkStatus, Outcome, ProvisionState

BEFORE_RESTORE: Final = "permit_before_restore"
"""Reason and problem code of a permit that is older than the opening of its provider's restored cell."""

OWN_FLAGGED: Final = "own_information_flagged"
"""Reason of a person's own query that a flag stops; it does not say which one, nor whether there is a copy."""

ESCALATED_BEFORE_END: Final = dt.timedelta(minutes=5)
"""How long before its permit ends a held provision is escalated (督促): whoever may decide is to look at once."""


def escalated(permit: ProviderPermit, now: dt.datetime) -> bool:
    """Tell whether a held provision is about to lapse; what has lapsed is not."""
    return permit.expires_at - ESCALATED_BEFORE_END <= now < permit.expires_at


@dataclass(frozen=True, slots=True)
class Found:
    """What the look-up in the provider's partition said."""

    link: LinkStatus | None
    held: bool
    copies: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be done with a notice: hold, let lapse, or answer with an outcome."""

    state: ProvisionState
    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ClearCopy:
    """One copy, opened: its items by code."""

    layout: int
    effective_from: dt.date
    period: str
    items: Mapping[str, str | Gap]


def judge(  # noqa: PLR0911 - one return for each reason not to provide
    permit: ProviderPermit,
    *,
    now: dt.datetime,
    skew: dt.timedelta,
    opened_at: dt.datetime,
    decision: Decision,
    stopped: bool,
    found: Found,
    delegated: bool = False,
    own_refusal: str | None = None,
    own_flagged: bool = False,
) -> Judgement:
    """Decide about one notice. The order matters: opening, time, law, stop, link, flag, hold, copies.

    ``opened_at`` is when the provider's cell was opened after its last restore. Whether an older permit was used is not
    known there any more, so nothing is answered under it, and the network gives a new one (DESIGN §7). ``delegated``
    says whether the provider holds a delegation of the agency whose information it is asked for (``provider_for``).
    ``own_refusal`` is why a person's own query may not be like this one, and ``own_flagged`` whether the agency keeps
    from the portal what it asks for (自己情報提供不可フラグ): no officer is asked then, it is refused.
    """
    if permit.issued_at < opened_at:
        return Judgement(ProvisionState.LAPSED, Outcome.EXPIRED, BEFORE_RESTORE)
    if now >= permit.expires_at - skew:
        return Judgement(ProvisionState.LAPSED, Outcome.EXPIRED, "permit_expired")
    against = _against(permit, decision, own_refusal, delegated=delegated)
    if against is not None:
        return Judgement(ProvisionState.ANSWERED, Outcome.NOT_PERMITTED, against)
    if stopped:
        return Judgement(ProvisionState.ANSWERED, Outcome.STOPPED, "kind_stopped")
    if found.link is None:
        return Judgement(ProvisionState.ANSWERED, Outcome.NO_CODE, "provider_has_no_code")
    if found.link is not LinkStatus.ACTIVE:
        # A link under repair answers nothing by itself; an officer sees it in the reviews.
        return Judgement(ProvisionState.HELD, Outcome.UNDER_REVIEW, f"link_{found.link.name.lower()}")
    if own_flagged:
        return Judgement(ProvisionState.ANSWERED, Outcome.REFUSED, OWN_FLAGGED)
    if found.held:
        return Judgement(ProvisionState.HELD, Outcome.UNDER_REVIEW, "held")
    if not found.copies:
        return Judgement(ProvisionState.ANSWERED, Outcome.NO_RECORD, "no_copy")
    return Judgement(ProvisionState.ANSWERED, Outcome.PROVIDED)


def _against(permit: ProviderPermit, decision: Decision, own_refusal: str | None, *, delegated: bool) -> str | None:
    """Return what the law has against a permit, or None."""
    if permit.provider_for is not None and not delegated:
        return "delegation_missing"
    if decision.verdict is not Verdict.YES:
        return "list_unknown" if decision.verdict is Verdict.UNKNOWN else decision.reason
    return own_refusal


def content(
    permit: ProviderPermit, law: Law, allowed: frozenset[str], copies: Sequence[ClearCopy]
) -> tuple[AnswerContent, Outcome]:
    """The answer's content and whether it has gaps.

    Each copy carries exactly the items that the permit asks for and the procedure allows, a value or a reason code
    each.
    """
    answered = []
    gaps = False
    for copy in copies:
        layout = law.layout(permit.kind, copy.layout)
        if layout is None:
            raise Problem("unknown_layout")
        chosen, incomplete = select_items(layout, copy.items, allowed, permit.items)
        assert chosen.keys() <= set(permit.items) & allowed  # noqa: S101 - the pair of select_items' own check
        gaps = gaps or incomplete
        answered.append(
            AnsweredCopy(layout=copy.layout, effective_from=copy.effective_from, period=copy.period, items=chosen)
        )
    outcome = Outcome.PROVIDED_WITH_GAPS if gaps else Outcome.PROVIDED
    return AnswerContent(kind=permit.kind, copies=answered), outcome
