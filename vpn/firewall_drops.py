"""What the gateway's packet filter drops, by reason, and for what a body's own packets were dropped, by their source.

Counting stands in a rule before the one that drops: a meter that is full ends its rule, and must end nothing else.
Pure; nothing here decides what is dropped.
"""

from collections.abc import Iterator
from typing import Final

from chukan.vpn.firewall_words import Object, chain, match, payload, rule

METER_SIZE: Final = 65536
_IPV6_MASK: Final = "ffff:ffff:ffff:ff00::"

BODY_DROPS: Final = (
    "between_bodies",
    "unknown",
    "invalid",
    "icmp_flood",
    "connection_flood",
    "closed_port",
    "not_a_service",
)
"""Those that a body's own packets fall to: counted by source as well, in a chain and meters of each reason."""
DROPS: Final = (*BODY_DROPS, "unsolicited", "outside", "not_forwarded", "not_held")
"""The named counters: why something was dropped."""


def address(field: str, suffix: str) -> Object:
    """Return a packet's ``saddr`` or ``daddr`` as links have it: IPv4 whole, IPv6 cut to a link's /56."""
    whole = payload(f"ip{suffix}", field)
    return {"&": [whole, _IPV6_MASK]} if suffix else whole


def chains() -> Iterator[Object]:
    """A chain for each reason: count for the source, count for the centre, drop."""
    for reason in BODY_DROPS:
        yield chain(_drop_chain(reason))
        for suffix in ("", "6"):
            family = match({"meta": {"key": "nfproto"}}, f"ipv{suffix or 4}")
            yield rule(_drop_chain(reason), family, _source_meter(reason, suffix))
        yield rule(_drop_chain(reason), {"counter": reason}, {"drop": None})


def meter_name(reason: str, suffix: str) -> str:
    """Return the name of the meter that counts one of ``BODY_DROPS`` by source; ``suffix`` as an element's."""
    return f"dropped_{reason}{suffix}"


def _drop_chain(reason: str) -> str:
    return f"drop_{reason}"


def _source_meter(reason: str, suffix: str) -> Object:
    """Count by source, for good: whoever has an address here is somebody's peer, so they are few."""
    key = address("saddr", suffix)
    name = meter_name(reason, suffix)
    return {"meter": {"name": name, "key": key, "stmt": {"counter": None}, "size": METER_SIZE}}


def dropped(reason: str) -> tuple[Object, ...]:
    """Return the end of a rule that drops for one of ``DROPS``, counted."""
    if reason in BODY_DROPS:
        return ({"goto": {"target": _drop_chain(reason)}},)
    return {"counter": reason}, {"drop": None}
