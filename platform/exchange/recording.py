"""Builds provision records (情報提供等記録, 番号法23条) from what a side knows: one for each final outcome, none else.

A record names both agencies, times, items, department and affair, flags; never content (REC-07). Each side builds
its own from its own memo, so the two share nothing but what both were told.
"""

from __future__ import annotations

import datetime as dt
import uuid

from msgspec import UNSET

from chukan.chance import Chance
from chukan.platform.exchange.memos import NoticeMemo, RequestMemo
from chukan.platform.flows.inquiry import Step
from chukan.tenants.directory import AgencyRow
from chukan.tenants.records import RecordFields, make_record
from chukan.tenants.rows import RecordRow
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.states import Outcome

_PROVIDED = frozenset({Outcome.PROVIDED, Outcome.PROVIDED_WITH_GAPS})


def inquiry_record(
    keys: AgencyKeys,
    chance: Chance,
    agency: AgencyRow,
    line: uuid.UUID,
    memo: RequestMemo,
    step: Step,
    *,
    person: bytes,
    at: dt.datetime,
    reference: str | None = None,
    provided_at: dt.datetime | None = None,
    withheld: bool = False,
    amends: bool = False,
    salt: bytes | None = None,
) -> RecordRow:
    """The inquirer's record of a line, or the amendment of it (``amends``: then it gets an id of its own).

    ``salt`` as ``make_record``.
    """
    fields = RecordFields(
        id=chance.uuid7() if amends else line,
        side="inquirer",
        inquirer=agency.code,
        provider=memo.line.provider,
        department=memo.line.department,
        affair=memo.line.affair,
        procedure=memo.line.procedure,
        kind=memo.line.kind,
        items=memo.items,
        outcome=step.outcome.word,
        asked_at=memo.asked_at,
        closed_at=at,
        provided_at=provided_at if step.outcome in _PROVIDED else None,
        withheld=memo.line.withheld or withheld,
        reference=reference,
        reason=step.reason,
        pia_refusal=step.reason == "pia_unpublished",
        amends=line if amends else None,
        consent=memo.line.consent or UNSET,
        on_behalf_of=memo.line.on_behalf_of or UNSET,
        provider_for=memo.line.provider_for or UNSET,
    )
    return make_record(keys, chance, fields, person=person, salt=salt)


def provision_record(
    keys: AgencyKeys,
    chance: Chance,
    line: uuid.UUID,
    memo: NoticeMemo,
    outcome: Outcome,
    reason: str | None,
    *,
    person: bytes | None,
    at: dt.datetime,
    withheld: bool = False,
    amends: bool = False,
    salt: bytes | None = None,
) -> RecordRow:
    """The provider's record of a line, or the amendment of it; ``salt`` as ``make_record``."""
    permit = memo.permit
    fields = RecordFields(
        id=chance.uuid7() if amends else line,
        side="provider",
        inquirer=permit.inquirer,
        provider=permit.provider,
        department=permit.department,
        affair=permit.affair,
        procedure=permit.procedure,
        kind=permit.kind,
        items=permit.items,
        outcome=outcome.word,
        asked_at=permit.asked_at,
        closed_at=at,
        provided_at=at if outcome in _PROVIDED else None,
        withheld=permit.withheld or withheld,
        reference=str(permit.permit),
        reason=reason,
        pia_refusal=False,
        amends=line if amends else None,
        consent=permit.consent or UNSET,
        on_behalf_of=permit.on_behalf_of or UNSET,
        provider_for=permit.provider_for or UNSET,
    )
    return make_record(keys, chance, fields, person=person, salt=salt)
