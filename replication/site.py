"""The site file ``site.toml``: centres (拠点), witness, hosts, etcd, cells and their nodes, exchanges, certificates.

One file says what stands where; everything that the two centres run is rendered from it (``render``). It is checked as
a whole before anything is rendered, because each of these mistakes loses data or a failover silently: a member name
that two cells share (its standby would count for the wrong cell), fewer synchronous standbys than local peers allow
(the loss of a centre would not be failed over), a strict cell whose far half is one node (it would be elected and take
no write), an even etcd, a site with a majority of it, a port that the system gives to outgoing connections.

Invariant: pure, but for ``read``; no value is a secret, secrets are files whose places follow from the names here.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from chukan.errors import Problem

Topology = Literal["2+2", "2+1"]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,31}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=600)]

CENTRES: Final = 2
PORT_LAST: Final = 32767
"""Linux gives 32768 and above to outgoing connections: a fixed port up there is lost by bad luck one day."""
HOME_NODES: Final = 2
_FAR_NODES: Final[Mapping[Topology, int]] = {"2+2": 2, "2+1": 1}
_ETCD_MIN: Final = 3
_TTL_MIN_S: Final = 20
"""Patroni refuses a shorter one."""
_PROBLEMS_MAX: Final = 100

T = TypeVar("T", bound=msgspec.Struct)


class Centre(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One centre (拠点): ``directory`` holds all that is its own — data, key store, certificates, backups."""

    title: str = ""
    directory: Path


class Witness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The third site: a vote in etcd, and no data."""

    name: Name = "witness"
    title: str = ""
    directory: Path


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine: ``site`` is the name of a centre or of the witness."""

    site: Name
    address: str


class EtcdMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One voter."""

    name: Name
    host: Name


class Etcd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one etcd that all cells share; ``token`` keeps two sites from ever joining each other."""

    token: Name
    client_port: Port = 10379
    peer_port: Port = 10380
    members: list[EtcdMember]


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One PostgreSQL under Patroni."""

    name: Name
    host: Name
    port: Port = 10432
    rest_port: Port = 10808


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cell (セル), a Patroni cluster: nodes in the order in which they should lead."""

    home: Name
    database: str = "chukan"
    restore_epoch: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Raised by one after each restore: a lower timeline than the one seen before is then believed."""
    nodes: list[Node]


class ExchangeHost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One exchange server."""

    name: Name
    host: Name
    agency_port: Port = 8443
    network_port: Port = 8444
    health_port: Port = 8445


class NetworkSide(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The information-provision network as the exchanges see it."""

    url: str
    ca_file: Path
    verify_key_file: Path
    name: str = "network"


class Operator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whence the operator works: certificate for etcd and Patroni's REST, addresses that databases admit."""

    directory: Path
    """Holds ``certificate.pem``, ``key.pem``, ``ca.pem``, and the password of Patroni's REST."""
    addresses: list[str] = []
    namespace: str = ""
    """Name of the network namespace from which the site can be seen; none at a real site."""


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Backups by pgBackRest: which host of each centre holds its repository, and how it is reached (``backup``)."""

    hosts: dict[Name, Name]
    """Host by centre."""
    port: Port = 8432
    """Where pgBackRest's server listens, on these hosts and on those of the nodes."""
    user: Name = "chukan"
    """The system user that the databases and pgBackRest run as."""
    full_kept: Annotated[int, msgspec.Meta(ge=1, le=99)] = 2
    """How many full backups a repository keeps, each with all that is needed to go on from it."""


class Timers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Patroni's timers; the defaults are those that were measured."""

    ttl_s: Seconds = 20
    loop_wait_s: Seconds = 2
    retry_timeout_s: Seconds = 3


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    name: Name
    topology: Topology
    strict: bool
    sandbox: bool = False
    drills: bool = False
    """Whether drills may run here unasked."""
    synchronous_node_count: Annotated[int, msgspec.Meta(ge=1, le=8)] = 2
    timers: Timers = Timers()
    centres: dict[Name, Centre]
    witness: Witness
    hosts: dict[Name, Host]
    etcd: Etcd
    cells: dict[Name, Cell]
    exchanges: list[ExchangeHost]
    network: NetworkSide
    operator: Operator
    backup: Backup | None = None
    """Without it there are no backups, and nothing of them is rendered."""
    postgresql: Path = Path("/usr/lib/postgresql/15/bin")

    # ------------------------------------------------------------ where things are

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return self.hosts[host].address

    def where(self, host: str) -> str:
        """Return the centre, or the witness, in which a host stands."""
        return self.hosts[host].site

    def directory(self, place: str) -> Path:
        """Return the directory tree of a centre or of the witness."""
        return self.witness.directory if place == self.witness.name else self.centres[place].directory

    def other(self, centre: str) -> str:
        """Return the other centre."""
        return next(name for name in self.centres if name != centre)

    def nodes(self) -> Iterator[tuple[str, Node]]:
        """Yield every node with the name of its cell."""
        for cell, row in self.cells.items():
            for node in row.nodes:
                yield cell, node

    def node(self, name: str) -> tuple[str, Node]:
        """Return the cell and the node of a name; ``KeyError``."""
        for cell, node in self.nodes():
            if node.name == name:
                return cell, node
        raise KeyError(name)

    def members(self, place: str) -> list[str]:
        """Return the names of etcd members, nodes and exchanges that stand in a centre or at the witness."""
        return [row.name for _, row in members(self) if self.where(row.host) == place]

    def certificate(self, name: str, place: str) -> tuple[Path, Path, Path]:
        """Return certificate, key and trusted roots of a peer that stands in ``place``."""
        pki = self.directory(place) / "pki"
        return pki / "peers" / name / "certificate.pem", pki / "peers" / name / "key.pem", pki / "sites.pem"

    def password(self, name: str, centre: str) -> Path:
        """Return the file of a password; every centre has a copy of its own."""
        return self.directory(centre) / "passwords" / name


def read(path: Path) -> Site:
    """Return the site of a file, whole and checked.

    Raises ``Problem``: settings_unreadable, setting_unknown, setting_missing, setting_invalid, and those of ``check``.
    """
    site = parse(_text(path), path.absolute().parent)
    for problem in check(site):
        raise problem
    return site


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable UTF-8 file") from None


def parse(text: str, base: Path) -> Site:
    """Return the site of a text, its form checked only; relative paths are relative to ``base``."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise Problem("settings_unreadable", line=int(found[1]) if found else None, expected="TOML") from None

    def convert(kind: type, value: object) -> object:
        if kind is Path and isinstance(value, str):
            return base / value
        raise NotImplementedError  # msgspec turns it into its own error for a type that it does not know

    # Each named table by itself first: msgspec does not say under which key of a table of tables it stumbled.
    for table, kind in (("centres", Centre), ("hosts", Host), ("cells", Cell)):
        rows = tree.get(table)
        for name, row in rows.items() if isinstance(rows, dict) else ():
            _convert(row, kind, f"/{table}/{name}", convert)
    return _convert(tree, Site, "", convert)


def _convert(tree: object, kind: type[T], pointer: str, hook: Any) -> T:  # noqa: ANN401 - msgspec's own type
    try:
        return msgspec.convert(tree, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _as_problem(str(error), kind, pointer) from None


def _as_problem(text: str, kind: type[msgspec.Struct], pointer: str) -> Problem:
    """Return the problem for msgspec's text, which names keys, types and bounds and never quotes a value of ours."""
    found = re.search(r" - at `(?:key in )?\$\.?(.*)`$", text)
    parts = [part for part in re.split(r"[.\[\]]+", found[1]) if part] if found else []
    place = "/".join([pointer, *parts])
    if missing := re.search(r"missing required field `(\w+)`", text):
        return Problem("setting_missing", pointer=f"{place}/{missing[1]}")
    if unknown := re.search(r"contains unknown field `([\w-]+)`", text):
        known = [field.name for field in msgspec.structs.fields(kind)]
        nearest = [] if parts else difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.5)
        return Problem("setting_unknown", pointer=f"{place}/{unknown[1]}", expected=nearest[0] if nearest else None)
    form = text.partition(" - at ")[0].removeprefix("Expected ")
    if form.startswith("Invalid enum value"):  # the one text that quotes what it found
        form = "one of the words that are defined for it"
    return Problem("setting_invalid", pointer=place, expected=form)


# ---------------------------------------------------------------- what must hold


def check(site: Site) -> list[Problem]:
    """Return everything that is wrong with a site, at most a hundred problems; nothing is when it is empty.

    Codes: site_name_twice, site_name_unknown, site_address_twice, site_port_high, site_etcd, site_topology,
    site_strict, site_standbys, site_timers, site_backup.
    """
    problems = [*_names(site)]
    if problems:  # what stands where cannot be judged before the names mean something
        return problems[:_PROBLEMS_MAX]
    rules = (_addresses, _ports, _etcd, _topologies, _standbys, _exchanges, _timers, _backup)
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


def members(site: Site) -> Iterator[tuple[str, EtcdMember | Node | ExchangeHost]]:
    """Yield whatever runs on a host, with its pointer."""
    for number, member in enumerate(site.etcd.members):
        yield f"/etcd/members/{number}", member
    for cell, row in site.cells.items():
        for number, node in enumerate(row.nodes):
            yield f"/cells/{cell}/nodes/{number}", node
    for number, exchange in enumerate(site.exchanges):
        yield f"/exchanges/{number}", exchange


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
    for name in backup_hosts(site):
        yield "/backup/port", name, site.backup.port if site.backup else 0


def backup_hosts(site: Site) -> list[str]:
    """Return the hosts on which pgBackRest's server runs: those of the repositories and those of the nodes."""
    if site.backup is None:
        return []
    return list(dict.fromkeys([*site.backup.hosts.values(), *(node.host for _, node in site.nodes())]))


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


def halves(site: Site, cell: Cell) -> tuple[list[Node], list[Node]]:
    """Return the nodes of a cell at home, and those elsewhere."""
    home = [node for node in cell.nodes if site.where(node.host) == cell.home]
    return home, [node for node in cell.nodes if site.where(node.host) != cell.home]


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
