"""Holders (通知先の通知): which agencies that may be asked hold a linkage code of a person (INQ-03)."""

from typing import Final

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.http.sessions import require_affairs
from chukan.platform.wire.holders import HolderAsk, HolderLine, HolderViews


async def ask(call: Call) -> Reply:
    """Look holders up, line by line."""
    body = call.body_as(HolderAsk)
    for number, line in enumerate(body.lines):
        forbidden.refuse([("addressee", line.addressee)], f"/lines/{number}", number + 1)
    require_affairs(call, (line.affair for line in body.lines))
    return Reply(await call.services.exchange.holders.ask(call.agency, body))


_EXAMPLE: Final = HolderLine(
    addressee="A1", affair="JM01000000121000", procedure="JT01010000000214", kind="TM00000000000002"
)

ROUTES: Final = (
    Route(
        "POST",
        "/holders",
        "askHolders",
        "通知先の通知。Ask which agencies that may be asked for this hold a code of the person.",
        Right(("queries",)),
        ask,
        Priority.COUNTER,
        by_affair=True,
        body=HolderAsk,
        reply=HolderViews,
        bulk=True,
        problems=("individual_number_present", "resident_code_present", "network_unavailable"),
        examples=(Example("Who has tax information about one person?", HolderAsk(lines=[_EXAMPLE])),),
    ),
)
