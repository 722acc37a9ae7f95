"""Events (状態の変化): a stream of what happens to the agency's own lines on both sides, resumable without a gap.

Server-sent events: each ``id`` is a cursor; who comes back with it as ``Last-Event-ID`` goes on behind it. A stream
holds no place among the requests at work. The caller's rights are looked at again before every page, for a stream
outlives many changes of the directory.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from chukan import log
from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right, authorise
from chukan.platform.http.calls import Call, Pieces, Reply, Route, Work
from chukan.platform.http.sessions import look_again
from chukan.platform.wire.events import EventPage, render

EVENT_STREAM: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"
RETRY: Final = b"retry: 2000\n\n"
_RIGHT: Final = Right(("queries",))
_log = log.get("http.events")


async def follow(call: Call) -> Reply:
    """Write events as they come; the first page is there before the reply begins, so that a refusal can be told."""
    pages = await call.services.exchange.events.follow(call.agency, call.request.headers.get(LAST_EVENT_ID))
    async with call.place():
        first = await anext(pages)
    return Reply(Pieces(f"{EVENT_STREAM}; charset=utf-8", _pieces(call, pages, first)))


async def _pieces(call: Call, pages: AsyncGenerator[EventPage, None], first: EventPage) -> AsyncGenerator[bytes, None]:
    async with aclosing(pages):
        yield RETRY + render(first)
        while (page := await _next(call, pages)) is not None:
            await _look_again(call)
            yield render(page)


async def _look_again(call: Call) -> None:
    """Refuse who lost the right meanwhile. Raises ``Problem`` as ``authorise`` and unregistered_system."""
    directory = call.services.exchange.directory
    try:
        if call.officer is not None:
            await look_again(call)
            return
        authorise(directory.client(call.client.id), call.agency.code, call.route.right, directory)
    except Problem as problem:
        call.services.metrics.access_refused(problem.code)
        _log.warning("access refused", peer=call.client.id, code=problem.code, route=call.route.template)
        raise


async def _next(call: Call, pages: AsyncGenerator[EventPage, None]) -> EventPage | None:
    """Return the next page, None at the end of the stream or of the exchange; the pages rest when this returns."""
    coming = asyncio.ensure_future(_anext(pages))
    try:
        return await call.services.drain.race(_result(coming))
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))


async def _anext(pages: AsyncGenerator[EventPage, None]) -> EventPage | None:
    return await anext(pages, None)


async def _result(coming: "asyncio.Future[EventPage | None]") -> EventPage | None:
    return await coming


_FORM: Final = (
    "Server-sent events: `event: line` with a LineEvent as JSON in `data`; a comment as a heartbeat every 15 seconds; "
    "`event: reset` where the given id cannot be gone on from. The last event of those that became visible together "
    "bears the `id`; after a break the same event may come again under the same `n`, and none is left out."
)

ROUTES: Final = (
    Route(
        "GET",
        "/events",
        "followEvents",
        "状態の変化の通知。Follow what happens to the agency's own lines (server-sent events).",
        _RIGHT,
        follow,
        Priority.COUNTER,
        by_affair=True,
        work=Work.OWN,
        produces=(EVENT_STREAM, _FORM),
        problems=("invalid_field",),
    ),
)
