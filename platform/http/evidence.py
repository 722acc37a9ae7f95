"""Evidence of provision records (証跡): the log's checkpoint, and proofs that are checked without the platform."""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Route, Work
from chukan.platform.http.log_calls import NDJSON, LogCalls
from chukan.platform.wire.evidence import CheckpointView, ConsistencyParams, ConsistencyProof, RecordProof

_RIGHT: Final = Right(("records",))
_LOG: Final = LogCalls(lambda call: call.services.desks.evidence, "record")
ROUTES: Final = (
    Route(
        "GET",
        "/checkpoint",
        "getCheckpoint",
        "チェックポイント。The log's signed checkpoint.",
        _RIGHT,
        _LOG.checkpoint,
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
        _LOG.consistency,
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
        _LOG.proof,
        Priority.COUNTER,
        reply=RecordProof,
        problems=("not_found", "proof_pending"),
    ),
    Route(
        "GET",
        "/records/export",
        "exportRecords",
        "情報提供等記録の証跡ファイル。The whole log, its records and their messages, for chukan records verify.",
        _RIGHT,
        _LOG.export,
        Priority.BATCH,
        work=Work.OWN,
        produces=(
            NDJSON,
            "An evidence file (証跡ファイル): checkpoints, tiles, leaves with records, kept messages (電文の証跡).",
        ),
    ),
)
