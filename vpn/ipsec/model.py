"""What charon has and what it shall have: the words that plan, VICI and controller share for links of kind ``ipsec``.

A connection is named ``<link>.<mark>``; the mark is made of what authenticates the device: eight hexadecimal digits of
its pre-shared key's digest, or of its certificate authority's. So another key is another connection with another
identity, both can stand beside each other while a device is changed, and which of them a device uses is seen by name.

Invariant: pure, frozen, and silent. No ``repr`` shows a key, an identity or an outer address. The selectors of a link's
connection are its own prefixes alone on the far side (RFC 7296 §2.9): that makes an inner source address a proof.
"""

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Literal

import msgspec

from chukan.vpn.model import canonical_prefixes

Auth = Literal["psk", "pubkey"]

PSK_BYTES: Final = 32
"""Length of a link's pre-shared key: no word that somebody could guess (RFC 8247 and RFC 7296 §2.15 warn of those)."""

IKE_PROPOSALS: Final = ("aes256gcm16-prfsha384-ecp384", "aes256-sha384-ecp384")
"""The second is for devices that have no GCM in IKE itself; ESP has it always."""
ESP_PROPOSALS: Final = ("aes256gcm16-ecp384",)
IKE_REKEY_S: Final = 4 * 3600
"""How old the keys of an IKE_SA become. It is rekeyed in place; nobody is authenticated again, so nothing breaks."""
ESP_REKEY_S: Final = 3600
DPD_S: Final = 10
"""After so long a silence the other end is asked whether it is alive (RFC 7296 §2.4)."""

CHILD: Final = "service"
"""The name of the one child that a connection has."""
_MARK_DIGITS: Final = 8
_MARK_DOMAIN: Final = b"chukan ipsec connection\x00"
_DOMAIN: Final = "chukan"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One connection as it shall be.

    ``secret`` is the pre-shared key as it rests (``auth`` psk; ``ike_secret`` is what is typed) or the certificate
    authority that the device's certificate must come from, as DER (``auth`` pubkey). ``remote`` are the link's own
    prefixes, ``local`` the service addresses; both are canonical and of the same families. ``remote_id`` overrides the
    derived identity where a certificate bears another: a domain name in small letters, as charon says it back.
    """

    link: str
    centre: str
    auth: Auth
    secret: bytes
    local: frozenset[str]
    remote: frozenset[str]
    remote_id: str = ""

    def __repr__(self) -> str:
        return f"<Wanted of {self.link}>"

    @property
    def name(self) -> str:
        """The connection's name; its secret has the same."""
        return f"{self.link}.{mark(self.secret)}"


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """What all connections of a centre have in common.

    ``address`` is the outer address that charon answers on, ``%any`` for all. ``certificate`` (DER) is shown to devices
    that have one themselves; empty where no link has. ``if_id`` binds the children to an XFRM interface of the kernel;
    0 where ESP is charon's own (kernel-libipsec).
    """

    centre: str
    address: str = "%any"
    certificate: bytes = b""
    if_id: int = 0

    def __repr__(self) -> str:
        return f"<Gateway of {self.centre}>"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A connection as charon tells it (list-conns): everything of it that can be compared. Proposals are not told."""

    version: str
    local_addrs: tuple[str, ...]
    remote_addrs: tuple[str, ...]
    local_id: str
    remote_id: str
    local_auth: str
    remote_auth: str
    unique: str
    rekey_s: int
    reauth_s: int
    dpd_s: int
    children: frozenset[str]
    mode: str
    esp_rekey_s: int
    local: frozenset[str]
    remote: frozenset[str]

    def __repr__(self) -> str:
        return f"<Loaded with {len(self.children)} children>"


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of ESP security associations; ``rx`` and ``tx`` are bytes since it was made."""

    stands: bool
    local: frozenset[str]
    remote: frozenset[str]
    rx: int
    tx: int

    def __repr__(self) -> str:
        return f"<Child, {'installed' if self.stands else 'not installed'}>"


class Association(msgspec.Struct, frozen=True, kw_only=True):
    """One IKE_SA: ``number`` is charon's own, ``name`` its connection's, ``endpoint`` where the device is.

    ``identity`` is what the device has shown.
    """

    number: int
    name: str
    identity: str
    established: bool
    age_s: int
    endpoint: str | None
    children: tuple[Child, ...]

    def __repr__(self) -> str:
        return f"<Association {self.number} of {self.name}>"


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """All that a charon has: connections by name, the names of its secrets, and who is connected."""

    connections: Mapping[str, Loaded]
    secrets: frozenset[str]
    associations: tuple[Association, ...]

    def __repr__(self) -> str:
        return f"<Actual of {len(self.connections)} connections>"


class Unload(msgspec.Struct, frozen=True):
    """Take a connection away: nobody can connect by it any more. Whoever is connected stays until terminated."""

    name: str


class DropSecret(msgspec.Struct, frozen=True):
    """Take a secret away."""

    name: str


class Terminate(msgspec.Struct, frozen=True):
    """End every IKE_SA of a connection, whatever its children, without waiting for the other end's word."""

    name: str


class TerminateOne(msgspec.Struct, frozen=True):
    """End one IKE_SA, by charon's number."""

    number: int


class PutSecret(msgspec.Struct, frozen=True):
    """Load a connection's secret, or put it in another's place of the same name."""

    wanted: Wanted


class PutConnection(msgspec.Struct, frozen=True):
    """Load a connection, or put it in another's place of the same name; who is connected stays connected."""

    wanted: Wanted


Step = Unload | DropSecret | Terminate | TerminateOne | PutSecret | PutConnection


def mark(secret: bytes) -> str:
    """Return the eight hexadecimal digits that stand for a secret in names; of 256 random bits they betray nothing."""
    return hashlib.sha256(_MARK_DOMAIN + secret).hexdigest()[:_MARK_DIGITS]


def ike_secret(psk: bytes) -> bytes:
    """Return the octets that both ends use as pre-shared key: base32 (RFC 4648 §6) in small letters, to be typed.

    52 letters and digits, without 0, 1, 8 and 9 and without signs that a device's configuration language might read.
    """
    return base64.b32encode(psk).rstrip(b"=").lower()


def link_of(name: str) -> str:
    """Return the link that a connection's name is of, empty for a name of another form."""
    return name.rpartition(".")[0]


def local_id(centre: str) -> str:
    """Return a centre's identity in IKE."""
    return f"{centre}.gateway.{_DOMAIN}"


def remote_id(wanted: Wanted) -> str:
    """Return the identity that the device must show: with its pre-shared key's mark, or as its certificate says."""
    if wanted.remote_id:
        return wanted.remote_id
    named = f"{wanted.link}.link.{_DOMAIN}"
    return f"{mark(wanted.secret)}.{named}" if wanted.auth == "psk" else named


def selectors(prefixes: Iterable[str], services: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the near and the far side's selectors: a family that only one side has would match nothing.

    Raises ``ValueError`` where the two sides have no family in common, or for what is no prefix.
    """
    near, far = canonical_prefixes(services), canonical_prefixes(prefixes)
    common = {_family(prefix) for prefix in near} & {_family(prefix) for prefix in far}
    if not common:
        raise ValueError("a link and the services have no address family in common")
    return (
        frozenset(prefix for prefix in near if _family(prefix) in common),
        frozenset(prefix for prefix in far if _family(prefix) in common),
    )


def expected(wanted: Wanted, gateway: Gateway) -> Loaded:
    """Return how charon will tell a connection, once it is loaded."""
    said = {"psk": "pre-shared key", "pubkey": "public key"}[wanted.auth]
    return Loaded(
        version="IKEv2",
        local_addrs=(gateway.address,),
        remote_addrs=("%any",),
        local_id=local_id(wanted.centre),
        remote_id=remote_id(wanted),
        local_auth=said,
        remote_auth=said,
        unique="UNIQUE_REPLACE",
        rekey_s=IKE_REKEY_S,
        reauth_s=0,
        dpd_s=DPD_S,
        children=frozenset({CHILD}),
        mode="TUNNEL",
        esp_rekey_s=ESP_REKEY_S,
        local=wanted.local,
        remote=wanted.remote,
    )


def overlaps(prefixes: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether an address is in both; what is no prefix overlaps with nothing."""
    theirs = list(_networks(others))
    return any(one.overlaps(other) for one in _networks(prefixes) for other in theirs if one.version == other.version)


def within(prefixes: AbstractSet[str], others: Iterable[str]) -> bool:
    """Tell whether each prefix lies in one of the others; what is no prefix lies in none."""
    theirs = [(int(other.network_address), int(other.broadcast_address), other.version) for other in _networks(others)]
    mine = [(int(one.network_address), int(one.broadcast_address), one.version) for one in _networks(prefixes)]
    return len(mine) == len(prefixes) and all(
        any(first >= low and last <= high and version == family for low, high, family in theirs)
        for first, last, version in mine
    )


def _networks(texts: Iterable[str]) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in texts:
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            # charon writes ranges, protocols and ports into a selector that somebody loaded by hand.
            continue


def _family(prefix: str) -> int:
    return ipaddress.ip_network(prefix).version
