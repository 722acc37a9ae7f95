"""What an agency is handed when it leaves (引渡し): copies, holds, flags, links, records, log, statistics.

All of it is opened with the agency's own keys. Rows are read in pages through door 1, each page a transaction of its
own, by key: a row that stays unchanged meanwhile comes exactly once. A row that does not open is named by its id and
marked, so that one altered row neither hides the others nor passes for a good one.

Invariant: everything here acts for one agency. Opened rows go to the caller and nowhere else.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

import msgspec

from chukan.tenants.copies import open_body, open_hit
from chukan.tenants.partition import TABLES, Partition
from chukan.tenants.records import RecordError, open_whole, record_row
from chukan.tenants.rows import CopyHit
from chukan.tenants.sealing import AgencyKeys, SealError
from chukan.tenants.states import LinkStatus, Outcome, Side

PAGE_ROWS: Final = 1_000

Door = Callable[[], AbstractAsyncContextManager[Partition]]
"""Opens one transaction for the agency."""

_Fields = dict[str, Any]


class HandedRow(NamedTuple):
    """One row for the agency: JSON in one line, or only its key where it could not be opened."""

    table: str
    row: bytes
    readable: bool


class _Reader(NamedTuple):
    """How a table is read: ``sql`` selects the page after the key given by its parameters, in the order of the key."""

    sql: str
    start: tuple[Any, ...]
    key: tuple[str, ...]
    form: Callable[[AgencyKeys, Mapping[str, Any]], _Fields]


def _copy(keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    hit = CopyHit(row["id"], row["layout"], row["effective_from"], row["period"], row["body"], row["review"])
    body = open_hit(keys, row["person"], row["kind"], hit)
    return {
        "addressee": body.addressee,
        **{name: row[name] for name in ("kind", "period", "effective_from", "layout", "review")},
        "items": msgspec.Raw(body.items),
        "registered_at": row["registered_at"],
        "source": row["source"],
    }


def _hold(keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    addressee = None
    if row["addressee"] is not None:
        addressee = keys.open("addressee", row["person"], row["addressee"]).decode()
    elif row["copy"] is not None:
        addressee = open_body(keys, row["copy"], row["body"]).addressee
    # A person of whom the agency has neither link nor copy is known by the keyed digest alone.
    return {"person": row["person"], "addressee": addressee, "kind": row["kind"], "at": row["at"]}


def _own_flag(keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    return _hold(keys, row) | {"period": row["period"], "effective_from": row["effective_from"]}


def _link(keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    code = None if row["code"] is None else keys.open("code", row["code_digest"], row["code"])
    return {
        "addressee": keys.open("addressee", row["person"], row["addressee"]).decode(),
        "status": LinkStatus(row["status"]).name.lower(),
        "version": row["version"],
        "code": code,
        "at": row["at"],
    }


def _record(keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    opened = open_whole(keys, record_row(row))
    # With the salt the record can be held against its leaf in the log by anybody.
    return {"record": opened.fields, "salt": opened.salt, "commitment": row["commitment"], "label": row["label"]}


def _leaf(_keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    return {name: row[name] for name in ("seq", "record", "label", "leaf_data", "leaf_hash", "at")}


def _count(_keys: AgencyKeys, row: Mapping[str, Any]) -> _Fields:
    return {
        "month": row["month"],
        "side": Side(row["side"]).name.lower(),
        "outcome": Outcome(row["outcome"]).word,
        "amendment": row["amendment"],
        "count": row["count"],
    }


_READERS: Final[Mapping[str, _Reader]] = {
    "copies": _Reader(
        "SELECT * FROM {copies} WHERE (kind, id) > ($1, $2) ORDER BY kind, id LIMIT $3",
        ("", uuid.UUID(int=0)),
        ("kind", "id"),
        _copy,
    ),
    "holds": _Reader(
        "SELECT h.*, coalesce(h.person, '') AS by_person, coalesce(h.kind, ' ') AS by_kind, c.addressee,"
        " f.id AS copy, f.body FROM {holds} h LEFT JOIN {codes} c ON c.person = h.person"
        " LEFT JOIN LATERAL (SELECT o.id, o.body FROM {copies} o WHERE o.person = h.person LIMIT 1) f ON true"
        " WHERE (coalesce(h.person, ''), coalesce(h.kind, ' ')) > ($1, $2)"
        " ORDER BY coalesce(h.person, ''), coalesce(h.kind, ' ') LIMIT $3",
        (b"", ""),
        ("by_person", "by_kind"),
        _hold,
    ),
    "own_information_flags": _Reader(
        "SELECT h.*, coalesce(h.person, '') AS by_person, coalesce(h.kind, ' ') AS by_kind,"
        " coalesce(h.period, ' ') AS by_period, coalesce(h.effective_from, '-infinity') AS by_day, c.addressee,"
        " f.id AS copy, f.body FROM {own_information_flags} h LEFT JOIN {codes} c ON c.person = h.person"
        " LEFT JOIN LATERAL (SELECT o.id, o.body FROM {copies} o WHERE o.person = h.person LIMIT 1) f ON true"
        " WHERE (coalesce(h.person, ''), coalesce(h.kind, ' '), coalesce(h.period, ' '),"
        " coalesce(h.effective_from, '-infinity')) > ($1, $2, $3, $4)"
        " ORDER BY coalesce(h.person, ''), coalesce(h.kind, ' '), coalesce(h.period, ' '),"
        " coalesce(h.effective_from, '-infinity') LIMIT $5",
        (b"", "", "", dt.date.min),
        ("by_person", "by_kind", "by_period", "by_day"),
        _own_flag,
    ),
    "codes": _Reader("SELECT * FROM {codes} WHERE person > $1 ORDER BY person LIMIT $2", (b"",), ("person",), _link),
    "records": _Reader(
        "SELECT * FROM {records} WHERE id > $1 ORDER BY id LIMIT $2", (uuid.UUID(int=0),), ("id",), _record
    ),
    "log": _Reader("SELECT * FROM {log} WHERE seq > $1 ORDER BY seq LIMIT $2", (-1,), ("seq",), _leaf),
    "statistics": _Reader(
        "SELECT month, side, outcome, amendment, sum(count)::bigint AS count FROM {statistics}"
        " WHERE (month, side, outcome, amendment) > ($1, $2, $3, $4)"
        " GROUP BY month, side, outcome, amendment ORDER BY month, side, outcome, amendment LIMIT $5",
        (dt.date.min, 0, 0, False),
        ("month", "side", "outcome", "amendment"),
        _count,
    ),
}

HANDED: Final = tuple(_READERS)
"""The tables that are handed over, in this order."""


async def read_rows(door: Door, keys: AgencyKeys, table: str) -> AsyncIterator[HandedRow]:
    """Yield all rows of one of ``HANDED``, opened.

    Raises:
        Problem: as the door does.
        KeyError: no such table.
    """
    reader = _READERS[table]
    after = reader.start
    while True:
        async with door() as partition:
            sql = reader.sql.format_map({name: partition.table(name) for name in TABLES})
            rows = await partition.fetch(sql, *after, PAGE_ROWS)
        for row in rows:
            yield _handed(table, reader, keys, dict(row))
        if len(rows) < PAGE_ROWS:
            return
        after = tuple(rows[-1][name] for name in reader.key)


def _handed(table: str, reader: _Reader, keys: AgencyKeys, row: Mapping[str, Any]) -> HandedRow:
    try:
        return HandedRow(table, _line(reader.form(keys, row)), readable=True)
    except (SealError, RecordError, UnicodeDecodeError):
        return HandedRow(table, _line({"unreadable": {name: row[name] for name in reader.key}}), readable=False)


def _line(fields: _Fields) -> bytes:
    at_utc = {name: value.astimezone(dt.UTC) for name, value in fields.items() if isinstance(value, dt.datetime)}
    return msgspec.json.encode({**fields, **at_utc}, order="sorted")
