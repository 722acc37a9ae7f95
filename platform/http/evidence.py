"""Evidence of provision records (証跡): the log's checkpoint, and proofs that are checked without the platform."""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Reply, Route
from chukan.platform.wire.evidence import CheckpointView, ConsistencyParams, ConsistencyProof, RecordProof

_RIGHT: Final = Right(("records",))


async def checkpoint(call: Call) -> Reply:
    """Return the newest checkpoint of the agency's log."""
    return Reply(await call.services.desks.evidence.checkpoint(call.agency))


async def consistency(call: Call) -> Reply:
    """Prove that the log continues a checkpoint that the client has kept."""
    params = call.params_as(ConsistencyParams)
    return Reply(await call.services.desks.evidence.consistency(call.agency, params.first))


async def proof(call: Call) -> Reply:
    """Prove that a record stands in the log as it was made."""
    return Reply(await call.services.desks.evidence.proof(call.agency, call.id("record")))


ROUTES: Final = (
    Route(
        "GET",
        "/checkpoint",
        "getCheckpoint",
        "チェックポイント。The log's signed checkpoint.",
        _RIGHT,
        checkpoint,
        Priority.COUNTER,
        reply=CheckpointView,
        problems=("proof_pending",),
    ),
    Route(
        "GET",
        "/checkpoint/consistency",
        "getConsistency",
        "記録の連続性の証明。Prove that the log continues an earlier checkpoint.",
        _RIGHT,
        consistency,
        Priority.COUNTER,
        params=ConsistencyParams,
        reply=ConsistencyProof,
        problems=("proof_pending",),
    ),
    Route(
        "GET",
        "/records/{record}/proof",
        "getRecordProof",
        "記録の証明。Prove a record's place in the log.",
        _RIGHT,
        proof,
        Priority.COUNTER,
        reply=RecordProof,
        problems=("not_found", "proof_pending"),
    ),
)
