"""One request of a drill's client over HTTP: sent once, to one exchange, and told as it went.

Deliberately not the shipped client, which goes to the other exchange by itself and repeats: a probe must see every
failure. The TLS context and the messages are the same as any system's.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import aiohttp

from chukan.ops.namespaces import sockets_in
from chukan.ops.sandbox.transport import CONNECT_TIMEOUT_S, Connection

DURABILITY: Final = "Chukan-Durability"
REQUEST_TIMEOUT_S: Final = 30.0
CONNECTIONS_MAX: Final = 64
_LEADER: Final = re.compile(r"\bleader=\"?([\w.-]+)")
_TIMELINE: Final = re.compile(r"\btimeline=\"?([0-9]+)")


@dataclass(frozen=True, slots=True)
class Ask:
    """What to send; ``path`` is below ``/v1/agencies/{agency}``."""

    method: str
    path: str
    body: bytes | None = None
    key: str = ""
    wait_s: int = 0
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; status 0 when nothing did, with the kind of the failure as ``code``."""

    status: int
    body: bytes = b""
    code: str = ""
    leader: str = ""
    timeline: int = 0
    durability: str = ""
    retry_after_s: int = 0

    @property
    def good(self) -> bool:
        """Whether the request was acknowledged."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of statuses that say yes

    @property
    def refused(self) -> bool:
        """Whether nothing came of the request for sure."""
        return 400 <= self.status < 500  # noqa: PLR2004 - the class of statuses that say no


class Caller:
    """Connections of one agency's system to each exchange; ``async with``."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        """``connections`` are by the exchange's name and have one address each."""
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        """Open nothing yet but the pool. Raises ``Problem`` certificate_unreadable."""
        self._contexts = {name: connection.context() for name, connection in self._connections.items()}
        # One system stands in one place, whichever exchange it asks.
        place = next((one.namespace for one in self._connections.values()), "")
        factory = sockets_in(place) if place else None
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=15, socket_factory=factory)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, exchange: str, ask: Ask, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Reply:
        """Send once and return what came of it; raises nothing but a cancellation."""
        connection = self._connections[exchange]
        headers = {"Content-Type": "application/json"} if ask.body is not None else {}
        if ask.key:
            headers["Idempotency-Key"] = ask.key
        if ask.wait_s:
            headers["Prefer"] = f"wait={ask.wait_s}"
        if self._session is None:
            raise RuntimeError("a caller is used inside its block")
        timeout = aiohttp.ClientTimeout(total=timeout_s + ask.wait_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.request(
                ask.method,
                f"{connection.urls[0].rstrip('/')}/v1/agencies/{connection.agency}{ask.path}",
                data=ask.body,
                headers=headers,
                params=ask.params,
                timeout=timeout,
                ssl=self._contexts[exchange],
                allow_redirects=False,
            ) as reply:
                return _told(reply.status, await reply.read(), reply.headers)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Reply(0, code=type(error).__name__)


def _told(status: int, body: bytes, headers: Mapping[str, str]) -> Reply:
    durability, after = headers.get(DURABILITY, ""), headers.get("Retry-After", "")
    leader, timeline = _LEADER.search(durability), _TIMELINE.search(durability)
    return Reply(
        status,
        body,
        leader=leader[1] if leader else "",
        timeline=int(timeline[1]) if timeline else 0,
        durability=durability,
        retry_after_s=int(after) if after.isascii() and after.isdigit() else 0,
    )
