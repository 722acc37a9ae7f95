"""What the links' devices have and what they shall have: the words that plan, back ends and controller share.

A public key stands for a tunnel's other end everywhere here (the device knows no names); ``link`` is our name for it
(``131016-1``). Prefixes are canonical (``canonical_prefix``): one written in two ways would be repaired for ever.

Invariant: pure, frozen, and silent. No ``repr`` shows a key, a pre-shared key or an endpoint, for reprs find their way
into logs and assertion texts.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

KEY_BYTES: Final = 32
"""Length of a WireGuard key: private, public and pre-shared alike (Curve25519; section 5.4 of the WireGuard paper)."""

DriftKind = Literal["missing", "rogue", "stolen", "psk", "allowed"]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One peer as the device has it.

    ``preshared_key`` is empty where there is none. ``endpoint`` is ``address:port`` (IPv6 in brackets), None before the
    first packet. ``handshake_at`` is in seconds since 1970, None before the first handshake (0 would read as 1970).
    ``rx`` and ``tx`` are bytes since the device was made.
    """

    public_key: bytes
    preshared_key: bytes = b""
    allowed: frozenset[str] = frozenset()
    endpoint: str | None = None
    keepalive_s: int = 0
    handshake_at: float | None = None
    rx: int = 0
    tx: int = 0

    def __repr__(self) -> str:
        return f"<Peer of {len(self.allowed)} prefixes>"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One peer as it shall be.

    A device key under rotation is a second one of the same link, with no prefixes until it is seen in use.
    ``endpoint`` is where the device was last seen: it is given to a peer that has none, and never compared.
    """

    link: str
    public_key: bytes
    preshared_key: bytes = b""
    allowed: frozenset[str] = frozenset()
    endpoint: str | None = None
    keepalive_s: int = 0

    def __repr__(self) -> str:
        return f"<Wanted of {self.link}>"


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """What a WireGuard interface itself is given: the gateway's own private key and its UDP port."""

    private_key: bytes
    listen_port: int

    def __repr__(self) -> str:
        return f"<Interface at port {self.listen_port}>"


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """What a WireGuard interface has; ``public_key`` is None while it was given no private key."""

    public_key: bytes | None
    listen_port: int
    peers: Mapping[bytes, Peer]

    def __repr__(self) -> str:
        return f"<Actual of {len(self.peers)} peers>"


class Remove(msgspec.Struct, frozen=True):
    """Take a peer away; its session ends at once."""

    public_key: bytes

    def __repr__(self) -> str:
        return "<Remove>"


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """Make a peer (``new``), or change of it what is flagged and nothing else, so that its session goes on.

    ``allowed`` replaces the peer's prefixes as a whole; ``psk`` sets or clears the pre-shared key.
    """

    wanted: Wanted
    new: bool = False
    psk: bool = False
    allowed: bool = False
    endpoint: bool = False
    keepalive: bool = False

    def __repr__(self) -> str:
        flags = [name for name in ("new", "psk", "allowed", "endpoint", "keepalive") if getattr(self, name)]
        return f"<Put of {self.wanted.link}: {' '.join(flags)}>"


Step = Remove | Put


class Drift(msgspec.Struct, frozen=True):
    """One way in which a device differs from what is wanted; ``link`` is None for a peer that is nobody's."""

    kind: DriftKind
    link: str | None


def canonical_prefix(text: str) -> str:
    """Return a prefix as every back end writes it: network address and length. ``ValueError`` for no prefix."""
    return str(ipaddress.ip_network(text, strict=False))


def canonical_prefixes(texts: Iterable[str]) -> frozenset[str]:
    """Return prefixes in their canonical form. ``ValueError`` for anything else."""
    return frozenset(canonical_prefix(text) for text in texts)
