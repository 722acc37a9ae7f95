"""The agency API's engine: from a request on a TLS connection to a handler of the route table, and back.

In this order, each step refusing by itself: headers that contradict each other; certificate, registration and tunnel;
path and method; agency of the path and function; parameters; share of the agency; body (bounded, timed, decoded by the
route's type); Idempotency-Key; place among the requests at work; handler, under a deadline. So nothing of a body is
read before it is known who sends it, and nothing is done for a caller on whom tunnel, certificate and path disagree.

Whatever fails on the way leaves as a problem document with a request id; this is the task boundary, and the one place
where any exception is caught.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import hdrs, web

from chukan import log
from chukan.chance import Chance
from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http import bodies, headers, hours, problems, sessions
from chukan.platform.http.auth import AddressCheck, Gate
from chukan.platform.http.calls import Call, Pieces, Reply, Route, Services, Work
from chukan.platform.http.ports import RequestKey
from chukan.platform.http.poured import PouredResponse
from chukan.tenants.directory import ClientRow

HANDLER_DEADLINE_S: Final = 30.0
SMALL_BODY_BYTES: Final = 4096
"""A body up to this size on a route that takes lists is somebody at a counter."""
UNROUTED: Final = "none"
"""Label of requests that met no route."""

_CLIENT: Final = web.RequestKey("client", ClientRow)
_PARAMS_MAX: Final = 8
_log = log.get("http.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Trail:
    """What is remembered of one request for its answer, the metrics and the log."""

    route: str
    request_id: str
    started: float
    code: str | None = None

    def refuse(self, problem: Problem) -> web.Response:
        self.code = problem.code
        return problems.response(problem)


class AgencyApi:
    """Serves a route table; ``application`` makes the aiohttp application for one listener."""

    def __init__(
        self,
        services: Services,
        routes: Sequence[Route],
        addresses: AddressCheck,
        chance: Chance,
        documents: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Take the table, and the documents (path, JSON bytes) that any registered system may read."""
        self._services = services
        self._gate = Gate(addresses, services.metrics.access_refused, services.refused)
        self._chance = chance
        self._routes = tuple(routes)
        self._documents = tuple(documents)
        self._decoders = {route.name: msgspec.json.Decoder(route.body) for route in routes if route.body is not None}

    def application(self) -> web.Application:
        """Return the application of all routes."""
        app = web.Application(middlewares=[self._boundary])
        for route in self._routes:
            app.router.add_route(route.method, route.template, self._handler(route), expect_handler=bodies.expect_later)
        for path, document in self._documents:
            app.router.add_route("GET", path, _document(document), expect_handler=bodies.expect_later)
        return app

    # ---------------------------------------------------------------- the boundary

    @web.middleware
    async def _boundary(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = UNROUTED if resource is None else resource.canonical
        trail = _Trail(route, str(self._chance.uuid7()), self._services.clock.monotonic())
        try:
            headers.refuse_nonsense(request.headers)
            request[_CLIENT] = self._gate.authenticate(request, self._services.exchange.directory)
            answer = await handler(request)
        except Problem as problem:
            answer = trail.refuse(problem)
        except web.HTTPException as error:
            answer = trail.refuse(problems.from_framework(error))
            if hdrs.ALLOW in error.headers:
                answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        except Exception as error:  # noqa: BLE001 - the task boundary: nothing may leave but a problem document
            answer = trail.refuse(Problem("deadline_exceeded" if isinstance(error, TimeoutError) else "internal"))
            _log.error("request failed", route=route, request_id=trail.request_id, exc_info=error)
        self._finish(request, answer, trail)
        if isinstance(answer, PouredResponse):
            await answer.pour(request, trail.request_id)
        return answer

    def _finish(self, request: web.Request, answer: web.StreamResponse, trail: "_Trail") -> None:
        seconds = self._services.clock.monotonic() - trail.started
        answer.headers[headers.REQUEST_ID] = trail.request_id
        answer.headers[hdrs.SERVER] = "chukan"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        if self._services.drain.begun:
            answer.force_close()
        self._services.metrics.request(trail.route, request.method, answer.status, seconds)
        if trail.code is not None:
            self._services.metrics.problem(trail.code)
            client = request.get(_CLIENT)
            _log.info(
                "request refused",
                route=trail.route,
                status=answer.status,
                code=trail.code,
                peer=None if client is None else client.id,
                seconds=round(seconds, 6),
                request_id=trail.request_id,
            )

    # ---------------------------------------------------------------- one call

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = await self._admit(route, request)
            hours.require_open(call)
            if request.method != hdrs.METH_GET:
                await self._services.admit(call.agency.cell)
            if not route.streams:
                await self._read(call)
            if route.key:
                key = headers.idempotency_key(request, self._services.clock)
                content = b"\n".join((request.method.encode(), request.path.encode(), call.raw))
                call.key = RequestKey(key, content)
            async with sessions.entered(call):
                reply = await _carry_out(call)
            if isinstance(reply.body, Pieces):
                return PouredResponse(reply.body, reply.status, reply.headers)
            answer = web.Response(status=reply.status, body=msgspec.json.encode(reply.body), content_type=bodies.JSON)
            answer.headers.update(reply.headers)
            if request.method != hdrs.METH_GET:
                # After the commit, from what the standbys have on disk now (invariant 2).
                answer.headers[headers.DURABILITY] = await self._services.durability(call.agency.cell)
            return answer

        return handle

    async def _admit(self, route: Route, request: web.Request) -> Call:
        caller = await sessions.admit(self._services, self._gate, route, request, request[_CLIENT])
        priority = route.priority
        length = request.content_length
        if route.bulk and priority is Priority.COUNTER and (length is None or length > SMALL_BODY_BYTES):
            priority = Priority.BATCH
        return Call(
            request=request,
            route=route,
            services=self._services,
            client=caller.client,
            agency=caller.agency,
            priority=priority,
            params=_read_params(route, request),
            officer=caller.officer,
            terminal=request[_CLIENT],
        )

    async def _read(self, call: Call) -> None:
        cap = self._services.request_bytes_max
        size = bodies.announced_bytes(call.request, cap)
        async with self._services.admission.reading(call.agency.number, call.priority, size):
            if call.route.body is None:
                await bodies.read_nothing(call.request)
                return
            call.raw = await bodies.read_json(call.request, cap)
        call.body = problems.decode(self._decoders[call.route.name], call.raw)


async def _carry_out(call: Call) -> Reply:
    if call.route.work is Work.OWN:
        return await call.route.handler(call)
    async with call.place(_lines(call.body)), asyncio.timeout(HANDLER_DEADLINE_S):
        return await call.route.handler(call)


def _lines(body: msgspec.Struct | None) -> int:
    """Return what a body costs of its agency's share: its lines, or one."""
    lines = getattr(body, "lines", None) or getattr(body, "keys", None)
    return len(lines) if isinstance(lines, list) else 1


def _read_params(route: Route, request: web.Request) -> msgspec.Struct | None:
    """Return the query parameters by their declared type; what is not declared is refused, for it may be anything."""
    query = request.query
    if len(query) > _PARAMS_MAX or len(set(query)) != len(query):
        raise Problem("invalid_field", expected="each parameter once")
    if route.params is None:
        if query:
            raise Problem("unknown_field", expected="no parameters")
        return None
    try:
        return msgspec.convert(dict(query), route.params, strict=False)
    except msgspec.ValidationError as error:
        raise problems.from_decoder(error) from None


def _document(document: bytes) -> Handler:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=document, content_type=bodies.JSON, headers={hdrs.CACHE_CONTROL: "max-age=3600"})

    return handle
