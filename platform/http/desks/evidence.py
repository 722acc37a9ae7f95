"""The desk for evidence (証跡): checkpoints and proofs of one agency's log, read through its own door.

What is given is what rests: whoever gets it computes everything anew, so a wrong tree shows at the caller. Nothing
signed leaves here before it is known to be durable.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from chukan.errors import Problem
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.log_reading import RECORDS, LogReading
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.tenants import evidence_file
from chukan.tenants.evidence_export import export_log

if TYPE_CHECKING:
    import uuid

    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.partition import Partition


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
            found = await LogReading(partition, RECORDS).newest()
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
            place = await LogReading(partition, RECORDS).place(row["seq"], row["leaf_data"])
        await self._confirm(agency.cell)
        return place.of_entry(keys.open("record", record.bytes, row["sealed"]))

    async def consistency(self, agency: AgencyRow, first: int) -> ConsistencyProof:
        """Prove that the log continues the one of ``first`` leaves, or that a restore lost some of them.

        Raises ``Problem`` proof_pending; invalid_field where the newest checkpoint is smaller and no restore was.
        """
        async with self._door(agency) as partition:
            found = await LogReading(partition, RECORDS).consistency(first)
        await self._confirm(agency.cell)
        return found

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
