"""The rows of a simulated cell, and the transaction that changes them: all of it or nothing.

One dictionary for each table that the SQL has (``tenants/sql/pre``), by the same keys. Rows are tuples that are
replaced, never changed, so that a transaction undoes itself by putting the old ones back. This module knows no rule
of any flow.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from chukan.tenants.rows import RecordRow
from chukan.tenants.sets import CommonRow, SnapshotRow
from chukan.tenants.states import SHARDS, LinkStatus, Side

K = TypeVar("K")
V = TypeVar("V")
LineKey = tuple[int, uuid.UUID]
BEGINNING: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


class InquiryLine(NamedTuple):
    """A row of ``inquiry_work``."""

    agency: int
    id: uuid.UUID
    batch: uuid.UUID
    ordinal: int
    state: int
    outcome: int
    reason: str | None
    outbox: bool
    due: dt.datetime
    deadline: dt.datetime
    tries: int
    updated_at: dt.datetime


class ProvisionLine(NamedTuple):
    """A row of ``provision_work``."""

    agency: int
    id: uuid.UUID
    state: int
    outcome: int
    reason: str | None
    outbox: bool
    due: dt.datetime
    deadline: dt.datetime
    tries: int
    updated_at: dt.datetime


class Query(NamedTuple):
    """A row of ``queries``."""

    batch: uuid.UUID
    person: bytes | None
    request: bytes


class Provision(NamedTuple):
    """A row of ``provisions``."""

    person: bytes | None
    notice: bytes


class Key(NamedTuple):
    """A row of ``idempotency``."""

    body: bytes
    outcome: uuid.UUID
    tries: int


class UsedPermit(NamedTuple):
    """A row of ``permits_used``."""

    message: uuid.UUID
    until: dt.datetime


class Event(NamedTuple):
    """A row of ``events``."""

    id: uuid.UUID
    side: int
    before: int | None
    after: int


class Counted(NamedTuple):
    """A row of ``statistics``."""

    month: dt.date
    side: int
    outcome: int
    amendment: bool
    records: int


class Leaf(NamedTuple):
    """A row of ``log``."""

    seq: int
    record: uuid.UUID
    label: bytes
    data: bytes
    hash: bytes


class CodeEntry(NamedTuple):
    """A row of ``codes``."""

    person: bytes
    status: LinkStatus
    version: int
    addressee: bytes
    request: uuid.UUID | None = None
    number_digest: bytes | None = None
    number: bytes | None = None
    code_digest: bytes | None = None
    code: bytes | None = None


class CopyEntry(NamedTuple):
    """A row of ``copies``."""

    id: uuid.UUID
    person: bytes
    kind: str
    period: str
    effective_from: dt.date
    layout: int
    body: bytes
    review: bool


class Lease(NamedTuple):
    """A row of ``leases``; its ``until`` stands in ``CellTables.terms``, once for all that an owner holds."""

    epoch: int = 0
    owner: str | None = None


class Waiting(NamedTuple):
    """A row of ``to_sequence``."""

    agency: int
    record: uuid.UUID
    at: dt.datetime


@dataclass
class AgencyTables:
    """One agency's own schema, and its row of ``agencies``."""

    number: int
    generation: int = 1
    hold_version: int = 0
    opened_at: dt.datetime = BEGINNING
    open: bool = True
    head: int = 0
    queries: dict[uuid.UUID, Query] = field(default_factory=dict)
    permits: dict[uuid.UUID, bytes] = field(default_factory=dict)
    answers: dict[uuid.UUID, bytes] = field(default_factory=dict)
    provisions: dict[uuid.UUID, Provision] = field(default_factory=dict)
    records: dict[uuid.UUID, RecordRow] = field(default_factory=dict)
    outbox: dict[uuid.UUID, bytes] = field(default_factory=dict)
    inbox: dict[uuid.UUID, int] = field(default_factory=dict)
    idempotency: dict[bytes, Key] = field(default_factory=dict)
    permits_used: dict[bytes, UsedPermit] = field(default_factory=dict)
    codes: dict[bytes, CodeEntry] = field(default_factory=dict)
    holds: dict[tuple[bytes | None, str | None], bool] = field(default_factory=dict)
    copies: dict[tuple[bytes, str], list[CopyEntry]] = field(default_factory=dict)
    drafts: dict[uuid.UUID, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    statistics: list[Counted] = field(default_factory=list)
    log: list[Leaf] = field(default_factory=list)


@dataclass
class CellTables:
    """Everything of one cell."""

    name: str
    agencies: dict[int, AgencyTables] = field(default_factory=dict)
    inquiries: dict[LineKey, InquiryLine] = field(default_factory=dict)
    provisions: dict[LineKey, ProvisionLine] = field(default_factory=dict)
    to_sequence: dict[int, Waiting] = field(default_factory=dict)
    log_aside: dict[int, uuid.UUID] = field(default_factory=dict)
    """Agencies whose log waits for a record that is not there, with that record."""
    leases: dict[int, list[Lease]] = field(default_factory=lambda: {int(side): [Lease()] * SHARDS for side in Side})
    terms: dict[tuple[int, str], dt.datetime] = field(default_factory=dict)
    workers: dict[tuple[int, str], dt.datetime] = field(default_factory=dict)
    epoch: int = 1
    snapshot: SnapshotRow | None = None
    waiting: dict[int, CommonRow] = field(default_factory=dict)
    """Common data that wait for their time, by number; ``in_force`` and ``wait_s`` are of no account here."""
    numbers: int = 0
    """The last value of the identity column of ``to_sequence``; like every sequence it is not rolled back."""

    @property
    def snapshot_number(self) -> int:
        """Number of the common data in force, 0 before there is any."""
        return 0 if self.snapshot is None else self.snapshot.number

    def due(self, now: dt.datetime) -> CommonRow | None:
        """What is due and not yet taken."""
        over = [row for row in self.waiting.values() if row.confirmed and row.effective_at and row.effective_at <= now]
        return max(over, key=lambda row: row.number, default=None)

    def held_snapshot(self, now: dt.datetime) -> int:
        """The number in force; -1, which nothing was decided on, where another one is due."""
        return self.snapshot_number if self.due(now) is None else -1

    def agency(self, number: int) -> AgencyTables:
        """One agency's tables."""
        return self.agencies[number]


class Transaction:
    """What was changed, so that it can be undone as a whole."""

    def __init__(self, now: dt.datetime) -> None:
        self.now = now
        self._undo: list[Callable[[], object]] = []

    @property
    def wrote(self) -> bool:
        """Whether anything was changed."""
        return bool(self._undo)

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        """Insert or replace a row."""
        if key in table:
            self._undo.append(partial(table.__setitem__, key, table[key]))
        else:
            self._undo.append(partial(table.__delitem__, key))
        table[key] = value

    def delete(self, table: dict[K, V], key: K) -> None:
        """Delete a row."""
        self._undo.append(partial(table.__setitem__, key, table.pop(key)))

    def append(self, table: list[V], row: V) -> None:
        """Add a row to a table that is only added to."""
        table.append(row)
        self._undo.append(table.pop)

    def replace(self, table: list[V], place: int, row: V) -> None:
        """Replace a row of a table that is a list."""
        self._undo.append(partial(table.__setitem__, place, table[place]))
        table[place] = row

    def set(self, row: object, name: str, value: object) -> None:
        """Change one column of a row that is an object."""
        self._undo.append(partial(setattr, row, name, getattr(row, name)))
        setattr(row, name, value)

    def roll_back(self) -> None:
        """Put everything back as it was."""
        while self._undo:
            self._undo.pop()()
