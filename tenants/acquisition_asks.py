"""Requests to acquire a code (符号取得の依頼, 施行令26条3項) as the provider reads them by door 1, and their form.

The four facts (氏名・生年月日・性別・住所) rest sealed under the agency's own data key, at most for ``KEEP``. Nothing
here writes, and nothing here may put a fact into a log or an exception.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Final

from chukan.tenants.partition import Partition, Record
from chukan.tenants.retention import FACTS_DAYS
from chukan.tenants.sealing import AgencyKeys

KEEP: Final = dt.timedelta(days=FACTS_DAYS)
"""How long the facts of a request rest, whatever became of it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, opened for its own agency; ``content`` is what the exchange sealed."""

    id: uuid.UUID
    state: str
    content: bytes
    received_at: dt.datetime
    decided_at: dt.datetime | None


def seal_ask(keys: AgencyKeys, ask: uuid.UUID, content: bytes) -> bytes:
    """Seal a request's content for its row."""
    return keys.seal("notice", _row(ask), content)


def _row(ask: uuid.UUID) -> bytes:
    return ask.bytes + b"acquisition ask"


async def listed(
    partition: Partition, keys: AgencyKeys, *, since: dt.datetime, state: str = "open", limit: int = 1000
) -> list[Ask]:
    """The requests in a state that came after ``since``, oldest first."""
    rows = await partition.fetch(
        f"SELECT id, state, sealed, received_at, decided_at FROM {partition.table('acquisition_asks')}"
        " WHERE state = $1 AND received_at >= $2 ORDER BY received_at, id LIMIT $3",
        state,
        since,
        limit,
    )
    return [_opened(keys, row) for row in rows]


async def get(partition: Partition, keys: AgencyKeys, ask: uuid.UUID, *, since: dt.datetime) -> Ask | None:
    """The named request, unless it is unknown or past its time."""
    row = await partition.fetchrow(
        f"SELECT id, state, sealed, received_at, decided_at FROM {partition.table('acquisition_asks')}"
        " WHERE id = $1 AND received_at >= $2",
        ask,
        since,
    )
    return None if row is None else _opened(keys, row)


def _opened(keys: AgencyKeys, row: Record) -> Ask:
    return Ask(
        id=row["id"],
        state=row["state"],
        content=keys.open("notice", _row(row["id"]), row["sealed"]),
        received_at=row["received_at"],
        decided_at=row["decided_at"],
    )
