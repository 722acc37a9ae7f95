"""Which addresses a body's link (団体の回線) has inside the tunnel, and whose an inner address is: by rule.

A link is named ``<body>-<serial>``, e.g. ``131016-1``: the 6-digit code of a local public body (全国地方公共団体コード)
and a serial 1…63 that is never given twice. Its inner IPv4 is one address of 10.64.0.0/10, its inner IPv6 one /56 of
fd6b:7573::/32 (RFC 4193), both computed from the name. So both centres agree without talking to each other, nothing
has to be published before a link works, and whoever sees a packet knows the body without asking anybody.

Invariant: two links never share an address, and what an address of the ranges says is undone exactly: ``owner`` of an
address of a link is that link's body. This module is pure and must never depend on settings or a database: an address
that meant another body at another place would be another body's identity.
"""

import ipaddress
from typing import Final, NamedTuple

from chukan.tenants.numbers import body_check, is_body_code

SERIAL_MAX: Final = 63
"""How many links a body can ever have, over all time."""
CODE5_MAX: Final = 65_535
"""The highest first five digits that have a place in the plan; the bodies of today end at 47382."""

V4_RANGE: Final = ipaddress.IPv4Network("10.64.0.0/10")
V6_RANGE: Final = ipaddress.IPv6Network("fd6b:7573::/32")

SERVICE_ADDRESS: Final = "10.255.255.1"
"""The exchange's address that a device's route moves with, at either centre (拠点)."""
CENTRE_ADDRESSES: Final = ("10.255.0.1", "10.255.0.2")
"""Each centre's own address, in the order of the site's centres: east, west."""
SERVICE_RANGE: Final = "10.255.0.0/16"
"""All that a device sends into its tunnels."""

_LINKS_PER_BODY: Final = SERIAL_MAX + 1
_CODE5_DIGITS: Final = 5
_CODE6_DIGITS: Final = 6
_V6_BODY_SHIFT: Final = 80
_V6_SERIAL_SHIFT: Final = 72
_V6_PREFIX: Final = 56
_HEXTET: Final = 0xFFFF
_BYTE: Final = 0xFF
_TEXT_MAX: Final = 64


class Link(NamedTuple):
    """A link's name in parts: the 6-digit code of its body, and its serial there (1…63)."""

    body: str
    serial: int

    def __str__(self) -> str:
        return f"{self.body}-{self.serial}"


def parse_link(text: str) -> Link:
    """Return the parts of a link's name, ``131016-1``.

    Raises:
        ValueError: not a body's code with its check digit, or not a serial 1…63 written without leading zeros. The text
            is not quoted.
    """
    body, hyphen, serial = text.partition("-")
    if not (hyphen and len(serial) <= len(str(SERIAL_MAX)) and serial.isascii() and serial.isdigit()):
        raise ValueError("a link is named <body>-<serial>")
    link = Link(body, int(serial))
    if serial != str(link.serial):
        raise ValueError("a link's serial has no leading zeros")
    _number(link)
    return link


def inner_v4(link: str) -> str:
    """Return a link's one inner IPv4 address, e.g. ``10.76.203.1``; ``ValueError`` for what is no link."""
    code5, serial = _number(parse_link(link))
    return str(V4_RANGE.network_address + (code5 * _LINKS_PER_BODY + serial))


def inner_v6(link: str) -> str:
    """Return the address of a link's device within its inner IPv6 prefix, the first one; ``ValueError`` as above."""
    return str(_v6_network(link).network_address + 1)


def prefixes(link: str) -> tuple[str, str]:
    """Return what a peer may send from, canonical: its inner IPv4 as a /32 and its inner IPv6 as a /56.

    Raises ``ValueError`` for what is no link.
    """
    return f"{inner_v4(link)}/32", str(_v6_network(link))


def link_of(address: str) -> tuple[str, int] | None:
    """Return the first five digits of the body's code and the serial of the link that an address belongs to.

    None for what is no inner address of a link: outside the ranges, a place in them that no link can have, no address
    at all. IPv4 in IPv6 (``::ffff:10.64.0.1``, RFC 4291 §2.5.5.2), as a socket for both says it, is IPv4.
    """
    found = _address(address)
    if found is None:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        if found not in V4_RANGE:
            return None
        code5, serial = divmod(int(found) - int(V4_RANGE.network_address), _LINKS_PER_BODY)
    else:
        # The last byte of the fourth group is nobody's: a prefix ends at its 56th bit.
        if found not in V6_RANGE or found.scope_id is not None:
            return None
        code5 = int(found) >> _V6_BODY_SHIFT & _HEXTET
        serial = int(found) >> _V6_SERIAL_SHIFT & _BYTE
    if code5 == 0 or not 1 <= serial <= SERIAL_MAX:
        return None
    return f"{code5:0{_CODE5_DIGITS}d}", serial


def owner(address: str) -> str | None:
    """Return the first five digits of the code of the body whose link has this inner address; None where none has."""
    found = link_of(address)
    return None if found is None else found[0]


def owner_body(address: str) -> str | None:
    """Return the 6-digit code of the body whose link has this inner address; None where none has."""
    code5 = owner(address)
    return None if code5 is None else code5 + body_check(code5)


def _number(link: Link) -> tuple[int, int]:
    """Return a body's first five digits as a number, and the serial.

    The check digit must be right: two codes that differ in it alone would have one address.
    """
    if not (len(link.body) == _CODE6_DIGITS and is_body_code(link.body)):
        raise ValueError("a link's body is a 6-digit code with its check digit")
    code5 = int(link.body[:_CODE5_DIGITS])
    if not (1 <= code5 <= CODE5_MAX and 1 <= link.serial <= SERIAL_MAX):
        raise ValueError("a link has no place in the plan")
    return code5, link.serial


def _v6_network(link: str) -> ipaddress.IPv6Network:
    code5, serial = _number(parse_link(link))
    base = int(V6_RANGE.network_address) | code5 << _V6_BODY_SHIFT | serial << _V6_SERIAL_SHIFT
    return ipaddress.IPv6Network((base, _V6_PREFIX))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if len(text) > _TEXT_MAX:
        return None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return None if found.scope_id is not None else found.ipv4_mapped
    return found
