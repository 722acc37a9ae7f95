"""The desk for an agency's own operations log (操作記録): its entries, proofs, and the whole as an evidence file.

Read through the agency's own door and opened with its own keys. What is given is what rests: whoever gets it computes
everything anew. Nothing signed leaves here before it is known to be durable. Nothing is entered or changed here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from chukan.errors import Problem
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.log_reading import OPERATIONS, LogReading
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import OperationEntry, Operations
from chukan.tenants import evidence_file
from chukan.tenants.operations_export import AgencyLog, export_operations, open_entries
from chukan.tenants.operations_tree import agency_log

if TYPE_CHECKING:
    import uuid

    from chukan.tenants.directory import AgencyRow


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
            found = await LogReading(partition, OPERATIONS).newest()
        await self._confirm(agency.cell)
        return found

    async def consistency(self, agency: AgencyRow, first: int) -> ConsistencyProof:
        """Prove that the log continues the one of ``first`` leaves, or that a restore lost some of them.

        Raises ``Problem`` proof_pending; invalid_field where the newest checkpoint is smaller and no restore was.
        """
        async with self._door(agency) as partition:
            found = await LogReading(partition, OPERATIONS).consistency(first)
        await self._confirm(agency.cell)
        return found

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
            place = await LogReading(partition, OPERATIONS).place(row["seq"], row["leaf_data"])
        await self._confirm(agency.cell)
        return place.of_entry(keys.open("operation", operation.bytes, row["body"]))

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
