"""Reconciliation with the original (原本照合): what a staged load says otherwise than the copies in force (REP-04).

The agency stages the original as a load and asks what would change, before or instead of its commit. So original and
copy are compared as they would rest, by the keyed digest of everything that a copy says: nothing is too small to be
found, and nothing is compared that a commit would not write.

Invariant: a comparison changes nothing. Its pages go by person and date, so that a long report costs each page once.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import struct
import uuid
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.tenants.copies import open_body

if TYPE_CHECKING:
    from chukan.tenants.load_forms import LoadSpec
    from chukan.tenants.partition import Partition, Record
    from chukan.tenants.sealing import AgencyKeys

Kind = Literal["missing_here", "missing_there", "differing"]
PAGE_MAX: Final = 1_000

_CURSOR: Final = struct.Struct(">32sI")
_ITEMS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Both sides in the order of person and date; of a key that was staged twice the last one counts, as in a commit.
_JOINED: Final = (
    " FROM (SELECT DISTINCT ON (s.person, s.effective_from) s.* FROM {stage} s"
    "  WHERE s.load = $1 AND (s.person, s.effective_from) > ($5, $6)"
    "  ORDER BY s.person, s.effective_from, s.n DESC, s.line DESC) s"
    " FULL JOIN (SELECT c.* FROM {copies} c WHERE c.kind = $2 AND c.period = $3 AND c.layout = $4"
    "  AND (c.person, c.effective_from) > ($5, $6)) c"
    " ON c.person = s.person AND c.effective_from = s.effective_from"
    " WHERE c.content IS DISTINCT FROM s.content AND (s.id IS NOT NULL OR $7)"
)


class Counts(NamedTuple):
    """How many copies differ, by kind of difference."""

    missing_here: int
    """In the original, and not here."""
    missing_there: int
    """Here, and not in the original; always 0 for a load that holds differences only."""
    differing: int


class Difference(NamedTuple):
    """One copy that is not as the original; ``items`` are the codes whose values differ."""

    kind: Kind
    addressee: str
    effective_from: dt.date
    items: tuple[str, ...] = ()
    review: bool = False
    """Whether 自動応答不可 differs."""


class DifferencePage(NamedTuple):
    """A page of differences and the opaque cursor of the next one."""

    differences: list[Difference]
    next: str | None


async def count(partition: Partition, load: uuid.UUID, spec: LoadSpec) -> Counts:
    """Count all differences of an open load."""
    row = await partition.fetchrow(
        "SELECT count(*) FILTER (WHERE c.id IS NULL) AS here, count(*) FILTER (WHERE s.id IS NULL) AS there,"
        " count(*) FILTER (WHERE c.id IS NOT NULL AND s.id IS NOT NULL) AS differing" + _joined(partition),
        *_arguments(load, spec, None),
    )
    assert row is not None  # noqa: S101 - an aggregate has a row
    return Counts(row["here"], row["there"], row["differing"])


async def page(
    partition: Partition, keys: AgencyKeys, load: uuid.UUID, spec: LoadSpec, *, after: str | None, limit: int = PAGE_MAX
) -> DifferencePage:
    """Return a page of differences, in the order of an agency's own digests of persons.

    Raises:
        Problem: invalid_field for a cursor that is none of ours, too_many_lines.
        SealError: a row was tampered with.
    """
    if not 0 < limit <= PAGE_MAX:
        raise Problem("too_many_lines", limit=PAGE_MAX)
    rows = await partition.fetch(
        "SELECT coalesce(c.person, s.person) AS person, coalesce(c.effective_from, s.effective_from) AS effective_from,"
        " c.id AS copy, c.body AS copied, s.id AS staged, s.body AS original"
        + _joined(partition)
        + " ORDER BY 1, 2 LIMIT $8",
        *_arguments(load, spec, after),
        limit + 1,
    )
    return DifferencePage(
        [_difference(keys, row) for row in rows[:limit]], _to_cursor(rows[limit - 1]) if len(rows) > limit else None
    )


def _joined(partition: Partition) -> str:
    return _JOINED.format(stage=partition.table("stage"), copies=partition.table("copies"))


def _arguments(load: uuid.UUID, spec: LoadSpec, after: str | None) -> tuple[object, ...]:
    return (load, spec.kind, spec.period, spec.layout, *_from_cursor(after), spec.mode == "full")


def _difference(keys: AgencyKeys, row: Record) -> Difference:
    day = row["effective_from"]
    if row["copy"] is None:
        return Difference("missing_here", open_body(keys, row["staged"], row["original"]).addressee, day)
    here = open_body(keys, row["copy"], row["copied"])
    if row["staged"] is None:
        return Difference("missing_there", here.addressee, day)
    there = open_body(keys, row["staged"], row["original"])
    ours, theirs = (
        {code: bytes(value) for code, value in _ITEMS.decode(items).items()} for items in (here.items, there.items)
    )
    items = tuple(sorted(code for code in ours.keys() | theirs.keys() if ours.get(code) != theirs.get(code)))
    return Difference("differing", here.addressee, day, items, here.review != there.review)


def _to_cursor(row: Record) -> str:
    place = _CURSOR.pack(row["person"], row["effective_from"].toordinal())
    return base64.urlsafe_b64encode(place).decode("ascii")


def _from_cursor(after: str | None) -> tuple[bytes, dt.date]:
    if after is None:
        return b"", dt.date.min
    try:
        person, day = _CURSOR.unpack(base64.b64decode(after.encode("ascii"), altchars=b"-_", validate=True))
        return person, dt.date.fromordinal(day)
    except (ValueError, OverflowError, binascii.Error, struct.error):
        raise Problem("invalid_field", pointer="/after", expected="a cursor of the previous page") from None
