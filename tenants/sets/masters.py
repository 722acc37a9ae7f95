"""Set functions of the master data (配信マスター) and of notices (お知らせ), as an exchange reads and answers them.

Both belong to the operator and hold nothing about a person. What an agency has read is entered in its own name alone.
"""

import datetime as dt
import uuid
from dataclasses import dataclass

from chukan.tenants.masters import Master
from chukan.tenants.sets.common import SetCaller


@dataclass(frozen=True, slots=True)
class NoticeSeen:
    """A notice as one agency sees it."""

    id: uuid.UUID
    at: dt.datetime
    sort: str
    title: str
    text: str
    starts_at: dt.datetime | None
    ends_at: dt.datetime | None
    withdrawn_at: dt.datetime | None
    read_at: dt.datetime | None
    """When the agency said that it has read it."""


class MasterSets(SetCaller):
    """Set functions of what the operator tells everybody."""

    async def master(self, digest: bytes) -> Master | None:
        """Return a version of the master data by the digest of its bytes, None where this cell has none."""
        rows = await self._call("master_get", digest)
        return Master(digest, **rows[0]) if rows else None

    async def notices(self, agency: int, body: str, after: uuid.UUID | None, limit: int) -> list[NoticeSeen]:
        """Return the notices to a body, the newest first, behind ``after``; 1…101 of them."""
        return [NoticeSeen(**row) for row in await self._call("notices", agency, body, after, limit)]

    async def mark_notice(self, agency: int, body: str, client: str, notice: uuid.UUID) -> bool:
        """Enter that an agency has read a notice; False where there is none of this id for its body."""
        (row,) = await self._call("notice_mark", agency, body, client, notice)
        return bool(row[0])
