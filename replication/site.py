"""A site: centres (拠点), witness, hosts, etcd, cells and their nodes, exchanges, certificates, as ``site.toml`` says.

One file says what stands where; everything that the two centres run is rendered from it (``render``), once what must
hold of it was checked as a whole (``site_rules``).

Invariant: pure; no value is a secret, secrets are files whose places follow from the names here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from chukan import settings
from chukan.replication.site_drills import Drills
from chukan.replication.site_links import Gateway, Links, Services

Topology = Literal["2+2", "2+1"]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,31}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=600)]

HOME_NODES: Final = 2


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


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which name the logs of records are signed (証跡): it stays for as long as anybody holds a checkpoint."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9./-]{0,127}$")]


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The token (HSM) of one centre's master keys (親鍵), as every exchange and the operator's machine reach it."""

    module: Path
    """The library of the HSM's maker, by PKCS#11."""
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    """Label of the token."""
    pin_file: Path
    """File with the PIN in one line, of mode 0600; the same place on every machine."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose revocation lists (失効リスト) are honoured: the site's own authorities', and these of others."""

    outside: list[Name] = []
    """Authorities of agencies' systems and of the network, by the names of their files (``<name>.pem``)."""


class Officers(settings.Officers, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How officers (職員) of all agencies sign in, the same at every exchange: as ``[officers]`` of the settings."""


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
    drill: Drills | None = None
    """How this site may be drilled; without it only a lab can be."""
    links: Links | None = None
    """Gateways and service addresses; without it nobody comes through a tunnel."""
    evidence: Evidence | None = None
    """How logs are signed and cosigned; only a sandbox may go without."""
    key_tokens: dict[Name, Token] = {}
    """Token by centre; without any, master keys lie in files, which only a sandbox may have."""
    revocation: Revocation | None = None
    """Which revocation lists are honoured; only a sandbox may go without."""
    officers: Officers | None = None
    """How officers sign in; without it, as the settings have it by themselves."""
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
        """Return the names of everything that runs on the hosts of a centre or of the witness."""
        return [row.name for _, row in members(self) if self.where(row.host) == place]

    def gateway(self, centre: str) -> Gateway:
        """Return the gateway of a centre; ``KeyError`` where the site has none there."""
        found = next((row for row in gateways(self) if self.where(row.host) == centre), None)
        if found is None:
            raise KeyError(centre)
        return found

    def endpoint(self, centre: str) -> str:
        """Return where devices reach a centre's gateway; ``KeyError``."""
        row = self.gateway(centre)
        return row.endpoint or f"{self.address(row.host)}:{row.listen_port}"

    def services(self, centre: str) -> Services:
        """Return what the tunnels of a centre lead to; ``KeyError``."""
        row = self.gateway(centre)
        exchange = next(each for each in self.exchanges if self.where(each.host) == centre)
        shared = "" if self.links is None else self.links.shared
        return Services((row.address, shared), exchange.agency_port, exchange.health_port)

    @property
    def links_cell(self) -> str:
        """The cell that holds what is wanted of the links."""
        return (self.links.cell if self.links is not None else "") or min(self.cells)

    def certificate(self, name: str, place: str) -> tuple[Path, Path, Path]:
        """Return certificate, key and trusted roots of a peer that stands in ``place``."""
        pki = self.directory(place) / "pki"
        return pki / "peers" / name / "certificate.pem", pki / "peers" / name / "key.pem", pki / "sites.pem"

    def password(self, name: str, centre: str) -> Path:
        """Return the file of a password; every centre has a copy of its own."""
        return self.directory(centre) / "passwords" / name


def gateways(site: Site) -> list[Gateway]:
    """Return the gateways of a site; there may be none."""
    return [] if site.links is None else site.links.gateways


def members(site: Site) -> Iterator[tuple[str, EtcdMember | Node | ExchangeHost | Gateway]]:
    """Yield whatever runs on a host, with its pointer."""
    for number, member in enumerate(site.etcd.members):
        yield f"/etcd/members/{number}", member
    for cell, row in site.cells.items():
        for number, node in enumerate(row.nodes):
            yield f"/cells/{cell}/nodes/{number}", node
    for number, exchange in enumerate(site.exchanges):
        yield f"/exchanges/{number}", exchange
    for number, gateway in enumerate(gateways(site)):
        yield f"/links/gateways/{number}", gateway


def backup_hosts(site: Site) -> list[str]:
    """Return the hosts on which pgBackRest's server runs: those of the repositories and those of the nodes."""
    if site.backup is None:
        return []
    return list(dict.fromkeys([*site.backup.hosts.values(), *(node.host for _, node in site.nodes())]))


def halves(site: Site, cell: Cell) -> tuple[list[Node], list[Node]]:
    """Return the nodes of a cell at home, and those elsewhere."""
    home = [node for node in cell.nodes if site.where(node.host) == cell.home]
    return home, [node for node in cell.nodes if site.where(node.host) != cell.home]
