"""A running world whose databases can be had as of a moment: a second server on a base backup that was taken then."""

import datetime as dt
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chukan.clock import SystemClock
from chukan.ops.agency_restore import Administration, Wish, restore_agency
from chukan.ops.certificates import Issued, read_certificates, read_identity
from chukan.ops.installation import Installation
from chukan.ops.local.binaries import find_binaries
from chukan.ops.local.machine import server_identity
from chukan.ops.local.postgres import Server
from chukan.ops.quiet_server import entered, quiet_server
from chukan.tenants import directory, orders, table_copy
from chukan.tenants.agency_restore import Restored, Restorer
from chukan.tenants.directory import ClientRow
from chukan.tenants.orders import Target
from chukan.tests.support.nation import ASKS, GIVES, LAW, World, running

EAST = "east"
_NOT_COPIED = shutil.ignore_patterns("postmaster.pid", "pg_wal", "pg_replslot", "pg_stat_tmp")


def passable(within: Path | None = None) -> Path:
    """Make a folder that the server's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="chukan-test-", dir=within))
    folder.chmod(0o755)
    return folder


class Moment(NamedTuple):
    """The databases as they were: the folder of a base backup."""

    at: dt.datetime
    data: Path

    def target(self, cell: str = EAST) -> Target:
        return Target(cell, self.at)


class Town:
    """The world, its operator, and the officers of the agencies that ask and give in the east."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        (folder / "admin").write_text(world.server.superuser_password)
        self.admin = Administration("postgres", folder / "admin")
        self.told: list[str] = []
        self._moments = 0

    async def register_officers(self) -> None:
        for code in (ASKS, GIVES):
            for n in (1, 2):
                row = ClientRow(
                    id=f"head-{code[4:10]}-{n}", body=code[4:10], kind="officer", name="職員", agencies=[code],
                    functions=["order"],
                )  # fmt: skip
                self.world.snapshot = directory.add_client(self.world.snapshot, self.world.clock.now(), row)
                self.world.authority.issue_client(row.id)
        await self.world.publish()

    @property
    def installation(self) -> Installation:
        site = self.world.sites["east"]
        return Installation(
            site.settings, cells=site.cells, keystores=self.world.keystores, law=LAW,
            public=self.world.signing["directory"][2].public_key(), key=self.world.signing["directory"][2],
            clock=self.world.clock, chance=self.world.chance,
        )  # fmt: skip

    def restorer(self) -> Restorer:
        @asynccontextmanager
        async def admins(cell: str) -> AsyncIterator[Any]:
            admin = await self.world.admin(self.world.databases[cell])
            try:
                yield admin
            finally:
                admin.terminate()

        made = self.installation
        return Restorer(made.cells, made.publisher, admins, made.keystores)

    # ------------------------------------------------------------ orders

    def order(self, target: Target | None, code: str = GIVES, **changes: Any) -> orders.SignedOrder:
        members: dict[str, Any] = {
            "order": self.world.chance.uuid7(), "action": "restore", "agency": code, "reason": "誤った登録のため",
            "at": SystemClock().now() + dt.timedelta(seconds=1), "life": dt.timedelta(days=3), "target": target,
        }  # fmt: skip
        document = orders.prepare(**{**members, **changes})
        for n in (1, 2):
            folder = self.world.authority.folder / "clients" / f"head-{code[4:10]}-{n}"
            card = read_identity(Issued(folder / "certificate.pem", folder / "key.pem"))
            document = orders.sign(document, read_certificates(folder / "certificate.pem"), card.key)
        return document

    def approved(self, target: Target, code: str = GIVES, **changes: Any) -> orders.Approved:
        return orders.demand(
            self.order(target, code, **changes), action="restore", agency=self.world.agency(code),
            directory=directory.Directory(self.world.snapshot), at=self.world.clock.now(), target=target,
            trusted=read_certificates(self.world.authority.trusted),
        )  # fmt: skip

    # ------------------------------------------------------------ moments

    async def moment(self) -> Moment:
        """Take a base backup, as of now."""
        self._moments += 1
        data = passable(self.folder) / "data"
        server = self.world.server
        admin = await server.admin()
        try:
            await admin.execute("SELECT pg_backup_start('moment', true)")
            shutil.copytree(server.data_dir, data, ignore=_NOT_COPIED, copy_function=shutil.copy)
            label = await admin.fetchval("SELECT labelfile FROM pg_backup_stop(false)")
            (data / "backup_label").write_text(label)
            shutil.copytree(server.data_dir / "pg_wal", data / "pg_wal", copy_function=shutil.copy)
            (data / "pg_replslot").mkdir()
            at = await admin.fetchval("SELECT clock_timestamp()")
        finally:
            await admin.close()
        identity = server_identity()
        for path in (data, *data.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
            if identity is not None:
                shutil.chown(path, identity.uid, identity.gid)
        return Moment(at, data)

    @asynccontextmanager
    async def then(self, moment: Moment, cell: str = EAST) -> AsyncIterator[Any]:
        """Lend an administrator's connection to a cell as of the moment."""
        with quiet_server(moment.data, self.world.server.bin_dir, server_identity(), "postgres") as server:
            async with entered(server, self.world.databases[cell], "postgres") as connection:
                yield connection

    async def restore(self, moment: Moment, code: str = GIVES, **changes: Any) -> Restored:
        """Restore as the command does."""
        target = moment.target(changes.pop("cell", EAST))
        document = changes.pop("document") if "document" in changes else self.order(target, code)
        wish = Wish(code, target, document, **{"confirmed": True, **changes})
        done = await restore_agency(
            self.installation, wish, self.admin, lambda: self.then(moment, target.cell), self.told.append
        )
        await self.follow()
        return done

    async def follow(self) -> None:
        """Have the tests' own picture of the common data follow what was published, and the exchanges too."""
        for site in self.world.sites.values():
            await site.exchange.common.refresh()
        self.world.snapshot = self.world.east.directory.snapshot

    # ------------------------------------------------------------ looking

    async def fetch(self, sql: str, *values: object, cell: str = EAST) -> list[Any]:
        admin = await self.world.admin(self.world.databases[cell])
        try:
            return await admin.fetch(sql, *values)
        finally:
            await admin.close()

    def schema(self, code: str = GIVES) -> str:
        return f"a{self.world.agency(code).number:05d}"

    async def digests(self, code: str) -> dict[str, bytes]:
        """What every table of an agency holds, wherever it lives."""
        agency = self.world.agency(code)
        admin = await self.world.admin(self.world.databases[agency.cell])
        try:
            found = {}
            for table in await table_copy.tables_of(admin, self.schema(code)):
                sent = await table_copy.digest(admin, self.schema(code), table)
                found[table.name] = hashlib.sha256(sent.sha256).digest()
            return found
        finally:
            await admin.close()

    async def state(self, code: str = GIVES, cell: str = EAST) -> tuple[int, str] | None:
        number = self.world.agency(code).number
        rows = await self.fetch("SELECT generation, state FROM chukan.agencies WHERE agency = $1", number, cell=cell)
        return (rows[0]["generation"], rows[0]["state"]) if rows else None

    async def asked(self, addressee: str, asks: str = ASKS, gives: str = GIVES) -> str:
        """Ask about somebody and return how it ended."""
        batch = await self.world.answered(asks, await self.world.ask(asks, [self.world.line(addressee, gives)]))
        (line,) = batch.lines
        return str(line.outcome)


@pytest.fixture(scope="session")
def own_server() -> Iterator[Server]:
    """A server with nothing else on it, so that a base backup is small."""
    folder = passable()
    server = Server("own", folder / "own", binaries=find_binaries("embedded", only=True))
    try:
        server.init()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def town(own_server: Server, tmp_path: Path) -> AsyncIterator[Town]:
    place = passable()
    try:
        async with running(own_server, tmp_path) as world:
            made = Town(world, place)
            await made.register_officers()
            yield made
    finally:
        shutil.rmtree(place, ignore_errors=True)
