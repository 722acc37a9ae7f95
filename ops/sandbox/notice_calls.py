"""Calls of the agency API about notices (お知らせ) and service hours (運用時間). Part of ``AgencyClient``."""

import uuid

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.notices import CalendarView, NoticeRead, Notices


class NoticeCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def notices(self, *, after: uuid.UUID | None = None, limit: int = 50) -> Notices:
        """A page of the notices to the agency's body, the newest first."""
        params = {"limit": str(limit)} if after is None else {"limit": str(limit), "after": str(after)}
        return await self._transport.call(Request("GET", "/notices", params=params), Notices)

    async def read_notice(self, notice: uuid.UUID) -> NoticeRead:
        """Say that the agency has read a notice; may be repeated."""
        return await self._transport.call(Request("POST", f"/notices/{notice}/read"), NoticeRead)

    async def calendar(self) -> CalendarView:
        """The service calendar in force, and how each function stands now."""
        return await self._transport.call(Request("GET", "/calendar"), CalendarView)
