"""Events of one agency's lines (状態の変化): every change of state of both sides, each told, none left out.

An event's number is drawn before its transaction commits, so a lower number may become visible after a higher one: "go
on behind the last number" would lose it. A cursor therefore says *what was visible*: a snapshot of transactions
(``pg_current_snapshot``). Told next is what is visible now and was not then, in the order of the numbers, whatever
else runs and for however long. Which transaction wrote a row stands in the row itself (``xmin``).

So that a read need not go through all events ever written, a cursor has a ``floor``: no event up to it can still be on
its way. A transaction that writes events has its id before it draws a number (it has locked a row by then), so once
every transaction that was on its way when number N had been drawn has ended, N is a floor. At a first start the floor
is the highest number of ten minutes ago, for set functions are stopped after thirty seconds.

On another timeline (a failover) ids of transactions may come again: there everything behind the floor is told again.
In another cell (a move) they mean nothing: there a cursor cannot be gone on from, and the reader is told.

Invariant: an event is told at least once to a reader that goes on from its own cursors; after a break some may come
again, under the same number. Set functions that write events must have no EXCEPTION block: the id of a
subtransaction stands in no snapshot (a test reads their texts).
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final, NamedTuple

from chukan.errors import Problem

if TYPE_CHECKING:
    import datetime as dt

    from chukan.tenants.partition import Partition

PAGE_MAX: Final = 500
CURSOR_CHARS_MAX: Final = 4096

_SNAPSHOT: Final = r"[0-9]{1,18}:[0-9]{1,18}:(?:[0-9]{1,18}(?:,[0-9]{1,18})*)?"
_CURSOR: Final = re.compile(
    rf"([0-9]{{1,9}})/([0-9A-F]{{8}})/([0-9]{{1,18}})/({_SNAPSHOT})(?:/([0-9]{{1,18}})/({_SNAPSHOT}))?"
)
_NOTHING: Final = "3:3:"
"""A snapshot in which no transaction of ours is visible: three is the first that there can be."""

_HERE: Final = "left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline"
# The whole transaction id of a row: its 32 bits, in the epoch in which it lies at most 2^32 before the newest one.
_WROTE: Final = "((s.newest - ((s.newest - e.xmin::text::bigint) & 4294967295))::text::xid8)"
# ``until`` is what is being told now: a snapshot that a page began with, or the one of this statement.
_READ: Final = (
    f"SELECT e.n, e.id, e.side, e.from_state, e.to_state, e.at, {_HERE}, s.until::text AS until, s.newest,"
    " pg_snapshot_xmin(s.until)::text::bigint AS oldest FROM"
    " (SELECT coalesce($5::text::pg_snapshot, t.now) AS until, pg_snapshot_xmax(t.now)::text::bigint AS newest"
    " FROM pg_current_snapshot() t(now)) s"
    " LEFT JOIN LATERAL (SELECT e.* FROM"
    f" (SELECT e.*, {_WROTE} AS wrote FROM {{events}} e WHERE e.agency = $1 AND e.n > greatest($2::bigint, $4)) e"
    " WHERE pg_visible_in_snapshot(e.wrote, s.until) AND NOT pg_visible_in_snapshot(e.wrote, $3::text::pg_snapshot)"
    " ORDER BY e.n LIMIT $6) e ON true ORDER BY e.n"
)


class Cursor(NamedTuple):
    """Where a reader stands: behind all that was visible in ``seen``, and all up to ``upto`` that is in ``until``."""

    generation: int
    """The agency's: it rises when the agency moves to another cell."""
    timeline: str
    floor: int
    seen: str
    upto: int = 0
    until: str | None = None

    def __str__(self) -> str:
        text = f"{self.generation}/{self.timeline}/{self.floor}/{self.seen}"
        return text if self.until is None else f"{text}/{self.upto}/{self.until}"


def parse_cursor(text: str) -> Cursor:
    """Read a cursor that a reader sent back. Raises ``Problem`` invalid_field."""
    found = _CURSOR.fullmatch(text) if len(text) <= CURSOR_CHARS_MAX else None
    if found is None:
        raise Problem("invalid_field", expected="Last-Event-ID: an id of this stream")
    generation, timeline, floor, seen, upto, until = found.groups()
    if not all(_is_snapshot(snapshot) for snapshot in (seen, until) if snapshot is not None):
        raise Problem("invalid_field", expected="Last-Event-ID: an id of this stream")
    return Cursor(int(generation), timeline, int(floor), seen, int(upto or 0), until)


def _is_snapshot(text: str) -> bool:
    """Tell whether the database would read this as a snapshot: ids in rising order between its two ends."""
    oldest, newest, ids = text.split(":")
    going = [int(each) for each in ids.split(",")] if ids else []
    row = [int(oldest), *going, int(newest)]
    return 0 < row[0] <= row[-1] and row == sorted(row) and (not going or going[-1] < row[-1])


class Event(NamedTuple):
    """One step of one line; states are the numbers of its side."""

    n: int
    id: uuid.UUID
    side: int
    before: int | None
    after: int
    at: dt.datetime


class Mark(NamedTuple):
    """A number that becomes a floor once every transaction before ``newest`` has ended; ``highest`` is the next one."""

    n: int
    newest: int
    highest: int


class Page(NamedTuple):
    """Events in the order of their numbers, the cursor behind them, and a mark to come back with."""

    events: list[Event]
    cursor: Cursor
    mark: Mark


async def start(partition: Partition, generation: int) -> Cursor:
    """Return the cursor of now: everything that becomes visible from now on lies behind it."""
    row = await partition.fetchrow(
        f"SELECT pg_current_snapshot()::text AS seen, {_HERE}, coalesce((SELECT e.n FROM {partition.table('events')} e"
        " WHERE e.agency = $1 AND e.at < now() - interval '10 minutes' ORDER BY e.n DESC LIMIT 1), 0) AS n",
        partition.agency,
    )
    assert row is not None  # noqa: S101 - a SELECT without FROM has a row
    return Cursor(generation, row["timeline"], row["n"], row["seen"])


async def read(partition: Partition, cursor: Cursor, mark: Mark | None = None, limit: int = PAGE_MAX) -> Page:
    """Return the next events, at most ``limit``, and the cursor behind them; ``mark`` is the last page's, if any."""
    sql = _READ.format(events=partition.table("events"))
    rows = await partition.fetch(sql, partition.agency, *cursor[2:], limit)
    if rows[0]["timeline"] != cursor.timeline:
        cursor = Cursor(cursor.generation, rows[0]["timeline"], cursor.floor, _NOTHING)
        mark = None
        rows = await partition.fetch(sql, partition.agency, *cursor[2:], limit)
    first = rows[0]
    events = [
        Event(row["n"], row["id"], row["side"], row["from_state"], row["to_state"], row["at"])
        for row in rows
        if row["n"] is not None
    ]
    highest = max([cursor.floor, mark.highest if mark else 0, *(event.n for event in events)])
    if len(events) == limit:
        behind = cursor._replace(upto=events[-1].n, until=first["until"])
        return Page(events, behind, mark or Mark(highest, first["newest"], highest))
    behind = Cursor(cursor.generation, cursor.timeline, cursor.floor, first["until"])
    if mark is not None and first["oldest"] < mark.newest:
        mark = mark._replace(highest=highest)
    else:
        if mark is not None:
            behind = behind._replace(floor=max(cursor.floor, mark.n))
        mark = Mark(highest, first["newest"], highest)
    if not events and cursor.until is not None:
        # The page before ended with the last one of its snapshot: go on to what is visible now.
        return await read(partition, behind, mark, limit)
    return Page(events, behind, mark)
