"""Reading one of an agency's two signed logs through its own door: newest checkpoint, consistency, place of a leaf.

Provision records (証跡) and operations (操作記録) rest in tables of the same form, so one reader serves both desks.
What is given is what rests: whoever gets it computes everything anew, so a wrong tree shows at the caller. Nothing is
checked, set right or written here; a desk gives it away only once it is known to be durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chukan.errors import Problem
from chukan.platform.wire.checkpoints import RestoredLeaf
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.tenants import merkle
from chukan.tenants.evidence import hash_ranges
from chukan.tenants.merkle import Need, TileName, leaf_hash
from chukan.tenants.records import SALT_BYTES
from chukan.tenants.restored import TAG, read_leaf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chukan.tenants.partition import Partition

RESTORES_MAX: Final = 1_000
PENDING_S: Final = 2
"""Checkpoints are signed within 2 s of their leaves."""
_NAMED_BYTES: Final = 12
"""What a restore's label says behind its tag: epoch and size."""


class LogTables(NamedTuple):
    """Where a log rests in an agency's schema."""

    log: str
    tiles: str
    checkpoints: str
    cosignatures: str
    own: str
    """A leaf's condition on ``$1``, the agency: the records' tables lead their indexes with it."""


RECORDS: Final = LogTables("log", "tiles", "checkpoints", "cosignatures", "agency = $1")
OPERATIONS: Final = LogTables(
    "operation_log", "operation_tiles", "operation_checkpoints", "operation_cosignatures", "$1::integer IS NOT NULL"
)


class Place(NamedTuple):
    """Where a leaf stands, as far as it is clear."""

    checkpoint: CheckpointView
    position: int
    data: bytes
    path: list[bytes]

    def of_entry(self, opened: bytes) -> RecordProof:
        """Return the whole proof with an opened entry: its salt and, behind it, its canonical bytes."""
        return RecordProof(*self, salt=opened[:SALT_BYTES], record=opened[SALT_BYTES:])


class LogReading:
    """One log, for the time of one transaction."""

    def __init__(self, partition: Partition, tables: LogTables) -> None:
        self._partition = partition
        self._tables = tables

    async def newest(self) -> CheckpointView:
        """Return the newest checkpoint, as it rests. Raises ``Problem`` proof_pending where there is none yet."""
        row = await self._partition.fetchrow(
            f"SELECT c.size, c.note, (SELECT array_agg(s.line ORDER BY s.signer) FROM"
            f" {self._table(self._tables.cosignatures)} s WHERE s.size = c.size) AS lines"
            f" FROM {self._table(self._tables.checkpoints)} c ORDER BY c.size DESC LIMIT 1"
        )
        if row is None:
            raise Problem("proof_pending", retry_after_s=PENDING_S)
        lines: list[bytes] = row["lines"] or []
        return CheckpointView(b"".join([row["note"], *lines]).decode("utf-8", "replace"), row["size"], bool(lines))

    async def consistency(self, first: int) -> ConsistencyProof:
        """Prove that the log continues the one of ``first`` leaves, or that a restore lost some of them.

        Raises ``Problem`` proof_pending; invalid_field where the newest checkpoint is smaller and no restore was.
        """
        newest = await self.newest()
        restored = await self._restored(first, newest.size)
        if first > newest.size and restored is None:
            raise Problem("invalid_field", pointer="/from", expected="the size of a checkpoint of this log")
        ranges = merkle.consistency_ranges(first, newest.size) if first <= newest.size else []
        path = await hash_ranges(self._read, ranges, newest.size)
        return ConsistencyProof(checkpoint=newest, first=first, path=path, restored=restored)

    async def place(self, position: int | None, data: bytes) -> Place:
        """Prove a leaf's place. Raises ``Problem`` proof_pending where no checkpoint holds it yet."""
        newest = await self.newest()
        if position is None or position > newest.size:
            raise Problem("proof_pending", retry_after_s=PENDING_S)
        return Place(newest, position, data, await self._inclusion(position, newest.size))

    async def _restored(self, kept: int, size: int) -> RestoredLeaf | None:
        """Return the newest leaf of a restore that may explain a kept tree, in the tree of ``size`` leaves."""
        rows = await self._partition.fetch(
            f"SELECT l.seq, l.leaf_data FROM {self._table(self._tables.log)} l WHERE {self._tables.own}"
            " AND l.label >= $2 AND l.label <= $3 AND l.seq <= $4 ORDER BY l.seq DESC LIMIT $5",
            self._partition.agency,
            TAG,
            TAG + bytes([255]) * _NAMED_BYTES,
            min(kept, size),
            RESTORES_MAX,
        )
        for row in rows:
            found = read_leaf(row["seq"], row["leaf_data"])
            if found is not None and kept <= found.size:
                return RestoredLeaf(found.position, row["leaf_data"], await self._inclusion(found.position, size))
        return None

    async def _inclusion(self, position: int, size: int) -> list[bytes]:
        return await hash_ranges(self._read, merkle.inclusion_ranges(position - 1, size), size)

    async def _read(self, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return the tiles and the hashes of leaves that a path needs."""
        names = sorted(need.tiles)
        tiles: Sequence[Any] = ()
        if names:
            tiles = await self._partition.fetch(
                f"SELECT t.level, t.n, t.hashes FROM unnest($1::smallint[], $2::bigint[]) u(level, n)"
                f" JOIN {self._table(self._tables.tiles)} t ON t.level = u.level AND t.n = u.n",
                [name.level for name in names],
                [name.n for name in names],
            )
        leaves: Sequence[Any] = ()
        if need.leaves:
            leaves = await self._partition.fetch(
                f"SELECT seq, leaf_data FROM {self._table(self._tables.log)} WHERE {self._tables.own}"
                " AND seq = ANY ($2)",
                self._partition.agency,
                [place + 1 for place in sorted(need.leaves)],
            )
        return (
            {TileName(row["level"], row["n"]): row["hashes"] for row in tiles},
            {row["seq"] - 1: leaf_hash(row["leaf_data"]) for row in leaves},
        )

    def _table(self, name: str) -> str:
        return self._partition.table(name)
