"""A whole country of synthetic bodies for links: who they are, their keys, and the same peers as ``wg`` reads them.

Bodies are spread over the 47 prefectures; their codes are well-formed and theirs alone, their keys are made anew each
time. Keys of both centres are those of one: only one gateway is measured.

Invariant: pure but for the keys, which come from the operating system; nothing here shows one but the file for ``wg``,
which goes to a private file.
"""

import base64
from collections.abc import Iterable
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.chance import Chance
from chukan.ops.bench.ground import Ground
from chukan.tenants import link_plan
from chukan.tenants.numbers import body_check

LINKS: Final = 2_500
PREFECTURES: Final = 47
PORT: Final = 51820
KEEPALIVE_S: Final = 25
_PER_PREFECTURE_MAX: Final = 900
_FIRST: Final = 100
_PSK_BYTES: Final = 32


class Member(msgspec.Struct, frozen=True):
    """One body's link: where its device stands, and its secrets."""

    number: int
    body: str
    link: str
    address: str
    private: X25519PrivateKey
    sealing: X25519PrivateKey
    psk: bytes

    def __repr__(self) -> str:
        """Tell its name alone."""
        return f"Member({self.link})"

    @property
    def public(self) -> bytes:
        """The device's public key."""
        return self.private.public_key().public_bytes_raw()

    @property
    def inner(self) -> str:
        """The device's address inside the tunnel."""
        return link_plan.inner_v4(self.link)


def country(count: int, chance: Chance) -> list[Member]:
    """Return so many bodies with one link each, in each prefecture by turns. ``ValueError`` for more than can be."""
    if not 0 < count <= PREFECTURES * _PER_PREFECTURE_MAX:
        raise ValueError("a prefecture has at most 900 bodies")
    return [_member(number, chance) for number in range(count)]


def _member(number: int, chance: Chance) -> Member:
    place, prefecture = divmod(number, PREFECTURES)
    code5 = f"{prefecture + 1:02d}{_FIRST + place:03d}"
    body = code5 + body_check(code5)
    return Member(
        number=number,
        body=body,
        link=f"{body}-1",
        address=Ground.address(number),
        private=X25519PrivateKey.generate(),
        sealing=X25519PrivateKey.generate(),
        psk=chance.token(_PSK_BYTES),
    )


def syncconf(members: Iterable[Member], gateway: X25519PrivateKey, *, port: int = PORT, endpoints: bool = False) -> str:
    """Return the peers in the form of wg(8): for ``wg syncconf``, which brings an interface to exactly that.

    With ``endpoints`` each peer is given where its device is and told to keep the session alive, as after a restart.
    """
    lines = ["[Interface]", f"PrivateKey = {_base64(gateway.private_bytes_raw())}", f"ListenPort = {port}"]
    for member in members:
        lines += [
            "[Peer]",
            f"PublicKey = {_base64(member.public)}",
            f"PresharedKey = {_base64(member.psk)}",
            f"AllowedIPs = {', '.join(link_plan.prefixes(member.link))}",
            f"PersistentKeepalive = {KEEPALIVE_S}",
        ]
        if endpoints:
            lines.append(f"Endpoint = {member.address}:{PORT}")
    return "\n".join([*lines, ""])


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")
