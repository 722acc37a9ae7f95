"""``chukan backup``: backups (バックアップ) of the cells, made, listed, verified, and restored to a moment.

``create``, ``run``, ``list`` and ``verify`` work on the host that holds a centre's repository; ``restore`` on the host
of the node that shall lead the restored cell. A restore goes into a new directory, asks twice, and refuses while any
node of the cell runs. It prints what is left for the operator to do, for opening the cell is a decision: the restored
cell is a new epoch, and what was acknowledged after the moment is in no database any more.

Invariant: nothing that exists is overwritten or destroyed here, but for backups that the number to keep expires.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops import agency_restore, orders, reopening_commands, restoring
from chukan.ops import installation as acts
from chukan.ops.agency_restore import Administration, Wish
from chukan.ops.centres.picture import Painter
from chukan.ops.failover import SiteFile, confirm, default_site
from chukan.ops.installation import Installation
from chukan.ops.moments import read_moment
from chukan.ops.namespaces import enter
from chukan.ops.output import Json, say, table
from chukan.ops.pgbackrest import WORK_TIMEOUT_S, Made, backup_of, call, made, write_metrics
from chukan.replication.backup import number, repository_file
from chukan.replication.primary import Connection
from chukan.replication.site import Node, Site
from chukan.replication.site_file import read
from chukan.tenants.agency_restore import Restored
from chukan.tenants.orders import Target

Stopped = Annotated[bool, Parameter(name="--yes-i-stopped-the-whole-cell", negative="")]

app = App(name="backup", help="Make, list, verify and restore backups of the cells.")
reopening_commands.register(app)


@app.command
def create(cell: str, *, centre: str | None = None, site: SiteFile = None, as_json: Json = False) -> None:
    """Make a cell's repository in a centre, once, while the cell runs; it archives when both centres have one.

    Args:
        cell: The cell.
        centre: Whose repository; the cell's home by default.
        site: The site file; CHUKAN_SITE names it otherwise.
        as_json: Print JSON.
    """
    described = _site(site)
    where = _centre(described, cell, centre)
    call(described, repository_file(described, cell, where), cell, "stanza-create")
    say({"cell": cell, "centre": where}, f"Cell {cell} has a repository in {where}.", as_json=as_json)


@app.command(name="run")
def run_command(
    cell: str,
    *,
    centre: str | None = None,
    kind: Annotated[Literal["full", "diff", "incr"], Parameter(name="--type")] = "incr",
    site: SiteFile = None,
    as_json: Json = False,
) -> None:
    """Make a backup of a cell into the repository of a centre; the first one is always full.

    Args:
        cell: The cell.
        centre: Whose repository; the cell's home by default.
        kind: Full, or what changed since the last full one (diff) or since the last of any kind (incr).
        site: The site file; CHUKAN_SITE names it otherwise.
        as_json: Print JSON.
    """
    described = _site(site)
    where = _centre(described, cell, centre)
    config, key = repository_file(described, cell, where), number(described, cell, where)
    call(described, config, cell, f"--repo={key}", f"--type={kind}", "backup", timeout_s=WORK_TIMEOUT_S)
    last = made(described, config, cell, where, key)[-1]
    if last.damaged:
        raise Problem("backup_damaged", expected=f"{last.label}: the database's own pages failed their checksums")
    said = f"{last.label} ({last.kind}) of cell {cell} lies in {where}, {last.size:,} bytes."
    say(last._asdict(), said, as_json=as_json)


@app.command(name="list")
def list_command(
    cell: str | None = None,
    *,
    centre: str | None = None,
    textfile: Path | None = None,
    site: SiteFile = None,
    as_json: Json = False,
) -> None:
    """List the backups in a centre's repository.

    Args:
        cell: One cell; all by default.
        centre: Whose repository; that of each cell's home by default.
        textfile: Also write the time of each cell's last good backup there, for Prometheus' textfile collector.
        site: The site file; CHUKAN_SITE names it otherwise.
        as_json: Print JSON.
    """
    described = _site(site)
    rows: list[Made] = []
    for name in [cell] if cell is not None else described.cells:
        where = _centre(described, name, centre)
        rows += made(described, repository_file(described, name, where), name, where, number(described, name, where))
    if textfile is not None:
        write_metrics(textfile, rows)
    shown = [[row.cell, row.centre, row.label, row.kind, _moment(row.ended), f"{row.size:,}"] for row in rows]
    text = table("cell", "repository", "backup", "type", "ended", "bytes", rows=shown)
    say([row._asdict() for row in rows], text if rows else "There is no backup yet.", as_json=as_json)


@app.command
def verify(cell: str, *, centre: str | None = None, site: SiteFile = None, as_json: Json = False) -> None:
    """Read every file of a cell's backups and archive, and compare it with what was written.

    Args:
        cell: The cell.
        centre: Whose repository; the cell's home by default.
        site: The site file; CHUKAN_SITE names it otherwise.
        as_json: Print JSON.
    """
    described = _site(site)
    where = _centre(described, cell, centre)
    config, key = repository_file(described, cell, where), number(described, cell, where)
    said = call(
        described, config, cell, f"--repo={key}", "--output=text", "--verbose", "verify", timeout_s=WORK_TIMEOUT_S
    )
    if "status: ok" not in said:
        raise Problem("backup_damaged", expected=f"the repository of cell {cell} in {where} as it was written")
    good = {"cell": cell, "centre": where, "good": True}
    say(good, f"All backups and the archive of cell {cell} in {where} are as they were written.", as_json=as_json)


@app.command
def restore(
    cell: str,
    *,
    to: str,
    into: Path,
    node: str | None = None,
    centre: str | None = None,
    site: SiteFile = None,
    confirmed: Stopped = False,
    as_json: Json = False,
) -> None:
    """Restore a whole cell to a moment, into a new directory on the host of the node that shall lead it.

    Args:
        cell: The cell.
        to: The moment, ISO 8601 with its zone: what was committed by then is there, what came later is not.
        into: The data directory to make.
        node: The node; the cell's first by default.
        centre: Whose repository; that of the node's centre by default.
        site: The site file; CHUKAN_SITE names it otherwise.
        confirmed: For scripts: the whole cell was stopped, and its restore was decided.
        as_json: Print JSON.
    """
    described, moment = _site(site), read_moment(to, "--to")
    _centre(described, cell, centre)
    chosen = _node(described, cell, node)
    where = centre or described.where(chosen.host)
    _refuse_running(described, cell)
    words = f"Cell {cell} will be restored to {moment.isoformat()} from the repository in {where}, into {into}."
    confirm(words, cell, yes=confirmed)
    lost = f"What cell {cell} acknowledged after that moment is not in it. Was this decided?"
    confirm(lost, moment.date().isoformat(), yes=confirmed)
    key = number(described, cell, where)
    done = restoring.restore(described, cell, chosen, key, moment, into.absolute(), _tell)
    say(done._asdict(), _steps(described, chosen, done), as_json=as_json)


@app.command
def restore_agency(
    cell: str,
    agency: str,
    *,
    to: str,
    order: Path | None = None,
    scratch: Path = Path("/var/tmp"),  # noqa: S108 - a private folder is made in it
    node: str | None = None,
    centre: str | None = None,
    admin_password_file: Path | None = None,
    admin_user: str = "postgres",
    config: Path | None = None,
    directory_key: Annotated[Path | None, Parameter(name="--directory-key")] = None,
    site: SiteFile = None,
    confirmed: Annotated[bool, Parameter(name="--yes-the-agency-was-told", negative="")] = False,
    as_json: Json = False,
) -> None:
    """Restore one agency alone to a moment, on its order; the cell runs on, and nobody else feels it.

    Args:
        cell: The cell that the agency lived in at the moment.
        agency: Code of the agency.
        to: The moment, ISO 8601 with its zone.
        order: Order to restore, signed by two officers of the agency.
        scratch: Folder with room for the whole cell; it is cleared afterwards.
        node: The node on whose host this is; the cell's first by default.
        centre: Whose repository; that of the node's centre by default.
        admin_password_file: Password of the databases' administrator, who alone can fill tables.
        admin_user: Name of the administrator.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        site: The site file; CHUKAN_SITE names it otherwise.
        confirmed: For scripts: the agency knows what will come back and what cannot be read.
        as_json: Print JSON.
    """
    target = Target(cell, read_moment(to, "--to").astimezone(UTC))
    document = None if order is None else orders.read_order(order)
    described = _site(site)
    _centre(described, cell, centre)
    chosen = _node(described, cell, node)
    key = number(described, cell, centre or described.where(chosen.host))

    async def act(installation: Installation) -> Restored:
        def source() -> AbstractAsyncContextManager[Connection]:
            database = installation.settings.cells[cell].database
            return agency_restore.from_backup(
                described, target, chosen, key, scratch, _tell, user=admin_user, database=database
            )

        wish = Wish(agency, target, document, confirmed)
        admin = Administration(admin_user, admin_password_file)
        return await agency_restore.restore_agency(installation, wish, admin, source, _tell)

    told, text = agency_restore.answer(acts.run(config, act, directory_key=directory_key), target)
    say(told, text, as_json=as_json)


# ---------------------------------------------------------------- inside


def _tell(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def _steps(site: Site, node: Node, done: restoring.Restored) -> str:
    moment = datetime.fromisoformat(done.target).isoformat()
    home = site.directory(site.where(node.host)) / "data" / node.name
    steps = (
        f"Keep Patroni stopped on all nodes of cell {done.cell}; exchanges and the other cells go on.",
        f"In the site file set restore_epoch = {done.epoch} under [cells.{done.cell}]; chukan site render; install it.",
        "Restart the exchanges one after the other, before any node of the cell starts.",
        f"patronictl remove {done.cell}   (the cell's keys in etcd; the databases stay)",
        f"Move {home} aside, and {done.folder} to its place.",
        "Move the data directories of the cell's other nodes aside: they are copied anew.",
        f"Start Patroni of {node.name}, and the others once it leads.",
        f"In cell {done.cell} exchanges read now, and write nothing yet (503 cell_restored).",
        f"chukan backup reconcile {done.cell} --since {moment} --report FILE; read what only the network holds.",
        f"chukan backup open {done.cell} --since {moment}   (asks twice; from then on agencies write again)",
        f"chukan backup run {done.cell} --type full",
    )
    numbered = "\n".join(f"{place}. {step}" for place, step in enumerate(steps, start=1))
    stands = f"Cell {done.cell} as of {done.target} is in {done.folder}, on timeline {done.timeline}."
    return f"{stands} To open it:\n{numbered}"


def _refuse_running(site: Site, cell: str) -> None:
    """Raise ``Problem`` cell_running when a node runs on this machine, or one anywhere says that it leads."""
    found = restoring.running(site, cell) or asyncio.run(leading(site, cell))
    if found is not None:
        raise Problem("cell_running", expected=found)


async def leading(site: Site, cell: str) -> str | None:
    """Return a node of a cell that says that it leads, None when no node does."""
    async with Painter(site) as painter:
        states = await painter.patroni[cell].look()
    return next((name for name, state in states.items() if state is not None and state.leads), None)


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _site(path: Path | None) -> Site:
    site = read(path or default_site())
    backup_of(site)
    if site.operator.namespace:
        enter(site.operator.namespace)
    return site


def _centre(site: Site, cell: str, centre: str | None) -> str:
    if cell not in site.cells:
        raise Problem("site_name_unknown", pointer="/cells", expected=", ".join(site.cells))
    if centre is not None and centre not in site.centres:
        raise Problem("site_name_unknown", pointer="/centres", expected=", ".join(site.centres))
    return centre or site.cells[cell].home


def _node(site: Site, cell: str, name: str | None) -> Node:
    nodes = {row.name: row for row in site.cells[cell].nodes}
    chosen = name or next(iter(nodes))
    if chosen not in nodes:
        raise Problem("site_name_unknown", pointer=f"/cells/{cell}/nodes", expected=", ".join(nodes))
    return nodes[chosen]
