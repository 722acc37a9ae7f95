"""WireGuard in the kernel, over generic netlink.

Keys are base64 here. A set is one peer a message, and the library reads its answer without looking whose it is: one
call at a time. A get comes in several messages, and the prefixes of one peer may go on in the next (the library hands
them over one by one; who reads only the first sees some twenty peers): they are merged by public key.

Invariant: after a deadline the socket is thrown away, for a late answer would be taken for that of the next call. Keys
appear in no log and no exception.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast

import msgspec
from pyroute2 import AsyncWireGuard
from pyroute2.netlink.exceptions import NetlinkError

from chukan.errors import Problem
from chukan.vpn.model import KEY_BYTES, Actual, Interface, Peer, Remove, Step, canonical_prefixes
from chukan.vpn.wireguard.keys import from_base64, to_base64

_CALL_TIMEOUT_S: Final = 5.0
_NO_KEY: Final = bytes(KEY_BYTES)
_AWAY: Final = {errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP}


class Attributes(Protocol):
    """A netlink message, or a part of one, as the library decodes it."""

    def get_attr(self, name: str) -> Any:  # noqa: ANN401 - the library is not typed
        """Return an attribute, None when it is not there."""
        ...


class Netlink(Protocol):
    """What is used of the library's socket."""

    async def info(self, interface: str) -> AsyncIterator[Attributes]:
        """Return the messages of a dump."""
        ...

    async def set(self, interface: str, **settings: object) -> object:
        """Set the device, or one peer of it, and wait for the kernel's word."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...


async def open_netlink(netns: str | None) -> Netlink:
    """Open the kernel's WireGuard in a namespace. ``NetlinkError`` 2 where the kernel has none."""
    # Without flags=0 the library would make a namespace that is missing, and answer for an empty one.
    netlink = AsyncWireGuard(netns=netns, flags=0) if netns else AsyncWireGuard()
    await netlink.setup_endpoint()
    return cast("Netlink", netlink)


class KernelWireGuard:
    """A WireGuard interface of the kernel; see ``port.Tunnels``."""

    def __init__(
        self,
        interface: str,
        netns: str | None = None,
        *,
        opening: Callable[[str | None], Awaitable[Netlink]] = open_netlink,
    ) -> None:
        """``netns`` names the network namespace in which the interface stands, None for this process's own."""
        self._interface = interface
        self._netns = netns
        self._opening = opening
        self._netlink: Netlink | None = None
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Close the socket, if one is open; a later call opens one again."""
        opened, self._netlink = self._netlink, None
        if opened is not None:
            opened.close()

    async def get(self) -> Actual:
        """Return what the interface has."""
        async with self._call() as netlink:
            return read_dump([message async for message in await netlink.info(self._interface)])

    async def set_interface(self, interface: Interface) -> None:
        """Give the interface its private key and port."""
        async with self._call() as netlink:
            await netlink.set(
                self._interface, private_key=to_base64(interface.private_key), listen_port=interface.listen_port
            )

    async def apply(self, steps: Sequence[Step]) -> None:
        """Carry the steps out, a message each."""
        for step in steps:
            async with self._call() as netlink:
                await netlink.set(self._interface, peer=peer_settings(step))

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[Netlink]:
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S), self._turn:
                if self._netlink is None:
                    self._netlink = await self._opening(self._netns)
                try:
                    yield self._netlink
                except (asyncio.CancelledError, OSError):
                    # Answers bear no number that the library looks at: a late one would be taken for the next call's.
                    self.close()
                    raise
        except NetlinkError as error:
            code = "link_interface_away" if error.code in _AWAY else "link_interface_refused"
            name = errno.errorcode.get(error.code, str(error.code))
            raise Problem(code, expected=f"{self._interface}: {name} of the kernel's WireGuard") from None
        except (OSError, TimeoutError):
            raise Problem("link_interface_away", expected=f"{self._interface}: no answer in time") from None


def peer_settings(step: Step) -> dict[str, Any]:
    """Return a step as the library takes it."""
    if isinstance(step, Remove):
        return {"public_key": to_base64(step.public_key), "remove": True}
    wanted = step.wanted
    # A peer that went away meanwhile shall not come back as a half of itself.
    settings: dict[str, Any] = {"public_key": to_base64(wanted.public_key), "update_only": not step.new}
    if step.psk:
        settings["preshared_key"] = to_base64(wanted.preshared_key or _NO_KEY)
    if step.endpoint and wanted.endpoint is not None:
        address, _, port = wanted.endpoint.rpartition(":")
        settings["endpoint_addr"] = address.strip("[]")
        settings["endpoint_port"] = int(port)
    if step.keepalive:
        settings["persistent_keepalive"] = wanted.keepalive_s
    if step.allowed:
        settings["replace_allowed_ips"] = True
        settings["allowed_ips"] = sorted(wanted.allowed)
    return settings


def read_dump(messages: Iterable[Attributes]) -> Actual:
    """Return what all messages of a dump say together; the device's own words stand in the first."""
    public_key: bytes | None = None
    listen_port = 0
    peers: dict[bytes, Peer] = {}
    for message in messages:
        key = message.get_attr("WGDEVICE_A_PUBLIC_KEY")
        if key is not None and from_base64(key) != _NO_KEY:
            public_key = from_base64(key)
        listen_port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or listen_port
        for one in message.get_attr("WGDEVICE_A_PEERS") or ():
            peer = _peer(one)
            before = peers.get(peer.public_key)
            # A peer that is told in two messages has all of its words in the first, and the rest of its prefixes here.
            peers[peer.public_key] = (
                peer if before is None else msgspec.structs.replace(before, allowed=before.allowed | peer.allowed)
            )
    return Actual(public_key=public_key, listen_port=listen_port, peers=peers)


def _peer(one: Attributes) -> Peer:
    attribute = one.get_attr
    psk = from_base64(attribute("WGPEER_A_PRESHARED_KEY") or to_base64(_NO_KEY))
    endpoint: Mapping[str, Any] | None = attribute("WGPEER_A_ENDPOINT")
    handshake: Mapping[str, int] = attribute("WGPEER_A_LAST_HANDSHAKE_TIME") or {}
    handshake_at = handshake.get("tv_sec", 0) + handshake.get("tv_nsec", 0) / 1e9
    return Peer(
        public_key=from_base64(attribute("WGPEER_A_PUBLIC_KEY")),
        preshared_key=b"" if psk == _NO_KEY else psk,
        allowed=canonical_prefixes(prefix["addr"] for prefix in attribute("WGPEER_A_ALLOWEDIPS") or ()),
        endpoint=None if endpoint is None else _endpoint(endpoint["addr"], endpoint["port"]),
        keepalive_s=attribute("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
        handshake_at=handshake_at or None,
        rx=attribute("WGPEER_A_RX_BYTES") or 0,
        tx=attribute("WGPEER_A_TX_BYTES") or 0,
    )


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
