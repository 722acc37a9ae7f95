"""Notices to the bodies (お知らせ) as they rest in the cells, by the steward's login: published, withdrawn, archived.

Invariant: nothing is deleted; a call may be repeated. What a notice says was checked by whoever made it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Final, Literal, NamedTuple

import asyncpg

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, bounded, translate

Sort = Literal["stop", "resumed", "planned", "incident", "master", "general"]
TIMEOUT_S: Final = 15.0
ROWS_MAX: Final = 1000


class Notice(NamedTuple):
    """A notice to be published."""

    sort: Sort
    title: str
    text: str
    by: str
    bodies: tuple[str, ...] = ()
    """6-digit codes; none: every body."""
    starts_at: dt.datetime | None = None
    ends_at: dt.datetime | None = None


class Archived(NamedTuple):
    """A notice in the archive, and the numbers of the agencies that have read it."""

    id: uuid.UUID
    at: dt.datetime
    sort: str
    title: str
    text: str
    starts_at: dt.datetime | None
    ends_at: dt.datetime | None
    bodies: list[str]
    by: str
    withdrawn_at: dt.datetime | None
    withdrawn_by: str | None
    read_by: list[int]


async def put(cells: Cells, cell: str, notice_id: uuid.UUID, at: dt.datetime, notice: Notice) -> None:
    """Have a notice in one cell. Raises ``Problem`` as a cell says that is away."""
    values = (notice.sort, notice.title, notice.text, notice.starts_at, notice.ends_at, list(notice.bodies), notice.by)
    await _run(cells, cell, "SELECT chukan.notice_put($1,$2,$3,$4,$5,$6,$7,$8,$9)", notice_id, at, *values)


async def withdraw(cells: Cells, notice_id: uuid.UUID, by: str, at: dt.datetime) -> None:
    """Withdraw a notice in every cell; the first withdrawal stays. ``Problem`` not_found."""
    found = []
    for name in sorted(cells.names):
        rows = await _run(cells, name, "SELECT chukan.notice_withdraw($1, $2, $3) AS found", notice_id, by, at)
        found.append(bool(rows[0]["found"]))
    if not any(found):
        raise Problem("not_found")


async def archive(cells: Cells) -> list[Archived]:
    """Return the notices, the newest first, with everybody who has read them in any cell."""
    merged: dict[uuid.UUID, Archived] = {}
    for name in sorted(cells.names):
        for row in await _run(cells, name, "SELECT * FROM chukan.notice_rows($1)", ROWS_MAX):
            found = Archived(**row)
            before = merged.get(found.id)
            if before is not None:
                found = found._replace(read_by=sorted({*before.read_by, *found.read_by}))
            merged[found.id] = found
    return sorted(merged.values(), key=lambda each: (each.at, each.id), reverse=True)


async def _run(cells: Cells, name: str, sql: str, *values: object) -> list[asyncpg.Record]:
    try:
        async with cells.steward(name) as steward:
            rows: list[asyncpg.Record] = await bounded(steward, steward.fetch(sql, *values), TIMEOUT_S)
            return rows
    except DRIVER_ERRORS as error:
        raise translate(error) from None
