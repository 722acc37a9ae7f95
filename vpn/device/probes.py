"""Asking a centre how it is, through its own tunnel and no other way: ICMP echo, and ``GET /readyz``.

Each probe's socket is bound to the tunnel's interface (SO_BINDTODEVICE), so that it says something about this tunnel
whatever the routes are at that moment, and to the link's inner address.

Invariant: a probe ends within its time, and never raises for what the network does: silence is an answer. An echo
counts only if it bears the random bytes of its own request. A refused health port says ``drain``: the gateway refuses
it while the service goes on; a kept connection that broke is tried anew, by the library, before anything is believed.
"""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Final, Self

import aiohttp

from chukan.chance import Chance
from chukan.vpn.device.health import Answer

_ECHO: Final = struct.Struct("!BBHHH")
_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0
_TOKEN_BYTES: Final = 16
_PACKET_BYTES_MAX: Final = 2048
_WORD: Final = 0xFFFF
_IP_VERSION_4: Final = 4
_REPLIES_MAX: Final = 64
"""Packets that are looked at for one echo; a raw socket is given those of others too."""

_READY: Final = 200
_UNAVAILABLE: Final = 503
_BODY_BYTES_MAX: Final = 64 * 1024
_KEPT_S: Final = 75.0


class EchoProbe:
    """ICMP echo (RFC 792) to one address through one interface."""

    def __init__(self, interface: str, source: str, target: str, chance: Chance) -> None:
        self._interface = interface
        self._source = source
        self._target = target
        self._chance = chance
        self._socket: socket.socket | None = None
        self._sequence = 0

    async def ask(self, timeout_s: float) -> bool:
        """Tell whether an echo came back in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange()
        except TimeoutError:
            return False
        except OSError:
            # The interface went away or came anew: a socket is bound to the one that was there.
            self.close()
            return False

    def close(self) -> None:
        """Close the socket; the next ``ask`` opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _exchange(self) -> bool:
        if self._socket is None:
            self._socket = _icmp_socket(self._interface, self._source)
        loop = asyncio.get_running_loop()
        token = self._chance.token(_TOKEN_BYTES)
        self._sequence = (self._sequence + 1) & _WORD
        await loop.sock_sendto(self._socket, _request(self._sequence, token), (self._target, 0))
        for _ in range(_REPLIES_MAX):
            packet = await loop.sock_recv(self._socket, _PACKET_BYTES_MAX)
            if _is_reply(packet, token):
                return True
        return False


class ReadyProbe:
    """``GET /readyz`` on a kept connection through one interface. Use as a context manager."""

    def __init__(self, interface: str, source: str, target: str, port: int, *, cell: str = "") -> None:
        """``cell`` names the cell whose commits count too; empty: the exchange speaks for itself."""
        self._interface = interface
        self._source = source
        self._url = f"http://{target}:{port}/readyz"
        self._query = {"cell": cell} if cell else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open nothing yet but the pool of the one connection."""
        connector = aiohttp.TCPConnector(
            limit=1, keepalive_timeout=_KEPT_S, socket_factory=self._make_socket, use_dns_cache=False
        )
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, timeout_s: float) -> Answer:
        """Return what the centre said; anything but 200, 503 and a refusal counts as silence."""
        if self._session is None:
            raise ValueError("the probe is not open")
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(self._url, params=self._query, allow_redirects=False) as response,
            ):
                # Read to its end, or the connection cannot be kept; an endless body is cut off with it.
                await response.content.read(_BODY_BYTES_MAX)
                return _meaning(response.status)
        except aiohttp.ClientConnectorError as error:
            return "drain" if isinstance(error.os_error, ConnectionRefusedError) else "missed"
        except (aiohttp.ClientError, OSError, TimeoutError):
            return "missed"

    def _make_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        made = socket.socket(address[0], address[1], address[2])
        try:
            made.settimeout(0)
            _bind(made, self._interface, self._source)
        except OSError:
            made.close()
            raise
        return made


def _meaning(status: int) -> Answer:
    if status == _READY:
        return "ready"
    return "drain" if status == _UNAVAILABLE else "missed"


def _icmp_socket(interface: str, source: str) -> socket.socket:
    """Return a socket for echoes: the kernel's own kind where it is allowed, else a raw one, which needs a right."""
    made: socket.socket | None = None
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        with contextlib.suppress(PermissionError):
            made = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
            break
    if made is None:
        raise PermissionError("no right to send echoes")
    try:
        made.settimeout(0)
        _bind(made, interface, source)
    except OSError:
        made.close()
        raise
    return made


def _bind(made: socket.socket, interface: str, source: str) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode("ascii") + b"\0")
    made.bind((source, 0))


def _request(sequence: int, token: bytes) -> bytes:
    head = _ECHO.pack(_ECHO_REQUEST, 0, 0, 0, sequence)
    return _ECHO.pack(_ECHO_REQUEST, 0, _checksum(head + token), 0, sequence) + token


def _is_reply(packet: bytes, token: bytes) -> bool:
    """Tell whether a packet, with or without its IP header, is the reply to the request with this token."""
    if packet and packet[0] >> 4 == _IP_VERSION_4:
        packet = packet[(packet[0] & 0x0F) * 4 :]
    return packet[:1] == bytes([_ECHO_REPLY]) and packet[_ECHO.size :] == token


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total >> 16) + (total & _WORD)
    return ~(total + (total >> 16)) & _WORD
