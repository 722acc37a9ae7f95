"""The simulated network on the wire: signed lists over mutual TLS, and the admin endpoint on plain loopback HTTP.

Who calls is read from the client certificate (``urn:chukan:peer:<name>``) and must be the one who signed the envelope.
A peer speaks for the agencies of its own route only; the registry network alone may hand over resident codes.

Invariant: every reply, also a refusal, is signed and names its request; the admin application must be bound to a
loopback address, because it asks for no credential.
"""

import asyncio
import ipaddress
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from chukan import log
from chukan.errors import Problem
from chukan.ops.sandbox.admin import PAGE_MAX, Agencies, Done, PiaFlags, Process, Stops
from chukan.ops.sandbox.faults import PLACE_OF_CALL, Call, FaultPlan, Lost
from chukan.ops.sandbox.network import Network
from chukan.platform import tls
from chukan.platform.envelope import Opened, Signed, message_id
from chukan.platform.peer import (
    ACQUISITION_ASKS,
    ACQUISITIONS,
    ANSWER_KEYS,
    ANSWERS,
    CHECKPOINTS,
    CORRECTIONS,
    DELEGATIONS,
    HOLDERS,
    INVENTORIES,
    PERMIT_REQUESTS,
    PROVIDER_KEYS,
    REDELIVERIES,
)

RESIDENT_CODES: Final = "/registry/v1/resident-codes"
BODY_MAX: Final = 16 * 1024 * 1024
IN_FLIGHT_MAX: Final = 256
DEADLINE_S: Final = 30.0
_RETRY_AFTER_S: Final = 1
_DIGITS_MAX: Final = 18

_log = log.get("sandbox.network.http")
Work = Callable[[str, Sequence[bytes]], Awaitable[list[bytes]]]
T = TypeVar("T")


class _Desk:
    """What the handlers of the network's listener share."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._free = IN_FLIGHT_MAX

    def serve(self, call: Call, work: Work) -> Handler:
        """Return the handler of one call for peers that have a route."""

        async def handler(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, call, work, registry=False)

        return handler

    def serve_registry(self, call: Call, work: Work) -> Handler:
        """Return the handler of one call for the registry network alone."""

        async def handler(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, call, work, registry=True)

        return handler

    async def _handle(self, request: web.Request, call: Call, work: Work, *, registry: bool) -> web.StreamResponse:
        peer = self._caller(request)
        route = self._network.config.peers[peer].route
        if registry != (peer == self._network.config.registry) or (not registry and route is None):
            raise Problem("unregistered_system")
        if self._free <= 0:
            raise Problem("busy", retry_after_s=_RETRY_AFTER_S)
        self._free -= 1
        try:
            async with asyncio.timeout(DEADLINE_S):
                opened = await self._open(request, peer)
                await self._network.faults.request(call)
                items = await work(route or "", opened.items)
                items = list(await self._network.faults.reply(call, items))
        except TimeoutError:
            raise Problem("deadline_exceeded") from None
        finally:
            self._free += 1
        signed = self._network.signer.reply(items, opened.message)
        return _response(self._network.faults.envelope(PLACE_OF_CALL[call], signed))

    def _caller(self, request: web.Request) -> str:
        urn = tls.peer_urn(request)
        if urn is None:
            raise Problem("unauthenticated")
        peer = urn.removeprefix(tls.PEER_URN)
        if peer == urn or peer not in self._network.config.peers:
            raise Problem("unregistered_system")
        return peer

    async def _open(self, request: web.Request, peer: str) -> Opened:
        if request.query_string:
            # A query would stand outside the signature.
            raise Problem("malformed_request", expected="no query")
        body = await request.read()
        opened = self._network.opener.request(request.method, request.rel_url.raw_path, request.headers, body)
        if opened.sender != peer:
            raise Problem("signature_invalid")
        return opened

    def refuse(self, request: web.Request, problem: Problem) -> web.Response:
        """Return the signed problem document for a request."""
        return _response(self._network.signer.refusal(problem, message_id(request.headers)))


def _response(signed: Signed) -> web.Response:
    return web.Response(status=signed.status, body=signed.body, headers=signed.headers)


def _boundary(refuse: Callable[[web.Request, Problem], web.Response]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return refuse(request, problem)
        except Lost:
            if request.transport is not None:
                request.transport.abort()
            # Nobody is left who could read it.
            return web.Response()
        except web.HTTPRequestEntityTooLarge:
            return refuse(request, Problem("too_large", limit=BODY_MAX))
        except web.HTTPException as error:
            codes = {404: "not_found", 405: "method_not_allowed"}
            return refuse(request, Problem(codes.get(error.status, "malformed_request")))
        except Exception as error:  # noqa: BLE001 - the boundary of a request: one bad call must not end the network
            _log.error("a call failed", exc_info=error)
            return refuse(request, Problem("internal"))

    return middleware


def network_application(network: Network) -> web.Application:
    """Return the application of the network's listener; serve it with ``tls.server_context`` only."""
    desk = _Desk(network)

    async def resident_codes(_route: str, items: Sequence[bytes]) -> list[bytes]:
        return await network.resident_codes(items)

    app = web.Application(middlewares=[_boundary(desk.refuse)], client_max_size=BODY_MAX)
    app.router.add_post(PERMIT_REQUESTS, desk.serve("permit-requests", network.permit_requests))
    app.router.add_post(ANSWERS, desk.serve("answers", network.answers))
    app.router.add_post(ACQUISITIONS, desk.serve("acquisitions", network.acquisitions))
    app.router.add_post(ANSWER_KEYS, desk.serve("answer-keys", network.answer_keys))
    app.router.add_post(HOLDERS, desk.serve("holders", network.holders))
    app.router.add_post(PROVIDER_KEYS, desk.serve("provider-keys", network.provider_keys))
    app.router.add_post(ACQUISITION_ASKS, desk.serve("acquisition-requests", network.acquisition_asks))
    app.router.add_post(INVENTORIES, desk.serve("inventories", network.inventories))
    app.router.add_post(CORRECTIONS, desk.serve("corrections", network.corrections))
    app.router.add_post(DELEGATIONS, desk.serve("delegations", network.delegations))
    app.router.add_post(REDELIVERIES, desk.serve("redeliveries", network.redeliveries))
    app.router.add_post(CHECKPOINTS, desk.serve("checkpoints", network.checkpoints))
    app.router.add_post(RESIDENT_CODES, desk.serve_registry("resident-codes", resident_codes))
    return app


# ---------------------------------------------------------------- administration


def admin_application(network: Network) -> web.Application:
    """Return the admin application: the sandbox's steering wheel, for a loopback address without TLS."""

    async def agencies(request: web.Request) -> web.Response:
        return json_reply(Done(count=await network.put_agencies(await read_body(request, Agencies))))

    async def stops(request: web.Request) -> web.Response:
        return json_reply(Done(count=await network.put_stops(await read_body(request, Stops))))

    async def pia(request: web.Request) -> web.Response:
        return json_reply(Done(count=await network.put_pia(await read_body(request, PiaFlags))))

    async def records(request: web.Request) -> web.Response:
        after = number_of(request, "after", 0)
        limit = min(number_of(request, "limit", PAGE_MAX), PAGE_MAX)
        return json_reply(await network.records(after, max(1, limit)))

    async def state(_request: web.Request) -> web.Response:
        return json_reply(await network.state())

    async def plan_faults(request: web.Request) -> web.Response:
        return json_reply(Done(count=network.put_faults(await read_body(request, FaultPlan))))

    async def fault_counts(_request: web.Request) -> web.Response:
        return json_reply(network.fault_counts())

    app = web.Application(middlewares=[admin_boundary()], client_max_size=BODY_MAX)
    app.router.add_put("/admin/agencies", agencies)
    app.router.add_put("/admin/stops", stops)
    app.router.add_put("/admin/pia", pia)
    app.router.add_get("/admin/records", records)
    app.router.add_get("/admin/state", state)
    app.router.add_get("/admin/process", tell_process)
    app.router.add_put("/admin/faults", plan_faults)
    app.router.add_get("/admin/faults", fault_counts)
    return app


async def tell_process(_request: web.Request) -> web.Response:
    """Say which process answers; the admin endpoints open last, so it serves."""
    return json_reply(Process(pid=os.getpid()))


def admin_boundary() -> Middleware:
    """Return the middleware that turns everything that goes wrong into a problem document."""
    return _boundary(_plain_refusal)


def check_loopback(host: str) -> None:
    """Raise ``Problem`` setting_forbidden unless the admin endpoint would be reachable from this machine only."""
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise Problem("setting_forbidden", pointer="/admin_host", expected="a loopback address")


def _plain_refusal(_request: web.Request, problem: Problem) -> web.Response:
    response = json_reply(problem.as_dict(), status=problem.status)
    response.content_type = "application/problem+json"
    return response


def json_reply(body: object, status: int = 200) -> web.Response:
    """Return a JSON reply."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", status=status)


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Return a JSON body by its type. Raises ``Problem`` invalid_field, malformed_json."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.ValidationError:
        raise Problem("invalid_field") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("malformed_json") from None


def number_of(request: web.Request, name: str, default: int) -> int:
    """Return a query parameter that is a number. Raises ``Problem`` invalid_field."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX:
        raise Problem("invalid_field", pointer=f"/{name}", expected="a number")
    return int(text)
