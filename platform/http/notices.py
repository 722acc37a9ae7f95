"""Notices of the operator (お知らせ) with receipts, and the service calendar (運用カレンダー)."""

import datetime as dt
import uuid
from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.notices import (
    CalendarView,
    FunctionStanding,
    NoticeRead,
    Notices,
    NoticesParams,
    NoticeView,
    OpenHours,
)

_ANY: Final = Right(("queries", "codes", "copies", "records", "order"))


async def listing(call: Call) -> Reply:
    """List the notices to the agency's body."""
    params = call.params_as(NoticesParams)
    return Reply(await call.services.exchange.notices.list(call.agency, params.after, params.limit))


async def read(call: Call) -> Reply:
    """Enter that the agency has read a notice."""
    return Reply(await call.services.exchange.notices.read(call.agency, call.client, call.id("notice")))


async def calendar(call: Call) -> Reply:
    """Return the service calendar in force."""
    return Reply(call.services.exchange.notices.calendar(call.agency))


_ID: Final = uuid.UUID("01995d2e-7c00-7000-8000-000000000001")
_AT: Final = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
_SHOWN: Final = Notices(
    notices=[
        NoticeView(
            id=_ID,
            published_at=_AT,
            sort="planned",
            title="計画停止のお知らせ",
            text="定期保守のため停止します。",
            starts_at=_AT + dt.timedelta(days=7),
            ends_at=_AT + dt.timedelta(days=7, hours=6),
        )
    ]
)
_CALENDAR: Final = CalendarView(
    version=3,
    at=_AT,
    standings=[
        FunctionStanding(function="online", open=True, outside="refuse"),
        FunctionStanding(
            function="batch", open=False, outside="queue", reopens_at=_AT + dt.timedelta(hours=9), reason="定期保守"
        ),
    ],
    hours=[OpenHours(function="online", days=["mon", "tue", "wed", "thu", "fri"], open="08:00", close="20:00")],
    stops=[],
    holidays=[dt.date(2027, 1, 1)],
)

ROUTES: Final = (
    Route(
        "GET",
        "/notices",
        "listNotices",
        "お知らせ。Notices of the operator, the newest first; withdrawn ones stay.",
        _ANY,
        listing,
        Priority.COUNTER,
        params=NoticesParams,
        reply=Notices,
        shows=(Example("A planned stop that nobody here has read.", _SHOWN),),
    ),
    Route(
        "POST",
        "/notices/{notice}/read",
        "readNotice",
        "既読。Say that the agency has read a notice; a repeat changes nothing.",
        _ANY,
        read,
        Priority.COUNTER,
        reply=NoticeRead,
        problems=("not_found", "cell_restored"),
        shows=(Example("A receipt.", NoticeRead(id=_ID, read=True)),),
    ),
    Route(
        "GET",
        "/calendar",
        "getCalendar",
        "運用時間。Service hours by function, and how each stands now.",
        _ANY,
        calendar,
        Priority.COUNTER,
        reply=CalendarView,
        shows=(Example("Batch is closed for maintenance.", _CALENDAR),),
    ),
)
