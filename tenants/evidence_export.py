"""Writing an agency's evidence file: the whole log up to its last checkpoint, through the agency's own door.

Rows are read in pages, each a transaction of its own: what is signed never changes, so that the pages fit together.
With the agency's keys the records are opened and go into the file; without them (an operator, an auditor) it holds what
is clear in the log anyway: commitments, labels, positions.

Invariant: everything is written as it rests; nothing is set right, left out or checked here, for that is the checker's.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

from chukan.tenants import merkle
from chukan.tenants.evidence_file import (
    CheckpointLine,
    Header,
    LeafLine,
    Line,
    ListLine,
    MessageLine,
    TileLine,
    UnplacedLine,
)
from chukan.tenants.messages import open_list, open_message, read_messages
from chukan.tenants.partition import Partition
from chukan.tenants.records import SALT_BYTES
from chukan.tenants.sealing import AgencyKeys, SealError

PAGE_LEAVES: Final = 64 * merkle.TILE_WIDTH
PAGE_CHECKPOINTS: Final = 1_000
UNPLACED_S: Final = 60
"""A record that waits for its place for longer than this is told of."""
UNPLACED_MAX: Final = 100

Door = Callable[[], AbstractAsyncContextManager[Partition]]
"""Opens one transaction for the agency."""


async def export_log(door: Door, origin: str, keys: AgencyKeys | None) -> AsyncIterator[Line]:
    """Yield the lines of the file; with ``keys`` (the agency's own) the records too.

    Raises ``Problem`` as the cell does.
    """
    yield Header(origin=origin, of="log", records=keys is not None)
    size = 0
    while page := await _checkpoints(door, size):
        for size, note in page:  # noqa: B007 - the last size is where the next page begins
            yield CheckpointLine(note)
    at = _At(0, 0)
    while (page_of := await _leaves(door, at, size, keys)).lines:
        for line in page_of.lines:
            yield line
        at = page_of.next
    if keys is not None:
        for line in await _unplaced(door):
            yield line


class _At(NamedTuple):
    """Where a page begins: how many leaves there were before it, and the position of the last of them."""

    leaves: int
    position: int


class _Page(NamedTuple):
    lines: list[Line]
    next: _At


async def _checkpoints(door: Door, after: int) -> list[tuple[int, str]]:
    """Return the next checkpoints by size, each with its cosignatures at its end."""
    async with door() as partition:
        rows = await partition.fetch(
            f"SELECT c.size, c.note, (SELECT array_agg(s.line ORDER BY s.signer) FROM"
            f" {partition.table('cosignatures')} s WHERE s.size = c.size) AS lines"
            f" FROM {partition.table('checkpoints')} c WHERE c.size > $1 ORDER BY c.size LIMIT $2",
            after,
            PAGE_CHECKPOINTS,
        )
    return [(row["size"], b"".join([row["note"], *(row["lines"] or [])]).decode("utf-8", "replace")) for row in rows]


async def _leaves(door: Door, at: _At, size: int, keys: AgencyKeys | None) -> _Page:
    """Return the lines of the next leaves.

    The rows are taken in the order of their positions, whatever these are: whether they are right is the checker's.
    """
    async with door() as partition:
        rows = await partition.fetch(
            f"SELECT l.seq, l.leaf_data, l.leaf_hash, r.id, r.sealed, r.id IS NOT NULL AS kept"
            f" FROM {partition.table('log')} l LEFT JOIN {partition.table('records')} r"
            " ON r.agency = l.agency AND r.id = l.record WHERE l.agency = $1 AND l.seq > $2 AND l.seq <= $3"
            " ORDER BY l.seq LIMIT $4",
            partition.agency,
            at.position,
            size,
            PAGE_LEAVES,
        )
        tiles = await partition.fetch(
            f"SELECT n, hashes FROM {partition.table('tiles')} WHERE level = 0 AND n >= $1 AND n < $2 ORDER BY n",
            at.leaves // merkle.TILE_WIDTH,
            (at.leaves + PAGE_LEAVES) // merkle.TILE_WIDTH,
        )
    by_n = {row["n"]: row["hashes"] for row in tiles}
    lines: list[Line] = []
    for place, row in enumerate(rows, at.leaves):
        n, inside = divmod(place, merkle.TILE_WIDTH)
        if inside == 0 and n in by_n:
            lines.append(TileLine(n=n, hashes=by_n[n]))
        lines.append(_leaf(row, keys))
    if keys is not None:
        lines += await messages_of(door, [row["id"] for row in rows if row["kept"]], keys)
    return _Page(lines, _At(at.leaves + len(rows), rows[-1]["seq"] if rows else at.position))


async def messages_of(door: Door, records: list[uuid.UUID], keys: AgencyKeys) -> list[Line]:
    """Return what is kept of the records' messages, each list before its messages; what does not open is not there."""
    if not records:
        return []
    async with door() as partition:
        rows, lists = await read_messages(partition, records)
    lines: list[Line] = []
    last: uuid.UUID | None = None
    for row in rows:
        with contextlib.suppress(SealError, KeyError):
            if row["list"] is not None and row["list"] != last:
                lines.append(ListLine(open_list(keys, row["list"], lists[row["list"]])))
                last = row["list"]
            lines.append(MessageLine(record=row["line"], message=open_message(keys, row["id"], row["sealed"])))
    return lines


def _leaf(row: Any, keys: AgencyKeys | None) -> LeafLine:  # noqa: ANN401 - asyncpg's record
    given = {"position": row["seq"], "data": row["leaf_data"], "hash": row["leaf_hash"]}
    if keys is None or not row["kept"]:
        return LeafLine(**given)
    try:
        opened = keys.open("record", row["id"].bytes, row["sealed"])
    except SealError:
        return LeafLine(**given, unreadable=True)
    return LeafLine(**given, salt=opened[:SALT_BYTES], record=opened[SALT_BYTES:])


async def _unplaced(door: Door) -> list[Line]:
    async with door() as partition:
        rows = await partition.fetch(
            f"SELECT r.id FROM {partition.table('records')} r WHERE r.agency = $1"
            " AND r.at < now() - make_interval(secs => $2)"
            f" AND NOT EXISTS (SELECT FROM {partition.table('log')} l"
            " WHERE l.agency = r.agency AND l.label = r.label AND l.record = r.id) ORDER BY r.id LIMIT $3",
            partition.agency,
            UNPLACED_S,
            UNPLACED_MAX,
        )
    return [UnplacedLine(row["id"]) for row in rows]
