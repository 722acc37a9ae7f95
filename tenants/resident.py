"""Reading one person's chain of leaves (本人開示), with what proves that the log has no other leaf of theirs.

Everything is read through the agency's own door. Pages of the map change with each checkpoint, so the checkpoint is
looked at again after them; what was read for one that was overtaken is read anew.

Invariant: a record that the law withholds from the person (不開示, 番号法23条2項) leaves here as a leaf without record
and salt, whatever amends it likewise; and a record is called withheld only once it was opened and says so. What cannot
be opened, or is not what was committed to, fails the whole.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from chukan.errors import Problem
from chukan.tenants import label_map
from chukan.tenants.label_map import LabelMap, MapError, MapProof, PagesMissing
from chukan.tenants.partition import Partition
from chukan.tenants.records import PERSON_MAX, OpenedRecord, open_whole, record_row, require_leaf
from chukan.tenants.sealing import AgencyKeys

_READS_MAX: Final = 3
"""A fork whose single label stands beside the way, then pages deeper than usual: no more reads are ever of use."""


class ChainLeaf(NamedTuple):
    """One leaf of the person's chain; ``salt`` and ``record`` (canonical bytes) where it is shown."""

    data: bytes
    state: Literal["shown", "withheld", "gone"]
    salt: bytes | None = None
    record: bytes | None = None


class Chain(NamedTuple):
    """A person's leaves up to a checkpoint, and the disclosable records (canonical bytes) that have no leaf in it."""

    leaves: list[ChainLeaf]
    later: list[bytes]


async def person_of_code(partition: Partition, keys: AgencyKeys, code: bytes) -> bytes | None:
    """Return the person (addressee digest) that a linkage code stands for at the agency, whatever the link's status.

    A suspended or merged link answers no query, but the records that were made under it are the person's.
    """
    found: bytes | None = await partition.fetchval(
        f"SELECT person FROM {partition.table('codes')} WHERE code_digest = $1", keys.digest("code", code)
    )
    return found


async def read_chain(partition: Partition, keys: AgencyKeys, label: bytes, size: int) -> Chain:
    """Return a person's chain up to a checkpoint of ``size`` leaves.

    Raises:
        Problem: too_many_lines when the person has more than 10,000 records.
        RecordError, SealError: a record is not what was committed to.
    """
    rows = await partition.fetch(
        f"SELECT l.seq, l.leaf_data, r.* FROM {partition.table('log')} l LEFT JOIN {partition.table('records')} r"
        " ON r.agency = l.agency AND r.id = l.record WHERE l.agency = $1 AND l.label = $2 AND l.seq <= $3"
        " ORDER BY l.seq LIMIT $4",
        partition.agency,
        label,
        size,
        PERSON_MAX + 1,
    )
    later = await partition.fetch(
        f"SELECT NULL::bytea AS leaf_data, r.* FROM {partition.table('records')} r WHERE r.agency = $1 AND r.label = $2"
        f" AND NOT EXISTS (SELECT FROM {partition.table('log')} l"
        " WHERE l.agency = r.agency AND l.label = r.label AND l.record = r.id AND l.seq <= $3)"
        " ORDER BY r.at, r.id LIMIT $4",
        partition.agency,
        label,
        size,
        PERSON_MAX + 1,
    )
    if len(rows) + len(later) > PERSON_MAX:
        raise Problem("too_many_lines", limit=PERSON_MAX)
    opened = [_open(keys, row) for row in (*rows, *later)]
    withheld = {_line(each) for each in opened if each is not None and each.fields.withheld}
    leaves = [_leaf(row["leaf_data"], each, withheld) for row, each in zip(rows, opened[: len(rows)], strict=True)]
    new = [each.canonical for each in opened[len(rows) :] if each is not None and _line(each) not in withheld]
    return Chain(leaves, new)


def _line(opened: OpenedRecord) -> object:
    """Return what a record and all that amends it have in common."""
    return opened.fields.amends or opened.fields.id


def _leaf(data: bytes, opened: OpenedRecord | None, withheld: set[object]) -> ChainLeaf:
    if opened is None:
        return ChainLeaf(data, "gone")
    if _line(opened) in withheld:
        return ChainLeaf(data, "withheld")
    return ChainLeaf(data, "shown", opened.salt, opened.canonical)


def _open(keys: AgencyKeys, row: Any) -> OpenedRecord | None:  # noqa: ANN401 - asyncpg's record
    """Open a row and hold it against its leaf; None where the record is not kept any more."""
    if row["id"] is None:
        return None
    record = record_row(row)
    if row["leaf_data"] is not None:
        require_leaf(record, row["leaf_data"], row["seq"])
    return open_whole(keys, record)


async def prove_label(partition: Partition, label: bytes) -> MapProof | None:
    """Return what stands at a label's place in the map at rest; None where its pages do not fit one another now."""
    key = label_map.key_of(label)
    held = LabelMap()
    wanted: Sequence[str] = sorted(label_map.paths_of([key]))
    for _ in range(_READS_MAX):
        rows = await partition.fetch(
            f"SELECT path, body FROM {partition.table('map_pages')} WHERE path = ANY ($1)", list(wanted)
        )
        try:
            held.add_pages({row["path"]: row["body"] for row in rows})
            return held.prove(key)
        except PagesMissing as missing:
            wanted = sorted(missing.paths | label_map.paths_of([key], label_map.DIGITS))
        except MapError:
            return None
    return None
