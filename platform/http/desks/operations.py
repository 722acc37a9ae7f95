"""The desk for an agency's own operations log (操作記録): its entries, proofs, and the whole as an evidence file.

Read through the agency's own door and opened with its own keys. What is given is what rests: whoever gets it computes
everything anew. Nothing signed leaves here before it is known to be durable. Nothing is entered or changed here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from chukan.errors import Problem
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.evidence import PENDING_S, RESTORES_MAX
from chukan.platform.wire.checkpoints import RestoredLeaf
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import OperationEntry, Operations
from chukan.tenants import evidence_file, merkle
from chukan.tenants.evidence import hash_ranges
from chukan.tenants.merkle import Need, TileName, leaf_hash
from chukan.tenants.operations_export import AgencyLog, export_operations, open_entries
from chukan.tenants.operations_tree import agency_log
from chukan.tenants.records import SALT_BYTES
from chukan.tenants.restored import TAG, read_leaf

if TYPE_CHECKING:
    import uuid

    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.partition import Partition

_NAMED_BYTES: Final = 12
"""What a restore's label says behind its tag: epoch and size."""


class PartitionOperations:
    """Implements ``ports.OperationsDesk``.

    ``confirm`` returns once what was read in a cell so far is durable; ``origin`` names a log.
    """

    def __init__(
        self, door: Door, keys: Keys, confirm: Callable[[str], Awaitable[None]], origin: Callable[[str], str]
    ) -> None:
        self._door = door
        self._keys = keys
        self._confirm = confirm
        self._origin = origin

    async def page(self, agency: AgencyRow, after: int, limit: int) -> Operations:
        """Return the entries of the next leaves after a position, each held against its leaf."""
        keys = self._keys(agency.number)
        rows = await AgencyLog(partial(self._door, agency)).leaves(after, limit)
        entries = [
            OperationEntry(
                position=position,
                id=each.id,
                at=each.at,
                actor=each.actor,
                kind=each.kind,
                subject_class=each.subject_class,
                outcome=each.outcome,
                problem=each.code,
                subject=each.subject,
                second=each.second,
                times=each.times,
            )
            for position, each in open_entries(rows, keys)
        ]
        return Operations(entries=entries, next=rows[-1]["seq"] if len(rows) == limit else None)

    async def checkpoint(self, agency: AgencyRow) -> CheckpointView:
        """Return the newest checkpoint. Raises ``Problem`` proof_pending where there is none yet."""
        async with self._door(agency) as partition:
            found = await _newest(partition)
        await self._confirm(agency.cell)
        return found

    async def consistency(self, agency: AgencyRow, first: int) -> ConsistencyProof:
        """Prove that the log continues the one of ``first`` leaves, or that a restore lost some of them.

        Raises ``Problem`` proof_pending; invalid_field where the newest checkpoint is smaller and no restore was.
        """
        async with self._door(agency) as partition:
            newest = await _newest(partition)
            restored = await _restored(partition, first, newest.size)
            if first > newest.size and restored is None:
                raise Problem("invalid_field", pointer="/from", expected="the size of a checkpoint of this log")
            ranges = merkle.consistency_ranges(first, newest.size) if first <= newest.size else []
            path = await hash_ranges(_Reader(partition), ranges, newest.size)
        await self._confirm(agency.cell)
        return ConsistencyProof(checkpoint=newest, first=first, path=path, restored=restored)

    async def proof(self, agency: AgencyRow, operation: uuid.UUID) -> RecordProof:
        """Prove an entry. Raises ``Problem`` not_found, proof_pending."""
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            row = await partition.fetchrow(
                f"SELECT o.body, l.seq, l.leaf_data FROM {partition.table('operations')} o"
                f" LEFT JOIN {partition.table('operation_log')} l ON l.operation = o.id WHERE o.id = $1",
                operation,
            )
            if row is None:
                raise Problem("not_found")
            newest = await _newest(partition)
            if row["seq"] is None or row["seq"] > newest.size:
                raise Problem("proof_pending", retry_after_s=PENDING_S)
            ranges = merkle.inclusion_ranges(row["seq"] - 1, newest.size)
            path = await hash_ranges(_Reader(partition), ranges, newest.size)
        await self._confirm(agency.cell)
        opened = keys.open("operation", operation.bytes, row["body"])
        return RecordProof(
            checkpoint=newest,
            position=row["seq"],
            data=row["leaf_data"],
            path=path,
            salt=opened[:SALT_BYTES],
            record=opened[SALT_BYTES:],
        )

    async def export(self, agency: AgencyRow) -> AsyncGenerator[bytes, None]:
        """Yield the evidence file of the log up to its last checkpoint, opened, line by line."""
        log = _DurableLog(partial(self._door, agency), partial(self._confirm, agency.cell))
        origin = self._origin(agency_log(agency.code))
        async for line in export_operations(log, origin, self._keys(agency.number), clear=False):
            for piece in evidence_file.encode([line]):
                yield piece


class _DurableLog(AgencyLog):
    """Gives checkpoints only once they are durable; leaves and tiles of them are by then."""

    def __init__(self, door: Callable[[], Any], confirm: Callable[[], Awaitable[None]]) -> None:
        super().__init__(door)
        self._confirm = confirm

    async def checkpoints(self, after: int) -> Sequence[Any]:
        found = await super().checkpoints(after)
        await self._confirm()
        return found


async def _newest(partition: Partition) -> CheckpointView:
    row = await partition.fetchrow(
        f"SELECT c.size, c.note, (SELECT array_agg(s.line ORDER BY s.signer) FROM"
        f" {partition.table('operation_cosignatures')} s WHERE s.size = c.size) AS lines"
        f" FROM {partition.table('operation_checkpoints')} c ORDER BY c.size DESC LIMIT 1"
    )
    if row is None:
        raise Problem("proof_pending", retry_after_s=PENDING_S)
    lines: list[bytes] = row["lines"] or []
    return CheckpointView(b"".join([row["note"], *lines]).decode("utf-8", "replace"), row["size"], bool(lines))


async def _restored(partition: Partition, kept: int, size: int) -> RestoredLeaf | None:
    """Return the newest leaf of a restore that may explain a kept tree, in the tree of ``size`` leaves."""
    rows = await partition.fetch(
        f"SELECT seq, leaf_data FROM {partition.table('operation_log')} WHERE label >= $1 AND label <= $2"
        " AND seq <= $3 ORDER BY seq DESC LIMIT $4",
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


class _Reader:
    """Reads tiles and leaves of the operations log through the agency's own door."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    async def __call__(self, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        names = sorted(need.tiles)
        tiles = await self._partition.fetch(
            f"SELECT t.level, t.n, t.hashes FROM unnest($1::smallint[], $2::bigint[]) u(level, n)"
            f" JOIN {self._partition.table('operation_tiles')} t ON t.level = u.level AND t.n = u.n",
            [name.level for name in names],
            [name.n for name in names],
        )
        leaves = await self._partition.fetch(
            f"SELECT seq, leaf_data FROM {self._partition.table('operation_log')} WHERE seq = ANY ($1)",
            [place + 1 for place in sorted(need.leaves)],
        )
        return (
            {TileName(row["level"], row["n"]): row["hashes"] for row in tiles},
            {row["seq"] - 1: leaf_hash(row["leaf_data"]) for row in leaves},
        )
