"""A service of notices that lives in memory and remembers what it was asked."""

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

from chukan.errors import Problem
from chukan.platform.wire.notices import CalendarView, NoticeRead, Notices
from chukan.tenants.directory import AgencyRow, ClientRow


@dataclass
class Board:
    """Knows no notice but ``known``."""

    known: uuid.UUID | None = None
    calls: list[Any] = field(default_factory=list)

    async def list(self, agency: AgencyRow, after: uuid.UUID | None, limit: int) -> Notices:
        self.calls.append(("notices", agency.code, after, limit))
        return Notices(notices=[])

    async def read(self, agency: AgencyRow, client: ClientRow, notice: uuid.UUID) -> NoticeRead:
        self.calls.append(("read notice", agency.code, client.id, notice))
        if notice != self.known:
            raise Problem("not_found")
        return NoticeRead(id=notice, read=True)

    def calendar(self, agency: AgencyRow) -> CalendarView:
        self.calls.append(("calendar", agency.code))
        at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
        return CalendarView(version=0, at=at, standings=[], hours=[], stops=[], holidays=[])
