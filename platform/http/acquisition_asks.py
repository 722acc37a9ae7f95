"""Requests to acquire a code (符号取得の依頼): the inquirer sends four facts, the provider reads and fulfils.

Facts of a person stand in bodies only, and no problem document ever quotes one.
"""

from typing import Final

import msgspec

from chukan.platform.admission import Priority
from chukan.platform.http import forbidden
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.acquisition_asks import (
    AcquisitionAnswer,
    AcquisitionAnswered,
    AcquisitionAskViews,
    AskedToAcquire,
    PersonFacts,
)

_EXAMPLE: Final = '{"name":"見本 花子","birth_date":"1980-04-01","sex":"female","address":"見本県見本市一丁目1番"}'


async def request(call: Call) -> Reply:
    """Pass a request to acquire on to the provider of a query line."""
    facts = call.body_as(PersonFacts)
    forbidden.refuse([("name", facts.name), ("address", facts.address)])
    asks = call.services.exchange.acquisition_asks
    return Reply(await asks.request(call.agency, call.client, call.id("query"), facts))


async def listing(call: Call) -> Reply:
    """List the requests that came to the agency."""
    return Reply(await call.services.exchange.acquisition_asks.list(call.agency))


async def answer(call: Call) -> Reply:
    """Acquire a code for the person that the agency found, or decline."""
    body = call.body_as(AcquisitionAnswer)
    forbidden.refuse([("addressee", body.addressee or "")])
    asks = call.services.exchange.acquisition_asks
    return Reply(await asks.answer(call.agency, call.client, call.id("request"), body, call.need_key().key))


_NUMBERS: Final = ("individual_number_present", "resident_code_present")

ROUTES: Final = (
    Route(
        "POST",
        "/queries/{query}/request-acquisition",
        "requestAcquisition",
        "符号取得の依頼(基本4情報)。Ask the provider of a line that ended with provider_has_no_code to acquire a code.",
        Right(("queries",)),
        request,
        Priority.COUNTER,
        body=PersonFacts,
        reply=AskedToAcquire,
        key=True,
        problems=(*_NUMBERS, "not_found", "acquisition_not_askable", "network_unavailable"),
        examples=(Example("The four facts.", msgspec.json.decode(_EXAMPLE, type=PersonFacts)),),
    ),
    Route(
        "GET",
        "/acquisition-requests",
        "listAcquisitionRequests",
        "符号取得の依頼の一覧。List open requests to acquire a code, with the facts; deleted after 28 days.",
        Right(("codes",)),
        listing,
        Priority.COUNTER,
        reply=AcquisitionAskViews,
    ),
    Route(
        "POST",
        "/acquisition-requests/{request}/fulfil",
        "fulfilAcquisitionRequest",
        "符号取得の依頼に応じる。Acquire a code for the person found, or decline without a number.",
        Right(("codes",)),
        answer,
        Priority.COUNTER,
        body=AcquisitionAnswer,
        reply=AcquisitionAnswered,
        key=True,
        problems=(*_NUMBERS, "not_found", "already_final", "network_unavailable"),
        examples=(
            Example("The person is known here.", AcquisitionAnswer(addressee="A1")),
            Example("Nobody here is that person.", AcquisitionAnswer()),
        ),
    ),
)
