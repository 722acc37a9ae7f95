"""Provision records (情報提供等記録, 番号法23条): made in the commit of a final outcome, read in the log's order.

A record says who asked whom for which items about one person, when, and what came of it; never what was provided. It
rests sealed with its salt; ``commitment`` = SHA-256(0x02 ‖ salt ‖ canonical bytes) stands beside it and in the log, so
that a record that was altered, exchanged or moved shows when it is read. Names of agencies rest as their codes.

Invariant: what is read back commits to exactly the bytes that were recorded, or reading fails as a whole. The person is
named by a label only (命令47条3項). This module must never take content of an answer, nor change or delete a record.
"""

import base64
import binascii
import datetime as dt
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from chukan.chance import Chance
from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.tenants.partition import Partition, Record
from chukan.tenants.rows import RecordRow
from chukan.tenants.sealing import AgencyKeys

SALT_BYTES: Final = 32
PAGE_MAX: Final = 1_000
PERSON_MAX: Final = 10_000
"""Records that one person may be shown at once."""

_COMMITMENT_PREFIX: Final = b"\x02"
_LEAF_BOUND: Final = slice(1, 65)
"""A leaf's data is version ‖ commitment (32) ‖ label (32) ‖ …: the part by which a record is bound to its place."""

Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]
_Position = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]


class RecordFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a record says (番号法23条1項, 命令47条1項). All instants are aware; agencies are their 16-digit codes."""

    id: uuid.UUID
    """The line's own id at this agency; of an amendment, a new one."""
    side: Literal["inquirer", "provider"]
    inquirer: str
    provider: str
    department: str
    """組織: the inquirer's department."""
    affair: str
    procedure: str
    kind: str
    items: list[str]
    """The item codes asked for (項目), never their values."""
    outcome: str
    asked_at: Instant
    """求めの日時."""
    closed_at: Instant
    """Instant of the final outcome at this side."""
    provided_at: Instant | None = None
    """提供の日時; None where nothing was provided."""
    withheld: bool = False
    """不開示 (23条2項): kept from the person."""
    reference: str | None = None
    """The permit's id, by which both sides and the network find the same exchange."""
    reason: str | None = None
    pia_refusal: bool = False
    """28条: refused because the assessment (PIA) is not published."""
    amends: uuid.UUID | None = None
    """The record that this one amends."""
    consent: bool | msgspec.UnsetType = msgspec.UNSET
    """The person's consent was held. Unset, like the two below, it does not stand in the record's bytes at all."""
    on_behalf_of: str | msgspec.UnsetType = msgspec.UNSET
    """委任元 of the inquirer."""
    provider_for: str | msgspec.UnsetType = msgspec.UNSET
    """委任元 of the provider."""


class RecordError(Exception):
    """A record at rest is not the one that was committed to. Holds no value; ``position`` is its place in the log."""

    def __init__(self, position: int | None = None) -> None:
        super().__init__("a provision record does not match its commitment")
        self.position = position


class OpenedRecord(NamedTuple):
    """A record as it was opened: what it says, and salt and canonical bytes, by which anybody holds it to its leaf."""

    fields: RecordFields
    salt: bytes
    canonical: bytes


class StoredRecord(NamedTuple):
    """A record as it was read, with its place in the agency's log once it has one."""

    fields: RecordFields
    position: int | None


class RecordPage(NamedTuple):
    """A page of records and the opaque cursor of the next one."""

    records: list[StoredRecord]
    next: str | None


def canonical_record(fields: RecordFields) -> bytes:
    """Return the one byte form of a record: JSON, members sorted by name, instants in UTC, nothing left out."""
    at_utc = {
        name: instant.astimezone(dt.UTC)
        for name in ("asked_at", "closed_at", "provided_at")
        if (instant := getattr(fields, name)) is not None
    }
    return msgspec.json.encode(msgspec.structs.replace(fields, **at_utc), order="sorted")


def commit(salt: bytes, canonical: bytes) -> bytes:
    """Return a record's commitment, 32 bytes; ``ValueError`` unless the salt has 32 bytes."""
    if len(salt) != SALT_BYTES:
        raise ValueError("a record's salt has 32 bytes")
    return hashlib.sha256(_COMMITMENT_PREFIX + salt + canonical).digest()


def make_record(
    keys: AgencyKeys, chance: Chance, fields: RecordFields, *, person: bytes | None, salt: bytes | None = None
) -> RecordRow:
    """Return a record ready to rest.

    Args:
        keys: the recording agency's.
        chance: draws the salt.
        fields: what it says; checked for its form, so that it can be read again.
        person: the person's addressee digest (32 bytes), or None where this agency knows no such person: then the
            label is the record's own and finds nothing else.
        salt: by which the record commits to what is kept of its messages (``messages.salt_of``); drawn where None.

    Raises:
        ValueError: a field has a wrong form (the text names no value), or ``person`` is no digest.
    """
    label = keys.digest("label", fields.id.bytes) if person is None else keys.label(person)
    return make_amendment(keys, chance, fields, label=label, salt=salt)


def make_amendment(
    keys: AgencyKeys, chance: Chance, fields: RecordFields, *, label: bytes, salt: bytes | None = None
) -> RecordRow:
    """Return a record ready to rest under a label that is known already: that of the record it amends.

    Raises:
        ValueError: a field has a wrong form (the text names no value).
    """
    canonical = canonical_record(fields)
    try:
        _decode(canonical)
    except ValueError:
        raise ValueError("a record has a field of a wrong form") from None
    if salt is None:
        salt = chance.token(SALT_BYTES)
    return RecordRow(
        id=fields.id,
        label=label,
        month=month_of(fields.closed_at),
        sealed=keys.seal("record", fields.id.bytes, salt + canonical),
        commitment=commit(salt, canonical),
        amends=fields.amends,
    )


def record_row(row: Record | Mapping[str, Any]) -> RecordRow:
    """Return the record in a row of ``records``, whatever else was read with it."""
    names = ("id", "label", "month", "sealed", "commitment", "amends")
    return RecordRow(**{name: row[name] for name in names})


def require_leaf(record: RecordRow, leaf_data: bytes, position: int | None) -> None:
    """Refuse a record that is not the one of a leaf; ``RecordError`` with the leaf's position."""
    if leaf_data[_LEAF_BOUND] != record.commitment + record.label:
        raise RecordError(position)


def open_record(keys: AgencyKeys, row: RecordRow) -> RecordFields:
    """Return what a record says; raises as ``open_whole``."""
    return open_whole(keys, row).fields


def open_whole(keys: AgencyKeys, row: RecordRow) -> OpenedRecord:
    """Return a record, once it was shown to be what was committed to.

    Raises:
        RecordError: commitment, id, month or amended record differ from what rests beside the sealed bytes.
        SealError: the bytes do not open under this agency's keys for this record.
    """
    opened = keys.open("record", row.id.bytes, row.sealed)
    salt, canonical = opened[:SALT_BYTES], opened[SALT_BYTES:]
    if len(salt) != SALT_BYTES or commit(salt, canonical) != row.commitment:
        raise RecordError
    try:
        fields = _decode(canonical)
    except ValueError:
        raise RecordError from None
    if (fields.id, fields.amends, month_of(fields.closed_at)) != (row.id, row.amends, row.month):
        raise RecordError
    return OpenedRecord(fields, salt, canonical)


def month_of(instant: dt.datetime) -> dt.date:
    """Return the first day of the instant's month in Japan."""
    return to_jst(instant).date().replace(day=1)


def _decode(canonical: bytes) -> RecordFields:
    return msgspec.json.decode(canonical, type=RecordFields)


async def list_records(
    partition: Partition, keys: AgencyKeys, *, after: str | None = None, limit: int = PAGE_MAX
) -> RecordPage:
    """Return a page of the agency's records in the order of its log; those without a place yet come last.

    Args:
        partition: the agency's door.
        keys: the agency's.
        after: ``next`` of the page before.
        limit: 1…1,000.

    Raises:
        Problem: invalid_field for a cursor that is none of ours, too_many_lines.
        RecordError, SealError: a record is not what was committed to; nothing of the page is returned then.
    """
    if not 0 < limit <= PAGE_MAX:
        raise Problem("too_many_lines", limit=PAGE_MAX)
    start = _from_cursor(after)
    # What waits is read before the log: a record that gets its place in between is then found in the log, not lost.
    waiting_rows = await _without_place(partition, start, limit)
    rows = await partition.fetch(
        f"SELECT r.*, l.seq, l.leaf_data FROM {partition.table('log')} l JOIN {partition.table('records')} r"
        " ON r.agency = l.agency AND r.id = l.record WHERE l.agency = $1 AND l.seq > $2 ORDER BY l.seq LIMIT $3",
        partition.agency,
        start.position,
        limit,
    )
    position = rows[-1]["seq"] if rows else start.position
    if len(rows) < limit:
        placed = {row["id"] for row in rows}
        rows += [row for row in waiting_rows if row["id"] not in placed][: limit - len(rows)]
    page = [_stored(keys, row) for row in rows]
    if len(rows) < limit:
        return RecordPage(page, None)
    last = rows[-1]
    waiting = last["seq"] is None
    return RecordPage(page, _to_cursor(_Cursor(position, last["at"], last["id"]) if waiting else _Cursor(position)))


async def _without_place(partition: Partition, start: "_Cursor", limit: int) -> list[Record]:
    """Return records that wait for their place, usually for a second or so; only the youngest can."""
    last = await partition.fetchrow(
        f"SELECT at FROM {partition.table('log')} WHERE agency = $1 ORDER BY seq DESC LIMIT 1", partition.agency
    )
    # The margin is for transactions that were under way when the last leaf was written.
    since = dt.datetime.min.replace(tzinfo=dt.UTC) if last is None else last["at"] - dt.timedelta(hours=1)
    return await partition.fetch(
        f"SELECT r.*, NULL::bigint AS seq, NULL::bytea AS leaf_data FROM {partition.table('records')} r"
        " WHERE r.agency = $1 AND r.at > $2 AND (r.at, r.id) > ($3, $4) AND NOT EXISTS"
        f" (SELECT FROM {partition.table('log')} l WHERE l.agency = $1 AND l.label = r.label AND l.record = r.id)"
        " ORDER BY r.at, r.id LIMIT $5",
        partition.agency,
        since,
        start.at,
        start.id,
        limit,
    )


async def by_person(partition: Partition, keys: AgencyKeys, person: bytes, *, for_person: bool) -> list[StoredRecord]:
    """Return all records about a person, in the order of the log.

    Args:
        partition: the agency's door.
        keys: the agency's.
        person: the addressee digest, 32 bytes.
        for_person: whether the person is to see them (本人開示): then 不開示 records, and everything that amends them
            or is amended by them, are left out (番号法23条2項). An officer's own view leaves out nothing.

    Raises:
        Problem: too_many_lines when there are more than 10,000.
        RecordError, SealError: as for ``list_records``.
    """
    rows = await partition.fetch(
        f"SELECT r.*, l.seq, l.leaf_data FROM {partition.table('records')} r LEFT JOIN {partition.table('log')} l"
        " ON l.agency = r.agency AND l.label = r.label AND l.record = r.id WHERE r.agency = $1 AND r.label = $2"
        " ORDER BY l.seq NULLS LAST, r.at, r.id LIMIT $3",
        partition.agency,
        keys.label(person),
        PERSON_MAX + 1,
    )
    if len(rows) > PERSON_MAX:
        raise Problem("too_many_lines", limit=PERSON_MAX)
    records = [_stored(keys, row) for row in rows]
    return _disclosable(records) if for_person else records


class Told(NamedTuple):
    """What an agency's records tell of one line: the record and its amendments, oldest first, under one label."""

    label: bytes
    base: RecordFields
    amendments: list[RecordFields]

    @property
    def last(self) -> RecordFields:
        """The last word."""
        return self.amendments[-1] if self.amendments else self.base


async def of_line(partition: Partition, keys: AgencyKeys, record: uuid.UUID) -> Told:
    """Return a record, named by its id or by an amendment's, with everything that amends it.

    Raises:
        Problem: not_found.
        RecordError, SealError: as for ``list_records``.
    """
    table = partition.table("records")
    named = await partition.fetchrow(
        f"SELECT label, coalesce(amends, id) AS base FROM {table} WHERE agency = $1 AND id = $2",
        partition.agency,
        record,
    )
    if named is None:
        raise Problem("not_found")
    rows = await partition.fetch(
        f"SELECT r.*, l.seq, l.leaf_data FROM {table} r LEFT JOIN {partition.table('log')} l"
        " ON l.agency = r.agency AND l.label = r.label AND l.record = r.id"
        " WHERE r.agency = $1 AND r.label = $2 AND (r.id = $3 OR r.amends = $3) ORDER BY r.at, r.id LIMIT $4",
        partition.agency,
        named["label"],
        named["base"],
        PERSON_MAX,
    )
    found = [_stored(keys, row).fields for row in rows]
    bases = [fields for fields in found if fields.amends is None]
    if not bases:
        raise Problem("not_found")
    later = sorted((fields for fields in found if fields.amends is not None), key=lambda fields: fields.closed_at)
    return Told(named["label"], bases[0], later)


def _disclosable(records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Return the records without those of a line (a record and its amendments) of which any is 不開示."""
    withheld = {each.fields.amends or each.fields.id for each in records if each.fields.withheld}
    return [each for each in records if (each.fields.amends or each.fields.id) not in withheld]


def _stored(keys: AgencyKeys, row: Record) -> StoredRecord:
    """Open a row and hold it against its leaf in the log."""
    position = row["seq"]
    record = record_row(row)
    if position is not None:
        require_leaf(record, row["leaf_data"], position)
    try:
        return StoredRecord(open_record(keys, record), position)
    except RecordError:
        raise RecordError(position) from None


class _Cursor(NamedTuple):
    """Where a page ended: a place in the log, and among the records without one."""

    position: int = -1
    at: dt.datetime = dt.datetime.min.replace(tzinfo=dt.UTC)
    id: uuid.UUID = uuid.UUID(int=0)


def _to_cursor(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(tuple(cursor))).decode("ascii")


def _from_cursor(after: str | None) -> _Cursor:
    if after is None:
        return _Cursor()
    try:
        packed = base64.b64decode(after.encode("ascii"), altchars=b"-_", validate=True)
        position, at, record = msgspec.msgpack.decode(packed, type=tuple[_Position, Instant, uuid.UUID])
        # The database takes instants in UTC: one of the first or last day of time may have none.
        return _Cursor(position, at.astimezone(dt.UTC), record)
    except (ValueError, OverflowError, binascii.Error):
        raise Problem("invalid_field", pointer="/after", expected="a cursor of the previous page") from None
