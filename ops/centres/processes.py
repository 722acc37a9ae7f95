"""The lab's processes by name: started where they stand, killed, frozen, started again when they ended by themselves.

A process that is killed on purpose stays down until somebody starts it; one that ends unasked is started again after a
second, as a site's service manager would. A postmaster is no child of the lab but of its Patroni: it is found by its
data directory, and its children are counted with it.

Invariant: whatever way the lab ends, nothing is left. Children die with it (``child``); the postmasters are ended by a
keeper, which waits on a pipe that closes when the lab is gone, and by the next start.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from chukan import log
from chukan.errors import Problem
from chukan.ops.centres import child
from chukan.ops.local.machine import Identity
from chukan.ops.local.processes import kill_tree, wait_gone

RESTARTS_MAX: Final = 50
"""How often processes that ended by themselves are started again in one run."""
_RESTART_S: Final = 1.0
_LOG_BYTES_MAX: Final = 10 * 1024 * 1024
_GONE_TIMEOUT_S: Final = 20.0
_PYTHON: Final = os.path.realpath(sys.executable)
_CHILD: Final = Path(child.__file__)

_log = log.get("ops.centres")


class Command(NamedTuple):
    """What a process is started with; ``site`` is where it stands."""

    name: str
    site: str
    namespace: str
    identity: Identity | None
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path


class _Running(NamedTuple):
    process: asyncio.subprocess.Process
    watch: "asyncio.Task[None]"


class Processes:
    """Starts, ends and finds the lab's processes."""

    def __init__(self, data: Mapping[str, Path]) -> None:
        """``data`` are the data directories of the nodes."""
        self._data = dict(data)
        self._commands: dict[str, Command] = {}
        self._running: dict[str, _Running] = {}
        self._restarts_left = RESTARTS_MAX

    def know(self, command: Command) -> None:
        """Take a process that may be started; in place of the one of its name."""
        self._commands[command.name] = command

    def names(self, site: str | None = None) -> list[str]:
        """Return the known processes, of one site if given, without postmasters."""
        return [name for name, command in self._commands.items() if site is None or command.site == site]

    def log_of(self, name: str) -> Path:
        """Return the log of a process; a postmaster writes into that of its Patroni."""
        return self._commands[name.replace("postgres-", "patroni-", 1)].log

    def site_of(self, name: str) -> str:
        """Return where a process stands. Raises ``Problem`` not_found."""
        command = self._commands.get(name.replace("postgres-", "patroni-", 1))
        if command is None:
            raise Problem("not_found", expected=f"one of {', '.join(self._commands)}")
        return command.site

    # ------------------------------------------------------------ finding

    def pids(self) -> dict[str, int]:
        """Return the process ids of all that run now, postmasters among them."""
        found = {
            name: running.process.pid for name, running in self._running.items() if running.process.returncode is None
        }
        for node, folder in self._data.items():
            pid = postmaster(folder)
            if pid is not None:
                found[f"postgres-{node}"] = pid
        return found

    def _pid(self, name: str) -> int:
        self.site_of(name)
        pid = self.pids().get(name)
        if pid is None:
            raise Problem("not_found", expected=f"{name} to be running")
        return pid

    # ------------------------------------------------------------ starting

    async def start(self, name: str) -> None:
        """Start a process unless it runs; it is kept running from now on."""
        self.site_of(name)
        if name in self._running and self._running[name].process.returncode is None:
            return
        command = self._commands[name]
        identity = command.identity
        who = ("", "") if identity is None else (str(identity.uid), str(identity.gid))
        argv = [_PYTHON, "-I", "-S", str(_CHILD), str(os.getpid()), command.namespace, *who, *command.argv]
        descriptor = _open_log(command.log)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=dict(command.environment),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        watch = asyncio.create_task(self._again(name, process), name=f"watch {name}")
        self._running[name] = _Running(process, watch)

    async def _again(self, name: str, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        _log.warning("a process of the lab ended by itself", peer=name, status=status)
        if self._restarts_left > 0:
            self._restarts_left -= 1
            await asyncio.sleep(_RESTART_S)
            self._running.pop(name, None)
            await self.start(name)

    # ------------------------------------------------------------ ending

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal; to a postmaster's children too. Raises ``Problem`` not_found."""
        for pid in self._family(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _family(self, name: str) -> list[int]:
        pid = self._pid(name)
        return [pid, *children(pid)] if name.startswith("postgres-") else [pid]

    async def kill(self, names: Sequence[str]) -> None:
        """Kill processes at the same moment, and keep them down; those that do not run are left alone."""
        # The ids first: once a parent is gone, nobody tells whose its children were.
        pids = self.pids()
        doomed = {name: pids[name] for name in names if name in pids}
        families = {name: [pid, *children(pid)] for name, pid in doomed.items()}
        self._give_up(names)
        for family in families.values():
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await self._gone(doomed)

    async def stop(self, names: Sequence[str], timeout_s: float) -> None:
        """End processes in good order at the same time; those that do not obey in time are killed."""
        pids = self.pids()
        doomed = {name: pids[name] for name in names if name in pids}
        self._give_up(names)
        for name, pid in doomed.items():
            # One that was frozen hears nothing until it goes on.
            with suppress(Problem):
                self.send(name, signal.SIGCONT)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if name.startswith("postgres-") else signal.SIGTERM)
        await asyncio.gather(*(asyncio.to_thread(wait_gone_or_zombie, pid, timeout_s) for pid in doomed.values()))
        await self.kill([name for name in doomed if name in self.pids()])
        await self._gone(doomed)

    def _give_up(self, names: Sequence[str]) -> None:
        for name in names:
            if (running := self._running.get(name)) is not None:
                running.watch.cancel()

    async def _gone(self, pids: Mapping[str, int]) -> None:
        for name, pid in pids.items():
            running = self._running.pop(name, None)
            if running is not None:
                async with asyncio.timeout(_GONE_TIMEOUT_S):
                    await running.process.wait()
            else:
                await asyncio.to_thread(wait_gone, pid, _GONE_TIMEOUT_S)


def wait_gone_or_zombie(pid: int, timeout_s: float) -> None:
    """Wait until a process has ended; its descriptor tells that also of one whose status nobody has read yet."""
    wait_gone(pid, timeout_s)


def children(pid: int) -> list[int]:
    """Return a process's children."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def postmaster(data: Path) -> int | None:
    """Return the id of the postmaster that runs on a data directory, None when none does."""
    try:
        with (data / "postmaster.pid").open(encoding="ascii") as file:
            pid = int(file.readline())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    return pid if os.fsencode(data) in words and state != "Z" else None


def sweep(roots: Sequence[Path]) -> None:
    """Kill every postmaster on a data directory below ``roots``: what an earlier start left behind."""
    for root in roots:
        with suppress(OSError):
            for data in root.glob("data/*"):
                pid = postmaster(data)
                if pid is not None:
                    kill_tree(pid)


def _open_log(path: Path) -> int:
    grown = path.exists() and path.stat().st_size > _LOG_BYTES_MAX
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if grown else 0)
    return os.open(path, flags, 0o600)
