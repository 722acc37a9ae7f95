"""The lab's backups: a repository in each centre, pgBackRest's servers between them, and a stanza for each cell.

A lab archives as a real site does, by the same rendered files: switchovers and losses are tried with an archiver that
has to reach a repository in the other centre. Where pgBackRest is not installed a lab goes without.
"""

import asyncio
import getpass
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chukan.ops.centres.wires import Wires
from chukan.ops.demo.supervisor import in_thread, together
from chukan.ops.local.machine import SYSTEM_USER, Identity, is_root
from chukan.ops.pgbackrest import call, made, write_metrics
from chukan.replication import backup
from chukan.replication.site import Site, backup_hosts

SERVER: Final = "backup"
"""What the names of pgBackRest's servers begin with."""
BACKUP_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.1
_MINE: Final = ("pgbackrest.conf", "pgbackrest-server.conf", "pgbackrest-push.sh", "repository.conf")


def user() -> str | None:
    """Return whom pgBackRest runs as on this machine, None where it is not installed."""
    if shutil.which(backup.PROGRAM) is None:
        return None
    return SYSTEM_USER if is_root() else getpass.getuser()


def servers(site: Site) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each server of pgBackRest: its name, the centre in which it stands, and what it is started with."""
    program = shutil.which(backup.PROGRAM) or backup.PROGRAM
    for host in backup_hosts(site):
        centre = site.where(host)
        yield f"{SERVER}-{centre}", centre, [program, f"--config={backup.server_file(site, host)}", "server"]


def is_config(path: Path) -> bool:
    """Tell whether a rendered file is read by pgBackRest, which runs as the databases' own user."""
    return path.name.endswith(_MINE)


def give(site: Site, identity: Identity | None) -> None:
    """Hand the folders of the repositories to the databases' user."""
    if identity is None or site.backup is None:
        return
    for centre in site.centres:
        os.chown(site.directory(centre) / "backup", identity.uid, identity.gid)


async def answers(site: Site, name: str) -> None:
    """Wait until a server takes connections; whoever calls sets the deadline."""
    centre = name.removeprefix(f"{SERVER}-")
    port = site.backup.port if site.backup is not None else 0
    host = next(host for host in backup_hosts(site) if site.where(host) == centre)
    while True:
        try:
            _, writer = await asyncio.open_connection(site.address(host), port)
        except OSError:
            await asyncio.sleep(_LOOK_S)  # another process has no event of ours
        else:
            writer.close()
            return


async def make_stanzas(site: Site, wires: Wires) -> None:
    """Make each cell's place in both repositories, once; the cells and the servers run. Raises ``Problem``."""
    await together([
        in_thread(lambda cell=cell, centre=centre: _make_stanza(site, wires, cell, centre))  # type: ignore[misc]
        for cell in site.cells if site.backup is not None
        for centre in site.centres
    ])  # fmt: skip


def _make_stanza(site: Site, wires: Wires, cell: str, centre: str) -> None:
    info = site.directory(centre) / "backup" / "repository" / "archive" / cell / "archive.info"
    if not info.exists():
        # A thread of the pool may be older than the lab's network, and stand outside it.
        with wires.inside():
            call(site, backup.repository_file(site, cell, centre), cell, "stanza-create")


async def back_up(site: Site, wires: Wires, cell: str, centre: str) -> str:
    """Make a full backup of a cell into a centre's repository and return its name. Raises ``Problem``."""
    found: list[str] = []

    def work() -> None:
        config, key = backup.repository_file(site, cell, centre), backup.number(site, cell, centre)
        with wires.inside():
            call(site, config, cell, f"--repo={key}", "--type=full", "backup", timeout_s=BACKUP_TIMEOUT_S)
            rows = made(site, config, cell, centre, key)
        found.append(rows[-1].label)
        metrics = site.directory(centre) / "metrics"
        metrics.mkdir(exist_ok=True, mode=0o755)
        write_metrics(metrics / f"chukan_backup_{cell}.prom", rows)

    await in_thread(work)
    return found[0]
