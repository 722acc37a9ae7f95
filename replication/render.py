"""From a site to what its servers are started with: Patroni's YAML, etcd's arguments, the exchanges' settings.

The same site gives the same text. Two things are decided here and nowhere else. Which standby is synchronous: the first
far node and a peer at home (``sync_priority``), so that a lost centre finds its data in the other one, and a crashed
server its successor next door. And who may connect to a database: nodes of its own cell, exchanges and the operator, by
TLS 1.3, a certificate of the site's authorities and a password.

Invariant: pure. Passwords are given as texts, for Patroni reads them from its YAML alone; whoever writes the file gives
it mode 0600. Only what is in ``bootstrap`` is read once, at the birth of a cell: a later change of it goes by Patroni.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml  # type: ignore[import-untyped] # its stubs are a package that nothing else needs

from chukan.replication import backup, render_evidence, render_keys, render_links, render_officers, render_revocation
from chukan.replication.plain_toml import Value, to_toml
from chukan.replication.quiet import QUIET
from chukan.replication.site import Cell, EtcdMember, ExchangeHost, Node, Site, gateways, halves

NAMESPACE: Final = "/chukan/"
REST_USER: Final = "patroni"
SUPERUSER: Final = "postgres"
REPLICATION_USER: Final = "replicator"
REWIND_USER: Final = "rewinder"
CLIENTS: Final = ("chukan_broker", "chukan_app", "chukan_steward")
LINKS_USER: Final = "chukan_links"
"""The login of the gateways' controllers; it is of use in the cell that holds the links alone."""
FAR_FIRST: Final = 3
HOME: Final = 2
FAR_NEXT: Final = 1
_LOOPBACK: Final = "127."
_Table = tuple[str, Mapping[str, Value]]
_LAG_MAX: Final = 1_048_576
_ETCD_SUITES: Final = tuple(
    f"TLS_ECDHE_{key}_WITH_AES_{suite}" for key in ("ECDSA", "RSA") for suite in ("256_GCM_SHA384", "128_GCM_SHA256")
)


class Secrets(NamedTuple):
    """Passwords of one cell's own users, and of the unsafe verbs of Patroni's REST."""

    superuser: str
    replication: str
    rewind: str
    rest: str


PASSWORDS: Final[Mapping[str, str]] = {
    "broker": "chukan_broker", "app": "chukan_app", "steward": "chukan_steward", "superuser": SUPERUSER,
    "replication": REPLICATION_USER, "rewind": REWIND_USER, "links": LINKS_USER,
}  # fmt: skip
"""Logins of each cell by the short name of their password files (``<cell>-<short>``)."""
REST_PASSWORD: Final = "patroni-rest"  # noqa: S105 - the name of a file
"""Name of the password file of Patroni's REST, the same for all cells."""


# ---------------------------------------------------------------- Patroni


def patroni(site: Site, name: str, secrets: Secrets) -> str:
    """Return Patroni's YAML for one node. Raises ``KeyError`` for a name that is no node."""
    cell_name, node = site.node(name)
    cell = site.cells[cell_name]
    address = site.address(node.host)
    document = {
        "scope": cell_name,
        "namespace": NAMESPACE,
        "name": node.name,
        "restapi": _restapi(site, node, address, secrets),
        "ctl": _ctl(site, node),
        "etcd3": _etcd3(site, node),
        "bootstrap": {"dcs": dynamic(site), "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"]},
        "postgresql": _postgresql(site, cell, node, address, secrets),
        "tags": _tags(site, cell, node),
        # Without a watchdog a frozen Patroni is fenced by its lease alone, which a sandbox may try out.
        "watchdog": {"mode": "off"} if site.sandbox else {"mode": "required", "safety_margin": 5},
        "log": {"level": "INFO", "traceback_level": "ERROR"},
    }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    return text


def _restapi(site: Site, node: Node, address: str, secrets: Secrets) -> dict[str, Any]:
    certificate, key, trusted = map(str, site.certificate(node.name, site.where(node.host)))
    return {
        "listen": f"{address}:{node.rest_port}",
        "connect_address": f"{address}:{node.rest_port}",
        "certfile": certificate,
        "keyfile": key,
        "cafile": trusted,
        "verify_client": "required",
        "authentication": {"username": REST_USER, "password": secrets.rest},
        **render_revocation.rest(site, site.where(node.host)),
    }


def _ctl(site: Site, node: Node) -> dict[str, Any]:
    certificate, key, trusted = map(str, site.certificate(node.name, site.where(node.host)))
    return {"insecure": False, "certfile": certificate, "keyfile": key, "cacert": trusted}


def _etcd3(site: Site, node: Node) -> dict[str, Any]:
    here = site.where(node.host)
    certificate, key, trusted = map(str, site.certificate(node.name, here))
    # The member next door first; the others are found when it is away.
    members = sorted(site.etcd.members, key=lambda member: site.where(member.host) != here)
    return {
        "hosts": [f"{site.address(member.host)}:{site.etcd.client_port}" for member in members],
        "protocol": "https",
        "cacert": trusted,
        "cert": certificate,
        "key": key,
    }


def dynamic(site: Site) -> dict[str, Any]:
    """Return Patroni's dynamic configuration, which is the same in every cell of a site."""
    return {
        "ttl": site.timers.ttl_s,
        "loop_wait": site.timers.loop_wait_s,
        "retry_timeout": site.timers.retry_timeout_s,
        "maximum_lag_on_failover": _LAG_MAX,
        "primary_start_timeout": 0,
        "synchronous_mode": "on",
        "synchronous_node_count": site.synchronous_node_count,
        "synchronous_mode_strict": site.strict,
        "failsafe_mode": True,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": {
                "wal_level": "replica",
                "hot_standby": "on",
                "wal_log_hints": "on",
                "max_connections": 150,
                "max_locks_per_transaction": 256,  # a cell has thousands of leaves
                "max_worker_processes": 8,
                "max_wal_senders": 10,
                "max_replication_slots": 10,
                "wal_keep_size": "128MB",
                "max_slot_wal_keep_size": "4GB",  # a member that never comes back must not fill the disk
                "synchronous_commit": "on",
                # A dead process is seen at once, a dead network by these alone; the default stalls commits for 60 s.
                "wal_sender_timeout": "5s",
                "wal_receiver_timeout": "5s",
                # A standby that asked the new leader too early asks again at once, not after 5 s: commits wait.
                "wal_retrieve_retry_interval": "500ms",
                "tcp_user_timeout": "5s",
                "tcp_keepalives_idle": 5,
                "tcp_keepalives_interval": 2,
                "tcp_keepalives_count": 3,
            },
        },
    }


def _postgresql(site: Site, cell: Cell, node: Node, address: str, secrets: Secrets) -> dict[str, Any]:
    here = site.where(node.host)
    folder = site.directory(here)
    certificate, key, trusted = map(str, site.certificate(node.name, here))
    identity = {"sslmode": "verify-full", "sslcert": certificate, "sslkey": key, "sslrootcert": trusted}
    identity |= render_revocation.client(site, here)
    archiving = {} if site.backup is None else dict(backup.for_patroni(site, node))
    more: dict[str, Any] = {name: archiving[name] for name in ("pg_ident", "callbacks") if name in archiving}
    return {
        "listen": f"{address}:{node.port}",
        "connect_address": f"{address}:{node.port}",
        "data_dir": str(folder / "data" / node.name),
        "bin_dir": str(site.postgresql),
        "pgpass": str(folder / "run" / f"{node.name}.pgpass"),
        # Without it a new standby waits for a checkpoint that is spread over minutes.
        "basebackup": [{"checkpoint": "fast"}],
        # A real site keeps what could not be rewound for a person to look at; there is an alarm for it.
        "remove_data_directory_on_rewind_failure": site.sandbox,
        "remove_data_directory_on_diverged_timelines": site.sandbox,
        "authentication": {
            "superuser": {"username": SUPERUSER, "password": secrets.superuser, **identity},
            "replication": {"username": REPLICATION_USER, "password": secrets.replication, **identity},
            "rewind": {"username": REWIND_USER, "password": secrets.rewind, **identity},
        },
        "parameters": {
            "unix_socket_directories": "",
            "password_encryption": "scram-sha-256",
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
            "ssl_ca_file": trusted,
            **render_revocation.server(site, here),
            "ssl_min_protocol_version": "TLSv1.3",
            "shared_buffers": "64MB" if site.sandbox else "2GB",
            "max_wal_size": "512MB" if site.sandbox else "8GB",
            "restart_after_crash": "off",  # in place, rows that nobody was told of would show: Patroni fails over
            "max_parallel_workers_per_gather": 0,
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            **QUIET,
            **archiving.get("parameters", {}),
        },
        "pg_hba": [*pg_hba(site, cell), *archiving.get("pg_hba", [])],
        **more,
    }


def _tags(site: Site, cell: Cell, node: Node) -> dict[str, Any]:
    home, far = halves(site, cell)
    order = [*home, *far]
    if node in home:
        return {"failover_priority": FAR_FIRST - order.index(node), "sync_priority": HOME}
    return {"failover_priority": 1, "sync_priority": FAR_FIRST if node == far[0] else FAR_NEXT}


def pg_hba(site: Site, cell: Cell) -> list[str]:
    """Return who may connect to the nodes of a cell, as lines of pg_hba; everybody else is refused."""
    nodes = _networks([site.address(node.host) for node in cell.nodes])
    operator = _networks(site.operator.addresses)
    exchanges = _networks([site.address(exchange.host) for exchange in site.exchanges])
    links = cell is site.cells.get(site.links_cell)
    controllers = _networks([site.address(row.host) for row in gateways(site) if links])
    own, clients = "scram-sha-256 clientcert=verify-ca", ",".join(CLIENTS)
    return [
        *(f"hostssl replication {REPLICATION_USER} {network} {own}" for network in nodes),
        *(f"hostssl postgres {REWIND_USER} {network} {own}" for network in nodes),
        *(f"hostssl all {SUPERUSER} {network} {own}" for network in dict.fromkeys([*nodes, *operator])),
        *(f"hostssl {cell.database} {clients} {network} {own}" for network in dict.fromkeys([*exchanges, *operator])),
        *(f"hostssl {cell.database} {LINKS_USER} {network} {own}" for network in controllers),
    ]


def _networks(addresses: list[str]) -> list[str]:
    # On loopback every connection comes from 127.0.0.1, whatever address it goes to.
    named = ("127.0.0.0/8" if address.startswith(_LOOPBACK) else f"{address}/32" for address in addresses)
    return list(dict.fromkeys(named))


# ---------------------------------------------------------------- etcd


def etcd(site: Site, name: str) -> list[str]:
    """Return the arguments of one etcd member; ``KeyError`` for an unknown name."""
    members = {member.name: member for member in site.etcd.members}
    here = site.where(members[name].host)
    certificate, key, trusted = map(str, site.certificate(name, here))
    client, peer = (_url(site, members[name], port) for port in (site.etcd.client_port, site.etcd.peer_port))
    cluster = ",".join(f"{each.name}={_url(site, each, site.etcd.peer_port)}" for each in members.values())
    options = {
        "name": name,
        "data-dir": str(site.directory(here) / "etcd" / name),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": cluster,
        "initial-cluster-token": site.etcd.token,
        "initial-cluster-state": "new",
        "heartbeat-interval": "100",
        "election-timeout": "1000",
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        "cert-file": certificate,
        "key-file": key,
        "trusted-ca-file": trusted,
        "peer-cert-file": certificate,
        "peer-key-file": key,
        "peer-trusted-ca-file": trusted,
        # Members of before 3.5 speak TLS 1.2 too, and take no other word: then with what 1.3 has.
        "cipher-suites": ",".join(_ETCD_SUITES),
        **render_revocation.etcd(site, here),
        "logger": "zap",
        "log-level": "warn",
    }
    flags = ["--client-cert-auth", "--peer-client-cert-auth", "--pre-vote"]
    return [*(f"--{option}={value}" for option, value in options.items()), *flags]


def _url(site: Site, member: EtcdMember, port: int) -> str:
    return f"https://{site.address(member.host)}:{port}"


# ---------------------------------------------------------------- exchanges


def exchange(site: Site, name: str, limits: Mapping[str, Value] | None = None) -> str:
    """Return the settings of one exchange as TOML, with ``limits`` in ``[exchange]``; ``KeyError`` for no exchange."""
    mine = {row.name: row for row in site.exchanges}[name]
    here = site.where(mine.host)
    folder = site.directory(here)
    certificate, key, _ = site.certificate(name, here)
    return to_toml(
        [
            ("site", _site(site, here)),
            *cells(site, identity(*site.certificate(name, here)), folder / "passwords", "broker", "app"),
            (
                "exchange",
                {
                    "name": name,
                    **_listening(site, mine),
                    **render_links.link_hosts(site, here),
                    "tls_certificate_file": certificate,
                    "tls_key_file": key,
                    "tls_ca_file": folder / "pki" / "everybody.pem",
                    "signing_key_file": folder / "signing" / f"{name}.pem",
                    "directory_key_file": folder / "signing" / "directory.public.pem",
                    **(limits or {}),
                },
            ),
            ("network", _network(site)),
            *render_revocation.tables(site, here),
            *render_keys.tables(site),
            # Empty until somebody writes there: the last drills, backups, a look at everybody's certificates.
            ("metrics", {"textfiles": folder / "metrics"}),
            *render_officers.tables(site),
            *render_evidence.tables(site, here),
            *render_links.tables(site),
        ]
    )


def _site(site: Site, centre: str) -> Mapping[str, Value]:
    # Where the callers' addresses cannot be checked there is no real site: only a sandbox may go without links.
    check = site.links is not None or not site.sandbox
    return {"centre": centre, "sandbox": site.sandbox, "address_check": check, **render_links.site_keys(site)}


def _listening(site: Site, mine: ExchangeHost) -> Mapping[str, Value]:
    address = site.address(mine.host)
    parts = {"agency": mine.agency_port, "network": mine.network_port, "health": mine.health_port}
    return {
        key: value for part, port in parts.items() for key, value in ((f"{part}_host", address), (f"{part}_port", port))
    }


def cells(
    site: Site, files: Mapping[str, Value], passwords: Path, *logins: str, only: str | None = None
) -> list[_Table]:
    """Return the tables of the cells, or of one only, with the password files of some logins."""
    tables: list[_Table] = []
    for cell, row in site.cells.items():
        if only not in {None, cell}:
            continue
        secrets = {f"{login}_password_file": passwords / f"{cell}-{login}" for login in logins}
        epoch: Mapping[str, Value] = {} if row.restore_epoch == 1 else {"restore_epoch": row.restore_epoch}
        tables.append((f"cells.{cell}", {"database": row.database, **epoch, **secrets, **files}))
        tables += [(f"[cells.{cell}.members]", member) for member in _cell_members(site, row)]
    return tables


def identity(certificate: Path, key: Path, trusted: Path) -> Mapping[str, Value]:
    """Return as whom a process presents itself to the cells' members, and whom it trusts."""
    return {"tls_ca_file": trusted, "tls_certificate_file": certificate, "tls_key_file": key}


def _network(site: Site) -> Mapping[str, Value]:
    network = site.network
    files: Mapping[str, Value] = {"ca_file": network.ca_file, "verify_key_file": network.verify_key_file}
    return {"url": network.url, "name": network.name, **files}


def _cell_members(site: Site, cell: Cell) -> list[Mapping[str, Value]]:
    return [
        {
            "name": node.name,
            "host": site.address(node.host),
            "port": node.port,
            "rest": f"https://{site.address(node.host)}:{node.rest_port}",
            "centre": site.where(node.host),
        }
        for node in cell.nodes
    ]


def operator(site: Site) -> str:
    """Return settings for an operator's commands (``chukan agency``, ``stop``, …): cells with the steward's login."""
    folder = site.operator.directory
    own = identity(folder / "certificate.pem", folder / "key.pem", folder / "ca.pem")
    return to_toml(
        [
            ("site", _site(site, next(iter(site.centres)))),
            *cells(site, own, folder / "passwords", "broker", "app", "steward", "links"),
            (
                "exchange",
                {
                    "name": "operator",
                    **own,
                    "signing_key_file": folder / "signing" / "directory.pem",
                    "directory_key_file": folder / "signing" / "directory.public.pem",
                },
            ),
            ("network", _network(site)),
            *render_keys.tables(site),
            ("operator", {"directory_signing_key_file": folder / "signing" / "directory.pem"}),
            *render_evidence.operator_tables(site),
            *render_links.tables(site),
        ]
    )
