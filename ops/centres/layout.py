"""The lab's site: which names stand at which addresses, and the site file that says so.

Addresses and ports are the same in every lab of namespaces, for each has a network of its own; on loopback the second
byte tells the clones apart.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chukan.ops.centres.wires import WAN, Wires
from chukan.ops.demo.config import EVIDENCE_NAME
from chukan.ops.local.binaries import find_binaries
from chukan.replication.plain_toml import Tables, Value, to_toml
from chukan.replication.site import (
    Backup,
    Cell,
    Centre,
    Etcd,
    EtcdMember,
    Evidence,
    ExchangeHost,
    Host,
    NetworkSide,
    Node,
    Operator,
    Revocation,
    Site,
    Topology,
    Witness,
)
from chukan.replication.site_links import Gateway, Links
from chukan.tenants import link_plan

NETWORK_PORT: Final = 8543
_TITLES: Final = {"east": "東センター", "west": "西センター", "witness": "立会拠点"}
_HOME: Final = {"east": ("e1", "e2"), "west": ("w1", "w2")}
_FAR: Final = {"east": ("ew1", "ew2"), "west": ("we1", "we2")}
_HOST: Final = 1
_FIRST_PORT: Final = 10432
_FIRST_REST: Final = 10808
_FAR_FROM: Final = 2
_GATEWAY_HOST: Final = 51
NUMBERS: Final = (_HOST,)
"""Last bytes of the addresses of each site: one host, for connections go out from a host's first address anyway."""


def lab_site(
    root: Path,
    topology: Topology,
    wires: Wires,
    *,
    backup_user: str | None = None,
    epochs: Mapping[str, int] | None = None,
    links: bool = False,
) -> Site:
    """Return the site of a lab whose trees lie under ``root``; ``Problem`` runtime_missing without PostgreSQL.

    With a ``backup_user``, whom pgBackRest and the databases run as, each centre holds a repository; ``epochs`` are the
    restore epochs of cells that were restored before. With ``links`` each centre has a gateway on a host of its own.
    """
    hosts = {f"{site}-{_HOST}": Host(site=site, address=wires.address(site, _HOST)) for site in _TITLES}
    if links:
        hosts |= {f"gateway-{site}": Host(site=site, address=wires.address(site, _GATEWAY_HOST)) for site in _HOME}
    outside = root / "outside"
    return Site(
        name="lab",
        topology=topology,
        strict=topology == "2+2",
        sandbox=True,
        drills=True,
        centres={name: Centre(title=_TITLES[name], directory=root / name) for name in _HOME},
        witness=Witness(title=_TITLES["witness"], directory=root / "witness"),
        hosts=hosts,
        etcd=Etcd(
            token="chukan-lab",  # noqa: S106 - no secret: it keeps two labs from joining each other
            members=[EtcdMember(name=f"etcd-{site}", host=f"{site}-{_HOST}") for site in _TITLES],
        ),
        cells={
            home: Cell(home=home, nodes=_nodes(home, topology), restore_epoch=(epochs or {}).get(home, 1))
            for home in _HOME
        },
        exchanges=[ExchangeHost(name=f"exchange-{site}", host=f"{site}-{_HOST}") for site in _HOME],
        network=NetworkSide(
            url=f"https://{wires.address(WAN, 1)}:{NETWORK_PORT}",
            ca_file=outside / "pki" / "ca.pem",
            verify_key_file=outside / "signing" / "network.public.pem",
        ),
        operator=Operator(directory=root / "operator", addresses=[wires.address(WAN, 1)], namespace=wires.name(WAN)),
        backup=None if backup_user is None else _backup(backup_user),
        links=_links(wires) if links else None,
        evidence=Evidence(name=EVIDENCE_NAME),
        revocation=Revocation(),
        postgresql=find_binaries("debian", only=True).bin_dir,
    )


def _links(wires: Wires) -> Links:
    return Links(
        gateways=[
            Gateway(
                name=f"gateway-{site}",
                host=f"gateway-{site}",
                address=address,
                interface=wires.device(f"gw{site[0]}"),
                service_interface=wires.device(f"sv{site[0]}"),
            )
            for site, address in zip(_HOME, link_plan.CENTRE_ADDRESSES, strict=True)
        ]
    )


def _backup(user: str) -> Backup:
    return Backup(hosts={name: f"{name}-{_HOST}" for name in _HOME}, user=user)


def _nodes(home: str, topology: Topology) -> list[Node]:
    other = next(name for name in _HOME if name != home)
    far = _FAR[home][: 2 if topology == "2+2" else 1]
    at_home = [_node(name, home, number) for number, name in enumerate(_HOME[home])]
    return [*at_home, *(_node(name, other, _FAR_FROM + number) for number, name in enumerate(far))]


def _node(name: str, site: str, number: int) -> Node:
    return Node(name=name, host=f"{site}-{_HOST}", port=_FIRST_PORT + number, rest_port=_FIRST_REST + number)


def site_file(site: Site) -> str:
    """Return the site as the text of its file; ``site.parse`` reads the same back."""
    top: Mapping[str, Value] = {
        "name": site.name,
        "topology": site.topology,
        "strict": site.strict,
        "sandbox": site.sandbox,
        "drills": site.drills,
        "synchronous_node_count": site.synchronous_node_count,
        "postgresql": site.postgresql,
    }
    timers: Mapping[str, Value] = {
        "ttl_s": site.timers.ttl_s,
        "loop_wait_s": site.timers.loop_wait_s,
        "retry_timeout_s": site.timers.retry_timeout_s,
    }
    centres: list[tuple[str, Mapping[str, Value]]] = [
        (f"centres.{name}", {"title": row.title, "directory": row.directory}) for name, row in site.centres.items()
    ]
    tables: Tables = [
        ("", top),
        ("timers", timers),
        *centres,
        ("witness", {"name": site.witness.name, "title": site.witness.title, "directory": site.witness.directory}),
        *((f"hosts.{name}", {"site": row.site, "address": row.address}) for name, row in site.hosts.items()),
        ("etcd", {"token": site.etcd.token, "client_port": site.etcd.client_port, "peer_port": site.etcd.peer_port}),
        *(("[etcd.members]", {"name": row.name, "host": row.host}) for row in site.etcd.members),
        *_cells(site),
        *(("[exchanges]", _exchange(row)) for row in site.exchanges),
        ("network", _network(site.network)),
        (
            "operator",
            {
                "directory": site.operator.directory,
                "addresses": site.operator.addresses,
                "namespace": site.operator.namespace,
            },
        ),
        *_repositories(site.backup),
        *_gateways(site.links),
        *([] if site.evidence is None else [("evidence", {"name": site.evidence.name})]),
        *([] if site.revocation is None else [("revocation", {"outside": site.revocation.outside})]),
    ]
    return to_toml(tables)


def _repositories(row: Backup | None) -> list[tuple[str, Mapping[str, Value]]]:
    if row is None:
        return []
    return [("backup", {"port": row.port, "user": row.user, "full_kept": row.full_kept}), ("backup.hosts", row.hosts)]


def _gateways(links: Links | None) -> list[tuple[str, Mapping[str, Value]]]:
    if links is None:
        return []
    top: Mapping[str, Value] = {"shared": links.shared, **({"cell": links.cell} if links.cell else {})}
    return [("links", top), *(("[links.gateways]", _gateway(row)) for row in links.gateways)]


def _gateway(row: Gateway) -> Mapping[str, Value]:
    told: dict[str, Value] = {name: getattr(row, name) for name in row.__struct_fields__}
    return told


def _cells(site: Site) -> list[tuple[str, Mapping[str, Value]]]:
    tables: list[tuple[str, Mapping[str, Value]]] = []
    for name, cell in site.cells.items():
        of: dict[str, Value] = {"home": cell.home, "database": cell.database, "restore_epoch": cell.restore_epoch}
        tables.append((f"cells.{name}", of))
        tables += [
            (
                f"[cells.{name}.nodes]",
                {"name": node.name, "host": node.host, "port": node.port, "rest_port": node.rest_port},
            )
            for node in cell.nodes
        ]
    return tables


def _exchange(row: ExchangeHost) -> Mapping[str, Value]:
    ports = {"agency_port": row.agency_port, "network_port": row.network_port, "health_port": row.health_port}
    return {"name": row.name, "host": row.host, **ports}


def _network(row: NetworkSide) -> Mapping[str, Value]:
    return {"url": row.url, "ca_file": row.ca_file, "verify_key_file": row.verify_key_file, "name": row.name}
