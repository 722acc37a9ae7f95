"""Notices (お知らせ) and the service calendar (運用カレンダー): ``GET /notices`` and ``GET /calendar``."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.network import Message

NOTICES_MAX = 100


class NoticesParams(Message, frozen=True, kw_only=True):
    """``?after=&limit=`` of the notices."""

    after: uuid.UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=NOTICES_MAX)] = 50


class NoticeView(Message, frozen=True, kw_only=True):
    """A notice as an agency sees it; one that was withdrawn stays, and says so."""

    id: uuid.UUID
    published_at: dt.datetime
    sort: Literal["stop", "resumed", "planned", "incident", "master", "general"]
    """提供停止, 再開, 計画停止, 障害, 配信マスター, その他."""
    title: str
    text: str
    starts_at: dt.datetime | None = None
    ends_at: dt.datetime | None = None
    withdrawn_at: dt.datetime | None = None
    read_at: dt.datetime | None = None
    """When this agency said that it has read it."""


class Notices(Message, frozen=True, kw_only=True):
    """A page of notices, the newest first."""

    notices: list[NoticeView]
    after: uuid.UUID | None = None
    """Where the next page begins, None at the end."""


class NoticeRead(Message, frozen=True, kw_only=True):
    """What a receipt is answered with."""

    id: uuid.UUID
    read: bool


class FunctionStanding(Message, frozen=True, kw_only=True):
    """How a function stands now."""

    function: Literal["online", "batch"]
    open: bool
    outside: Literal["refuse", "queue"]
    """What happens to what comes while it is closed: refused with the reopening time, or waits for it where it can."""
    reopens_at: dt.datetime | None = None
    reason: str | None = None


class PlannedStop(Message, frozen=True, kw_only=True):
    """A planned stop (計画停止)."""

    functions: list[Literal["online", "batch"]]
    starts_at: dt.datetime
    ends_at: dt.datetime
    reason: str


class OpenHours(Message, frozen=True, kw_only=True):
    """Hours of a function on some days, in Japan's time; ``close`` is not among them."""

    function: Literal["online", "batch"]
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]]
    open: str
    close: str


class CalendarView(Message, frozen=True, kw_only=True):
    """The service calendar in force; a function without hours is always open."""

    version: int
    """Version of the master data; 0 is what the release brings."""
    at: dt.datetime
    standings: list[FunctionStanding]
    hours: list[OpenHours]
    stops: list[PlannedStop]
    holidays: list[dt.date]
