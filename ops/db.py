"""``chukan db``: create a cell's database, bring it to this release's schema, and say how it stands.

Each command acts on one cell of an installation (``--config``: the settings of any of its exchanges) and needs an
administrator's login, which no process that serves has. ``create`` may be repeated; it also changes the passwords of
the login roles to those in the files that the settings name.

Invariant: this module makes and reads schema only, never a row of an agency.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops.output import Json, say, table
from chukan.replication.primary import DRIVER_ERRORS, Connection, translate
from chukan.settings import Cell, Environment, load
from chukan.tenants import migrate as runner
from chukan.tenants.departure import administrator

app = App(name="db", help="Create a cell's database, migrate it, and say how it stands.")

AdminUser = Annotated[str, Parameter(name="--admin-user")]
AdminPassword = Annotated[Path, Parameter(name="--admin-password-file")]
T = TypeVar("T")

_ADMIN_DATABASE = "postgres"


@app.command
def create(
    cell: str,
    *,
    admin_password_file: AdminPassword,
    admin_user: AdminUser = "postgres",
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Create a cell's database where it is missing, with schema, login roles and their passwords. Safe to repeat.

    Args:
        cell: Name of the cell in the settings.
        admin_password_file: File with the administrator's password.
        admin_user: The administrator's login.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    environment, settings = _cell(config, cell)
    files = {
        "chukan_broker": settings.broker_password_file,
        "chukan_app": settings.app_password_file,
        "chukan_steward": settings.steward_password_file,
        "chukan_links": settings.links_password_file,
    }
    passwords = {login: _password(file) for login, file in files.items() if file is not None}

    async def work(admin: Connection) -> None:
        await runner.prepare_cell(admin, cell, passwords, environment)

    async def ensure(admin: Connection) -> None:
        known = await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", settings.database)
        if not known:
            # The name is a setting of the operator's own; it is quoted as an identifier.
            name = settings.database.replace('"', '""')
            await admin.execute(f'CREATE DATABASE "{name}"')

    elsewhere = msgspec.structs.replace(settings, database=_ADMIN_DATABASE)
    _act((environment, elsewhere), admin_user, admin_password_file, ensure)
    _act((environment, settings), admin_user, admin_password_file, work)
    say({"cell": cell, "database": settings.database}, f"{cell}: {settings.database} is ready", as_json=as_json)


@app.command
def migrate(
    cell: str,
    phase: Literal["pre", "post"],
    *,
    admin_password_file: AdminPassword,
    admin_user: AdminUser = "postgres",
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Apply what is missing: ``pre`` before this release's first process starts, ``post`` after the old ones' end.

    Args:
        cell: Name of the cell in the settings.
        phase: pre or post.
        admin_password_file: File with the administrator's password.
        admin_user: The administrator's login.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """

    async def work(admin: Connection) -> list[str]:
        return await runner.migrate(admin, phase)

    done = _act(_cell(config, cell), admin_user, admin_password_file, work)
    said = "\n".join(f"{phase}/{name}" for name in done) or "nothing to do"
    say({"cell": cell, "phase": phase, "applied": done}, said, as_json=as_json)


@app.command
def status(
    cell: str,
    *,
    admin_password_file: AdminPassword,
    admin_user: AdminUser = "postgres",
    config: Path | None = None,
    as_json: Json = False,
) -> int:
    """Show every migration of this release and whether the database has it; status 1 when something is missing.

    Args:
        cell: Name of the cell in the settings.
        admin_password_file: File with the administrator's password.
        admin_user: The administrator's login.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    rows = _act(_cell(config, cell), admin_user, admin_password_file, runner.status)
    words = {True: "applied", False: "missing"}
    shown = [[row.phase, row.name, "changed" if row.changed else words[row.applied]] for row in rows]
    say([row._asdict() for row in rows], table("phase", "file", "state", rows=shown), as_json=as_json)
    return int(any(row.changed or not row.applied for row in rows))


def _cell(config: Path | None, name: str) -> tuple[Environment, Cell]:
    named = os.environ.get("CHUKAN_SETTINGS")
    settings = load(config or (Path(named) if named else None), os.environ)
    cells = settings.cells
    if name not in cells:
        raise Problem("setting_missing", pointer=f"/cells/{name}", expected=", ".join(sorted(cells)))
    return settings.site.environment, cells[name]


def _password(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable password file") from None


def _act(of: tuple[Environment, Cell], user: str, password_file: Path, work: Callable[[Connection], Awaitable[T]]) -> T:
    environment, cell = of

    async def act() -> T:
        async with administrator(cell, user, password_file) as admin:
            try:
                await runner.require_environment(admin, environment)
                return await work(admin)
            except DRIVER_ERRORS as error:
                raise translate(error) from None

    return asyncio.run(act())
