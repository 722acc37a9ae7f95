"""Queries (情報照会): ask, look, wait, collect the answers, take back.

A list is answered 202 while a line of it is open, with a place to look (``Location``), and 200 once all are final.
``Prefer: wait=N`` (RFC 7240) lets the reply wait for that, up to 60 s; so does ``?wait=`` on a single query. Who waits
holds no place among the requests at work, and is answered as things stand when this exchange goes out of service.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from aiohttp import hdrs

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http import forbidden, headers
from chukan.platform.http.api import HANDLER_DEADLINE_S
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route, Work
from chukan.platform.http.params import QueryPageParams, WaitParams
from chukan.platform.http.sessions import require_affairs, require_affairs_of
from chukan.platform.wire.agency import Batch, Queries, QueryLine, QueryLineView, QueryPage
from chukan.tenants import link_plan
from chukan.tenants.states import OPEN_INQUIRY

OPEN_STATES: Final = frozenset(state.name.lower() for state in OPEN_INQUIRY)
_ANSWERED: Final = frozenset({"answered", "collected"})
_RIGHT: Final = Right(("queries",))


async def post(call: Call) -> Reply:
    """Accept a list; wait and collect where the caller prefers it."""
    body = call.body_as(Queries)
    for number, line in enumerate(body.lines):
        forbidden.refuse(forbidden.of_query(line), f"/lines/{number}", number + 1)
    require_affairs(call, (line.affair for line in body.lines))
    inquiries = call.services.exchange.inquiries
    async with call.place(len(body.lines)), asyncio.timeout(HANDLER_DEADLINE_S):
        batch = await inquiries.accept(call.agency, call.client, body, call.need_key().key, call.raw)
    # By the address of the connection itself, as the check of callers sees it.
    through = call.request.remote is not None and link_plan.owner(call.request.remote) is not None
    call.services.metrics.asked(len(body.lines), through_link=through)
    wait_s = headers.preferred_wait_s(call.request)
    applied = settled = False
    if wait_s is not None and _is_open(batch):
        waited = await _wait(call, inquiries.settled(call.agency, batch, float(wait_s)), wait_s)
        applied, settled = waited is not None, waited == (None,)
        if settled and not body.collect:
            async with call.place(), asyncio.timeout(HANDLER_DEADLINE_S):
                waited = (await inquiries.view(call.agency, batch.batch),)
        batch = _merge(batch, *(waited or (None,)))
    if body.collect and (settled or any(line.state in _ANSWERED for line in batch.lines)):
        async with call.place(), asyncio.timeout(HANDLER_DEADLINE_S):
            batch = _merge(batch, await inquiries.collect(call.agency, batch.batch, batch))
    location = f"{call.request.path}/{batch.batch}"
    extra: dict[str, str] = {hdrs.LOCATION: location}
    if applied or (wait_s is not None and not _is_open(batch)):
        extra[headers.PREFERENCE_APPLIED] = f"wait={wait_s}"
    return Reply(batch, 202 if _is_open(batch) else 200, extra)


async def get(call: Call) -> Reply:
    """Show a batch or one line, after waiting for it where that is asked for."""
    reference = call.id("query")
    await require_affairs_of(call, reference)
    wait_s = call.params_as(WaitParams).wait
    async with call.place(), asyncio.timeout(HANDLER_DEADLINE_S):
        batch = await call.services.exchange.inquiries.view(call.agency, reference)
    if wait_s and _is_open(batch):
        waited = await _wait(call, call.services.exchange.inquiries.wait(call.agency, reference, float(wait_s)), wait_s)
        batch = _merge(batch, *(waited or (None,)))
    return Reply(batch)


async def page(call: Call) -> Reply:
    """List lines by state."""
    params = call.params_as(QueryPageParams)
    inquiries = call.services.exchange.inquiries
    return Reply(await inquiries.page(call.agency, params.state, params.after, params.limit))


async def collect(call: Call) -> Reply:
    """Hand out the content of answered lines; repeatable until it is purged."""
    await require_affairs_of(call, call.id("query"))
    batch = await call.services.exchange.inquiries.collect(call.agency, call.id("query"))
    if all(line.state == "purged" for line in batch.lines):
        raise Problem("result_purged")
    if not any(line.state in _ANSWERED for line in batch.lines):
        raise Problem("not_collectable")
    return Reply(batch)


async def cancel(call: Call) -> Reply:
    """Take back open lines (中断)."""
    await require_affairs_of(call, call.id("query"))
    return Reply(await call.services.exchange.inquiries.cancel(call.agency, call.client, call.id("query")))


async def resend(call: Call) -> Reply:
    """Send lines that ended without an answer once more (再送), on an officer's word."""
    if call.client.kind != "officer":
        raise Problem("officer_required")
    await require_affairs_of(call, call.id("query"))
    return Reply(await call.services.exchange.inquiries.resend(call.agency, call.client, call.id("query")))


async def _wait(call: Call, waiting: Coroutine[Any, Any, Batch | None], wait_s: int) -> tuple[Batch | None] | None:
    """Return what was waited for; None where there is no room to wait, or this exchange goes out of service."""

    async def waited() -> tuple[Batch | None]:
        return (await waiting,)

    with call.park() as free:
        if not free:
            waiting.close()
            return None
        async with asyncio.timeout(wait_s + HANDLER_DEADLINE_S):
            found = await call.services.drain.race(waited())
    if found is None:
        waiting.close()
    return found


def _is_open(batch: Batch) -> bool:
    return any(line.state in OPEN_STATES for line in batch.lines)


def _merge(first: Batch, later: Batch | None) -> Batch:
    """Return the later state of all lines; one that was refused before acceptance exists in the first reply only."""
    if later is None:
        return first
    lines: dict[int, QueryLineView] = {line.line: line for line in first.lines}
    lines.update((line.line, line) for line in later.lines)
    return msgspec.structs.replace(first, lines=[lines[number] for number in sorted(lines)])


_EXAMPLE: Final = Queries(
    lines=[
        QueryLine(
            addressee="000000000012345",
            kind="TM00000000000002",
            provider="1234560000000001",
            affair="JM01000000121000",
            procedure="JT01010000000214",
            department="福祉課",
        )
    ],
    collect=True,
)

ROUTES: Final = (
    Route(
        "POST",
        "/queries",
        "postQueries",
        "情報照会を行う。Ask for specific personal information, 1 to 1,000 lines.",
        _RIGHT,
        post,
        Priority.COUNTER,
        by_affair=True,
        body=Queries,
        reply=Batch,
        statuses=(200, 202),
        key=True,
        bulk=True,
        work=Work.OWN,
        prefer_wait=True,
        problems=("individual_number_present", "resident_code_present", "idempotency_key_reused", "no_primary"),
        examples=(Example("One person's tax information, with its content in the reply.", _EXAMPLE),),
    ),
    Route(
        "GET",
        "/queries",
        "listQueries",
        "照会の一覧(状態別)。List query lines by state.",
        _RIGHT,
        page,
        Priority.COUNTER,
        by_affair=True,
        params=QueryPageParams,
        reply=QueryPage,
    ),
    Route(
        "GET",
        "/queries/{query}",
        "getQuery",
        "照会の状態。Show a batch or a line by its id, waiting for it where `wait` says so.",
        _RIGHT,
        get,
        Priority.COUNTER,
        by_affair=True,
        params=WaitParams,
        reply=Batch,
        work=Work.OWN,
        problems=("not_found",),
    ),
    Route(
        "POST",
        "/queries/{query}/collect",
        "collectQuery",
        "回答の受領。Hand out the answers of a batch or a line; repeatable until they are purged.",
        _RIGHT,
        collect,
        Priority.COUNTER,
        by_affair=True,
        reply=Batch,
        key=True,
        problems=("not_found", "not_collectable", "result_purged"),
    ),
    Route(
        "POST",
        "/queries/{query}/cancel",
        "cancelQuery",
        "照会の中断。Take back the open lines of a batch, or one line.",
        _RIGHT,
        cancel,
        Priority.COUNTER,
        by_affair=True,
        reply=Batch,
        key=True,
        problems=("not_found", "already_final"),
    ),
    Route(
        "POST",
        "/queries/{query}/resend",
        "resendQuery",
        "再送(職員)。Send the lines of a batch that ended without an answer, or one line, once more.",
        _RIGHT,
        resend,
        Priority.COUNTER,
        by_affair=True,
        reply=Batch,
        key=True,
        problems=("not_found", "not_resendable", "officer_required"),
    ),
)
