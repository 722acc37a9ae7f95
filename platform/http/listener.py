"""A listener: one application on one address or several, within bounds, and its orderly end.

aiohttp's own server is used, with what it leaves open closed: requests that are no HTTP get a problem document (its own
answer would quote them), compressed bodies are not unpacked, headers are short and few, a TLS handshake and an idle or
dawdling connection have a deadline, and the number of connections has a cap. Connections are kept alive: a new one
costs twenty times what a request costs.

A certificate that was revoked is good for nothing from then on: its next connection is closed before a byte of it is
read, and those that stand are ended when the list comes in (``Revoked``). Every piece of a request asks again.

The end: stop listening, close what is idle, finish what is at work within the deadline. A connection whose handshake is
over only then is closed unread, for behind it nobody works any more. Whoever ends it gave notice before (see
``drain``), for a client cannot be told of the end on a connection on which it asks nothing.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from chukan import log
from chukan.errors import Problem
from chukan.platform import revocation
from chukan.platform.http import problems

BACKLOG: Final = 1024
CONNECTIONS_MAX: Final = 10_000
HANDSHAKE_TIMEOUT_S: Final = 10.0
KEEPALIVE_S: Final = 75.0
"""How long a connection may be without a complete request head; it also bounds a head that comes in byte by byte."""
LINGER_S: Final = 5.0
"""How long the rest of a refused body is read and thrown away, so that the client sees the refusal."""
LINE_BYTES_MAX: Final = 4096
FIELD_BYTES_MAX: Final = 8192
FIELDS_MAX: Final = 64

_log = log.get("http.listener")
# aiohttp's access log would hold paths and headers; this server writes its own lines.
_SILENT: Final = logging.getLogger("chukan.http.access")
_SILENT.disabled = True


class Revoked(Protocol):
    """Knows which certificates are revoked (``RevocationLists``)."""

    def refuses(self, identity: revocation.Identity | None) -> bool:
        """Tell whether a certificate is revoked; cheap enough for every request."""
        ...

    def refused(self) -> None:
        """Count one connection that was refused or ended."""
        ...

    def follow(self, changed: Callable[[], None]) -> None:
        """Call this whenever that may have changed."""
        ...


class _Connections:
    """The connections that stand; ``over`` says that no other may begin."""

    def __init__(self, revoked: Revoked | None) -> None:
        self._standing: set[_Handler] = set()
        self._revoked = revoked
        self.over = False
        if revoked is not None:
            revoked.follow(self._end_revoked)

    @property
    def count(self) -> int:
        return len(self._standing)

    def add(self, handler: "_Handler") -> None:
        self._standing.add(handler)

    def remove(self, handler: "_Handler") -> None:
        self._standing.discard(handler)

    def refuses(self, identity: revocation.Identity | None) -> bool:
        """Tell, and count, that a connection with this certificate is to be ended."""
        if self._revoked is None or not self._revoked.refuses(identity):
            return False
        self._revoked.refused()
        _log.warning("access refused", code="certificate_revoked")
        return True

    def _end_revoked(self) -> None:
        for handler in tuple(self._standing):
            handler.end_if_revoked()


class _Handler(RequestHandler):
    """aiohttp's protocol of one connection, counted, with our answer to what is no HTTP."""

    def __init__(self, manager: web.Server, connections: _Connections) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            tcp_keepalive=True,
            access_log=_SILENT,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._connections = connections
        self._counted = self._ended = False
        self._identity: revocation.Identity | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._identity = revocation.identity(transport)
        if self._connections.over or self._connections.refuses(self._identity):
            _abort(transport)
            return
        self._counted = True
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._counted = False
            self._connections.remove(self)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the certificate was revoked meanwhile: then not a byte more is read."""
        if not self.end_if_revoked():
            super().data_received(data)

    def end_if_revoked(self) -> bool:
        """End the connection where its certificate is revoked; what its request does by now is durable or absent."""
        if not self._ended and self._connections.refuses(self._identity):
            self._ended = True
            if self.transport is not None:
                _abort(self.transport)
        return self._ended

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the text quotes the request
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        code = "malformed_request" if status < web.HTTPInternalServerError.status_code else "internal"
        _log.warning("connection refused", code=code, exc_info=exc)
        answer = problems.response(Problem(code))
        answer.force_close()
        return answer

    def log_exception(self, *_args: Any, **given: Any) -> None:  # noqa: ANN401 (aiohttp's signature)
        _log.error("connection failed", exc_info=given.get("exc_info"))


class _TooMany(asyncio.Protocol):
    """Closes a connection beyond the cap before a byte of it is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _abort(transport)


def _abort(transport: asyncio.BaseTransport) -> None:
    # Not asked for its class: uvloop's TLS transports are transports in all but their ancestry.
    cast("asyncio.WriteTransport", transport).abort()


class Listener:
    """Serves one application on its addresses from ``start`` to ``close``."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        more_hosts: Sequence[str] = (),
        connections_max: int = CONNECTIONS_MAX,
        revoked: Revoked | None = None,
    ) -> None:
        """``port`` 0 lets the system choose; ``context`` None means plain HTTP, for the health listener only.

        At ``more_hosts`` the same port is listened at, and the bounds are shared with the first address.
        """
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self._hosts = (host, *more_hosts)
        self._port = port
        self._context = context
        self._connections_max = connections_max
        self._connections = _Connections(revoked)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> int:
        """Listen at every address, and return the port. Raises ``OSError`` where one is not this host's, or taken."""
        await self._runner.setup()
        port = self._port
        for host in self._hosts:
            server = await self._listen(host, port)
            self._servers.append(server)
            port = int(server.sockets[0].getsockname()[1])
        return port

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            self._connection,
            host=host,
            port=port,
            ssl=self._context,
            backlog=BACKLOG,
            ssl_handshake_timeout=None if self._context is None else HANDSHAKE_TIMEOUT_S,
        )

    def _connection(self) -> asyncio.Protocol:
        manager = self._runner.server
        if manager is None or self._connections.count >= self._connections_max:
            return _TooMany()
        return _Handler(manager, self._connections)

    def stop_listening(self) -> None:
        """Take no new connection; those that stand go on."""
        for server in self._servers:
            server.close()

    async def close(self, deadline_s: float) -> None:
        """Close what is idle, finish what is at work, close what is left; after about ``deadline_s`` it is over."""
        self.stop_listening()
        self._connections.over = True
        self._runner._shutdown_timeout = deadline_s  # noqa: SLF001 (known only now)
        await self._runner.cleanup()
