"""A small platform of real processes that can be killed one by one and started again as they were.

It is the demo's own bring-up (two PostgreSQL servers, two exchanges, the sandbox network, the national counterparts)
in folders and on ports of its own, with a few hundred people. Everything keeps its address over a restart: a database's
socket folder is fresh at every start, so exchanges are told the name of a link that follows it.

Invariant: ``stop`` leaves no process and no folder.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from unittest import mock

from chukan.chance import Chance, SystemChance
from chukan.clock import SystemClock, today_jst
from chukan.ops.demo import bring_up
from chukan.ops.demo.bring_up import EXCHANGES, Running
from chukan.ops.demo.databases import CELLS, Databases
from chukan.ops.demo.lodging import Lodging
from chukan.ops.demo.place import Place, choose_ports
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.supervisor import Ready, Supervisor, in_thread
from chukan.ops.demo.systems import Systems, connect
from chukan.platform.law import Law

PEOPLE: Final = 300
SEED: Final = 7
DATABASES: Final = {f"database-{cell}": cell for cell in CELLS}
"""The databases by the names under which they are killed."""
VICTIMS: Final = (*EXCHANGES, *DATABASES, "network")
KEEP_VARIABLE: Final = "CHUKAN_CRASH_KEEP"
"""Set it to keep the town's folder, with its logs, after the tests."""
NOTICE: Final = {"CHUKAN__EXCHANGE__DRAIN_NOTICE_S": "3"}
"""As long as at a real site: clients look for it, and the demo's is short."""
END_TIMEOUT_S: Final = 60.0
LOOK_S: Final = 0.1
_PORTS_FROM, _PORTS_SPREAD = 20_000, 11_000


class _Words(NamedTuple):
    """How a process was started, so that it can be started again."""

    module: str
    arguments: Sequence[str]
    ready: Ready
    timeout_s: float


class Processes(Supervisor):
    """A supervisor with the demo's interface, which ends a process by name and starts it again with the same words."""

    def __init__(self, log_folder: Path) -> None:
        super().__init__(log_folder)
        self._logs = log_folder
        self._words: dict[str, _Words] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}

    def pids(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {name: process.pid for name, process in self._running.items()}

    async def start(self, name: str, module: str, arguments: Sequence[str], ready: Ready, timeout_s: float) -> None:
        """Remember how, start, and return when it is ready."""
        self._words[name] = _Words(module, arguments, ready, timeout_s)
        await self.again(name)

    async def again(self, name: str) -> None:
        """Start what was ended, and return when it is ready."""
        assert name not in self._running
        words = self._words[name]
        command = [sys.executable, "-m", "chukan.ops.demo.child", str(os.getpid()), words.module, *words.arguments]
        with (self._logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(name),
                start_new_session=True,
            )
        self._running[name] = process
        async with asyncio.timeout(words.timeout_s):
            while not await words.ready():
                assert process.returncode is None, f"{name} ended before it was ready"
                await wait(LOOK_S)

    def environment(self, name: str) -> Mapping[str, str]:
        """Return the environment of a process."""
        return os.environ

    async def end(self, name: str, how: signal.Signals) -> int:
        """Send a signal that ends the process; return its exit status once it is gone."""
        process = self._running.pop(name)
        process.send_signal(how)
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise

    async def stop(self) -> None:
        """End everything at once: what a crash test leaves behind is thrown away."""
        for name in list(self._running):
            await self.end(name, signal.SIGKILL)


async def wait(seconds: float) -> None:
    """Look again after a while: another process cannot set an event of ours."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()


class LinkedDatabases(Databases):
    """The demo's databases under names that stay: a link to the socket folder of each server's last start."""

    def __init__(self, place: Place, chance: Chance, links: Path) -> None:
        super().__init__(place, chance)
        self._links = links

    def sockets(self) -> dict[str, tuple[str, int]]:
        """Return the links, and set them."""
        for cell in self._servers:
            self._link(cell)
        return {cell: (str(self._links / cell), server.port) for cell, server in self._servers.items()}

    def _link(self, cell: str) -> None:
        aside = self._links / f".{cell}"
        aside.symlink_to(self._servers[cell].socket_dir)
        aside.rename(self._links / cell)

    def kill(self, cell: str) -> None:
        """Kill the postmaster and its children."""
        self._servers[cell].kill()

    def again(self, cell: str) -> None:
        """Start on the same data; returns when it takes connections."""
        self._servers[cell].start()
        self._link(cell)


class Town(Running):
    """The platform and its surroundings. ``start`` it, then kill what you like."""

    supervisor: Processes
    databases: LinkedDatabases

    def __init__(self, root: Path, screen: Screen) -> None:
        place = Place(root / "demo", root / "databases")
        super().__init__(place, screen, Population(PEOPLE, SEED, today_jst(SystemClock())), Law.load())
        self.root = root
        links = root / "links"
        links.mkdir()
        self.supervisor = Processes(place.log)
        self.databases = LinkedDatabases(place, SystemChance(SystemClock()), links)
        self.systems: Systems

    def choose_ports(self) -> Mapping[str, int]:
        """Begin where no other test run is likely to look for ports at this moment."""
        return choose_ports(bring_up.PORTS, first=_PORTS_FROM + os.getpid() * 31 % _PORTS_SPREAD)

    async def kill(self, name: str) -> None:
        """End a process or a database with SIGKILL; returns when it is gone."""
        if name in DATABASES:
            await in_thread(lambda: self.databases.kill(DATABASES[name]))
        else:
            assert await self.supervisor.end(name, signal.SIGKILL) == -signal.SIGKILL

    async def again(self, name: str) -> None:
        """Start what was ended, on the same data and at the same address; returns when it is ready."""
        if name in DATABASES:
            await in_thread(lambda: self.databases.again(DATABASES[name]))
        else:
            await self.supervisor.again(name)

    async def end(self, name: str) -> int:
        """End an exchange in good order (SIGTERM); return its exit status."""
        return await self.supervisor.end(name, signal.SIGTERM)

    def freeze(self, name: str) -> None:
        """Stop a process where it stands."""
        os.kill(self.supervisor.pids()[name], signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        os.kill(self.supervisor.pids()[name], signal.SIGCONT)

    async def holders(self) -> set[str]:
        """Return the exchanges that hold a lease in any cell at this moment."""
        owners: set[str] = set()
        for cell in CELLS:
            admin = await self.databases.admin(cell)
            rows = await admin.fetch("SELECT DISTINCT owner FROM chukan.leases WHERE until > now()")
            await admin.close()
            owners |= {str(row[0]).rsplit("-", 1)[0] for row in rows}
        return owners

    async def held_by(self, name: str) -> None:
        """Wait until one exchange alone holds all leases."""
        async with asyncio.timeout(END_TIMEOUT_S):
            while await self.holders() != {name}:
                await wait(LOOK_S)


@contextlib.asynccontextmanager
async def bare_town() -> AsyncIterator[Town]:
    """Build a town in which nothing is lodged yet, and take it down."""
    root = _short_root()
    screen = Screen(for_program=True)
    screen.console.quiet = True
    built = Town(root, screen)
    try:
        with mock.patch.dict(os.environ, NOTICE):
            await built.start()
            async with connect(built) as built.systems:
                yield built
    finally:
        await built.stop()
        if not os.environ.get(KEEP_VARIABLE):
            shutil.rmtree(root, ignore_errors=True)


@contextlib.asynccontextmanager
async def town() -> AsyncIterator[Town]:
    """Build a town in which copies are lodged and linkage codes acquired, and take it down."""
    async with bare_town() as built:
        lodging = Lodging(built, built.systems)
        await lodging.lodge(lambda _: None)
        await lodging.acquire(lambda _: None)
        yield built


def _short_root() -> Path:
    """Make a folder that the database's user may pass; a socket's path has a limit of 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="chk-crash-", dir="/tmp"))
    root.chmod(0o755)
    return root
