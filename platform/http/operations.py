"""The agency's own operations log (操作記録): what its officers did and were refused, to read, prove and take along.

For those who answer for the officers: cards with the function ``order``, in a session administrators. That somebody
read it is entered in it, as every officer's call is.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Pieces, Reply, Route, Work
from chukan.platform.wire.evidence import CheckpointView, ConsistencyParams, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import OperationParams, Operations

NDJSON: Final = "application/x-ndjson"
LINES_AT_ONCE: Final = 500
PART_DEADLINE_S: Final = 30.0
_RIGHT: Final = Right(("order",), by_session=("administer",))


async def page(call: Call) -> Reply:
    """Return a page of entries."""
    params = call.params_as(OperationParams)
    return Reply(await call.services.desks.operations.page(call.agency, params.after, params.limit))


async def checkpoint(call: Call) -> Reply:
    """Return the newest checkpoint of the log."""
    return Reply(await call.services.desks.operations.checkpoint(call.agency))


async def consistency(call: Call) -> Reply:
    """Prove that the log continues a checkpoint that the client has kept."""
    params = call.params_as(ConsistencyParams)
    return Reply(await call.services.desks.operations.consistency(call.agency, params.first))


async def proof(call: Call) -> Reply:
    """Prove that an entry stands in the log as it was made."""
    return Reply(await call.services.desks.operations.proof(call.agency, call.id("operation")))


async def export(call: Call) -> Reply:
    """Return the whole log as an evidence file, read part by part as it is taken."""
    return Reply(Pieces(NDJSON, _poured(call)))


async def _poured(call: Call) -> AsyncGenerator[bytes, None]:
    async with aclosing(call.services.desks.operations.export(call.agency)) as coming:
        while True:
            part: list[bytes] = []
            async with call.place(), asyncio.timeout(PART_DEADLINE_S):
                while len(part) < LINES_AT_ONCE and (line := await anext(coming, None)) is not None:
                    part.append(line)
            if not part:
                return
            yield b"".join(part)


ROUTES: Final = (
    Route(
        "GET",
        "/operations",
        "listOperations",
        "操作記録の一覧。List the acts of the agency's officers in the order of their log.",
        _RIGHT,
        page,
        Priority.COUNTER,
        params=OperationParams,
        reply=Operations,
    ),
    Route(
        "GET",
        "/operations/checkpoint",
        "getOperationsCheckpoint",
        "操作記録のチェックポイント。The operations log's signed checkpoint.",
        _RIGHT,
        checkpoint,
        Priority.COUNTER,
        reply=CheckpointView,
        problems=("proof_pending",),
    ),
    Route(
        "GET",
        "/operations/checkpoint/consistency",
        "getOperationsConsistency",
        "操作記録の連続性の証明。Prove that the operations log continues an earlier checkpoint.",
        _RIGHT,
        consistency,
        Priority.COUNTER,
        params=ConsistencyParams,
        reply=ConsistencyProof,
        problems=("proof_pending",),
    ),
    Route(
        "GET",
        "/operations/export",
        "exportOperations",
        "操作記録の証跡ファイル。The whole operations log as an evidence file, for chukan records verify.",
        _RIGHT,
        export,
        Priority.BATCH,
        work=Work.OWN,
        produces=(NDJSON, "An evidence file (証跡ファイル): a header, checkpoints, tiles, leaves with their entries."),
    ),
    Route(
        "GET",
        "/operations/{operation}/proof",
        "getOperationProof",
        "操作記録の証明。Prove an entry's place in the operations log.",
        _RIGHT,
        proof,
        Priority.COUNTER,
        reply=RecordProof,
        problems=("not_found", "proof_pending"),
    ),
)
