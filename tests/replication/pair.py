"""A primary and its synchronous standby, real PostgreSQL 15 both: what a failover keeps and what it loses.

``cut`` takes the standby away, so that every commit waits; ``fail_over`` kills the primary and promotes the standby,
which then is all that is left. Bytes on their way must not arrive after a "death", so the standby is killed, not
frozen: a frozen one would read them out of its socket when it wakes up.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chukan.ops.local.binaries import find_binaries
from chukan.ops.local.machine import server_identity
from chukan.ops.local.postgres import Server
from chukan.settings import Cell, Member
from chukan.tenants.births import birth
from chukan.tenants.migrate import LOGINS, prepare_cell

DATABASE = "chukan"
AGENCIES = (1, 2)
STANDBY = "second"
PROMOTED_S = 30.0


async def pause(seconds: float) -> None:
    """Let real time pass: other processes, and the machine's clock, are what these tests are about."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


async def until(met: Callable[[], Awaitable[Any]], what: str, timeout_s: float = PROMOTED_S) -> Any:
    """Wait until something is true (asked every few hundredths of a second) and return it."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = await met()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await pause(0.03)


@dataclass
class Template:
    """A stopped server whose database is a prepared cell; every pair is a copy of it."""

    folder: Path
    passwords: dict[str, str] = field(default_factory=lambda: {role: f"password-of-{role}" for role in LOGINS})

    @property
    def data(self) -> Path:
        return self.folder / "template"

    def make(self) -> None:
        server = Server("template", self.data, binaries=find_binaries("debian", only=True))
        server.init()
        server.start()
        try:
            asyncio.run(self._prepare(server))
        finally:
            server.stop()
        for role, password in self.passwords.items():
            (self.folder / role).write_text(password)

    async def _prepare(self, server: Server) -> None:
        admin = await server.admin()
        await admin.execute(f"CREATE DATABASE {DATABASE}")
        await admin.close()
        admin = await server.admin(DATABASE)
        await prepare_cell(admin, "here", self.passwords)
        for agency in AGENCIES:
            await birth(admin, agency)
        # What a careless client writes to: not ours, so that a test can write to it carelessly.
        await admin.execute("CREATE TABLE public.careless (key integer PRIMARY KEY, tries integer NOT NULL DEFAULT 1)")
        await admin.close()


class Pair:
    """``first`` is the primary, ``second`` its standby."""

    def __init__(self, template: Template, folder: Path) -> None:
        self._template = template
        self._folder = folder
        self._binaries = find_binaries("debian", only=True)
        self.first = self._server("first", {"wal_sender_timeout": "0"})
        self.second: Server | None = None
        self.cell = self._cell("")

    def _server(self, name: str, options: dict[str, str]) -> Server:
        return Server(name, self._folder / name, binaries=self._binaries, options=options)

    def _cell(self, host: str, members: list[Member] | None = None) -> Cell:
        return Cell(
            host=host,
            port=Server.port,
            members=members or [],
            database=DATABASE,
            broker_password_file=self._template.folder / "chukan_broker",
            app_password_file=self._template.folder / "chukan_app",
            steward_password_file=self._template.folder / "chukan_steward",
        )

    def members(self, rests: dict[str, str]) -> Cell:
        """The same two servers as members of a cell, each with its REST."""
        hosts = {"first": self.first, STANDBY: self.second}
        return self._cell(
            "",
            [
                Member(name=name, host=hosts[name].socket_dir, port=Server.port, rest=url, centre=centre)
                for (name, url), centre in zip(rests.items(), ("east", "west"), strict=True)
            ],
        )

    async def start(self) -> None:
        await asyncio.to_thread(self._start_first)
        admin = await self.admin()
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (second)'")
        await asyncio.to_thread(self._start_second)
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()
        self.cell = self._cell(self.first.socket_dir)
        await self.settled()

    def _start_first(self) -> None:
        data = self.first.data_dir
        subprocess.run(["/bin/cp", "-a", str(self._template.data), str(data)], check=True, timeout=60)
        shutil.copy(self._template.data.with_name("template.password"), data.with_name("first.password"))
        self.first.start()
        with data.with_name("first.hba").open("a") as hba:
            hba.write("local replication all scram-sha-256\n")
        os.kill(self.first.pid or 0, signal.SIGHUP)

    def _start_second(self) -> None:
        source = self.first
        target = self._folder / STANDBY
        identity = server_identity()
        target.mkdir(mode=0o700)
        if identity:
            shutil.chown(target, identity.uid, identity.gid)
        words = f"host={source.socket_dir} port={source.port} user=postgres application_name={STANDBY}"
        subprocess.run(
            [
                str(self._binaries.bin_dir / "pg_basebackup"),
                "-D",
                str(target),
                "-d",
                words,
                "-X",
                "stream",
                "-c",
                "fast",
            ],
            check=True,
            timeout=120,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
            env={"PGPASSWORD": source.superuser_password, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        standby = target / "standby.signal"
        standby.touch()
        if identity:
            shutil.chown(standby, identity.uid, identity.gid)
        shutil.copy(source.data_dir.with_name("first.password"), target.with_name(f"{STANDBY}.password"))
        whence = f"{words} password={source.superuser_password}"
        self.second = self._server(STANDBY, {"primary_conninfo": whence, "hot_standby": "on"})
        self.second.start()

    def stop(self) -> None:
        for server in (self.second, self.first):
            if server is not None:
                server.kill()

    async def admin(self) -> Any:
        """The superuser on the first server; the caller closes."""
        return await self.first.admin(DATABASE)

    async def heir(self) -> Any:
        """The superuser on the second server; the caller closes."""
        return await self.second.admin(DATABASE)

    @contextlib.asynccontextmanager
    async def careless(self) -> AsyncIterator[Any]:
        """A client's own connection to the primary, with the driver's own ways."""
        connection = await self.admin()
        try:
            yield connection
        finally:
            connection.terminate()

    # ---------------------------------------------------------------- what happens to it

    async def settled(self) -> None:
        """Wait until commits wait for the standby and the standby has all there is."""
        admin = await self.admin()
        await until(
            lambda: admin.fetchval(
                "SELECT flush_lsn >= pg_current_wal_flush_lsn() AND sync_state = 'sync' FROM pg_stat_replication"
            ),
            "a synchronous standby",
        )
        await admin.close()

    async def cut(self) -> None:
        """Take the standby away: from now on every commit of the primary waits."""
        await self.settled()
        await asyncio.to_thread(self.second.kill)
        admin = await self.admin()
        await until(lambda: admin.fetchval("SELECT count(*) = 0 FROM pg_stat_replication"), "the standby is gone")
        await admin.close()

    async def mend(self) -> None:
        """Bring the standby back; what waited is released."""
        await asyncio.to_thread(self.second.start)
        await self.settled()

    async def fail_over(self) -> Any:
        """Kill the primary for good and promote the standby; return the superuser's connection to it."""
        await asyncio.to_thread(self.first.kill)
        if self.second.pid is None:
            await asyncio.to_thread(self.second.start)
        heir = await self.heir()
        await heir.fetchval("SELECT pg_promote(true, 60)")
        await heir.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await heir.execute("SELECT pg_reload_conf()")
        return heir

    async def waiting(self) -> int:
        """How many sessions of the primary wait for the standby now."""
        admin = await self.admin()
        count = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        await admin.close()
        return int(count)


async def absent(heir: Any, keys: list[int]) -> list[int]:
    """Which keys of the careless table are not there."""
    rows = await heir.fetch("SELECT key FROM public.careless")
    return sorted(set(keys) - {row["key"] for row in rows})
