"""Corrections of records (訂正): an officer's act; the network and the counterpart are told (REC-04)."""

from typing import Final

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.corrections import CorrectionView, RecordCorrection


async def correct(call: Call) -> Reply:
    """Append an amendment to a record, and tell the network."""
    if call.client.kind != "officer":
        raise Problem("officer_required")
    body = call.body_as(RecordCorrection)
    if body.department is not None:
        forbidden.refuse([("department", body.department)])
    service = call.services.exchange.corrections
    return Reply(await service.correct(call.agency, call.client, call.id("record"), body, call.need_key().key))


ROUTES: Final = (
    Route(
        "POST",
        "/records/{record}/correct",
        "correctRecord",
        "訂正(職員)。Correct what a record says; network and counterpart are told (番号法31条).",
        Right(("records",)),
        correct,
        Priority.COUNTER,
        body=RecordCorrection,
        reply=CorrectionView,
        key=True,
        problems=(
            "not_found",
            "officer_required",
            "correction_empty",
            "unknown_affair",
            "unknown_procedure",
            "procedure_not_of_affair",
            "unknown_item",
            "individual_number_present",
            "resident_code_present",
            "idempotency_key_reused",
            "cell_restored",
        ),
        examples=(Example("The record must not be shown to the person.", RecordCorrection(withheld=True)),),
    ),
)
