"""Notices (お知らせ) and the service calendar (運用カレンダー) for the agency API.

Notices are read in the agency's own cell, where its receipts are entered; the calendar is the one that goes with the
common data in force. Invariant: an agency sees what is for its body, and enters receipts in its own name alone.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from chukan.errors import Problem
from chukan.platform.law.calendar import FUNCTIONS
from chukan.platform.wire.notices import (
    CalendarView,
    FunctionStanding,
    NoticeRead,
    Notices,
    NoticeView,
    OpenHours,
    PlannedStop,
)

if TYPE_CHECKING:
    from chukan.platform.exchange.context import Context
    from chukan.platform.law.calendar import Calendar, Function
    from chukan.tenants.directory import AgencyRow, ClientRow
    from chukan.tenants.sets.masters import NoticeSeen


class AgencyNotices:
    """Implements ``services.NoticeService``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, agency: AgencyRow, after: uuid.UUID | None, limit: int) -> Notices:
        """Return a page of the notices to the agency's body, the newest first."""
        found = await self._context.cell(agency).notices(agency.number, agency.body, after, limit + 1)
        views = [_view(row) for row in found[:limit]]
        return Notices(notices=views, after=views[-1].id if len(found) > limit else None)

    async def read(self, agency: AgencyRow, client: ClientRow, notice: uuid.UUID) -> NoticeRead:
        """Enter that the agency has read a notice; a repeat changes nothing. Raises Problem ``not_found``."""
        if not await self._context.cell(agency).mark_notice(agency.number, agency.body, client.id, notice):
            raise Problem("not_found")
        return NoticeRead(id=notice, read=True)

    def calendar(self, _agency: AgencyRow) -> CalendarView:
        """Return the service calendar in force, the same for every agency, and how each function stands now."""
        data = self._context.masters.of(self._context.common.directory)
        at, file = self._context.clock.now(), data.calendar.file
        return CalendarView(
            version=data.version,
            at=at,
            standings=[_standing(data.calendar, function, at) for function in FUNCTIONS],
            hours=[
                OpenHours(function=each.name, days=hours.days, open=hours.open, close=hours.close)
                for each in file.function
                for hours in each.hours
            ],
            stops=[
                PlannedStop(functions=each.functions, starts_at=each.since, ends_at=each.until, reason=each.reason)
                for each in data.calendar.stops(at)
            ],
            holidays=sorted(file.holidays),
        )


def _view(row: NoticeSeen) -> NoticeView:
    members: dict[str, Any] = {
        "id": row.id,
        "published_at": row.at,
        "sort": row.sort,
        "title": row.title,
        "text": row.text,
        "starts_at": row.starts_at,
        "ends_at": row.ends_at,
        "withdrawn_at": row.withdrawn_at,
        "read_at": row.read_at,
    }
    return msgspec.convert(members, NoticeView)


def _standing(calendar: Calendar, function: Function, at: dt.datetime) -> FunctionStanding:
    found = calendar.standing(function, at)
    return FunctionStanding(
        function=function,
        open=found.open,
        outside="queue" if calendar.queues(function) else "refuse",
        reopens_at=found.reopens,
        reason=found.reason,
    )
