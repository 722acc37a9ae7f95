"""What must hold of a site, because each of these mistakes loses data or a failover silently.

A member name that two cells share (its standby would count for the wrong cell), fewer synchronous standbys than local
peers allow (the loss of a centre would not be failed over), a strict cell whose far half is one node (it would be
elected and take no write), an even etcd, a site with a majority of it, a port that the system gives to outgoing
connections.

Invariant: pure. ``check`` says everything that is wrong, not only the first thing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

from chukan import settings
from chukan.errors import Problem
from chukan.replication import render_revocation, site_drills
from chukan.replication.site import (
    HOME_NODES,
    EtcdMember,
    ExchangeHost,
    Node,
    Site,
    Topology,
    backup_hosts,
    gateways,
    halves,
    members,
)
from chukan.replication.site_links import SERVICE_NETWORK, Gateway

CENTRES: Final = 2
PORT_LAST: Final = 32767
"""Linux gives 32768 and above to outgoing connections: a fixed port up there is lost by bad luck one day."""
_FAR_NODES: Final[Mapping[Topology, int]] = {"2+2": 2, "2+1": 1}
_ETCD_MIN: Final = 3
_TTL_MIN_S: Final = 20
"""Patroni refuses a shorter one."""
_PROBLEMS_MAX: Final = 100


def check(site: Site) -> list[Problem]:
    """Return everything that is wrong with a site, at most a hundred problems; nothing is when it is empty.

    Codes: site_name_twice, site_name_unknown, site_address_twice, site_port_high, site_etcd, site_topology,
    site_strict, site_standbys, site_timers, site_backup, site_links, setting_missing (of ``[evidence]``,
    ``[key_tokens]``, ``[revocation]`` and ``[officers]`` too) and setting_invalid (of ``[drill]`` and these).
    """
    problems = [*_names(site)]
    if problems:  # what stands where cannot be judged before the names mean something
        return problems[:_PROBLEMS_MAX]
    rules: tuple[Callable[[Site], Iterator[Problem]], ...] = (
        _addresses,
        _ports,
        _etcd,
        _topologies,
        _standbys,
        _exchanges,
        _timers,
        _backup,
        _links,
    )
    rules += (_evidence, _key_tokens, _revocation, _officers, _drill)
    return [problem for rule in rules for problem in rule(site)][:_PROBLEMS_MAX]


def _names(site: Site) -> Iterator[Problem]:
    yield from _sites(site)
    sites = [*site.centres, site.witness.name]
    for name, host in site.hosts.items():
        if host.site not in sites:
            yield Problem("site_name_unknown", pointer=f"/hosts/{name}/site", expected=", ".join(sites))
    for name, cell in site.cells.items():
        if cell.home not in site.centres:
            yield Problem("site_name_unknown", pointer=f"/cells/{name}/home", expected=", ".join(site.centres))
    seen: set[str] = set()
    for pointer, member in members(site):
        if member.host not in site.hosts:
            yield Problem("site_name_unknown", pointer=f"{pointer}/host", expected="a name under [hosts]")
        if member.name in seen:
            yield Problem("site_name_twice", pointer=f"{pointer}/name", expected="a name of its own over all cells")
        seen.add(member.name)
    for centre, name in site.backup.hosts.items() if site.backup else ():
        if name not in site.hosts:
            yield Problem("site_name_unknown", pointer=f"/backup/hosts/{centre}", expected="a name under [hosts]")


def _sites(site: Site) -> Iterator[Problem]:
    sites = [*site.centres, site.witness.name]
    if len(site.centres) != CENTRES:
        yield Problem("site_topology", pointer="/centres", limit=CENTRES, expected="two centres")
    if site.witness.name in site.centres:
        yield Problem("site_name_twice", pointer="/witness/name", expected="a site that is neither centre")
    folders = Counter(site.directory(name) for name in sites)
    if max(folders.values()) > 1:
        yield Problem("site_name_twice", pointer="/centres", expected="a directory of its own for each site")


def _listeners(site: Site) -> Iterator[tuple[str, str, int]]:
    """Yield pointer, host and port of everything that listens."""
    for pointer, member in members(site):
        match member:
            case EtcdMember():
                yield "/etcd/client_port", member.host, site.etcd.client_port
                yield "/etcd/peer_port", member.host, site.etcd.peer_port
            case Node():
                yield f"{pointer}/port", member.host, member.port
                yield f"{pointer}/rest_port", member.host, member.rest_port
            case ExchangeHost():
                for part in ("agency_port", "network_port", "health_port"):
                    yield f"{pointer}/{part}", member.host, getattr(member, part)
            case Gateway():
                # The others are UDP, and a gateway's host sends nothing of its own by UDP that could take them.
                yield f"{pointer}/metrics_port", member.host, member.metrics_port
    for name in backup_hosts(site):
        yield "/backup/port", name, site.backup.port if site.backup else 0


def _addresses(site: Site) -> Iterator[Problem]:
    seen: dict[tuple[str, int], str] = {}
    for pointer, host, port in _listeners(site):
        first = seen.setdefault((site.address(host), port), pointer)
        if first != pointer:
            yield Problem("site_address_twice", pointer=pointer, expected=f"another address or port than {first}")


def _ports(site: Site) -> Iterator[Problem]:
    told: set[str] = set()
    for pointer, _, port in _listeners(site):
        if port > PORT_LAST and pointer not in told:
            told.add(pointer)
            yield Problem("site_port_high", pointer=pointer, limit=PORT_LAST)


def _etcd(site: Site) -> Iterator[Problem]:
    votes = Counter(site.where(member.host) for member in site.etcd.members)
    total = len(site.etcd.members)
    if total < _ETCD_MIN or total % 2 == 0:
        yield Problem("site_etcd", pointer="/etcd/members", expected="an odd number of members, three or more")
    missing = [name for name in (*site.centres, site.witness.name) if votes[name] == 0]
    if missing:
        yield Problem("site_etcd", pointer="/etcd/members", expected=f"a member in {', '.join(missing)}")
    elif max(votes.values()) > total // 2:
        yield Problem("site_etcd", pointer="/etcd/members", expected="no site with a majority by itself")


def _topologies(site: Site) -> Iterator[Problem]:
    far_wanted = _FAR_NODES[site.topology]
    for name, cell in site.cells.items():
        home, far = halves(site, cell)
        pointer = f"/cells/{name}/nodes"
        if any(site.where(node.host) == site.witness.name for node in far):
            yield Problem(
                "site_topology", pointer=pointer, expected="nodes in the two centres; the witness has no data"
            )
        elif (len(home), len(far)) != (HOME_NODES, far_wanted):
            expected = f"{HOME_NODES} nodes in {cell.home} and {far_wanted} in {site.other(cell.home)}"
            yield Problem("site_topology", pointer=pointer, expected=expected)
        elif cell.nodes[:HOME_NODES] != home:
            yield Problem("site_topology", pointer=pointer, expected="the nodes at home first")
    if site.topology == "2+1":
        if site.strict:
            yield Problem("site_strict", pointer="/strict", expected="false with 2+1, or 2+2")
        if not site.sandbox:
            yield Problem("site_topology", pointer="/topology", expected="2+2; 2+1 is for sandboxes")
    elif not site.strict and not site.sandbox:
        yield Problem("site_strict", pointer="/strict", expected="true; only a sandbox may go without")


def _standbys(site: Site) -> Iterator[Problem]:
    """Any ``synchronous_node_count`` standbys must include one of the other centre (pigeonhole)."""
    count = site.synchronous_node_count
    for name, cell in site.cells.items():
        at = Counter(site.where(node.host) for node in cell.nodes)
        # Whoever leads in a centre has so many peers there; a standby set of peers alone would not survive the centre.
        local_peers = max(at.values()) - 1
        if local_peers >= count or count > len(cell.nodes) - 1:
            expected = f"more than {local_peers}, at most {len(cell.nodes) - 1} (cell {name})"
            yield Problem("site_standbys", pointer="/synchronous_node_count", expected=expected)


def _exchanges(site: Site) -> Iterator[Problem]:
    at = {site.where(exchange.host) for exchange in site.exchanges}
    for centre in site.centres:
        if centre not in at:
            yield Problem("site_topology", pointer="/exchanges", expected=f"an exchange in {centre}")
    if site.witness.name in at:
        yield Problem("site_topology", pointer="/exchanges", expected="exchanges in the two centres only")


def _timers(site: Site) -> Iterator[Problem]:
    timers = site.timers
    least = max(_TTL_MIN_S, timers.loop_wait_s + 2 * timers.retry_timeout_s)
    if timers.ttl_s < least:
        yield Problem("site_timers", pointer="/timers/ttl_s", limit=least, expected=f"{least} or more")


def _backup(site: Site) -> Iterator[Problem]:
    for centre in site.centres if site.backup else ():
        name = site.backup.hosts.get(centre) if site.backup else None
        if name is None or site.where(name) != centre:
            yield Problem("site_backup", pointer=f"/backup/hosts/{centre}", expected=f"a host in {centre}")
    for centre in site.backup.hosts if site.backup else ():
        if centre not in site.centres:
            yield Problem("site_name_unknown", pointer=f"/backup/hosts/{centre}", expected=", ".join(site.centres))


def _links(site: Site) -> Iterator[Problem]:
    if site.links is None:
        return
    if site.links_cell not in site.cells:
        yield Problem("site_name_unknown", pointer="/links/cell", expected=", ".join(site.cells))
    at = Counter(site.where(row.host) for row in gateways(site))
    for centre in site.centres:
        if at.pop(centre, 0) != 1:
            yield Problem("site_links", pointer="/links/gateways", expected=f"one gateway in {centre}")
    if at:
        yield Problem("site_links", pointer="/links/gateways", expected="gateways in the two centres only")
    for number, row in enumerate(gateways(site)):
        pointer = f"/links/gateways/{number}"
        if row.listen_port == row.service_port:
            yield Problem("site_links", pointer=f"{pointer}/service_port", expected="another port than listen_port")
        if row.interface == row.service_interface:
            yield Problem("site_links", pointer=f"{pointer}/service_interface", expected="a name of its own")
    if len({row.service_port for row in gateways(site)}) > 1:
        yield Problem("site_links", pointer="/links/gateways", expected="the same service_port at both centres")
    yield from _service_addresses(site, site.links.shared)


def _service_addresses(site: Site, shared: str) -> Iterator[Problem]:
    given = {f"/links/gateways/{number}/address": row.address for number, row in enumerate(gateways(site))}
    seen = Counter([shared, *given.values()])
    for pointer, address in (("/links/shared", shared), *given.items()):
        if not _is_service(address) or seen[address] > 1:
            yield Problem("site_links", pointer=pointer, expected=f"an address of its own in {SERVICE_NETWORK}")


def _is_service(address: str) -> bool:
    try:
        return IPv4Address(address) in IPv4Network(SERVICE_NETWORK)
    except AddressValueError:
        return False


def _evidence(site: Site) -> Iterator[Problem]:
    """A real site signs its logs: a record without a checkpoint proves nothing to anybody."""
    if site.evidence is None and not site.sandbox:
        yield Problem("setting_missing", pointer="/evidence/name", expected="a name of the installation's own")


def _key_tokens(site: Site) -> Iterator[Problem]:
    """Each centre has a token of its own: one for two would be lost with either; files would hold master keys bare."""
    if not site.key_tokens:
        if not site.sandbox:
            yield Problem("setting_missing", pointer="/key_tokens", expected="a token (HSM) of each centre")
        return
    for name in sorted({*site.centres} ^ {*site.key_tokens}):
        code = "setting_missing" if name in site.centres else "site_name_unknown"
        yield Problem(code, pointer=f"/key_tokens/{name}", expected=", ".join(sorted(site.centres)))
    if len({(row.module, row.token) for row in site.key_tokens.values()}) != len(site.key_tokens):
        yield Problem("setting_invalid", pointer="/key_tokens", expected="a token of its own for each centre")


def _revocation(site: Site) -> Iterator[Problem]:
    """A real site honours revocation lists: a stolen key of a node would open databases until it ends."""
    if site.revocation is None:
        if not site.sandbox:
            yield Problem("setting_missing", pointer="/revocation", expected="the table, which may be empty")
        return
    taken = set(render_revocation.authorities(site))
    for number, name in enumerate(site.revocation.outside):
        if name in taken:
            yield Problem("setting_invalid", pointer=f"/revocation/outside/{number}", expected="a name of its own")
        taken.add(name)


def _officers(site: Site) -> Iterator[Problem]:
    """What no exchange would start with is said before anything is rendered."""
    try:
        settings.check_officers(site.officers or settings.Officers())
    except Problem as problem:
        yield problem


def _drill(site: Site) -> Iterator[Problem]:
    yield from site_drills.check(site.drill)
