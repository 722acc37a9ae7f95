"""The network's register: agencies, stops, published assessments, answer keys; and what its records look like.

Every function is a job for ``Store``: it takes the connection of the running transaction. Nothing is cached between
jobs, so that a stop or a flag counts for every line that is decided after it was set.
"""

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from chukan.ops.sandbox.admin import (
    AgencyEntry,
    NetworkRecord,
    NetworkRecords,
    PiaEntry,
    StopEntry,
    from_microseconds,
)
from chukan.platform.wire.network import AnswerKey, Instant, KeyReply, Message
from chukan.platform.wire.registrations import Corrected

_PUBLIC_KEY_BYTES: Final = 32


class Known(NamedTuple):
    """An agency in the register."""

    name: str
    route: str
    pia: bool


class RecordFacts(Message, frozen=True):
    """What the network's record says of a request beside the columns of its row; no code of a person."""

    department: str
    affair: str
    procedure: str
    kind: str
    items: list[str]
    asked_at: Instant


class Register:
    """The register as one job sees it; looks every agency up once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._agencies: dict[str, Known | None] = {}
        self._keys: dict[tuple[str, str], bytes | None] = {}
        self._stops: list[tuple[str, str]] | None = None

    def agency(self, code: str) -> Known | None:
        """What is known of an agency (機関), or None."""
        if code not in self._agencies:
            row = self._connection.execute("SELECT name, route, pia FROM agencies WHERE code = ?", (code,)).fetchone()
            self._agencies[code] = None if row is None else Known(row[0], row[1], bool(row[2]))
        return self._agencies[code]

    def is_at(self, code: str, route: str) -> bool:
        """Whether messages of this agency may come over this route."""
        known = self.agency(code)
        return known is not None and known.route == route

    def answer_key(self, agency: str, key: str) -> bytes | None:
        """The public half (32 bytes) of an announced answer key, or None."""
        if (agency, key) not in self._keys:
            row = self._connection.execute(
                "SELECT public FROM answer_keys WHERE agency = ? AND id = ?", (agency, key)
            ).fetchone()
            self._keys[agency, key] = None if row is None else row[0]
        return self._keys[agency, key]

    def stop_reason(self, kind: str, procedure: str) -> str | None:
        """The reason why a line is stopped, or None."""
        if self._stops is None:
            self._stops = self._connection.execute("SELECT kind, procedure FROM stops LIMIT 1000").fetchall()
        for stopped_kind, stopped_procedure in self._stops:
            if stopped_kind in {"", kind} and stopped_procedure in {"", procedure}:
                return "procedure_stopped" if stopped_procedure else "kind_stopped"
        return None


def put_agencies(connection: sqlite3.Connection, entries: Iterable[AgencyEntry]) -> int:
    """Add agencies or replace what is known of them; returns how many."""
    return connection.executemany(
        "INSERT INTO agencies (code, name, route, pia) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (code) DO UPDATE SET name = excluded.name, route = excluded.route, pia = excluded.pia",
        [(entry.code, entry.name, entry.route, entry.pia) for entry in entries],
    ).rowcount


def add_agencies(connection: sqlite3.Connection, entries: Iterable[AgencyEntry]) -> int:
    """Add the agencies that are not known yet; what was set since by an administrator stays. Returns how many."""
    return connection.executemany(
        "INSERT INTO agencies (code, name, route, pia) VALUES (?, ?, ?, ?) ON CONFLICT (code) DO NOTHING",
        [(entry.code, entry.name, entry.route, entry.pia) for entry in entries],
    ).rowcount


def put_stops(connection: sqlite3.Connection, stops: Sequence[StopEntry]) -> int:
    """Replace the stops in force (the core's kill switch); returns how many stand now."""
    connection.execute("DELETE FROM stops")
    rows = {(stop.kind or "", stop.procedure or "") for stop in stops}
    connection.executemany("INSERT INTO stops (kind, procedure) VALUES (?, ?)", sorted(rows))
    return len(rows)


def put_pia(connection: sqlite3.Connection, flags: Iterable[PiaEntry]) -> int:
    """Set whether assessments are published (28条); returns how many known agencies were named."""
    return connection.executemany(
        "UPDATE agencies SET pia = ? WHERE code = ?", [(flag.published, flag.agency) for flag in flags]
    ).rowcount


def put_keys(connection: sqlite3.Connection, route: str, keys: Sequence[AnswerKey], now: int) -> list[bytes]:
    """Take announced answer keys; an id never changes its key (``refused`` otherwise)."""
    register = Register(connection)
    return [msgspec.json.encode(_put_key(connection, register, route, key, now)) for key in keys]


def _put_key(connection: sqlite3.Connection, register: Register, route: str, key: AnswerKey, now: int) -> KeyReply:
    if not register.is_at(key.agency, route):
        return KeyReply(id=key.id, status="refused", reason="not_your_agency")
    if len(key.public) != _PUBLIC_KEY_BYTES:
        return KeyReply(id=key.id, status="refused", reason="bad_key")
    held = connection.execute(
        "INSERT INTO answer_keys (agency, id, public, at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (agency, id) DO UPDATE SET at = at RETURNING public",
        (key.agency, key.id, key.public, now),
    ).fetchall()
    if held[0][0] != key.public:
        return KeyReply(id=key.id, status="refused", reason="id_reused")
    return KeyReply(id=key.id, status="accepted")


# ---------------------------------------------------------------- records

_RECORD: Final = (
    "SELECT e.position, e.reference, e.request, e.inquirer, e.provider, e.facts, e.decided_at, e.outcome, e.reason, "
    "e.withheld, e.expires_at, e.notified_at, e.provided_at, e.closed_at, e.delivered_at, e.management, "
    "i.name AS inquirer_name, p.name AS provider_name "
    "FROM exchanges e LEFT JOIN agencies i ON i.code = e.inquirer LEFT JOIN agencies p ON p.code = e.provider "
    "WHERE e.position > ? ORDER BY e.position LIMIT ?"
)
_correction: Final = msgspec.json.Decoder(Corrected)
_facts: Final = msgspec.json.Decoder(RecordFacts)


def records(connection: sqlite3.Connection, after: int, limit: int) -> NetworkRecords:
    """A page of the network's own records in the order in which it decided (REC-01, REC-06)."""
    cursor = connection.execute(_RECORD, (after, limit))
    names = [column[0] for column in cursor.description]
    page = [_corrected(connection, _record(dict(zip(names, row, strict=True)))) for row in cursor.fetchall()]
    return NetworkRecords(records=page, next=page[-1].position if len(page) == limit else None)


def _corrected(connection: sqlite3.Connection, record: NetworkRecord) -> NetworkRecord:
    """The record with what the parties corrected since, in the order in which they said so (REC-04)."""
    rows = connection.execute(
        "SELECT body FROM corrections WHERE position = ? ORDER BY at, id LIMIT 1000", (record.position,)
    ).fetchall()
    for (body,) in rows:
        named = msgspec.structs.asdict(_correction.decode(body))
        changes = {name: value for name, value in named.items() if value is not None}
        record = msgspec.structs.replace(record, **changes)
    return record


def _record(row: dict[str, object]) -> NetworkRecord:
    facts = _facts.decode(_bytes(row["facts"]))
    management = row["management"]
    instants = {
        name: None if row[name] is None else from_microseconds(_integer(row[name]))
        for name in ("expires_at", "notified_at", "provided_at", "closed_at", "delivered_at")
    }
    return NetworkRecord(
        position=_integer(row["position"]),
        reference=uuid.UUID(bytes=_bytes(row["reference"])),
        request=uuid.UUID(bytes=_bytes(row["request"])),
        inquirer=str(row["inquirer"]),
        inquirer_name=str(row["inquirer_name"] or ""),
        provider=str(row["provider"]),
        provider_name=str(row["provider_name"] or ""),
        department=facts.department,
        affair=facts.affair,
        procedure=facts.procedure,
        kind=facts.kind,
        items=facts.items,
        asked_at=facts.asked_at,
        decided_at=from_microseconds(_integer(row["decided_at"])),
        outcome=None if row["outcome"] is None else str(row["outcome"]),
        reason=None if row["reason"] is None else str(row["reason"]),
        withheld=bool(row["withheld"]),
        pia_refusal=row["reason"] == PIA_UNPUBLISHED,
        management_code=None if management is None else _bytes(management).hex(),
        **instants,
    )


PIA_UNPUBLISHED: Final = "pia_unpublished"


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a column does not hold bytes")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a column does not hold a number")
    return value
