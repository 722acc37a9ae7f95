"""Copies (副本): what an agency lodges for answering — register, look at, export for reconciliation, delete, hold.

A copy is found by (person, kind, period, effective-from, layout): several years, records of the future and two layouts
stand side by side. Its row id is made of that key by keyed digest, so an update keeps it, two registrations at once
agree on it, and a body that was moved under another person, kind, period, date or layout does not open as that one.

Invariant: only addressee digest, kind, period, date, layout and the review flag (自動応答不可) rest in the clear; the
addressee number and the items rest sealed under the agency's key. Everything here goes through door 1, ``Partition``;
only the agency itself can reach, change or delete its copies (REP-08).
"""

import base64
import binascii
import datetime as dt
import struct
import uuid
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.tenants.partition import Partition, Record
from chukan.tenants.rows import CopyHit
from chukan.tenants.sealing import AgencyKeys, SealError

LINES_MAX: Final = 1_000
"""Lines of one call; bulk goes through ``loads``."""

SEARCH_MAX: Final = 10_000
"""Copies that one search may find."""

_CURSOR: Final = struct.Struct(">32sIi")

Registered = Literal["inserted", "updated", "unchanged"]


class CopyPlace(NamedTuple):
    """The key of a copy at one agency; ``person`` is the addressee digest, 32 bytes."""

    person: bytes
    kind: str
    period: str
    effective_from: dt.date
    layout: int


class Copy(msgspec.Struct, frozen=True):
    """A copy as its agency gives it, checked against law and layout above this room.

    ``items`` is a JSON object (UTF-8) of item codes; equal bytes count as unchanged, so give its members sorted.
    """

    addressee: str
    kind: str
    layout: int
    effective_from: dt.date
    period: str
    items: bytes
    review: bool = False


class StoredCopy(msgspec.Struct, frozen=True):
    """A copy as it rests, opened for its own agency; ``items`` as it was given."""

    addressee: str
    kind: str
    layout: int
    effective_from: dt.date
    period: str
    items: bytes
    review: bool
    registered_at: dt.datetime
    source: str


class CopyBody(NamedTuple):
    """What is sealed in a copy's body."""

    addressee: str
    items: bytes
    review: bool


class SealedCopy(NamedTuple):
    """A copy ready to rest."""

    id: uuid.UUID
    place: CopyPlace
    body: bytes
    content: bytes
    """Keyed digest of everything that the copy says, 32 bytes: equal means unchanged."""
    review: bool


class CopyPage(NamedTuple):
    """A page of copies and the opaque cursor of the next one."""

    copies: list[StoredCopy]
    next: str | None


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # ``items`` stands last and is compared after a round trip: bytes that are no JSON object of their own show there.
    addressee: str
    review: bool
    items: msgspec.Raw


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Body)


def person_digest(keys: AgencyKeys, addressee: str) -> bytes:
    """Return the digest (32 bytes) by which an agency's rows name a person."""
    return keys.digest("addressee", addressee.encode())


def copy_id(keys: AgencyKeys, place: CopyPlace) -> uuid.UUID:
    """Return the row id of a copy: made of its key by keyed digest, in the form of a UUID version 8 (RFC 9562)."""
    drawn = int.from_bytes(keys.digest("copy", _place_bytes(place))[:16], "big")
    return uuid.UUID(int=drawn & ~(0xF << 76 | 0b11 << 62) | 0x8 << 76 | 0b10 << 62)


def seal_copy(keys: AgencyKeys, copy: Copy) -> SealedCopy:
    """Return a copy sealed for its place; ``ValueError`` when its items are no JSON object."""
    place = CopyPlace(person_digest(keys, copy.addressee), copy.kind, copy.period, copy.effective_from, copy.layout)
    plain = _ENCODER.encode(_Body(addressee=copy.addressee, review=copy.review, items=msgspec.Raw(copy.items)))
    try:
        intact = copy.items[:1] == b"{" and bytes(_DECODER.decode(plain).items) == copy.items
    except msgspec.MsgspecError:
        intact = False
    if not intact:
        raise ValueError("the items of a copy are one JSON object")
    row = copy_id(keys, place)
    content = keys.digest("content", _place_bytes(place) + plain)
    return SealedCopy(row, place, keys.seal("copy", row.bytes, plain), content, copy.review)


def open_body(keys: AgencyKeys, row: uuid.UUID, body: bytes) -> CopyBody:
    """Return what a copy's body says; prefer ``open_hit``, which also checks what stands in the clear beside it.

    Raises:
        SealError: it does not open under this agency's keys for this row, or is no body of a copy.
    """
    try:
        opened = _DECODER.decode(keys.open("copy", row.bytes, body))
    except msgspec.MsgspecError:
        raise SealError("a copy's body is not readable") from None
    return CopyBody(opened.addressee, bytes(opened.items), opened.review)


def open_hit(keys: AgencyKeys, person: bytes, kind: str, hit: CopyHit) -> CopyBody:
    """Return what a found copy says, once it was shown to belong to this person, kind, period, date and layout.

    Raises:
        SealError: it does not open, or one of the clear columns, the review flag included, was changed.
    """
    place = CopyPlace(person, kind, hit.period, hit.effective_from, hit.layout)
    body = open_body(keys, hit.id, hit.body)
    if copy_id(keys, place) != hit.id or body.review != hit.review or person_digest(keys, body.addressee) != person:
        raise SealError("a copy does not belong where it was found")
    return body


async def register(
    partition: Partition, keys: AgencyKeys, copies: Sequence[Copy], *, source: str, at: dt.datetime
) -> list[Registered]:
    """Register a difference (異動): put in what is new, replace what changed, leave alone what is the same.

    Args:
        partition: the agency's door.
        keys: the agency's.
        copies: 1…1,000; where a key comes twice the last one counts, and the earlier one is reported as unchanged.
        source: which system or file it came from (REP-05).
        at: the instant of registration.

    Returns:
        What became of each copy, in order.

    Raises:
        Problem: too_many_lines.
        ValueError: items are no JSON object.
    """
    _check_count(len(copies))
    sealed = [seal_copy(keys, copy) for copy in copies]
    last = {each.id: index for index, each in enumerate(sealed)}
    rows = [sealed[index] for index in last.values()]
    table = partition.table("copies")
    written = await partition.fetch(
        f"INSERT INTO {table} AS c (id, person, kind, period, effective_from, layout, body, content, review,"
        " registered_at, source)"
        " SELECT u.*, $10, $11 FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[], $5::date[], $6::int[],"
        " $7::bytea[], $8::bytea[], $9::bool[]) u"
        " ON CONFLICT (person, kind, period, effective_from, layout) DO UPDATE SET body = excluded.body,"
        " content = excluded.content, review = excluded.review, registered_at = excluded.registered_at,"
        " source = excluded.source, load = NULL WHERE c.content IS DISTINCT FROM excluded.content"
        " RETURNING id, xmax = 0 AS fresh",
        *_columns(rows),
        at,
        source,
    )
    # What is left alone was locked for the comparison, and a row lock is a write: this commit waits to be durable too.
    fresh = {row["id"]: row["fresh"] for row in written}
    return [_registered(fresh.get(each.id) if last[each.id] == index else None) for index, each in enumerate(sealed)]


async def search(partition: Partition, keys: AgencyKeys, wanted: Sequence[tuple[str, str | None]]) -> list[StoredCopy]:
    """Return all copies of the named (addressee number, kind or None for every kind), 1…1,000 names.

    Raises:
        Problem: too_many_lines, also when more than 10,000 copies are found.
        SealError: a row was tampered with.
    """
    _check_count(len(wanted))
    people = [person_digest(keys, addressee) for addressee, _ in wanted]
    rows = await partition.fetch(
        f"SELECT c.* FROM {partition.table('copies')} c JOIN (SELECT DISTINCT * FROM unnest($1::bytea[], $2::text[]))"
        " u(person, kind) ON c.person = u.person AND (u.kind IS NULL OR c.kind = u.kind)"
        " ORDER BY c.person, c.kind, c.period, c.effective_from, c.layout LIMIT $3",
        people,
        [kind for _, kind in wanted],
        SEARCH_MAX + 1,
    )
    if len(rows) > SEARCH_MAX:
        raise Problem("too_many_lines", limit=SEARCH_MAX)
    # A person named with a kind and again without one is found twice.
    found = {row["id"]: row for row in rows}
    order = {person: index for index, person in reversed(list(enumerate(people)))}
    return [_stored(keys, row) for row in sorted(found.values(), key=lambda row: order[row["person"]])]


async def delete(partition: Partition, keys: AgencyKeys, wanted: Sequence[tuple[str, str | None]]) -> list[int]:
    """Delete all copies of the named (addressee number, kind or None for every kind); only the agency can (REP-08).

    Returns how many were deleted for each name, in order; a copy that two names mean counts for the first.
    ``Problem`` too_many_lines.
    """
    _check_count(len(wanted))
    people = [person_digest(keys, addressee) for addressee, _ in wanted]
    rows = await partition.fetch(
        f"DELETE FROM {partition.table('copies')} c USING (SELECT DISTINCT * FROM unnest($1::bytea[], $2::text[]))"
        " u(person, kind) WHERE c.person = u.person AND (u.kind IS NULL OR c.kind = u.kind) RETURNING c.person, c.kind",
        people,
        [kind for _, kind in wanted],
    )
    if not rows:
        # "Already gone" must not be answered on the strength of a commit that a failover could still take back.
        await partition.execute("SELECT pg_logical_emit_message(true, 'fence', '')")
    first: dict[tuple[bytes, str | None], int] = {}
    for index, (person, (_, kind)) in enumerate(zip(people, wanted, strict=True)):
        first.setdefault((person, kind), index)
    counts = [0] * len(wanted)
    for row in rows:
        person = bytes(row["person"])
        matches = [found for kind in (row["kind"], None) if (found := first.get((person, kind))) is not None]
        counts[min(matches)] += 1
    return counts


async def export(
    partition: Partition, keys: AgencyKeys, kind: str, *, after: str | None = None, limit: int = LINES_MAX
) -> CopyPage:
    """Return a page of all copies of a kind, for reconciliation with the original (原本照合).

    Every copy that stays unchanged while the pages are read comes exactly once, in no meaningful order.

    Raises:
        Problem: invalid_field for a cursor that is none of ours, too_many_lines.
    """
    _check_count(limit)
    rows = await partition.fetch(
        f"SELECT * FROM {partition.table('copies')} WHERE kind = $1"
        " AND (person, kind, period, effective_from, layout) > ($2, $1, $3, $4, $5)"
        " ORDER BY person, kind, period, effective_from, layout LIMIT $6",
        kind,
        *_from_cursor(after),
        limit + 1,
    )
    page = [_stored(keys, row) for row in rows[:limit]]
    return CopyPage(page, _to_cursor(rows[limit - 1]) if len(rows) > limit else None)


async def set_holds(
    partition: Partition, keys: AgencyKeys, wanted: Sequence[tuple[str | None, str | None, bool]]
) -> None:
    """Set or lift 自動応答不可 on (addressee number or None for all, kind or None for all, held); the last one wins.

    Raises:
        Problem: too_many_lines; invalid_field with the line (from 0) that names neither person nor kind.
    """
    _check_count(len(wanted))
    settled: dict[tuple[bytes | None, str | None], bool] = {}
    for line, (addressee, kind, held) in enumerate(wanted):
        if addressee is None and kind is None:
            raise Problem("invalid_field", line=line, pointer="/lines")
        settled[None if addressee is None else person_digest(keys, addressee), kind] = held
    people, kinds = [person for person, _ in settled], [kind for _, kind in settled]
    flags = list(settled.values())
    table = partition.table("holds")
    await partition.execute(
        f"DELETE FROM {table} h USING unnest($1::bytea[], $2::text[], $3::bool[]) u(person, kind, held)"
        " WHERE NOT u.held AND h.person IS NOT DISTINCT FROM u.person AND h.kind IS NOT DISTINCT FROM u.kind",
        people,
        kinds,
        flags,
    )
    await partition.execute(
        f"INSERT INTO {table} AS h (person, kind) SELECT u.person, u.kind"
        " FROM unnest($1::bytea[], $2::text[], $3::bool[]) u(person, kind, held) WHERE u.held"
        " ON CONFLICT (person, kind) DO UPDATE SET at = h.at",
        people,
        kinds,
        flags,
    )
    # A provision that was decided on the holds of before is decided again.
    await partition.execute("SELECT chukan.bump_holds($1)", partition.agency)


def _place_bytes(place: CopyPlace) -> bytes:
    kind, period = place.kind.encode(), place.period.encode()
    return b"".join(
        (
            place.person,
            struct.pack(">H", len(kind)),
            kind,
            struct.pack(">H", len(period)),
            period,
            struct.pack(">Ii", place.effective_from.toordinal(), place.layout),
        )
    )


def _columns(rows: Sequence[SealedCopy]) -> list[list[object]]:
    """Return the rows as one list a column, in the order of ``register``'s unnest."""
    return [
        [row.id for row in rows],
        [row.place.person for row in rows],
        [row.place.kind for row in rows],
        [row.place.period for row in rows],
        [row.place.effective_from for row in rows],
        [row.place.layout for row in rows],
        [row.body for row in rows],
        [row.content for row in rows],
        [row.review for row in rows],
    ]


def _registered(fresh: bool | None) -> Registered:  # noqa: FBT001 - three-valued, as the database gives it
    if fresh is None:
        return "unchanged"
    return "inserted" if fresh else "updated"


def _stored(keys: AgencyKeys, row: Record) -> StoredCopy:
    hit = CopyHit(row["id"], row["layout"], row["effective_from"], row["period"], row["body"], row["review"])
    body = open_hit(keys, row["person"], row["kind"], hit)
    return StoredCopy(
        addressee=body.addressee,
        kind=row["kind"],
        layout=row["layout"],
        effective_from=row["effective_from"],
        period=row["period"],
        items=body.items,
        review=row["review"],
        registered_at=row["registered_at"],
        source=row["source"],
    )


def _to_cursor(row: Record) -> str:
    """Return an opaque cursor for the place of a row; it names the person by keyed digest only."""
    place = _CURSOR.pack(row["person"], row["effective_from"].toordinal(), row["layout"]) + row["period"].encode()
    return base64.urlsafe_b64encode(place).decode("ascii")


def _from_cursor(after: str | None) -> tuple[bytes, str, dt.date, int]:
    """Return person, period, date and layout after which to go on."""
    if after is None:
        return b"", "", dt.date.min, 0
    try:
        place = base64.b64decode(after.encode("ascii"), altchars=b"-_", validate=True)
        person, day, layout = _CURSOR.unpack_from(place)
        period, on = place[_CURSOR.size :].decode(), dt.date.fromordinal(day)
    except (ValueError, OverflowError, binascii.Error, struct.error):
        raise Problem("invalid_field", pointer="/after", expected="a cursor of the previous page") from None
    if "\0" in period:
        # The database takes no text with it.
        raise Problem("invalid_field", pointer="/after", expected="a cursor of the previous page")
    return person, period, on, layout


def _check_count(count: int) -> None:
    if not 0 < count <= LINES_MAX:
        raise Problem("too_many_lines", limit=LINES_MAX)
