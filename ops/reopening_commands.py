"""``chukan backup reconcile`` and ``open``: a restored cell is compared with the network, and opened (再開).

They run where an exchange's settings lie, after its cell's ``restore_epoch`` was raised, like ``chukan agency move``.
``reconcile`` changes nothing in the cell; ``open`` asks twice: for the cell's name, and for the number of differences
that nobody can bring back.

Invariant: the cell is opened with exactly the differences that were shown, or not at all.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.table import Table

from chukan.errors import Problem
from chukan.ops import reopening
from chukan.ops.failover import confirm
from chukan.ops.moments import read_moment
from chukan.ops.output import Json, create_file, say, table
from chukan.ops.reopening import Reconciled
from chukan.settings import Settings, load

SHOWN_MAX = 50
Accepted = Annotated[int | None, Parameter(name="--yes-i-accept-differences")]


def register(app: App) -> None:
    """Add the commands to ``chukan backup``."""
    app.command(reconcile)
    app.command(name="open")(open_command)


def reconcile(
    cell: str,
    *,
    since: str,
    report: Path | None = None,
    admin_password_file: Path | None = None,
    admin_user: str = "postgres",
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Compare a restored cell with the network, and have the network push again what it can.

    Args:
        cell: The restored cell.
        since: The moment restored to, ISO 8601 with its zone.
        report: A new file to write every difference into (JSON, readable by its owner only).
        admin_password_file: Password of the databases' administrator.
        admin_user: Name of the administrator.
        config: Settings file of an exchange; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    found = _compare(_settings(config), cell, read_moment(since, "--since"), admin_user, admin_password_file)
    if report is not None:
        create_file(report, msgspec.json.format(msgspec.json.encode(found)) + b"\n", 0o600)
    say(found, _shown(found), as_json=as_json)


def open_command(
    cell: str,
    *,
    since: str,
    note: str = "",
    accept: Accepted = None,
    admin_password_file: Path | None = None,
    admin_user: str = "postgres",
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Open a restored cell in its new epoch: agencies write again, and no older permit is served.

    Args:
        cell: The restored cell.
        since: The moment restored to, ISO 8601 with its zone.
        note: A few words that are kept with the opening.
        accept: For scripts: the number of differences that was accepted.
        admin_password_file: Password of the databases' administrator.
        admin_user: Name of the administrator.
        config: Settings file of an exchange; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    settings, moment = _settings(config), read_moment(since, "--since")
    password = _password(admin_password_file)
    if accept is None:
        found = _compare(settings, cell, moment, admin_user, admin_password_file)
        accept = found.count
        confirm(f"Cell {cell} will be opened in epoch {found.epoch}. There is no way back.", cell, yes=False)
        lost = f"{accept} differences stay for good (chukan backup reconcile --report FILE lists them). Accepted?"
        confirm(lost, str(accept), yes=False)
    done = asyncio.run(
        reopening.open_cell(
            settings, cell, moment, admin_user=admin_user, admin_password_file=password, accept=accept, note=note
        )
    )
    words = f"Cell {cell} is open in epoch {done.epoch} since {done.opened_at.isoformat()}, {done.agencies} agencies."
    say(done, words, as_json=as_json)


def _settings(config: Path | None) -> Settings:
    named = os.environ.get("CHUKAN_SETTINGS")
    return load(config or (Path(named) if named else None), os.environ)


def _password(path: Path | None) -> Path:
    if path is None:
        raise Problem("setting_missing", pointer="/admin_password_file", expected="--admin-password-file FILE")
    return path


def _compare(
    settings: Settings, cell: str, since: dt.datetime, admin_user: str, admin_password_file: Path | None
) -> Reconciled:
    password = _password(admin_password_file)
    return asyncio.run(
        reopening.reconcile_cell(settings, cell, since, admin_user=admin_user, admin_password_file=password)
    )


def _shown(found: Reconciled) -> Table:
    rows = [
        ["cell", f"{found.cell}, waits to be opened in epoch {found.epoch}"],
        ["agencies compared", str(found.agencies)],
        ["told by the network", str(found.lines)],
        ["pushed again once open", str(found.redelivered)],
        ["differences", str(found.count)],
    ]
    rows += [[each.agency, f"{each.what} {each.id or ''}".rstrip()] for each in found.differences[:SHOWN_MAX]]
    if found.count > SHOWN_MAX:
        rows.append(["…", "all of them with --report FILE"])
    return table("", "", rows=rows)
