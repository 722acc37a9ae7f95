"""Lines that are taken back (中断): by their own system or an officer, for a suspended link, for an ended delegation.

Each line closes with the inquirer's record in the commit that takes it back; one that was final before stays as it is.
It must never take back a line of another agency: rows are read and closed by (agency, line).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chukan.platform.exchange.memos import open_request
from chukan.platform.exchange.query_rows import settle
from chukan.platform.exchange.recording import inquiry_record
from chukan.platform.flows import inquiry as flow

if TYPE_CHECKING:
    from chukan.platform.exchange.context import Context
    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.states import InquiryState


async def take_back(
    context: Context,
    agency: AgencyRow,
    lines: Sequence[tuple[uuid.UUID, InquiryState]],
    *,
    reason: str | None = None,
) -> int:
    """Cancel open lines with a reason of their own, or the ordinary one; return how many were still open.

    Raises:
        Problem: as the agency's cell does.
    """
    cell, keys, now = context.cell(agency), context.keys(agency.number), context.clock.now()
    hits = await cell.read_requests([(agency.number, line) for line, _ in lines])
    settles = []
    for (line, state), hit in zip(lines, hits, strict=True):
        if hit is None or hit.person is None:
            continue
        step = flow.on_cancel(state)
        if reason is not None:
            step = replace(step, reason=reason)
        memo = open_request(keys, line, hit.request)
        record = inquiry_record(keys, context.chance, agency, line, memo, step, person=hit.person, at=now)
        settles.append(settle(agency.number, line, step, now, record=record))
    return sum(word == "applied" for word in await cell.close_inquiries(settles))
