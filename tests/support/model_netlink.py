"""The kernel's WireGuard as a model, behind the library's own encoding and decoding of its messages.

What the back end sends is encoded by the library into bytes and decoded here; what is dumped is encoded here and
decoded by the library, in many messages, with a peer's prefixes going on in the next: as the kernel does with many.
"""

import errno
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.wireguard import (
    WGPEER_F_REMOVE_ME,
    WGPEER_F_REPLACE_ALLOWEDIPS,
    WGPEER_F_UPDATE_ONLY,
    AsyncWireGuard,
    wgmsg,
)

from chukan.vpn.wireguard.keys import public_key_of

PREFIXES_IN_A_MESSAGE = 3


@dataclass
class _Peer:
    psk: bytes = bytes(32)
    endpoint: tuple[str, int] | None = None
    keepalive_s: int = 0
    allowed: list[str] = field(default_factory=list)


class ModelKernel:
    """One interface; ``opening`` is what a back end opens."""

    _wg_test_key = AsyncWireGuard._wg_test_key
    _wg_set_peer = AsyncWireGuard._wg_set_peer
    _wg_build_allowedips = AsyncWireGuard._wg_build_allowedips
    prid, pid = 30, 1

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self.private_key = bytes(32)
        self.listen_port = 0
        self.peers: dict[bytes, _Peer] = {}
        self.messages = 0
        self.fails_with: int | None = None

    async def opening(self, _netns: str | None) -> "ModelKernel":
        return self

    def close(self) -> None:
        pass

    async def set(self, interface: str, **settings: Any) -> Any:
        return await AsyncWireGuard.set(self, interface, **settings)

    async def info(self, interface: str) -> AsyncIterator[Any]:
        self._check(interface)
        return self._dump()

    def sendto(self, data: bytes, _address: tuple[int, int]) -> None:
        message = wgmsg(data)
        message.decode()
        self.messages += 1
        self._check(message.get_attr("WGDEVICE_A_IFNAME"))
        if (key := message.get_attr("WGDEVICE_A_PRIVATE_KEY")) is not None:
            self.private_key = b64decode(key)
        if (port := message.get_attr("WGDEVICE_A_LISTEN_PORT")) is not None:
            self.listen_port = port
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            self._set_peer(peer)

    async def get(self) -> AsyncIterator[dict[str, Any]]:
        yield {"header": {"error": None}}

    def _check(self, interface: str) -> None:
        if self.fails_with is not None:
            raise NetlinkError(self.fails_with)
        if interface != self.interface:
            raise NetlinkError(errno.ENODEV)

    def _set_peer(self, told: Any) -> None:
        key, flags = b64decode(told.get_attr("WGPEER_A_PUBLIC_KEY")), told.get_attr("WGPEER_A_FLAGS") or 0
        if flags & WGPEER_F_REMOVE_ME:
            self.peers.pop(key, None)
            return
        if key not in self.peers and flags & WGPEER_F_UPDATE_ONLY:
            return
        peer = self.peers.setdefault(key, _Peer())
        if (psk := told.get_attr("WGPEER_A_PRESHARED_KEY")) is not None:
            peer.psk = b64decode(psk)
        if (endpoint := told.get_attr("WGPEER_A_ENDPOINT")) is not None:
            peer.endpoint = (endpoint["addr"], endpoint["port"])
        if (keepalive := told.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL")) is not None:
            peer.keepalive_s = keepalive
        if flags & WGPEER_F_REPLACE_ALLOWEDIPS:
            peer.allowed = []
        for prefix in told.get_attr("WGPEER_A_ALLOWEDIPS") or ():
            for other in self.peers.values():
                if prefix["addr"] in other.allowed:
                    other.allowed.remove(prefix["addr"])
            peer.allowed.append(prefix["addr"])

    async def _dump(self) -> AsyncIterator[Any]:
        device = []
        if any(self.private_key):
            device.append(["WGDEVICE_A_PRIVATE_KEY", b64encode(self.private_key)])
            device.append(["WGDEVICE_A_PUBLIC_KEY", b64encode(public_key_of(self.private_key))])
        device.append(["WGDEVICE_A_LISTEN_PORT", self.listen_port])
        yield _decoded(device)
        for key, peer in self.peers.items():
            for number, part in enumerate(_parts(peer.allowed)):
                yield _decoded([["WGDEVICE_A_PEERS", [{"attrs": _attributes(key, peer, part, first=number == 0)}]]])


def _parts(allowed: list[str]) -> list[list[str]]:
    starts = range(0, max(len(allowed), 1), PREFIXES_IN_A_MESSAGE)
    return [allowed[start : start + PREFIXES_IN_A_MESSAGE] for start in starts]


def _attributes(key: bytes, peer: _Peer, part: list[str], *, first: bool) -> list[Any]:
    attributes: list[Any] = [["WGPEER_A_PUBLIC_KEY", b64encode(key)]]
    if first:
        attributes += [
            ["WGPEER_A_PRESHARED_KEY", b64encode(peer.psk)],
            ["WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": 1_790_000_000, "tv_nsec": 500_000_000}],
            ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", peer.keepalive_s],
            ["WGPEER_A_TX_BYTES", 200],
            ["WGPEER_A_RX_BYTES", 100],
        ]
        if peer.endpoint is not None:
            attributes.append(["WGPEER_A_ENDPOINT", {"addr": peer.endpoint[0], "port": peer.endpoint[1]}])
    attributes.append(["WGPEER_A_ALLOWEDIPS", [{"attrs": _allowed(prefix)} for prefix in part]])
    return attributes


def _allowed(prefix: str) -> list[Any]:
    address, _, length = prefix.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    return [
        ["WGALLOWEDIP_A_FAMILY", family],
        ["WGALLOWEDIP_A_IPADDR", inet_pton(family, address)],
        ["WGALLOWEDIP_A_CIDR_MASK", int(length)],
    ]


def _decoded(attributes: list[Any]) -> Any:
    message = wgmsg()
    message["cmd"] = 0
    message["attrs"] = attributes
    message.encode()
    again = wgmsg(message.data)
    again.decode()
    return again
