"""What the agency API asks of the desks for an agency's two signed logs: provision records, and operations.

They stand in ``platform.http.desks``; ``ports`` has the others. Nothing here may change what a log says.
"""

import uuid
from collections.abc import AsyncGenerator
from typing import Protocol

from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import Operations
from chukan.tenants.directory import AgencyRow


class EvidenceDesk(Protocol):
    """Checkpoints and proofs of the agency's log (証跡)."""

    async def checkpoint(self, agency: AgencyRow) -> CheckpointView:
        """Return the newest checkpoint. Raises Problem ``proof_pending``."""
        ...

    async def proof(self, agency: AgencyRow, record: uuid.UUID, /) -> RecordProof:
        """Prove a record, or an entry. Raises Problem ``not_found``, ``proof_pending``."""
        ...

    async def consistency(self, agency: AgencyRow, first: int) -> ConsistencyProof:
        """Prove that the log continues the one of ``first`` leaves. Raises Problem ``proof_pending``."""
        ...

    def export(self, agency: AgencyRow) -> AsyncGenerator[bytes, None]:
        """Yield the lines of the evidence file, with all that belongs to its leaves."""
        ...


class OperationsDesk(EvidenceDesk, Protocol):
    """The agency's own operations log (操作記録): proven as records are, and read page by page."""

    async def page(self, agency: AgencyRow, after: int, limit: int) -> Operations:
        """Return the entries of the next leaves after a position."""
        ...
