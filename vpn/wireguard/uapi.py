"""WireGuard in a process of its own (wireguard-go), over its Unix socket: plain text, one exchange a connection.

The protocol is https://www.wireguard.com/xplatform/. An exchange succeeded only when its ``errno=0`` was read: the
other end closes without a word on what it does not understand. Keys are hexadecimal here.

Invariant: what goes over this socket holds private and pre-shared keys; none of it is ever logged or put into an
exception, and the device's own private key is turned into its public half as soon as it is read.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from chukan.errors import Problem
from chukan.vpn.model import KEY_BYTES, Actual, Interface, Peer, Put, Remove, Step, canonical_prefix
from chukan.vpn.wireguard.keys import public_key_of

MESSAGE_BYTES_MAX: Final = 1_000_000
"""A longer list of steps is sent in several messages; 2,500 whole peers are about 600 kB."""
_CONNECT_TIMEOUT_S: Final = 2.0
_EXCHANGE_TIMEOUT_S: Final = 15.0
_READ_BYTES: Final = 1 << 20
_REPLY_BYTES_MAX: Final = 64 << 20
_END: Final = b"\n\n"
_FRAME: Final = "set=1\n\n"
_NO_PSK: Final = "0" * 2 * KEY_BYTES
_canonical = lru_cache(maxsize=32768)(canonical_prefix)


class Uapi:
    """The interface whose process listens at a socket; see ``port.Tunnels``."""

    def __init__(self, path: Path) -> None:
        """``path`` is the socket, normally ``/var/run/wireguard/NAME.sock``; nothing is opened yet."""
        self._path = path
        # One exchange at a time: wireguard-go takes them in turn anyway, and a deadline shall not count the others.
        self._turn = asyncio.Lock()

    async def get(self) -> Actual:
        """Return what the interface has."""
        return _parse(await self._exchange("get=1\n\n"))

    async def set_interface(self, interface: Interface) -> None:
        """Give the interface its private key and port."""
        await self._exchange(
            f"set=1\nprivate_key={interface.private_key.hex()}\nlisten_port={interface.listen_port}\n\n"
        )

    async def apply(self, steps: Sequence[Step]) -> None:
        """Carry the steps out, in as few messages as their size allows."""
        for message in _messages(steps):
            await self._exchange(message)

    async def _exchange(self, request: str) -> str:
        """Send one request and return the lines of its reply; raise unless it ended well."""
        async with self._turn:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    reader, writer = await asyncio.open_unix_connection(self._path, limit=_READ_BYTES)
            except (OSError, TimeoutError):
                raise self._away("nobody listens") from None
            try:
                async with asyncio.timeout(_EXCHANGE_TIMEOUT_S):
                    reply = await self._converse(reader, writer, request.encode("ascii"))
            except (OSError, TimeoutError):
                raise self._away("no answer in time") from None
            finally:
                writer.close()
        lines, _, last = reply.rpartition("errno=")
        if not last.strip().lstrip("-").isdigit():
            raise self._away("it hung up")
        number = abs(int(last))
        if number:
            raise Problem("link_interface_refused", expected=f"{self._path.stem}: {_name(number)}")
        return lines

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
        writer.write(request)
        # Who refuses in the middle closes at once; why is still there to be read.
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        received = bytearray()
        while not received.endswith(_END):
            part = await reader.read(_READ_BYTES)
            if not part:
                break
            received += part
            if len(received) > _REPLY_BYTES_MAX:
                raise self._away("an endless answer")
        return received.decode("ascii", errors="replace")

    def _away(self, why: str) -> Problem:
        return Problem("link_interface_away", expected=f"{self._path.stem}: {why}")


def _name(number: int) -> str:
    return f"{errno.errorcode.get(number, str(number))} ({os.strerror(number)})"


def _messages(steps: Sequence[Step]) -> Iterator[str]:
    """Yield requests that carry the steps in their order, none longer than ``MESSAGE_BYTES_MAX``."""
    parts: list[str] = []
    size = 0
    for step in steps:
        text = "".join(f"{line}\n" for line in _lines(step))
        if parts and size + len(text) > MESSAGE_BYTES_MAX - len(_FRAME):
            yield f"set=1\n{''.join(parts)}\n"
            parts, size = [], 0
        parts.append(text)
        size += len(text)
    if parts:
        yield f"set=1\n{''.join(parts)}\n"


def _lines(step: Step) -> Iterator[str]:
    if isinstance(step, Remove):
        yield f"public_key={step.public_key.hex()}"
        yield "remove=true"
        return
    wanted = step.wanted
    yield f"public_key={wanted.public_key.hex()}"
    if not step.new:
        # A peer that went away meanwhile shall not come back as a half of itself.
        yield "update_only=true"
    yield from _settings(step)


def _settings(step: Put) -> Iterator[str]:
    wanted = step.wanted
    if step.psk:
        yield f"preshared_key={wanted.preshared_key.hex() or _NO_PSK}"
    if step.endpoint and wanted.endpoint is not None:
        yield f"endpoint={wanted.endpoint}"
    if step.keepalive:
        yield f"persistent_keepalive_interval={wanted.keepalive_s}"
    if step.allowed:
        yield "replace_allowed_ips=true"
        yield from (f"allowed_ip={prefix}" for prefix in sorted(wanted.allowed))


class _Draft:
    """A peer while its lines are read."""

    __slots__ = ("allowed", "fields", "public_key")

    def __init__(self, public_key: str) -> None:
        self.public_key = bytes.fromhex(public_key)
        self.fields: dict[str, str] = {}
        self.allowed: list[str] = []

    def peer(self) -> Peer:
        fields = self.fields
        psk = fields.get("preshared_key", _NO_PSK)
        seconds, parts = (int(fields.get(f"last_handshake_time_{unit}", 0)) for unit in ("sec", "nsec"))
        return Peer(
            public_key=self.public_key,
            preshared_key=b"" if psk == _NO_PSK else bytes.fromhex(psk),
            allowed=frozenset(_canonical(prefix) for prefix in self.allowed),
            endpoint=fields.get("endpoint"),
            keepalive_s=int(fields.get("persistent_keepalive_interval", 0)),
            handshake_at=seconds + parts / 1e9 if seconds else None,
            rx=int(fields.get("rx_bytes", 0)),
            tx=int(fields.get("tx_bytes", 0)),
        )


def _parse(lines: str) -> Actual:
    """Read the reply to ``get``: the device's own lines first, then each peer's from its ``public_key`` on."""
    device: dict[str, str] = {}
    peers: dict[bytes, Peer] = {}
    for draft in _drafts(lines.splitlines(), device):
        peers[draft.public_key] = draft.peer()
    private_key = bytes.fromhex(device.get("private_key", ""))
    return Actual(
        public_key=public_key_of(private_key) if any(private_key) else None,
        listen_port=int(device.get("listen_port", 0)),
        peers=peers,
    )


def _drafts(lines: Iterable[str], device: dict[str, str]) -> Iterator[_Draft]:
    draft: _Draft | None = None
    for line in lines:
        name, _, value = line.partition("=")
        if name == "public_key":
            if draft is not None:
                yield draft
            draft = _Draft(value)
        elif draft is None:
            device[name] = value
        elif name == "allowed_ip":
            draft.allowed.append(value)
        else:
            draft.fields[name] = value
    if draft is not None:
        yield draft
