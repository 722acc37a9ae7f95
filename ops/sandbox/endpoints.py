"""Sends a list of messages to a route: to any of its exchanges, the next one when one fails (冗長経路).

A platform has several exchanges and every one serves all agencies, so the list goes round among those that work; one
that failed rests for a while and is asked again last. Each try is a new envelope around the same item bytes. A reply
counts only when a peer of that route signed it as the answer to this very request.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.envelope import Opener, Signed, Signer

TRY_TIMEOUT_S: Final = 20.0
CONNECT_TIMEOUT_S: Final = 3.0
REST_S: Final = 5.0
BODY_MAX: Final = 32 * 1024 * 1024
_OK: Final = 200
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_log = log.get("sandbox.endpoints")


class Unreachable(Exception):  # noqa: N818 - a state of the route, not an error of the program
    """No exchange of the route gave a valid reply; the same items may be sent again later."""


class ListRefused(Exception):  # noqa: N818 - the same
    """An exchange refused the list as a whole, and would again: its items must be sent one by one."""


class Route:
    """The exchanges of one platform or counterpart: their base URLs and the names under which they sign."""

    def __init__(self, name: str, urls: Sequence[str], signers: frozenset[str], clock: Clock) -> None:
        self.name = name
        self.signers = signers
        self._urls = list(urls)
        self._clock = clock
        self._rests_until = [0.0] * len(self._urls)
        self._turn = 0

    def order(self) -> list[int]:
        """Return the places of the URLs in the order in which to try them: in turn, resting ones last."""
        self._turn = (self._turn + 1) % max(1, len(self._urls))
        places = [(self._turn + step) % len(self._urls) for step in range(len(self._urls))]
        now = self._clock.monotonic()
        return sorted(places, key=lambda place: self._rests_until[place] > now)

    def url(self, place: int) -> str:
        """Return the base URL at a place."""
        return self._urls[place]

    def failed(self, place: int) -> None:
        """Let an exchange rest for a while."""
        self._rests_until[place] = self._clock.monotonic() + REST_S

    def worked(self, place: int) -> None:
        """Take an exchange back among those that work."""
        self._rests_until[place] = 0.0


class Sender:
    """Posts signed lists over mutual TLS; ``close`` ends its connections."""

    def __init__(
        self,
        signer: Signer,
        opener: Opener,
        tls: ssl.SSLContext,
        *,
        connections: int = 32,
        outgoing: Callable[[Signed], Signed] = lambda signed: signed,
    ) -> None:
        """``outgoing`` may change a signed list on its way out (``faults``)."""
        self._outgoing = outgoing
        self._signer = signer
        self._opener = opener
        timeout = aiohttp.ClientTimeout(total=TRY_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=tls, limit=connections, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, route: Route, path: str, items: Sequence[bytes]) -> list[bytes]:
        """Send 1…1,000 items and return the reply's items.

        Raises:
            Unreachable: no exchange of the route gave a valid reply within its time.
            ListRefused: one refused the list for what it holds.
        """
        for place in route.order():
            try:
                reply = await self._try(route, route.url(place) + path, path, items)
            except (aiohttp.ClientError, TimeoutError, OSError, Problem) as error:
                route.failed(place)
                _log.warning("push failed", peer=route.name, error=type(error).__name__, count=len(items))
                continue
            route.worked(place)
            return reply
        raise Unreachable

    async def _try(self, route: Route, url: str, path: str, items: Sequence[bytes]) -> list[bytes]:
        signed = self._outgoing(self._signer.request("POST", path, items))
        async with self._session.post(url, data=signed.body, headers=signed.headers, allow_redirects=False) as response:
            body = await _read(response)
            if response.status != _OK:
                if response.status < _SERVER_ERROR and response.status != _TOO_MANY:
                    self._opener.refusal(response.status, response.headers, body, to=signed.message)
                    raise ListRefused
                raise Problem("network_unavailable")
            opened = self._opener.reply(response.status, response.headers, body, to=signed.message)
        if opened.sender not in route.signers:
            raise Problem("signature_invalid")
        return opened.items


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a body of bounded length; ``Problem`` too_large beyond."""
    body = await response.content.read(BODY_MAX + 1)
    parts = [body]
    held = len(body)
    while body and held <= BODY_MAX:
        body = await response.content.read(BODY_MAX + 1 - held)
        parts.append(body)
        held += len(body)
    if held > BODY_MAX:
        raise Problem("too_large", limit=BODY_MAX)
    return b"".join(parts)


def backoff_s(tries: int, chance: Chance, *, first_s: float = 0.2, last_s: float = 5.0) -> float:
    """Return a pause that doubles with every try up to ``last_s``, shortened by up to half at random (jitter)."""
    whole = min(last_s, first_s * 2.0 ** min(tries, 16))
    return whole * (0.5 + chance.token(1)[0] / 510)


async def pause(seconds: float, woken: asyncio.Event) -> None:
    """Wait until woken, at most ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
