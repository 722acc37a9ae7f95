"""What a query line becomes outside the flow: the request's bytes, the row of a step, the view of a new line (pure).

Everything personal is sealed before it stands in a row; the request's bytes are sealed by who calls for them. Nothing
here may decide: the flow did.
"""

from __future__ import annotations

import datetime as dt
import uuid

import msgspec

from chukan.platform.exchange.facts import Persons
from chukan.platform.exchange.memos import RequestMemo
from chukan.platform.exchange.views import view_of
from chukan.platform.flows import inquiry as flow
from chukan.platform.wire.agency import QueryLineView
from chukan.platform.wire.network import PermitRequest
from chukan.tenants.directory import AgencyRow
from chukan.tenants.rows import AcceptLine, CodeRow, InquirySettle, InquiryView, MessageRow, RecordRow
from chukan.tenants.sealing import AgencyKeys


def settle(
    agency: int,
    line: uuid.UUID,
    step: flow.Step,
    now: dt.datetime,
    *,
    deadline: dt.datetime | None = None,
    due: dt.datetime | None = None,
    permit: bytes | None = None,
    drop_outbox: bool = True,
    record: RecordRow | None = None,
    message: MessageRow | None = None,
) -> InquirySettle:
    """The row that carries a step to the cell."""
    return InquirySettle(
        agency=agency,
        id=line,
        state=step.state,
        outcome=step.outcome,
        reason=step.reason,
        due=due or step.deadline or now,
        deadline=step.deadline or deadline or now,
        permit=permit,
        drop_outbox=drop_outbox,
        record=record,
        message=message,
    )


def request_bytes(agency: AgencyRow, keys: AgencyKeys, line: uuid.UUID, memo: RequestMemo, link: CodeRow) -> bytes:
    """The exact bytes of the request for a permit; the linkage code is in the clear in them alone."""
    return msgspec.json.encode(
        PermitRequest(
            id=line,
            inquirer=agency.code,
            department=memo.line.department,
            affair=memo.line.affair,
            procedure=memo.line.procedure,
            kind=memo.line.kind,
            items=memo.items,
            provider=memo.line.provider,
            code=Persons.open_code(keys, link),
            condition=memo.line.condition,
            asked_at=memo.asked_at,
            answer_key=keys.answer_key_id(),
            withheld=memo.line.withheld,
            consent=memo.line.consent,
            on_behalf_of=memo.line.on_behalf_of,
            provider_for=memo.line.provider_for,
        )
    )


def view_of_new(line: AcceptLine, now: dt.datetime) -> QueryLineView:
    """A line that was accepted just now, as its agency sees it."""
    return view_of(
        InquiryView(
            id=line.id,
            batch=line.batch,
            ordinal=line.ordinal,
            state=line.state,
            outcome=line.outcome,
            reason=line.reason,
            updated_at=now,
        )
    )
