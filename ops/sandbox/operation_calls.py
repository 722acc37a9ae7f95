"""Calls of the agency API about the agency's own operations log (操作記録). Part of ``AgencyClient``."""

import uuid
from collections.abc import AsyncIterator

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import Operations


class OperationCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def operations(self, *, after: int = 0, limit: int = 100) -> Operations:
        """A page of the log, in its order."""
        params = {"after": str(after), "limit": str(limit)}
        return await self._transport.call(Request("GET", "/operations", params=params), Operations)

    async def operation_proof(self, operation: uuid.UUID) -> RecordProof:
        """The proof that an entry stands in the log."""
        return await self._transport.call(Request("GET", f"/operations/{operation}/proof"), RecordProof)

    def export_operations(self) -> AsyncIterator[bytes]:
        """The log as an evidence file, in pieces."""
        return self._transport.stream(Request("GET", "/operations/export"))

    @property
    def operations_log(self) -> "OperationsLog":
        """The log as ``checkpoint_book`` looks at one."""
        return OperationsLog(self._transport)


class OperationsLog:
    """Checkpoints and proofs of the operations log; a ``checkpoint_book.Log``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def checkpoint(self) -> CheckpointView:
        """Return the newest checkpoint."""
        return await self._transport.call(Request("GET", "/operations/checkpoint"), CheckpointView)

    async def consistency(self, first: int) -> ConsistencyProof:
        """Return the proof that the newest one continues the one of ``first`` leaves."""
        request = Request("GET", "/operations/checkpoint/consistency", params={"from": str(first)})
        return await self._transport.call(request, ConsistencyProof)
