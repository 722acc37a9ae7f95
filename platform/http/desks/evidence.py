"""The desk for evidence (証跡): checkpoints and proofs of one agency's log, read through its own door.

What is given is what rests: whoever gets it computes everything anew, so a wrong tree shows at the caller. Nothing
signed leaves here before it is known to be durable.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from chukan.errors import Problem
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.wire.checkpoints import RestoredLeaf
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.tenants import evidence_file, merkle
from chukan.tenants.evidence import hash_ranges
from chukan.tenants.evidence_export import export_log
from chukan.tenants.merkle import Need, TileName, leaf_hash
from chukan.tenants.records import SALT_BYTES
from chukan.tenants.restored import TAG, read_leaf

if TYPE_CHECKING:
    import uuid

    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.partition import Partition

RESTORES_MAX: Final = 1_000
_NAMED_BYTES: Final = 12
PENDING_S: Final = 2
"""Checkpoints are signed within 2 s of their leaves."""


class PartitionEvidence:
    """Implements ``ports.EvidenceDesk``. ``confirm`` returns once what was read in a cell so far is durable."""

    def __init__(
        self,
        door: Door,
        keys: Keys,
        confirm: Callable[[str], Awaitable[None]],
        origin: Callable[[str], str] = str,
    ) -> None:
        """Take what is read through; ``origin`` names the log of an agency's code."""
        self._origin = origin
        self._door = door
        self._keys = keys
        self._confirm = confirm

    async def checkpoint(self, agency: AgencyRow) -> CheckpointView:
        """Return the newest checkpoint. Raises ``Problem`` proof_pending where there is none yet."""
        async with self._door(agency) as partition:
            found = await newest_checkpoint(partition)
        await self._confirm(agency.cell)
        return found

    async def proof(self, agency: AgencyRow, record: uuid.UUID) -> RecordProof:
        """Prove a record. Raises ``Problem`` not_found, proof_pending."""
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            row = await partition.fetchrow(
                f"SELECT r.sealed, l.seq, l.leaf_data FROM {partition.table('records')} r"
                f" LEFT JOIN {partition.table('log')} l"
                " ON l.agency = r.agency AND l.label = r.label AND l.record = r.id WHERE r.agency = $1 AND r.id = $2",
                partition.agency,
                record,
            )
            if row is None:
                raise Problem("not_found")
            newest = await newest_checkpoint(partition)
            if row["seq"] is None or row["seq"] > newest.size:
                raise Problem("proof_pending", retry_after_s=PENDING_S)
            ranges = merkle.inclusion_ranges(row["seq"] - 1, newest.size)
            path = await hash_ranges(_Reader(partition), ranges, newest.size)
        await self._confirm(agency.cell)
        opened = keys.open("record", record.bytes, row["sealed"])
        return RecordProof(
            checkpoint=newest,
            position=row["seq"],
            data=row["leaf_data"],
            path=path,
            salt=opened[:SALT_BYTES],
            record=opened[SALT_BYTES:],
        )

    async def consistency(self, agency: AgencyRow, first: int) -> ConsistencyProof:
        """Prove that the log continues the one of ``first`` leaves, or that a restore lost some of them.

        Raises ``Problem`` proof_pending; invalid_field where the newest checkpoint is smaller and no restore was.
        """
        async with self._door(agency) as partition:
            newest = await newest_checkpoint(partition)
            restored = await _restored(partition, first, newest.size)
            if first > newest.size and restored is None:
                raise Problem("invalid_field", pointer="/from", expected="the size of a checkpoint of this log")
            ranges = merkle.consistency_ranges(first, newest.size) if first <= newest.size else []
            path = await hash_ranges(_Reader(partition), ranges, newest.size)
        await self._confirm(agency.cell)
        return ConsistencyProof(checkpoint=newest, first=first, path=path, restored=restored)

    async def export(self, agency: AgencyRow) -> AsyncGenerator[bytes, None]:
        """Yield the evidence file of the log up to its last checkpoint, with records and messages, line by line."""

        @contextlib.asynccontextmanager
        async def durable() -> AsyncIterator[Partition]:
            async with self._door(agency) as partition:
                yield partition
            await self._confirm(agency.cell)

        async for line in export_log(durable, self._origin(agency.code), self._keys(agency.number)):
            for piece in evidence_file.encode([line]):
                yield piece


async def _restored(partition: Partition, kept: int, size: int) -> RestoredLeaf | None:
    """Return the newest leaf of a restore that may explain a kept tree, in the tree of ``size`` leaves."""
    rows = await partition.fetch(
        f"SELECT l.seq, l.leaf_data FROM {partition.table('log')} l WHERE l.agency = $1 AND l.label >= $2"
        " AND l.label <= $3 AND l.seq <= $4 ORDER BY l.seq DESC LIMIT $5",
        partition.agency,
        TAG,
        TAG + bytes([255]) * _NAMED_BYTES,
        min(kept, size),
        RESTORES_MAX,
    )
    for row in rows:
        found = read_leaf(row["seq"], row["leaf_data"])
        if found is not None and kept <= found.size:
            ranges = merkle.inclusion_ranges(found.position - 1, size)
            return RestoredLeaf(found.position, row["leaf_data"], await hash_ranges(_Reader(partition), ranges, size))
    return None


async def newest_checkpoint(partition: Partition) -> CheckpointView:
    """Return an agency's newest checkpoint, as it rests. Raises ``Problem`` proof_pending where there is none yet."""
    row = await partition.fetchrow(
        f"SELECT c.size, c.note, (SELECT array_agg(s.line ORDER BY s.signer) FROM {partition.table('cosignatures')} s"
        f" WHERE s.size = c.size) AS lines FROM {partition.table('checkpoints')} c ORDER BY c.size DESC LIMIT 1"
    )
    if row is None:
        raise Problem("proof_pending", retry_after_s=PENDING_S)
    lines: list[bytes] = row["lines"] or []
    return CheckpointView(b"".join([row["note"], *lines]).decode("utf-8", "replace"), row["size"], bool(lines))


class _Reader:
    """Reads tiles and leaves through the agency's own door."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    async def __call__(self, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        names = sorted(need.tiles)
        tiles: list[Any] = []
        if names:
            tiles = await self._partition.fetch(
                f"SELECT t.level, t.n, t.hashes FROM unnest($1::smallint[], $2::bigint[]) u(level, n)"
                f" JOIN {self._partition.table('tiles')} t ON t.level = u.level AND t.n = u.n",
                [name.level for name in names],
                [name.n for name in names],
            )
        leaves: list[Any] = []
        if need.leaves:
            leaves = await self._partition.fetch(
                f"SELECT seq, leaf_data FROM {self._partition.table('log')} WHERE agency = $1 AND seq = ANY ($2)",
                self._partition.agency,
                [place + 1 for place in sorted(need.leaves)],
            )
        return (
            {TileName(row["level"], row["n"]): row["hashes"] for row in tiles},
            {row["seq"] - 1: leaf_hash(row["leaf_data"]) for row in leaves},
        )
