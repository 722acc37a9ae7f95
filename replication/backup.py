"""Backups (バックアップ) of the cells by pgBackRest: its configuration on every host, rendered from the site.

Each cell is a stanza with two repositories: the first in the home of the cell, the second in the other centre, each
encrypted under a key of its own that lies in its centre alone. One host in each centre holds the repository. Whoever is
not on that host reaches it by pgBackRest's own server, by mutual TLS: a node pushes its WAL there, and the repository's
host fetches backups from the nodes. A node on another host never holds the key; the repository's side tells it.

pgBackRest compares names in certificates and knows no addresses, so a host's certificate bears the host's address as
its common name and as a DNS name (``chukan pki issue --peer ADDRESS --host DNS:ADDRESS``), and lies under that name
among the peers of its centre.

No standby is given a ``restore_command``: a promotion asks the archive for the next segment first, and an archive whose
centre is gone would hold up the failover. Slots and base backups serve the standbys.

Invariant: pure. A key is given as a text, for pgBackRest reads it from its configuration alone; whoever writes the file
gives it mode 0600. A host may ask another one's server for the stanzas only that the two have in common.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from chukan.replication import archiving
from chukan.replication.site import Backup, Cell, Node, Site, backup_hosts

SUPERUSER: Final = "postgres"
PROGRAM: Final = archiving.PROGRAM
IO_TIMEOUT_S: Final = 5
"""How long a repository may take to be reached."""
_IDENT: Final = "backup"
_Option = tuple[str, object]


def repositories(site: Site, cell: str) -> dict[int, str]:
    """Return the centres of a cell's repositories by their number: 1 at home, 2 in the other centre."""
    home = site.cells[cell].home
    return {1: home, 2: site.other(home)}


def number(site: Site, cell: str, centre: str) -> int:
    """Return the number of the repository that a cell has in a centre; ``KeyError`` for no centre."""
    return {where: key for key, where in repositories(site, cell).items()}[centre]


def node_file(site: Site, node: Node) -> Path:
    """Return where the configuration lies that a node archives with."""
    return _configs(site, site.where(node.host)) / f"{node.name}.pgbackrest.conf"


def repository_file(site: Site, cell: str, centre: str) -> Path:
    """Return where the configuration lies with which backups of a cell are made into a centre's repository."""
    return _configs(site, centre) / f"{cell}.repository.conf"


def server_file(site: Site, host: str) -> Path:
    """Return where the configuration of a host's pgBackRest server lies."""
    return _configs(site, site.where(host)) / f"{host}.pgbackrest-server.conf"


def key_file(site: Site, cell: str, centre: str) -> Path:
    """Return the file of the key of a cell's repository in a centre."""
    return site.password(f"{cell}-backup", centre)


def _configs(site: Site, centre: str) -> Path:
    return site.directory(centre) / "config"


def socket_folder(site: Site, centre: str) -> Path:
    """Return the folder of the sockets by which pgBackRest reaches the databases of its own host."""
    return site.directory(centre) / "run"


# ---------------------------------------------------------------- configuration


def node(site: Site, name: str, key: str | None, only: str = "") -> str:
    """Return the configuration of one node; ``key`` where its host holds a repository. ``KeyError`` for no node.

    Of both repositories, or of that in one centre ``only``: pgBackRest pushes to all that its configuration names.
    """
    backup = _table(site)
    centres = [only] if only else list(site.centres)
    cell_name, row = site.node(name)
    here = site.where(row.host)
    return _text(
        ("global", [*_common(site, here, name), *_repositories(site, backup, cell_name, row.host, key, centres)]),
        (cell_name, _database(site, row, 1)),
    )


def node_files(site: Site, row: Node, key: str | None) -> dict[Path, str]:
    """Return everything that a node archives and is restored with, by where it lies; ``key`` as with ``node``."""
    here = site.where(row.host)
    other = site.other(here)
    return {
        node_file(site, row): node(site, row.name, key),
        archiving.near_file(site, row): node(site, row.name, key, here),
        archiving.far_file(site, row): node(site, row.name, key, other),
        archiving.script_file(site, row): archiving.script(site, row.name),
    }


def repository(site: Site, cell: str, centre: str, key: str) -> str:
    """Return the configuration of a cell's repository on the host that holds it, with the way to all nodes.

    The other centre's repository is not in it: what is done here must not wait for a centre that is gone.
    """
    backup = _table(site)
    host = backup.hosts[centre]
    databases: list[_Option] = []
    for place, row in enumerate(site.cells[cell].nodes, start=1):
        databases += _database(site, row, place)
        if row.host != host:
            databases += _by_tls(site, f"pg{place}", row.host, node_file(site, row), host)
    return _text(
        ("global", [*_common(site, centre, "repository"), *_held(site, backup, cell, centre, key)]),
        (cell, databases),
    )


def server(site: Site, host: str) -> str:
    """Return the configuration of one host's pgBackRest server."""
    backup = _table(site)
    certificate, key, trusted = site.certificate(site.address(host), site.where(host))
    allowed = [
        ("tls-server-auth", f"{site.address(peer)}={','.join(cells)}")
        for peer in backup_hosts(site)
        if peer != host and (cells := _in_common(site, backup, host, peer))
    ]
    return _text(
        (
            "global",
            [
                *_common(site, site.where(host), "server"),
                ("tls-server-address", site.address(host)),
                ("tls-server-port", backup.port),
                ("tls-server-cert-file", certificate),
                ("tls-server-key-file", key),
                ("tls-server-ca-file", trusted),
                *allowed,
            ],
        )
    )


def _in_common(site: Site, backup: Backup, host: str, peer: str) -> list[str]:
    """Return the cells for which ``peer`` may ask ``host``: either holds their repository, the other a node of them."""
    keeps, asks_to_keep = host in backup.hosts.values(), peer in backup.hosts.values()
    return [
        name
        for name, cell in site.cells.items()
        if (keeps and _stands(cell, peer)) or (asks_to_keep and _stands(cell, host))
    ]


def _stands(cell: Cell, host: str) -> bool:
    return any(row.host == host for row in cell.nodes)


def _table(site: Site) -> Backup:
    if site.backup is None:
        raise ValueError("a site without backups has no configuration of them")
    return site.backup


def _common(site: Site, centre: str, whose: str) -> list[_Option]:
    folder = site.directory(centre) / "backup"
    return [
        ("compress-type", "lz4"),
        ("io-timeout", IO_TIMEOUT_S),
        # Nodes of one cell on one host push one after the other; what one was at must not stand in the next one's way.
        ("lock-path", folder / "lock" / whose),
        ("log-level-console", "warn"),
        ("log-level-file", "info"),
        ("log-path", folder),
        ("spool-path", folder / "spool" / whose),
        ("start-fast", "y"),  # otherwise a backup waits for a checkpoint that is spread over minutes
        # A lost centre closes no connection; whoever still talks to it holds a lock meanwhile.
        ("tcp-keep-alive-count", 3),
        ("tcp-keep-alive-idle", 5),
        ("tcp-keep-alive-interval", 2),
    ]


def _repositories(
    site: Site, backup: Backup, cell: str, host: str, key: str | None, centres: Collection[str]
) -> list[_Option]:
    options: list[_Option] = []
    for place, centre in repositories(site, cell).items():
        if centre not in centres:
            continue
        name = f"repo{place}"
        if backup.hosts[centre] != host:
            options += _by_tls(site, name, backup.hosts[centre], repository_file(site, cell, centre), host)
        elif key is None:
            raise ValueError("the host of a repository needs its key")
        else:
            options += _held(site, backup, cell, centre, key)
    return options


def _held(site: Site, backup: Backup, cell: str, centre: str, key: str) -> list[_Option]:
    name = f"repo{number(site, cell, centre)}"
    return [
        (f"{name}-path", site.directory(centre) / "backup" / "repository"),
        (f"{name}-cipher-type", "aes-256-cbc"),
        (f"{name}-cipher-pass", key),
        (f"{name}-retention-full", backup.full_kept),
    ]


def _database(site: Site, row: Node, place: int) -> list[_Option]:
    here = site.where(row.host)
    return [
        (f"pg{place}-path", site.directory(here) / "data" / row.name),
        (f"pg{place}-port", row.port),
        (f"pg{place}-socket-path", socket_folder(site, here)),
        (f"pg{place}-user", SUPERUSER),
    ]


def _by_tls(site: Site, name: str, there: str, config: Path, here: str) -> list[_Option]:
    certificate, key, trusted = site.certificate(site.address(here), site.where(here))
    return [
        (f"{name}-host", site.address(there)),
        (f"{name}-host-type", "tls"),
        (f"{name}-host-port", _table(site).port),
        (f"{name}-host-config", config),
        (f"{name}-host-cert-file", certificate),
        (f"{name}-host-key-file", key),
        (f"{name}-host-ca-file", trusted),
    ]


def _text(*sections: tuple[str, Iterable[_Option]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{option}={value}\n" for option, value in options) for name, options in sections
    )


# ---------------------------------------------------------------- Patroni


def for_patroni(site: Site, row: Node) -> Mapping[str, Any]:
    """Return what archiving adds to ``postgresql`` in a node's Patroni YAML: parameters, callback, hba and ident lines.

    They are the node's own, not the cell's in etcd: each names its own file, and they follow a later change of the
    site file, which what is read at the birth of a cell does not. pgBackRest is let in by a socket that only the
    servers' own user can open.
    """
    here = site.where(row.host)
    return {
        "parameters": {
            "archive_mode": "on",
            "archive_command": archiving.command(site, row),
            "archive_timeout": "60s",
            "unix_socket_directories": str(socket_folder(site, here)),
            "unix_socket_permissions": "0700",
        },
        "callbacks": {"on_role_change": archiving.callback(site, row)},
        "pg_hba": [f"local postgres {SUPERUSER} peer map={_IDENT}"],
        "pg_ident": [f"{_IDENT} {_table(site).user} {SUPERUSER}"],
    }
