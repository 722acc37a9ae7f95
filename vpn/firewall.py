"""The packet filter of a gateway as data: nftables' table ``inet chukan`` for a ruleset. Pure; ``nft`` carries it in.

What it says, in this order, to a packet that came out of a tunnel, whether it is for this host or to be forwarded:

1. to another tunnel: dropped (``between_bodies``);
2. from an address that is no link's: dropped (``unknown``). Before everything else about it, connections that are long
   open included: a link that is taken out of the set stops at its next packet. WireGuard itself drops an address that
   is not its sender's before it comes here;
3. to a port that is refused (the health port, while the centre is drained): answered with a reset, also on connections
   that are open, so that agents move away at once. Nobody needs to run for this to hold;
4. a ping of a service address, within a limit for each body: let through (``icmp_flood`` otherwise);
5. part of a connection that was let through: let through; of one that nobody knows: dropped (``invalid``);
6. a new connection to a service, within a limit for each body: let through (``connection_flood`` otherwise);
7. to a service address at another port: dropped (``closed_port``); anywhere else: dropped (``not_a_service``).

Back into a tunnel goes what answers, to an address of a link (``unsolicited`` otherwise). From outside come only the
tunnels' own packets, and answers to what this host itself asked (``outside`` otherwise). The inner leg's packets for
this host are let in: who may speak there is the centre's own rule. Nothing else is forwarded (``not_forwarded``).

Each body's packets are counted by the elements of the sets ``tenant_in`` and ``tenant_out``: matched positively, for a
lookup with "not in" finds rightly but never counts (measured). IPv4 addresses are whole, IPv6 ones cut to a link's /56.
What a body's own packets are dropped for is counted by their source too (``BODY_DROPS``), each reason in meters of its
own (``vpn.firewall_drops``).

A port that is served by lease (``leased``) is shut to all, in and out, unless it stands in the set ``held``, whose
elements the kernel itself takes away after their time: a dead man's switch. Who holds the lease renews them; who is
frozen, killed or cut off cannot, and the tunnel behind the port falls silent, keepalives and handshakes included
(``not_held``). A renewal deletes before it adds, and so fails where the time had run out: written late, it opens
nothing.

Invariant: whatever is not said here is dropped. No element holds more than an address or a port.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from chukan.vpn.firewall_drops import DROPS, METER_SIZE, address, chains, dropped
from chukan.vpn.firewall_words import (
    FAMILY,
    TABLE,
    Object,
    chain,
    device,
    known,
    match,
    named_set,
    payload,
    rule,
    state,
)

IPV4_BITS: Final = 32
IPV6_BITS: Final = 56
"""Prefix lengths of a link; another one has no element here."""


HELD: Final = "held"
"""The set of leased ports that are open, each for a time."""
REFUSED: Final = "drained"
"""The counter of resets that a drained centre sent."""

IKE_PORTS: Final = (500, 4500)

_METER_TIMEOUT_S: Final = 60


class Ruleset(msgspec.Struct, frozen=True, kw_only=True):
    """What the table is made of. ``prefixes`` and ``draining`` change daily, by elements; the rest is loaded whole."""

    tunnels: frozenset[str]
    """Interfaces out of which bodies' packets come: WireGuard's, and IPsec's where there is one."""
    outer: str
    """The device to the network that the tunnels go through."""
    inner: str | None
    """The device to the exchanges' hosts; None where they stand on this host."""
    listen_ports: frozenset[int]
    """WireGuard's UDP ports."""
    ipsec: bool
    leased: frozenset[int] = frozenset()
    """Those of WireGuard's ports that are open only while they are held, by ``hold``."""
    services: frozenset[tuple[str, int]]
    """Addresses and TCP ports that bodies may reach: the agency port, and the health port."""
    health_ports: frozenset[int]
    """Those of the ports that are refused while the centre is drained."""
    prefixes: frozenset[str] = frozenset()
    """Every prefix of every link that may speak: /32 and /56."""
    draining: bool = False
    open_tcp: frozenset[int] = frozenset()
    """TCP ports of this host itself that may be reached from outside, for a host of one leg; none is best."""
    open_to: frozenset[str] = frozenset()
    """Addresses from which alone they may be reached; from everywhere where none is named."""
    pings_per_s: int = 10
    """For each body; an agent sends one a second."""
    connections_per_s: int = 500
    """New ones, for each body."""

    def __post_init__(self) -> None:
        """Refuse what could be no ruleset: ``ValueError``."""
        for prefix in self.prefixes:
            element(prefix)
        if not self.tunnels or not self.services or self.outer in self.tunnels:
            raise ValueError("a ruleset has tunnels, services, and another device outside")


class Element(msgspec.Struct, frozen=True):
    """A prefix of a link as an element: its sets' names end in ``suffix``."""

    suffix: str
    value: str


@lru_cache(maxsize=32768)
def element(prefix: str) -> Element:
    """Return the element of a link's prefix. ``ValueError`` unless it is an IPv4 /32 or an IPv6 /56."""
    network = ipaddress.ip_network(prefix)
    if network.prefixlen != (IPV4_BITS if network.version == 4 else IPV6_BITS):  # noqa: PLR2004 - the IP version
        raise ValueError("a link has an IPv4 /32 and an IPv6 /56")
    return Element(_suffix(network.version), str(network.network_address))


def prefix_of(suffix: str, value: str) -> str:
    """Return the prefix of an element, canonical."""
    return f"{value}/{IPV6_BITS if suffix else IPV4_BITS}"


def _suffix(version: int) -> str:
    return "" if version == 4 else "6"  # noqa: PLR2004 - the IP version


# ---------------------------------------------------------------- commands


def load(ruleset: Ruleset) -> list[Object]:
    """Return the commands that put the table in place of the present one, in one transaction; counters start anew."""
    table = {"table": {"family": FAMILY, "name": TABLE}}
    # Deleting what is not there is an error; adding what is there is none.
    return [{"add": table}, {"delete": table}, {"add": table}, *({"add": each} for each in _objects(ruleset))]


def change(
    *, add: Iterable[str] = (), remove: Iterable[str] = (), refuse: Iterable[int] = (), allow: Iterable[int] = ()
) -> list[Object]:
    """Return the commands that add and remove links' prefixes, and refuse and allow ports again.

    Each may be there already, or be gone: what is to be deleted is added first. Counters of other elements stay.
    """
    commands: list[Object] = []
    for prefixes, removing in ((add, False), (remove, True)):
        elements = [element(prefix) for prefix in prefixes]
        for suffix in ("", "6"):
            values = sorted(each.value for each in elements if each.suffix == suffix)
            for name in ("tenant_in", "tenant_out"):
                commands += _elements(f"{name}{suffix}", values, removing=removing)
    commands += _elements("refused", sorted(refuse), removing=False)
    commands += _elements("refused", sorted(allow), removing=True)
    return commands


def hold(ports: Iterable[int], for_s: int, *, renew: bool) -> list[Object]:
    """Return the commands that keep leased ports open for so many seconds from now, instead of any time before.

    With ``renew`` they fail as a whole, and open nothing, where one of the ports was shut meanwhile.
    """
    opened = sorted(ports)
    if not opened or for_s < 1:
        return []
    timed = [{"elem": {"val": port, "timeout": for_s}} for port in opened]
    what = {"element": {"family": FAMILY, "table": TABLE, "name": HELD, "elem": timed}}
    # What is there already keeps its time when it is added again.
    before = [{"delete": {"element": {"family": FAMILY, "table": TABLE, "name": HELD, "elem": list(opened)}}}]
    return [*([] if renew else [{"add": what}]), *before, {"add": what}]


def shut(ports: Iterable[int]) -> list[Object]:
    """Return the commands that shut leased ports at once; they may be shut already."""
    opened = sorted(ports)
    if not opened:
        return []
    what = {"element": {"family": FAMILY, "table": TABLE, "name": HELD, "elem": list(opened)}}
    return [*hold(opened, 1, renew=False), {"delete": what}]


def _elements(name: str, values: Iterable[str | int], *, removing: bool) -> list[Object]:
    elem = list(values)
    if not elem:
        return []
    what = {"element": {"family": FAMILY, "table": TABLE, "name": name, "elem": elem}}
    return [{"add": what}, {"delete": what}] if removing else [{"add": what}]


# ---------------------------------------------------------------- the table's objects


def _objects(ruleset: Ruleset) -> Iterator[Object]:
    for name in (*DROPS, REFUSED):
        yield {"counter": {"family": FAMILY, "table": TABLE, "name": name}}
    yield from _sets(ruleset)
    for name, hook in (("input", "input"), ("forward", "forward"), ("output", "output")):
        policy = "accept" if hook == "output" else "drop"
        yield chain(name, type="filter", hook=hook, prio=0, policy=policy)
    for name in ("from_tunnel", "tenant", "into_tunnel", "from_outside"):
        yield chain(name)
    yield from chains()
    yield from _input(ruleset)
    yield from _forward(ruleset)
    yield from _output(ruleset)
    yield from _from_tunnel()
    yield from _tenant(ruleset)
    yield from _into_tunnel()
    yield from _from_outside(ruleset)


def _sets(ruleset: Ruleset) -> Iterator[Object]:
    elements = [element(prefix) for prefix in ruleset.prefixes]
    for suffix, kind in (("", "ipv4_addr"), ("6", "ipv6_addr")):
        values = sorted(each.value for each in elements if each.suffix == suffix)
        for name in ("tenant_in", "tenant_out"):
            yield named_set(f"{name}{suffix}", kind, values, stmt=[{"counter": None}])
        services = sorted(pair for pair in ruleset.services if _suffix(ipaddress.ip_address(pair[0]).version) == suffix)
        pairs = [{"concat": [address, port]} for address, port in services]
        yield named_set(f"service{suffix}", [kind, "inet_service"], pairs)
        yield named_set(f"service_host{suffix}", kind, sorted({address for address, _ in services}))
    yield named_set("refused", "inet_service", sorted(ruleset.health_ports) if ruleset.draining else [])
    if ruleset.leased:
        yield named_set(HELD, "inet_service", [], flags=["timeout"])


def _input(ruleset: Ruleset) -> Iterator[Object]:
    yield rule("input", device("iifname", ["lo"]), {"accept": None})
    yield from _only_while_held("input", "dport", ruleset)
    yield rule("input", device("iifname", ruleset.tunnels), {"goto": {"target": "from_tunnel"}})
    yield rule("input", device("iifname", [ruleset.outer]), {"goto": {"target": "from_outside"}})
    if ruleset.inner is not None and ruleset.inner != ruleset.outer:
        yield rule("input", device("iifname", [ruleset.inner]), {"accept": None})
    yield rule("input", *dropped("outside"))


def _forward(ruleset: Ruleset) -> Iterator[Object]:
    tunnels = ruleset.tunnels
    yield rule("forward", device("iifname", tunnels), device("oifname", tunnels), *dropped("between_bodies"))
    if ruleset.inner is not None:
        inner = [ruleset.inner]
        yield rule("forward", device("iifname", tunnels), device("oifname", inner), {"goto": {"target": "from_tunnel"}})
        answers = [device("iifname", inner), device("oifname", tunnels), known()]
        yield rule("forward", *answers, {"goto": {"target": "into_tunnel"}})
        yield rule("forward", device("iifname", inner), device("oifname", tunnels), *dropped("unsolicited"))
    yield rule("forward", device("iifname", tunnels), *dropped("not_a_service"))
    yield rule("forward", *dropped("not_forwarded"))


def _output(ruleset: Ruleset) -> Iterator[Object]:
    """What this host itself sends into a tunnel: answers of a service that stands here, resets and ICMP errors."""
    yield from _only_while_held("output", "sport", ruleset)
    tunnels = device("oifname", ruleset.tunnels)
    # The kernel introduces itself on every interface by IPv6 multicast; no device waits for it.
    to_everybody = match(payload("ip6", "daddr"), {"prefix": {"addr": "ff00::", "len": 8}})
    yield rule("output", tunnels, to_everybody, {"drop": None})
    yield rule("output", tunnels, {"goto": {"target": "into_tunnel"}})


def _only_while_held(chain: str, field: str, ruleset: Ruleset) -> Iterator[Object]:
    """Before anything else about a leased port, flows that are long open included."""
    if ruleset.leased:
        port = payload("udp", field)
        yield rule(
            chain, match(port, {"set": sorted(ruleset.leased)}), match(port, f"@{HELD}", "!="), *dropped("not_held")
        )


def _from_tunnel() -> Iterator[Object]:
    for suffix in ("", "6"):
        yield rule("from_tunnel", _tenant_match("saddr", f"tenant_in{suffix}", suffix), {"goto": {"target": "tenant"}})
    yield rule("from_tunnel", *dropped("unknown"))


def _into_tunnel() -> Iterator[Object]:
    for suffix in ("", "6"):
        yield rule("into_tunnel", _tenant_match("daddr", f"tenant_out{suffix}", suffix), {"accept": None})
    yield rule("into_tunnel", *dropped("unsolicited"))


def _tenant(ruleset: Ruleset) -> Iterator[Object]:
    refused = match(payload("tcp", "dport"), "@refused")
    yield rule("tenant", refused, {"counter": REFUSED}, {"reject": {"type": "tcp reset"}})
    # Before what is known: a second ping is part of a connection, to the kernel.
    for suffix, icmp in (("", "icmp"), ("6", "icmpv6")):
        host = match(payload(f"ip{suffix}", "daddr"), f"@service_host{suffix}")
        ping = match(payload(icmp, "type"), "echo-request")
        flood = _meter(f"ping{suffix}", suffix, ruleset.pings_per_s)
        yield rule("tenant", host, ping, flood, *dropped("icmp_flood"))
        yield rule("tenant", host, ping, {"accept": None})
    yield rule("tenant", known(), {"accept": None})
    yield rule("tenant", state("invalid"), *dropped("invalid"))
    for suffix in ("", "6"):
        place = {"concat": [payload(f"ip{suffix}", "daddr"), payload("tcp", "dport")]}
        service, new = match(place, f"@service{suffix}"), state("new")
        flood = _meter(f"connection{suffix}", suffix, ruleset.connections_per_s)
        yield rule("tenant", service, new, flood, *dropped("connection_flood"))
        yield rule("tenant", service, new, {"accept": None})
    for suffix in ("", "6"):
        host = match(payload(f"ip{suffix}", "daddr"), f"@service_host{suffix}")
        yield rule("tenant", host, *dropped("closed_port"))
    yield rule("tenant", *dropped("not_a_service"))


def _from_outside(ruleset: Ruleset) -> Iterator[Object]:
    ports = sorted({*ruleset.listen_ports, *(IKE_PORTS if ruleset.ipsec else ())})
    if ports:
        yield rule("from_outside", match(payload("udp", "dport"), {"set": ports}), {"accept": None})
    if ruleset.ipsec:
        yield rule("from_outside", match({"meta": {"key": "l4proto"}}, "esp"), {"accept": None})
    yield rule("from_outside", known(), {"accept": None})
    neighbours = ["nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-advert"]
    yield rule("from_outside", match(payload("icmpv6", "type"), {"set": neighbours}), {"accept": None})
    # What is said to everybody on a segment is no attack: it is dropped, and counts would only drown in it.
    everybody = match({"meta": {"key": "pkttype"}}, {"set": ["broadcast", "multicast"]})
    yield rule("from_outside", everybody, {"drop": None})
    if ruleset.open_tcp:
        opened = match(payload("tcp", "dport"), {"set": sorted(ruleset.open_tcp)})
        for who in _sources(ruleset.open_to):
            yield rule("from_outside", *who, opened, {"accept": None})
    yield rule("from_outside", *dropped("outside"))


def _sources(addresses: frozenset[str]) -> Iterator[list[Object]]:
    """Yield a match of each family's addresses; one that matches all where none is named."""
    if not addresses:
        yield []
    for suffix in ("", "6"):
        found = sorted(each for each in addresses if _suffix(ipaddress.ip_address(each).version) == suffix)
        if found:
            yield [match(payload(f"ip{suffix}", "saddr"), {"set": found})]


# ---------------------------------------------------------------- a body's packets


def _tenant_match(field: str, name: str, suffix: str) -> Object:
    return match(address(field, suffix), f"@{name}")


def _meter(name: str, suffix: str, per_s: int) -> Object:
    """Match what is beyond a rate, for each body by itself; a set of what was seen, which forgets after a minute."""
    key = {"elem": {"val": address("saddr", suffix), "timeout": _METER_TIMEOUT_S}}
    limit = {"limit": {"rate": per_s, "burst": 2 * per_s, "per": "second", "inv": True}}
    return {"meter": {"name": f"{name}_rate", "key": key, "stmt": limit, "size": METER_SIZE}}
