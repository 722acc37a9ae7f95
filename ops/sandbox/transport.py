"""How an agency's system talks to the exchanges: mutual TLS, kept-alive connections, and the other exchange on failure.

Every exchange serves all agencies. A call that finds one out of reach goes to the next with the same Idempotency-Key
and the same bytes, so that it has one effect wherever it was received (invariant 5). With ``retry_s`` it also comes
back after ``Retry-After`` when an exchange says that it may; without, the first answer counts: a probe must not hide
anything.

Invariant: an error's text is the code and nothing else; a problem document never quotes what was sent.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import aiohttp
import msgspec

from chukan.chance import Chance, SystemChance
from chukan.clock import Clock, SystemClock
from chukan.errors import REGISTRY, Problem
from chukan.ops.namespaces import sockets_in
from chukan.platform import tls
from chukan.platform.http.headers import SESSION
from chukan.platform.wire.agency import ProblemBody

CALL_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 3.0
PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 5.0
FILE_PIECE_BYTES: Final = 256 * 1024
UNREACHABLE: Final = "unreachable"
"""Code of an error where no exchange answered at all; it is not of the registry, for nobody said it."""
_CLIENT_ERROR: Final = 400

T = TypeVar("T")
Body = bytes | Path | None


class ClientError(Exception):
    """An exchange's no, or that none answered (``code`` is then ``unreachable`` and ``problem`` None)."""

    def __init__(self, problem: ProblemBody | None, status: int = 0) -> None:
        self.problem = problem
        self.status = status
        self.code = UNREACHABLE if problem is None else problem.code
        super().__init__(self.code)

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.problem is None or self.problem.retryable

    def as_problem(self) -> Problem:
        """Return it as a problem of the registry, for the command line."""
        if self.problem is None or self.problem.code not in REGISTRY:
            return Problem("unavailable")
        body = self.problem
        return Problem(
            body.code,
            pointer=body.pointer,
            line=body.line,
            retry_after_s=body.retry_after_s,
            limit=body.limit,
            expected=body.expected,
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """How one system or officer of an agency reaches the platform; PEM files, base URLs of the exchanges."""

    agency: str
    urls: Sequence[str]
    ca: Path
    certificate: Path
    key: Path
    retry_s: float = 0.0
    """How long a call may be repeated for; 0 takes the first answer of each exchange that can be reached."""
    timeout_s: float = CALL_TIMEOUT_S
    namespace: str = ""
    """The network namespace in which the system stands, on the machine of a lab; none at a real body."""
    session: str | None = field(default=None, repr=False)
    """An officer's session, which every call then bears."""

    def context(self) -> ssl.SSLContext:
        """Return the TLS context. Raises ``Problem`` certificate_unreadable."""
        return tls.client_context(self.certificate, self.key, self.ca)


@dataclass(frozen=True, slots=True)
class Request:
    """One call; ``path`` is below ``/v1/agencies/{agency}``."""

    method: str
    path: str
    body: Body = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """How long the exchange was asked to wait before it answers; added to the deadline."""


class Transport:
    """Sends calls of one connection; bound to one event loop, ``close`` when done."""

    def __init__(
        self, connection: Connection, *, clock: Clock | None = None, chance: Chance | None = None, connections: int = 16
    ) -> None:
        self.connection = connection
        self.clock = clock or SystemClock()
        self.chance = chance or SystemChance(self.clock)
        self._urls = [url.rstrip("/") for url in connection.urls]
        self._preferred = 0
        self._context = connection.context()
        self._limit = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def call(self, request: Request, kind: type[T]) -> T:
        """Send a call and decode its reply.

        Raises:
            ClientError: the exchange refused, or none answered before the deadline.
        """
        headers = dict(request.headers)
        if request.method == "POST":
            headers.setdefault("Idempotency-Key", str(self.chance.uuid7()))
        if isinstance(request.body, bytes):
            headers.setdefault("Content-Type", "application/json")
        deadline = self.clock.monotonic() + self.connection.retry_s
        tries = 0
        while True:
            try:
                return msgspec.json.decode(await self._once(request, headers), type=kind)
            except ClientError as error:
                pause_s = _pause_s(error, tries)
                if not error.retryable or self.clock.monotonic() + pause_s > deadline:
                    raise
                tries += 1
            except msgspec.MsgspecError:
                raise ClientError(None) from None
            await asyncio.sleep(pause_s)

    async def _once(self, request: Request, headers: Mapping[str, str]) -> bytes:
        """Try each exchange once, the one that answered last time first; whoever answers is believed."""
        count = len(self._urls)
        for step in range(count):
            place = (self._preferred + step) % count
            try:
                status, body = await self._send(self._urls[place], request, headers)
            except (aiohttp.ClientError, TimeoutError, OSError):
                continue
            self._preferred = place
            if status < _CLIENT_ERROR:
                return body
            raise ClientError(_document(body), status)
        raise ClientError(None)

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a reply of any length piece by piece, from the exchange that answered last time or the next one.

        A piece must come within the connection's deadline.

        Raises:
            ClientError: the exchange refused; ``unreachable`` when none answered or the reply was cut off: what came is
                true, and no more than a part.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=self.connection.timeout_s)
        count = len(self._urls)
        for step in range(count):
            place = (self._preferred + step) % count
            begun = False
            try:
                async with self._open(self._urls[place], request, request.headers, timeout) as response:
                    self._preferred = place
                    if response.status >= _CLIENT_ERROR:
                        raise ClientError(_document(await response.read()), response.status)
                    async for piece in response.content.iter_any():
                        begun = True
                        yield piece
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                if begun:
                    raise ClientError(None) from None
        raise ClientError(None)

    async def _send(self, url: str, request: Request, headers: Mapping[str, str]) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(
            total=self.connection.timeout_s + request.wait_s, sock_connect=CONNECT_TIMEOUT_S
        )
        async with self._open(url, request, headers, timeout) as response:
            return response.status, await response.read()

    def _open(
        self, url: str, request: Request, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            place = self.connection.namespace
            factory = sockets_in(place) if place else None
            connector = aiohttp.TCPConnector(
                ssl=self._context, limit=self._limit, keepalive_timeout=60, socket_factory=factory
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        if self.connection.session is not None:
            headers = {**headers, SESSION: self.connection.session}
        if isinstance(request.body, Path):
            # Announced: a body of unknown length counts as one of the greatest length, of which few come in at once.
            headers = {**headers, "Content-Length": str(request.body.stat().st_size)}
        return self._session.request(
            request.method,
            f"{url}/v1/agencies/{self.connection.agency}{request.path}",
            data=_pieces(request.body)() if isinstance(request.body, Path) else request.body,
            headers=headers,
            params=request.params,
            timeout=timeout,
            allow_redirects=False,
        )


def _pieces(path: Path) -> Callable[[], AsyncIterator[bytes]]:
    """Return a reader of a file in pieces; each call reads it anew, so that another exchange gets all of it."""

    async def pieces() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, FILE_PIECE_BYTES):
                yield piece

    return pieces


def _document(body: bytes) -> ProblemBody | None:
    try:
        return msgspec.json.decode(body, type=ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _pause_s(error: ClientError, tries: int) -> float:
    if error.problem is not None and error.problem.retry_after_s is not None:
        return min(float(error.problem.retry_after_s), PAUSE_MAX_S)
    return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(tries, 10))
