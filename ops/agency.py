"""``chukan agency``: agencies come, are looked at, move, are closed, handed over, destroyed; systems are registered.

Each command is one act on an installation (``--config``: the settings of any of its exchanges). Whatever changes the
common data needs the key that signs it (``--directory-key``). Export and destruction need an order besides, signed by
two officers of the agency (``chukan agency order``): without one there is only ``order_required``.

Nothing here shows content of an agency: states and counts only.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from chukan.clock import JST
from chukan.errors import Problem
from chukan.ops import agency_moves, orders
from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.output import Json, create_file, say, table
from chukan.tenants import bodies, standing
from chukan.tenants.bodies import AgencyEntry, AgencyKind
from chukan.tenants.changes import require_agency
from chukan.tenants.directory import AgencyRow, ClientRow, Snapshot
from chukan.tenants.export_file import Manifest, Written
from chukan.tenants.publishing import Published

app = App(name="agency", help="Add, list, show, move, close, hand over or destroy an agency; register its systems.")
client = App(name="client", help="Register and remove systems and officers.")
app.command(client)
app.command(orders.app)
app.command(orders.unpack)
agency_moves.register(app)

Key = Annotated[Path | None, Parameter(name="--directory-key")]
"""Private key (PEM, Ed25519) that signs the common data."""

_LIST_MAX = 10_000


@app.command
def add(
    code: str,
    *,
    cell: str | None = None,
    name: str | None = None,
    body: str | None = None,
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> None:
    """Add an agency: keys in every centre, tables in its cell, then a snapshot in every cell. Safe to repeat.

    Args:
        code: Code of the agency, 16 digits.
        cell: Cell that it lives in; that of its home centre unless given.
        name: Its name; needed for a code that the shipped data does not hold.
        body: Code of its body, 6 digits; needed likewise, and the cell too.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    entry = _entry(code, name, body, cell)

    async def act(installation: Installation) -> tuple[AgencyRow, dt.datetime | None]:
        row = await acts.add_agency(installation, entry, cell=cell)
        common = await installation.common()
        known = common.snapshot is not None and row in common.snapshot.agencies
        return row, None if known or not common.waiting else common.waiting[-1].effective_at

    row, at = acts.run(config, act, directory_key=directory_key)
    text = f"{row.code} {row.name}: number {row.number}, cell {row.cell}, {row.state}{_from(at)}"
    say(row, text, as_json=as_json)


def _entry(code: str, name: str | None, body: str | None, cell: str | None) -> AgencyEntry:
    known = bodies.agency(code)
    if known is not None:
        if not known.on_platform:
            raise Problem("invalid_field", pointer="/code", expected="an agency of the platform")
        return msgspec.structs.replace(known, name=name or known.name, body=body or known.body)
    if name is None or body is None or cell is None:
        raise Problem("invalid_field", pointer="/code", expected="--name, --body and --cell for a code of your own")
    return AgencyEntry(
        code=code, name=name, kind=AgencyKind.JOINT, body=body, form="", home_centre=None, on_platform=True,
        illustrative=False,
    )  # fmt: skip


@app.command(name="list")
def list_(*, config: Path | None = None, as_json: Json = False) -> None:
    """List the agencies of the common data in force."""
    snapshot = acts.run(config, Installation.snapshot)
    rows = [
        [str(row.number), row.code, row.name, row.cell, str(row.generation), row.state]
        for row in sorted(snapshot.agencies, key=lambda row: row.number)
    ]
    shown = table("number", "code", "name", "cell", "generation", "state", rows=rows)
    say({"snapshot": snapshot.number, "agencies": snapshot.agencies}, shown, as_json=as_json)


@app.command
def show(code: str, *, config: Path | None = None, as_json: Json = False) -> None:
    """Show how an agency stands: state, cell, keys, registered clients, and how many rows of what."""

    async def act(installation: Installation) -> tuple[Snapshot, AgencyRow, standing.Standing]:
        snapshot = await installation.snapshot()
        row = require_agency(snapshot, code)
        return snapshot, row, await standing.look(row, cells=installation.cells, keystores=installation.keystores)

    snapshot, row, stands = acts.run(config, act)
    clients = [each for each in snapshot.clients if code in each.agencies]
    document: dict[str, Any] = {
        **msgspec.structs.asdict(row),
        "state": _state(row, stands),
        "in_cell": stands.here.state if stands.here else None,
        "keys": stands.keys,
        "clients": [{"id": each.id, "kind": each.kind, "functions": each.functions} for each in clients],
        "counts": stands.counts,
    }
    rows = [[name, str(value)] for name, value in document.items() if name not in ("clients", "counts")]
    rows += [[f"client {each.id}", f"{each.kind}: {', '.join(each.functions)}"] for each in clients]
    rows += [[f"rows of {name}", str(count)] for name, count in stands.counts.items()]
    say(document, table("", "", rows=rows), as_json=as_json)


def _state(row: AgencyRow, stands: standing.Standing) -> str:
    gone = row.state == "closed" and stands.here is None and not stands.keys
    return "destroyed" if gone else row.state


@app.command
def close(code: str, *, config: Path | None = None, directory_key: Key = None, as_json: Json = False) -> None:
    """Close an agency: it accepts and provides nothing any more; its data and keys stay. Safe to repeat."""

    async def act(installation: Installation) -> AgencyRow:
        return await acts.close_agency(installation, code)

    row = acts.run(config, act, directory_key=directory_key)
    say(row, f"{row.code} {row.name}: {row.state}", as_json=as_json)


@app.command
def export(
    code: str, *, out: Path, order: Path | None = None, config: Path | None = None, as_json: Json = False
) -> None:
    """Hand an agency its data, in a file that only the recipient named in its order can open.

    Args:
        code: Code of the agency.
        out: File to make; ``<out>.manifest.json`` is made beside it, with counts and the file's digest.
        order: Order to export, signed by two officers of the agency.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    document = None if order is None else orders.read_order(order)
    beside = out.with_name(f"{out.name}.manifest.json")
    if beside.exists():
        raise Problem("file_exists", expected=str(beside))

    async def act(installation: Installation) -> tuple[Manifest, Written]:
        return await acts.export_agency(installation, code, document, out)

    manifest, written = acts.run(config, act)
    # The digests of the tables stand inside the file only: of a small table they would tell what is in it.
    told = {
        "file": str(out),
        "bytes": written.size,
        "sha256": written.sha256,
        "order": manifest.order,
        "agency": manifest.agency,
        "made_at": manifest.made_at,
        "rows": {name: each.rows for name, each in manifest.tables.items()},
        "unreadable": sum(each.unreadable for each in manifest.tables.values()),
    }
    create_file(beside, msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    rows = [[name, str(value)] for name, value in told.items()]
    say(told, table("", "", rows=rows), as_json=as_json)


@app.command
def destroy(
    code: str,
    *,
    order: Path | None = None,
    admin_password_file: Path | None = None,
    admin_user: str = "postgres",
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> None:
    """Destroy a closed agency for ever: its keys in every centre, its tables, its role, its clients' rights.

    Args:
        code: Code of the agency.
        order: Order to destroy, signed by two officers of the agency.
        admin_password_file: Password of the database's administrator, who alone can detach tables.
        admin_user: Name of the administrator.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    document = None if order is None else orders.read_order(order)

    async def act(installation: Installation) -> Published:
        return await acts.destroy_agency(
            installation, code, document, admin_user=admin_user, admin_password_file=admin_password_file
        )

    published = acts.run(config, act, directory_key=directory_key)
    told = {"agency": code, "state": "destroyed", "snapshot": published.snapshot.number}
    say(told, f"{code}: destroyed", as_json=as_json)


@app.command
def prepare_keystores(*, config: Path | None = None) -> None:
    """Make the folders of the centres' key stores, once, when a site is set up; harmless on those that exist."""

    async def act(installation: Installation) -> None:
        installation.keystores.prepare()

    acts.run(config, act)


@client.command(name="add")
def add_client(
    client_id: str,
    *,
    kind: Literal["system", "officer"],
    name: str,
    agency: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")],
    function: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")],
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> None:
    """Register a system or an officer, in place of what stood under its id; its certificate names this id.

    Args:
        client_id: Its id, as in ``urn:chukan:client:<id>``.
        kind: A system, or an officer in person.
        name: Name for people.
        agency: Codes of the agencies that it acts for, all of one body.
        function: What it may do: copies codes queries records holds, of officers also reviews.prepare reviews.approve
            order.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    if not agency or not function:
        raise Problem("invalid_field", pointer="/agencies", expected="at least one --agency and one --function")

    async def act(installation: Installation) -> Published:
        body = require_agency(await installation.coming(), agency[0]).body
        row = ClientRow(id=client_id, body=body, kind=kind, name=name, agencies=[*agency], functions=[*function])  # type: ignore[list-item]
        return await acts.register_client(installation, row)

    published = acts.run(config, act, directory_key=directory_key)
    row = next(each for each in published.snapshot.clients if each.id == client_id)
    say(row, f"{row.id}: {row.kind}, {', '.join(row.functions)}{_from(published.effective_at)}", as_json=as_json)


def _from(at: dt.datetime | None) -> str:
    """When it takes effect, in words; nothing where it has."""
    return "" if at is None else f", from {at.astimezone(JST):%Y-%m-%d %H:%M:%S} JST on"


@client.command(name="remove")
def remove_client(
    client_id: str, *, config: Path | None = None, directory_key: Key = None, as_json: Json = False
) -> None:
    """Remove a registration: the certificate of this id opens nothing any more."""

    async def act(installation: Installation) -> Published:
        return await acts.remove_client(installation, client_id)

    published = acts.run(config, act, directory_key=directory_key)
    told = {"removed": client_id, "snapshot": published.snapshot.number, "effective_at": published.effective_at}
    say(told, f"{client_id}: removed{_from(published.effective_at)}", as_json=as_json)


@client.command(name="list")
def list_clients(*, config: Path | None = None, as_json: Json = False) -> None:
    """List the registered systems and officers with their agencies and functions."""
    snapshot = acts.run(config, Installation.snapshot)
    rows = [
        [row.id, row.kind, row.body, row.name, " ".join(row.agencies), " ".join(row.functions)]
        for row in sorted(snapshot.clients, key=lambda row: row.id)
    ]
    shown = table("id", "kind", "body", "name", "agencies", "functions", rows=rows)
    say({"snapshot": snapshot.number, "clients": snapshot.clients}, shown, as_json=as_json)
