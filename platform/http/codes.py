"""Linkage codes (符号取得): ask for acquisition, see the status; a code itself is in no reply (DESIGN §5 A)."""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.agency import CodeAsk, CodeLine, CodeStatuses

_RIGHT: Final = Right(("codes",))


async def ask(call: Call) -> Reply:
    """Open acquisitions and return their numbers."""
    body = _checked(call)
    return Reply(await call.services.exchange.codes.ask(call.agency, body, call.need_key().key))


async def search(call: Call) -> Reply:
    """Return the status of each person's link."""
    return Reply(await call.services.exchange.codes.search(call.agency, _checked(call)))


def _checked(call: Call) -> CodeAsk:
    body = call.body_as(CodeAsk)
    for number, line in enumerate(body.lines):
        forbidden.refuse([("addressee", line.addressee)], f"/lines/{number}", number + 1)
    return body


_EXAMPLE: Final = Example("Two persons.", CodeAsk(lines=[CodeLine(addressee="A1"), CodeLine(addressee="A2")]))
_PROBLEMS: Final = ("individual_number_present", "resident_code_present")

ROUTES: Final = (
    Route(
        "POST",
        "/codes",
        "askCodes",
        "符号取得を始める。Acquire linkage codes; one acquisition is open per person.",
        _RIGHT,
        ask,
        Priority.COUNTER,
        body=CodeAsk,
        reply=CodeStatuses,
        key=True,
        bulk=True,
        problems=(*_PROBLEMS, "network_unavailable"),
        examples=(_EXAMPLE,),
    ),
    Route(
        "POST",
        "/codes/search",
        "searchCodes",
        "符号の状態。Look up the status of links.",
        _RIGHT,
        search,
        Priority.COUNTER,
        body=CodeAsk,
        reply=CodeStatuses,
        bulk=True,
        problems=_PROBLEMS,
        examples=(_EXAMPLE,),
    ),
)
