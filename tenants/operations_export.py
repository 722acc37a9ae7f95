"""Writing the evidence file of an operations log (操作記録): an agency's by its own door, or a cell's operators'.

The form is that of ``evidence_file``, so that one checker judges both kinds. With the agency's keys its entries are
opened and go into the file; the operators' are in the clear and always do.

Invariant: everything is written as it rests; nothing is set right, left out or checked here, for that is the checker's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

from chukan.replication.primary import Cells
from chukan.tenants import merkle
from chukan.tenants.evidence_export import Door
from chukan.tenants.evidence_file import CheckpointLine, Header, LeafLine, Line, TileLine, UnplacedLine
from chukan.tenants.link_calls import fetch
from chukan.tenants.operations import OperationFields, decode_operation
from chukan.tenants.records import SALT_BYTES, RecordError, commit
from chukan.tenants.restored import read_leaf
from chukan.tenants.sealing import AgencyKeys, SealError

PAGE_LEAVES: Final = 64 * merkle.TILE_WIDTH
PAGE_CHECKPOINTS: Final = 1_000
UNPLACED_S: Final = 60
UNPLACED_MAX: Final = 100
_COMMITMENT: Final = slice(1, 33)

Row = Any
"""asyncpg's record."""


class LogReader(Protocol):
    """Reads one operations log in pages; rows are in the order of their places."""

    async def checkpoints(self, after: int) -> Sequence[Row]:
        """Return (size, note, lines) of the next checkpoints."""
        ...

    async def leaves(self, after: int) -> Sequence[Row]:
        """Return (seq, leaf_data, leaf_hash, id, body) of the next leaves; id is None where the entry is gone."""
        ...

    async def tiles(self, first: int, end: int) -> Sequence[Row]:
        """Return (n, hashes) of tiles of the lowest level."""
        ...

    async def unplaced(self) -> Sequence[Row]:
        """Return (id) of entries that should have had their places for long."""
        ...


class AgencyLog:
    """An agency's log, through its own door."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def checkpoints(self, after: int) -> Sequence[Row]:
        """Return the next checkpoints by size, with their cosignatures."""
        async with self._door() as partition:
            return await partition.fetch(
                f"SELECT c.size, c.note, (SELECT array_agg(s.line ORDER BY s.signer) FROM"
                f" {partition.table('operation_cosignatures')} s WHERE s.size = c.size) AS lines"
                f" FROM {partition.table('operation_checkpoints')} c WHERE c.size > $1 ORDER BY c.size LIMIT $2",
                after,
                PAGE_CHECKPOINTS,
            )

    async def leaves(self, after: int, limit: int = PAGE_LEAVES) -> Sequence[Row]:
        """Return the next leaves with their entries, ``limit`` at most."""
        async with self._door() as partition:
            return await partition.fetch(
                f"SELECT l.seq, l.leaf_data, l.leaf_hash, o.id, o.body FROM {partition.table('operation_log')} l"
                f" LEFT JOIN {partition.table('operations')} o ON o.id = l.operation"
                " WHERE l.seq > $1 ORDER BY l.seq LIMIT $2",
                after,
                limit,
            )

    async def tiles(self, first: int, end: int) -> Sequence[Row]:
        """Return tiles of the lowest level."""
        async with self._door() as partition:
            return await partition.fetch(
                f"SELECT n, hashes FROM {partition.table('operation_tiles')}"
                " WHERE level = 0 AND n >= $1 AND n < $2 ORDER BY n",
                first,
                end,
            )

    async def unplaced(self) -> Sequence[Row]:
        """Return entries that have had no place for a minute."""
        async with self._door() as partition:
            return await partition.fetch(
                f"SELECT o.id FROM {partition.table('operations')} o WHERE o.at < now() - make_interval(secs => $1)"
                f" AND NOT EXISTS (SELECT FROM {partition.table('operation_log')} l WHERE l.operation = o.id)"
                " ORDER BY o.id LIMIT $2",
                UNPLACED_S,
                UNPLACED_MAX,
            )


class OperatorsLog:
    """The operators' log of a cell, by the steward's login."""

    def __init__(self, cells: Cells, cell: str) -> None:
        self._cells = cells
        self._cell = cell

    async def checkpoints(self, after: int) -> Sequence[Row]:
        """Return the next checkpoints by size, with their cosignatures."""
        return await self._fetch("SELECT * FROM chukan.operators_checkpoints($1, $2)", after, PAGE_CHECKPOINTS)

    async def leaves(self, after: int) -> Sequence[Row]:
        """Return the next leaves with their entries."""
        return await self._fetch("SELECT * FROM chukan.operators_leaves($1, $2)", after, PAGE_LEAVES)

    async def tiles(self, first: int, end: int) -> Sequence[Row]:
        """Return tiles of the lowest level."""
        return await self._fetch("SELECT * FROM chukan.operators_tiles($1, $2)", first, end)

    async def unplaced(self) -> Sequence[Row]:
        """Return entries that have had no place for a minute."""
        return await self._fetch("SELECT * FROM chukan.operators_unplaced($1)", UNPLACED_MAX)

    async def _fetch(self, sql: str, *values: object) -> Sequence[Row]:
        async with self._cells.steward(self._cell) as connection:
            return await fetch(connection, sql, *values)


async def export_operations(
    reader: LogReader, origin: str, keys: AgencyKeys | None, *, clear: bool
) -> AsyncIterator[Line]:
    """Yield the lines of the file up to the last checkpoint.

    Args:
        reader: reads the log.
        origin: the log's origin.
        keys: the agency's, which open its entries; None for nobody's.
        clear: whether entries rest in the clear (the operators').

    Raises ``Problem`` as the cell does.
    """
    opened = clear or keys is not None
    yield Header(origin=origin, of="log", records=opened)
    size = 0
    while page := await reader.checkpoints(size):
        for row in page:
            size = row["size"]
            yield CheckpointLine(b"".join([row["note"], *(row["lines"] or [])]).decode("utf-8", "replace"))
    count, position = 0, 0
    while rows := [row for row in await reader.leaves(position) if row["seq"] <= size]:
        first = count // merkle.TILE_WIDTH
        tiles = await reader.tiles(first, (count + PAGE_LEAVES) // merkle.TILE_WIDTH)
        by_n = {row["n"]: row["hashes"] for row in tiles}
        for row in rows:
            n, inside = divmod(count, merkle.TILE_WIDTH)
            if inside == 0 and n in by_n:
                yield TileLine(n=n, hashes=by_n[n])
            yield _leaf(row, keys, clear=clear)
            count += 1
        position = rows[-1]["seq"]
    if opened:
        for row in await reader.unplaced():
            yield UnplacedLine(row["id"])


def _leaf(row: Row, keys: AgencyKeys | None, *, clear: bool) -> LeafLine:
    given = {"position": row["seq"], "data": row["leaf_data"], "hash": row["leaf_hash"]}
    if row["id"] is None or not (clear or keys):
        return LeafLine(**given)
    try:
        body: bytes = row["body"] if keys is None else keys.open("operation", row["id"].bytes, row["body"])
    except SealError:
        return LeafLine(**given, unreadable=True)
    return LeafLine(**given, salt=body[:SALT_BYTES], record=body[SALT_BYTES:])


async def read_entries(
    reader: LogReader, keys: AgencyKeys | None, after: int, limit: int
) -> list[tuple[int, OperationFields]]:
    """Return the next entries after a position, each held against its leaf, at most ``limit`` or a page of 1,024.

    ``keys`` are the agency's; None reads the operators'. Raises ``RecordError`` or ``SealError`` for an entry that is
    gone or is not the one that was committed to; ``Problem`` as the cell does.
    """
    return open_entries((await reader.leaves(after))[:limit], keys)


def open_entries(rows: Sequence[Row], keys: AgencyKeys | None) -> list[tuple[int, OperationFields]]:
    """Return the entries of leaves with their positions; leaves of restores are nobody's act. Raises as above."""
    found = []
    for row in rows:
        position = row["seq"]
        if row["id"] is None and read_leaf(position, row["leaf_data"]) is not None:
            continue  # the leaf of a restore is nobody's act
        if row["id"] is None:
            raise RecordError(position)
        body = row["body"] if keys is None else keys.open("operation", row["id"].bytes, row["body"])
        salt, canonical = body[:SALT_BYTES], body[SALT_BYTES:]
        if len(salt) != SALT_BYTES or commit(salt, canonical) != row["leaf_data"][_COMMITMENT]:
            raise RecordError(position)
        found.append((position, decode_operation(canonical)))
    return found
