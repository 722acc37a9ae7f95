"""Evidence of provision records (証跡): the log's checkpoint, and proofs that are checked without the platform."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Pieces, Reply, Route, Work
from chukan.platform.wire.evidence import CheckpointView, ConsistencyParams, ConsistencyProof, RecordProof

NDJSON: Final = "application/x-ndjson"
LINES_AT_ONCE: Final = 500
PART_DEADLINE_S: Final = 30.0
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


async def export(call: Call) -> Reply:
    """Return the whole log with the records and their messages as an evidence file, read as it is taken."""
    return Reply(Pieces(NDJSON, _poured(call)))


async def _poured(call: Call) -> AsyncGenerator[bytes, None]:
    async with aclosing(call.services.desks.evidence.export(call.agency)) as coming:
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
    Route(
        "GET",
        "/records/export",
        "exportRecords",
        "情報提供等記録の証跡ファイル。The whole log, its records and their messages, for chukan records verify.",
        _RIGHT,
        export,
        Priority.BATCH,
        work=Work.OWN,
        produces=(
            NDJSON,
            "An evidence file (証跡ファイル): checkpoints, tiles, leaves with records, kept messages (電文の証跡).",
        ),
    ),
)
