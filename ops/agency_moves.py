"""``chukan agency move`` and ``discard``: an agency moves to another cell; what it left behind is destroyed later.

While it moves the agency is answered 503 with a time to come back. A move that was interrupted is finished by giving
the same command again, or undone with ``--back`` while nothing was opened. ``discard`` is a step of its own, and wants
the agency's code twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.output import Json, say, table
from chukan.replication.primary import Connection
from chukan.tenants.departure import administrator
from chukan.tenants.directory import AgencyRow
from chukan.tenants.moving import Moved, Mover

Key = Annotated[Path | None, Parameter(name="--directory-key")]
"""Private key (PEM, Ed25519) that signs the common data."""
Flag = Annotated[bool, Parameter(negative="")]
_CELL = "{cell}"
"""Stands for the cell's name in the name of a password file."""


def register(app: App) -> None:
    """Add the commands to ``chukan agency``."""
    app.command(move)
    app.command(discard)


def move(
    code: str,
    *,
    to: str | None = None,
    back: Flag = False,
    admin_password_file: Path | None = None,
    admin_user: str = "postgres",
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> None:
    """Move an agency to another cell, or finish a move that was interrupted; --back undoes one that opened nothing.

    Args:
        code: Code of the agency.
        to: Cell that it shall live in.
        back: Open it again where it lives, instead.
        admin_password_file: Password of the databases' administrator, who alone can copy tables; where the cells have
            one each, {cell} in the name stands for the cell: passwords/{cell}-superuser.
        admin_user: Name of the administrator.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    if back == (to is not None):
        raise Problem("invalid_field", pointer="/to", expected="--to CELL, or --back alone")

    async def act(installation: Installation) -> Moved | AgencyRow:
        mover = make_mover(installation, admin_user, admin_password_file)
        return await mover.take_back(code) if to is None else await mover.move(code, to)

    done = acts.run(config, act, directory_key=directory_key)
    if isinstance(done, AgencyRow):
        say({"agency": code, "cell": done.cell, "moved": False}, f"{code}: stays in {done.cell}", as_json=as_json)
        return
    row = done.agency
    told = {
        "agency": code,
        "moved": done.from_cell is not None,
        "from": done.from_cell,
        "cell": row.cell,
        "generation": row.generation,
        "snapshot": done.published.snapshot.number,
        "rows": {name: each.rows for name, each in done.sent.items()},
        "sha256": {name: each.sha256.hex() for name, each in done.sent.items() if each.rows},
    }
    rows = [[name, str(value)] for name, value in told.items() if name not in ("rows", "sha256")]
    rows += [[f"rows of {name}", str(each.rows)] for name, each in done.sent.items() if each.rows]
    if done.from_cell is not None:
        rows.append(["left behind", f"frozen in {done.from_cell} until chukan agency discard"])
    say(told, table("", "", rows=rows), as_json=as_json)


def discard(
    code: str,
    *,
    cell: str,
    confirm: str,
    admin_password_file: Path | None = None,
    admin_user: str = "postgres",
    config: Path | None = None,
    directory_key: Key = None,
    as_json: Json = False,
) -> None:
    """Destroy what an agency left in a cell when it moved away. It must be open where it lives, with its whole log.

    Args:
        code: Code of the agency.
        cell: Cell that it left.
        confirm: Code of the agency once more.
        admin_password_file: Password of the databases' administrator; as for a move.
        admin_user: Name of the administrator.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """
    if confirm != code:
        raise Problem("invalid_field", pointer="/confirm", expected="the agency's code once more")

    async def act(installation: Installation) -> AgencyRow:
        return await make_mover(installation, admin_user, admin_password_file).discard(code, cell)

    row = acts.run(config, act, directory_key=directory_key)
    say({"agency": code, "discarded": cell, "cell": row.cell}, f"{code}: nothing is left in {cell}", as_json=as_json)


def make_mover(installation: Installation, admin_user: str, admin_password_file: Path | None) -> Mover:
    """Return what moves agencies of an installation; ``Problem`` setting_missing without an administrator."""
    if admin_password_file is None:
        raise Problem("setting_missing", pointer="/admin_password_file", expected="--admin-password-file FILE")

    @asynccontextmanager
    async def admins(cell: str) -> AsyncIterator[Connection]:
        password_file = Path(str(admin_password_file).replace(_CELL, cell))
        async with administrator(installation.settings.cells[cell], admin_user, password_file) as admin:
            yield admin

    return Mover(installation.cells, installation.publisher, admins)
