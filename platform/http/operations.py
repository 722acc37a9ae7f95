"""The agency's own operations log (操作記録): what its officers did and were refused, to read, prove and take along.

For those who answer for the officers: cards with the function ``order``, in a session administrators. That somebody
read it is entered in it, as every officer's call is.
"""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Reply, Route, Work
from chukan.platform.http.log_calls import NDJSON, LogCalls
from chukan.platform.wire.evidence import CheckpointView, ConsistencyParams, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import OperationParams, Operations

_RIGHT: Final = Right(("order",), by_session=("administer",))
_LOG: Final = LogCalls(lambda call: call.services.desks.operations, "operation")


async def page(call: Call) -> Reply:
    """Return a page of entries."""
    params = call.params_as(OperationParams)
    return Reply(await call.services.desks.operations.page(call.agency, params.after, params.limit))


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
        _LOG.checkpoint,
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
        _LOG.consistency,
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
        _LOG.export,
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
        _LOG.proof,
        Priority.COUNTER,
        reply=RecordProof,
        problems=("not_found", "proof_pending"),
    ),
)
