"""The demo's two cells: a PostgreSQL server each, prepared as a cell, with the demo's agencies born in their home cell.

Everything may be done again on what an earlier start left: a finished step changes nothing. The common data is signed
once and put into both cells; a cell that lacks it, because a start was interrupted between the two, gets it the next
time.

Invariant: this module sets cells up and never reads an agency's table.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Final

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.demo.config import SigningKey, keep_password
from chukan.ops.demo.place import Place
from chukan.ops.demo.questions import STOPPED
from chukan.ops.demo.supervisor import in_thread
from chukan.ops.local.postgres import Server
from chukan.replication.primary import Connection
from chukan.tenants import births, directory, migrate
from chukan.tenants.directory import SignedSnapshot, Snapshot
from chukan.tenants.keystore import KeyStores

CELLS: Final = ("east", "west")
DATABASE: Final = "chukan"
_WATCH_S: Final = 1.0
_LOGINS: Final[Mapping[str, str]] = {
    "broker": "chukan_broker",
    "app": "chukan_app",
    "steward": "chukan_steward",
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
        await _all([in_thread(server.init) for server in self._servers.values()])
        await _all([in_thread(server.start) for server in self._servers.values()])

    async def stop(self) -> None:
        """Stop both servers; one that does not run is left alone."""
        await _all([in_thread(server.stop) for server in self._servers.values()])

    async def watch(self) -> None:
        """Wait until a server ends by itself, which none should. Raises ``Problem`` database_failed, naming its log."""
        while True:
            for server in self._servers.values():
                if server.pid is None:
                    raise Problem("database_failed", expected=str(server.log_file))
            await asyncio.sleep(_WATCH_S)

    async def prepare(self) -> None:
        """Make each server's database a cell of this release: schema, roles, passwords."""
        await _all([self._prepare(cell) for cell in CELLS])

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
            await migrate.prepare_cell(admin, cell, passwords)
        finally:
            await admin.close()

    async def populate(self, signed: SignedSnapshot, snapshot: Snapshot) -> None:
        """Bring the agencies into being in their home cells, and the common data into force in every cell."""
        await _all([self._populate(cell, signed, snapshot) for cell in CELLS])

    async def _populate(self, cell: str, signed: SignedSnapshot, snapshot: Snapshot) -> None:
        admin = await self.admin(cell)
        try:
            for agency in snapshot.agencies:
                if agency.cell == cell:
                    await births.birth(admin, agency.number, agency.generation)
            await births.put_snapshot(admin, snapshot.number, signed.body, signed.signature, signed.key)
        finally:
            await admin.close()


async def _all(work: Sequence[Awaitable[None]]) -> None:
    """Do everything at once, wait for all of it whatever happens, then raise the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def common_data(at: dt.datetime, law_number: int) -> Snapshot:
    """Return the demo's common data: agencies, systems, officers, and one kill switch."""
    snapshot = directory.first(at, law_number)
    for agency in cast.agencies():
        snapshot = directory.add_agency(
            snapshot, at, code=agency.code, body=agency.body, name=agency.name, cell=agency.home_centre or ""
        )
    for client in cast.clients():
        snapshot = directory.add_client(snapshot, at, client)
    kind, procedure = STOPPED
    return directory.stop(snapshot, at, kind=kind, procedure=procedure)


def keep_common_data(place: Place, key: SigningKey, clock: Clock, law_number: int) -> tuple[SignedSnapshot, Snapshot]:
    """Return the signed common data that stands in a file, made and signed at the first call.

    When the law's data has changed since, the next number names it.
    """
    body, signature = place.root / "directory.json", place.root / "directory.signature"
    if body.exists() and signature.exists():
        public = key.private.public_key()
        signed = SignedSnapshot(body.read_bytes(), signature.read_bytes(), directory.key_id(public))
        snapshot = directory.verify(signed, public)
        if snapshot.law_number == law_number:
            return signed, snapshot
        snapshot = directory.set_law(snapshot, clock.now(), law_number)
    else:
        snapshot = common_data(clock.now(), law_number)
    signed = directory.sign(snapshot, key.private)
    # Written anew when only one of the two is there: nothing was put into a cell before both were.
    signature.unlink(missing_ok=True)
    body.write_bytes(signed.body)
    signature.write_bytes(signed.signature)
    return signed, snapshot


def make_keys(place: Place, snapshot: Snapshot, chance: Chance) -> None:
    """Make the agencies' keys in both centres' key stores, and have each confirmed by both."""
    stores = KeyStores(place.keystores, chance=chance)
    stores.prepare()
    for agency in snapshot.agencies:
        stores.create(agency.number)
