"""A resident's own records (本人開示, 番号法23条2項・31条): for the portal's adapter, or an officer."""

from typing import Final

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.resident import ResidentAsk, ResidentRecords

_RIGHT: Final = Right(("residents", "records"))


async def records(call: Call) -> Reply:
    """Return a person's records, each provable, with the proof that none in the log is missing."""
    body = call.body_as(ResidentAsk)
    if not body.addressees and not body.codes:
        raise Problem("invalid_field", pointer="/addressees", expected="a number or a code of the person")
    forbidden.refuse([(str(number), each) for number, each in enumerate(body.addressees)], "/addressees")
    return Reply(await call.services.desks.residents.records(call.agency, body))


ROUTES: Final = (
    Route(
        "POST",
        "/resident/records",
        "residentRecords",
        "本人開示。A resident's own records, with proofs and the proof that none in the log is missing.",
        _RIGHT,
        records,
        Priority.COUNTER,
        body=ResidentAsk,
        reply=ResidentRecords,
        problems=("individual_number_present", "resident_code_present", "proof_pending", "too_many_lines"),
        examples=(
            Example("By the agency's own number.", ResidentAsk(addressees=["A1"])),
            Example("By the code that the portal has.", ResidentAsk(codes=[b"\x01" * 16])),
        ),
    ),
)
