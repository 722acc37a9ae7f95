"""The lab's cells: made ready through their leaders, as an operator does with ``chukan db create``.

Everything may be done again on what an earlier start left. Invariant: this module sets cells up and never reads an
agency's table.
"""

import asyncio
from pathlib import Path
from typing import Final

from chukan.errors import Problem
from chukan.ops import patroni_settings
from chukan.ops.centres.picture import Painter
from chukan.replication import render
from chukan.replication.driver import DRIVER_ERRORS, translate
from chukan.replication.site import Site
from chukan.replication.superuser import superuser
from chukan.tenants import migrate

_LOGINS: Final = ("broker", "app", "steward", "links")
_LOOK_S: Final = 0.5


async def leaders(site: Site, timeout_s: float) -> dict[str, str]:
    """Wait until every cell has a leader, and return them. Raises ``Problem`` no_primary."""
    try:
        async with asyncio.timeout(timeout_s), Painter(site) as painter:
            while True:
                found = await painter.leaders()
                if len(found) == len(site.cells):
                    return found
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Problem("no_primary") from None


async def led(site: Site, cell: str, timeout_s: float) -> str:
    """Wait until one cell has a leader, and return it. Raises ``Problem`` no_primary."""
    try:
        async with asyncio.timeout(timeout_s), Painter(site) as painter:
            while cell not in (found := await painter.leaders()):  # noqa: ASYNC110 - a node has no event of ours
                await asyncio.sleep(_LOOK_S)
            return found[cell]
    except TimeoutError:
        raise Problem("no_primary") from None


async def prepare(site: Site, cell: str, timeout_s: float) -> None:
    """Make a cell's database a cell of this release; one that still changes its leader is tried again.

    Raises ``Problem`` no_primary at the end of the time, or as ``migrate`` does.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            found = await leaders(site, max(_LOOK_S, deadline - asyncio.get_running_loop().time()))
            # A cell that an earlier release has born keeps that one's settings until it is told.
            await patroni_settings.put(site, cell)
            return await _prepare(site, cell, found[cell])
        except Problem as problem:
            # After a crash of everything who led before says so again, and is then elected anew or not.
            if problem.code != "no_primary" or asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(_LOOK_S)


async def _prepare(site: Site, cell: str, leader: str) -> None:
    """Make schema, roles and passwords."""
    database = site.cells[cell].database
    folder = site.operator.directory / "passwords"
    passwords = {render.PASSWORDS[short]: _read(folder / f"{cell}-{short}") for short in _LOGINS}
    try:
        async with superuser(site, leader, "postgres") as admin:
            if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database):
                await admin.execute(f"CREATE DATABASE {database}")
        async with superuser(site, leader, database) as admin:
            await migrate.prepare_cell(admin, cell, passwords, "sandbox" if site.sandbox else "production")
    except DRIVER_ERRORS as error:
        raise translate(error) from None


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
