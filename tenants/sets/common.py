"""What all set functions share on this side: rows to columns, one statement with a deadline, results in order.

Invariant: one call is one statement and one commit, tried once more when its connection breaks. Past its deadline the
connection is dropped, never cancelled: a cancel would end the wait for the other centre and make an unsafe commit
visible.
"""

import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import asyncpg

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Pool, bounded, translate
from chukan.tenants.rows import Grant, MessageRow, RecordRow
from chukan.tenants.states import Side

T = TypeVar("T")
Record = asyncpg.Record

CHANNELS: Final = {Side.INQUIRER: "chukan_inquirer", Side.PROVIDER: "chukan_provider"}
"""The channel on which each side's hints go."""

CALL_TIMEOUT_S: Final = 30.0
"""Commits wait 2-12 s while a dying standby is dropped."""
_LOST: Final = "no_primary"

UNGUARDED: Final = frozenset({
    # what only reads
    "opening", "inquiry_views", "batch_progress", "read_requests", "find_codes", "lookup", "provision_views", "backlog",
    "agency_backlog", "copy_ages", "sequencer_age", "current_snapshot", "snapshot_number",
    "open_lines",
    "body_links", "evidence_due", "evidence_signed", "evidence_last", "evidence_leaves", "evidence_tiles",
    "evidence_age", "map_pages", "witness_map", "witness_recall", "witness_all", "evidence_restored", "logs_aside",
    "master_get", "notices",
    "operations_age", "operations_grown", "operations_signed", "operations_last", "operations_leaves",
    "operations_tiles", "operations_restored",
    # the cell's own affairs, and giving back what is held
    "snapshot_take", "snapshot_confirm", "canary_sing", "release",
})  # fmt: skip
"""Functions that no guard stands before: a cell that was restored and is not opened yet has them all the same."""

_RECORD_COLUMNS: Final = ("id", "label", "month", "sealed", "commitment", "amends")


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """The signed snapshot of common data that is in force in the cell."""

    number: int
    body: bytes
    signature: bytes
    key: str
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class CommonRow:
    """A signed snapshot of common data that a cell has: the one in force, or one that waits for its time."""

    number: int
    body: bytes | None
    """None where the caller said that it has this number's."""
    signature: bytes
    key: str
    at: dt.datetime
    effective_at: dt.datetime | None
    """None for one that was put in force at once."""
    confirmed: bool
    """Whether every cell has it: before that it never becomes due."""
    in_force: bool
    wait_s: float | None
    """Seconds, by the cell's own clock, until a confirmed one that waits is due."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many open lines a side has in a state, and since when the oldest of them is due."""

    side: Side
    state: int
    count: int
    oldest_due: dt.datetime


@dataclass(frozen=True, slots=True)
class Opening:
    """How often a cell was restored, and since when its present state is all that there was (DESIGN §7)."""

    epoch: int
    """1 for a cell that was never restored; settings that name a later one say that it is not opened yet."""
    opened_at: dt.datetime
    """By the cell's clock; the beginning of time in epoch 1."""

    @classmethod
    def of(cls, row: Record) -> "Opening":
        """Make it of a row of ``chukan.opening()``; the driver gives the beginning of time without a zone."""
        at: dt.datetime = row["opened_at"]
        return cls(row["epoch"], at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC))


@dataclass(frozen=True, slots=True)
class Expired:
    """Records of one month that were deleted when their seven years were over."""

    agency: int
    month: dt.date
    count: int
    at: dt.datetime
    """When the last of them went."""


@dataclass(frozen=True, slots=True)
class CopyAge:
    """When an agency's copies of a kind last changed or were loaded."""

    agency: int
    kind: str
    at: dt.datetime


class Kept(NamedTuple):
    """A message that is kept where the row at a place (from 1) gets a word."""

    place: int
    word: str
    agency: int
    message: MessageRow | None


class _Keeps(Protocol):
    @property
    def agency(self) -> int: ...


def kept(word: str, rows: Sequence[_Keeps], name: str = "message") -> list[Kept]:
    """Return the rows' messages, each kept where its row gets the word."""
    return [Kept(place, word, row.agency, getattr(row, name)) for place, row in enumerate(rows, 1)]


class SetCaller:
    """Calls set functions on the pool of the broker's login."""

    def __init__(self, pool: Pool, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._guard: Callable[[], Awaitable[None]] | None = None

    def guard(self, admit: Callable[[], Awaitable[None]]) -> None:
        """Ask ``admit`` before each call that changes what agencies have; it raises ``Problem`` where it may not."""
        self._guard = admit

    async def _call(self, function: str, *columns: object) -> list[Record]:
        """Run one function as one statement and return its rows; errors become problems."""
        if self._guard is not None and function not in UNGUARDED:
            await self._guard()
        places = ",".join(f"${n}" for n in range(1, len(columns) + 1))
        return await self._fetch(f"SELECT * FROM chukan.{function}({places})", *columns)

    async def _fetch(self, sql: str, *values: object) -> list[Record]:
        try:
            return await self._fetch_once(sql, *values)
        except Problem as problem:
            if problem.code != _LOST:
                raise
        # The connection broke, or there was none: once more, at whoever leads now. Whether the first try had its effect
        # is not known, and need not be: every set function finds what was done before by a statement that writes.
        return await self._fetch_once(sql, *values)

    async def _fetch_once(self, sql: str, *values: object) -> list[Record]:
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                return await bounded(connection, connection.fetch(sql, *values), self._timeout_s)
        except TimeoutError:
            raise Problem("busy", retry_after_s=1) from None
        except DRIVER_ERRORS as error:
            raise translate(error) from None

    async def _words(self, function: str, *columns: object) -> list[str]:
        """Run a function that gives one word a row."""
        return [row[0] for row in await self._call(function, *columns)]

    async def _words_keeping(self, messages: Sequence[Kept], function: str, *columns: object) -> list[str]:
        """Run such a function and keep the messages of the rows that it gives their word, in one commit."""
        keeping = _kept_columns(messages)
        if keeping is None:
            return await self._words(function, *columns)
        if self._guard is not None and function not in UNGUARDED:
            await self._guard()
        first = len(columns) + 1
        places = ",".join(f"${n}" for n in range(1, first))
        more = ",".join(f"${n}" for n in range(first, first + len(keeping)))
        # What is kept depends on the words, and is given back with them: so the function is done before.
        sql = (
            "WITH done AS MATERIALIZED (SELECT array_agg(d.word ORDER BY d.n) AS words"
            f" FROM chukan.{function}({places}) WITH ORDINALITY d(word, n))"
            f" SELECT unnest(chukan.keep_messages(done.words, {more})) FROM done"
        )
        return [row[0] for row in await self._fetch(sql, *columns, *keeping)]


def columns(rows: Sequence[object], *names: str) -> list[list[Any]]:
    """Return the named attributes of the rows as one list a column."""
    return [[get(row) for row in rows] for get in map(attrgetter, names)]


def _kept_columns(messages: Sequence[Kept]) -> list[list[Any]] | None:
    """Return the columns of ``keep_messages``; None where there is nothing to keep."""
    given = [(each, each.message) for each in messages if each.message is not None]
    if not given:
        return None
    lists = {(each.agency, row.list): row.list_sealed for each, row in given if row.list is not None}
    return [
        [agency for agency, _ in lists],
        [name for _, name in lists],
        list(lists.values()),
        *columns([each for each, _ in given], "place", "word", "agency"),
        *columns([row for _, row in given], "id", "line", "list", "sealed"),
    ]


def record_columns(records: Iterable[RecordRow | None]) -> list[list[Any]]:
    """Return the six columns of records; None stands in each where a row has none."""
    given = list(records)
    return [[None if row is None else get(row) for row in given] for get in map(attrgetter, _RECORD_COLUMNS)]


def grant_columns(grants: Sequence[Grant], side: Side) -> list[list[int]]:
    """Return shards and epochs; ``ValueError`` for a grant of the other side."""
    if any(grant.side is not side for grant in grants):
        raise ValueError("a grant of the other side")
    return [[grant.shard for grant in grants], [grant.epoch for grant in grants]]


def in_order(rows: Iterable[Record], count: int) -> list[Record | None]:
    """Return rows that bear their position (``n`` from 1) in that order; None where there is none."""
    found: list[Record | None] = [None] * count
    for row in rows:
        found[row["n"] - 1] = row
    return found


def same_length(results: list[T], rows: Sequence[object]) -> list[T]:
    """Return the results once it is sure that there is one for each row (a check in pairs with the SQL)."""
    if len(results) != len(rows):
        raise AssertionError("a set function lost a row")
    return results
