"""Two exchanges on real TLS sockets that check every call against the agency API's own route table.

A fake exchange knows the rows of ``platform.http.routes``: a call that no row has, a body that does not fit the row's
type, a parameter or a missing key fails the test. What it replies is set by the test, by operation.
"""

import datetime as dt
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.config import Tls
from chukan.ops.sandbox.listener import Listener
from chukan.ops.sandbox.transport import Connection
from chukan.platform.http.routes import ROUTES
from chukan.platform.tls import peer_urn

AGENCY = "9901011002000001"
BREAK_OFF = object()
"""A reply that never comes: the connection breaks after the request was taken in."""
AT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)


@dataclass
class Heard:
    """One call as an exchange heard it."""

    operation: str
    peer: str | None
    headers: dict[str, str]
    params: dict[str, str]
    raw: bytes
    body: Any


@dataclass
class FakeExchange:
    """Serves the route table; ``replies`` maps an operation to a reply, a problem, or a function of what was heard."""

    replies: dict[str, Any] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    listener: Listener | None = None

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for route in ROUTES:
            app.router.add_route(route.method, route.template, self._handler(route))
        return app

    def _handler(self, route: Any) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            raw = await request.read()
            body = msgspec.json.decode(raw, type=route.body) if route.body is not None else None
            if route.body is None and not route.streams:
                assert raw == b""
            if route.key:
                assert request.headers["Idempotency-Key"]
            params = dict(request.query)
            if params:
                msgspec.convert(params, route.params, strict=False)
            heard = Heard(route.name, peer_urn(request), dict(request.headers), params, raw, body)
            self.heard.append(heard)
            if self.replies[route.name] is BREAK_OFF and request.transport is not None:
                request.transport.abort()
                return web.Response()
            return self._answer(route, heard)

        return handle

    def _answer(self, route: Any, heard: Heard) -> web.Response:
        reply = self.replies[route.name]
        if isinstance(reply, list):
            reply = reply.pop(0)
        if callable(reply):
            reply = reply(heard)
        if isinstance(reply, Problem):
            return web.json_response(reply.as_dict(), status=reply.status, content_type="application/problem+json")
        if route.produces is not None:
            return web.Response(body=reply, headers={"Content-Type": route.produces[0]})
        if route.reply is not None:
            msgspec.convert(msgspec.to_builtins(reply), route.reply)
        return web.Response(body=msgspec.json.encode(reply), content_type="application/json")


class Site:
    """An authority, two exchanges, and clients of them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.create(folder / "ca", "test", SystemClock())
        self.exchanges = {"east": FakeExchange(), "west": FakeExchange()}
        self.folder = folder
        self.urls: list[str] = []
        self._clients: list[AgencyClient] = []

    async def start(self) -> None:
        for name, exchange in self.exchanges.items():
            issued = self.authority.issue_peer(name)
            identity = Tls(certificate_file=issued.certificate, key_file=issued.key, ca_file=self.authority.trusted)
            exchange.listener = Listener(exchange.application(), "127.0.0.1", 0, identity)
            await exchange.listener.start()
            self.urls.append(exchange.listener.url)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        for exchange in self.exchanges.values():
            if exchange.listener is not None:
                await exchange.listener.stop()

    def connection(self, name: str = "tax", **more: Any) -> Connection:
        folder = self.authority.folder / "clients" / name
        if not folder.exists():
            self.authority.issue_client(name)
        known = {
            "agency": AGENCY, "urls": self.urls, "ca": self.authority.trusted,
            "certificate": folder / "certificate.pem", "key": folder / "key.pem",
        }  # fmt: skip
        return Connection(**{**known, **more})

    def client(self, name: str = "tax", **more: Any) -> AgencyClient:
        made = AgencyClient(self.connection(name, **more))
        self._clients.append(made)
        return made

    @property
    def east(self) -> FakeExchange:
        return self.exchanges["east"]

    @property
    def west(self) -> FakeExchange:
        return self.exchanges["west"]

    def set(self, operation: str, reply: Any) -> None:
        for exchange in self.exchanges.values():
            exchange.replies[operation] = reply


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.start()
    yield made
    await made.close()
