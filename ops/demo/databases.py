"""The demo's two cells: a PostgreSQL server each, prepared as a cell.

Everything may be done again on what an earlier start left: a finished step changes nothing.

Invariant: this module sets cells up and never reads an agency's table.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chukan.chance import Chance
from chukan.errors import Problem
from chukan.ops.demo.config import keep_password
from chukan.ops.demo.place import Place
from chukan.ops.demo.supervisor import in_thread, together
from chukan.ops.local.postgres import Server
from chukan.replication.primary import Connection
from chukan.tenants import migrate

CELLS: Final = ("east", "west")
DATABASE: Final = "chukan"
_WATCH_S: Final = 1.0
_LOGINS: Final[Mapping[str, str]] = {
    "broker": "chukan_broker",
    "app": "chukan_app",
    "steward": "chukan_steward",
    "links": "chukan_links",
}


class Databases:
    """Both servers of the demo."""

    def __init__(self, place: Place, chance: Chance) -> None:
        """Name the servers; nothing is started."""
        self._servers = {cell: Server(cell, place.databases / cell) for cell in CELLS}
        self._passwords = {cell: {short: place.passwords / f"{cell}-{short}" for short in _LOGINS} for cell in CELLS}
        self._chance = chance

    @property
    def passwords(self) -> Mapping[str, Mapping[str, Path]]:
        """The password files of each cell's login roles, by short name."""
        return self._passwords

    def sockets(self) -> dict[str, tuple[str, int]]:
        """Return folder and number of each server's socket, while it runs."""
        return {cell: (server.socket_dir, server.port) for cell, server in self._servers.items()}

    async def admin(self, cell: str, database: str = DATABASE) -> Connection:
        """Connect to a cell's database as the superuser; the caller closes."""
        return await self._servers[cell].admin(database)

    async def start(self) -> None:
        """Create and start both servers, at the same time. Raises ``Problem`` database_failed."""
        await together([in_thread(server.init) for server in self._servers.values()])
        await together([in_thread(server.start) for server in self._servers.values()])

    async def stop(self) -> None:
        """Stop both servers; one that does not run is left alone."""
        await together([in_thread(server.stop) for server in self._servers.values()])

    async def watch(self) -> None:
        """Wait until a server ends by itself, which none should. Raises ``Problem`` database_failed, naming its log."""
        while True:
            for server in self._servers.values():
                if server.pid is None:
                    raise Problem("database_failed", expected=str(server.log_file))
            await asyncio.sleep(_WATCH_S)

    async def prepare(self) -> None:
        """Make each server's database a cell of this release: schema, roles, passwords."""
        await together([self._prepare(cell) for cell in CELLS])

    async def _prepare(self, cell: str) -> None:
        admin = await self.admin(cell, "postgres")
        try:
            if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
                await admin.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await admin.close()
        passwords = {role: keep_password(self._passwords[cell][short], self._chance) for short, role in _LOGINS.items()}
        admin = await self.admin(cell)
        try:
            await migrate.prepare_cell(admin, cell, passwords, "sandbox")
        finally:
            await admin.close()
