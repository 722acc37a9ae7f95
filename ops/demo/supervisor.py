"""The demo's processes: started in order, watched, and all gone at the end.

Each process writes to a log file of its own, is a session of its own (Ctrl-C at the terminal reaches the demo alone,
which then stops everything in good order), and is ended by the kernel when the demo is killed (see ``child``).

Invariant: ``stop`` returns with no process left, whatever happened before; a process that is not ready in time is a
``Problem`` that names the log to read. One that ends by itself is started again, as a site's service manager would do.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from chukan.errors import Problem

STOP_TIMEOUT_S: Final = 20.0
RESTARTS_MAX: Final = 20
"""How often processes are started again in one run; whoever kills more than that is not trying things out."""
_KILL_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1
_TRY_TIMEOUT_S: Final = 5.0
_LOG_BYTES_MAX: Final = 10 * 1024 * 1024
_TAIL_BYTES: Final = 8192

T = TypeVar("T")
Ready = Callable[[], Awaitable[bool]]


class _Wanted(NamedTuple):
    """What a process is started with, the first time and again."""

    name: str
    module: str
    arguments: Sequence[str]
    ready: Ready
    timeout_s: float


class _Process(NamedTuple):
    wanted: _Wanted
    process: asyncio.subprocess.Process
    log: Path
    ended: "asyncio.Task[int]"


class Supervisor:
    """Starts processes, starts one that ended by itself again, and stops them all."""

    def __init__(self, log_folder: Path) -> None:
        """Keep logs in ``log_folder``, made when missing, readable by this user only."""
        log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = log_folder
        self._processes: list[_Process] = []
        self._restarts_left = RESTARTS_MAX

    def pids(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {each.wanted.name: each.process.pid for each in self._processes}

    async def start(self, name: str, module: str, arguments: Sequence[str], ready: Ready, timeout_s: float) -> None:
        """Run ``python -m module arguments`` and return when ``ready`` says so.

        Raises ``Problem`` process_failed, naming the log, when it ends before that or is not ready in time.
        """
        await self._start(_Wanted(name, module, arguments, ready, timeout_s))

    async def _start(self, wanted: _Wanted) -> None:
        log = self._folder / f"{wanted.name}.log"
        command = [sys.executable, "-m", "chukan.ops.demo.child", str(os.getpid()), wanted.module, *wanted.arguments]
        descriptor = _open_log(log)
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
            )
        finally:
            os.close(descriptor)
        started = _Process(wanted, process, log, asyncio.create_task(process.wait()))
        self._processes.append(started)
        await self._until_ready(started)

    async def _until_ready(self, started: _Process) -> None:
        deadline = asyncio.get_running_loop().time() + started.wanted.timeout_s
        while asyncio.get_running_loop().time() < deadline:
            if started.ended.done():
                break
            if await _said_yes(started.wanted.ready):
                return
            # Wakes at once when the process ends; there is no event for "now it would answer".
            await asyncio.wait({started.ended}, timeout=_POLL_S)
        raise Problem("process_failed", expected=str(started.log))

    async def watch(self, restarted: Callable[[str], None]) -> None:
        """Start a process that ended by itself again, and tell its name; only ever ends by raising.

        Raises ``Problem`` process_failed, naming the log, when it does not become ready, or too many have ended.
        """
        if not self._processes:
            raise ValueError("there is nothing to watch")
        while True:
            await asyncio.wait({each.ended for each in self._processes}, return_when=asyncio.FIRST_COMPLETED)
            first = next(each for each in self._processes if each.ended.done())
            if self._restarts_left == 0:
                raise Problem("process_failed", expected=str(first.log))
            self._restarts_left -= 1
            self._processes.remove(first)
            restarted(first.wanted.name)
            await self._start(first.wanted)

    async def stop(self) -> None:
        """End all processes at once; those that do not obey in time are killed.

        At once, because a server lets its clients go first, and here its clients are the others.
        """
        for each in reversed(self._processes):
            _send(each.process, signal.SIGTERM)
        for number, timeout_s in ((signal.SIGKILL, STOP_TIMEOUT_S), (signal.SIGKILL, _KILL_TIMEOUT_S)):
            running = {each.ended for each in self._processes if not each.ended.done()}
            if not running:
                break
            await asyncio.wait(running, timeout=timeout_s)
            for each in self._processes:
                if not each.ended.done():
                    _send(each.process, number)
        self._processes.clear()


async def _said_yes(ready: Ready) -> bool:
    try:
        async with asyncio.timeout(_TRY_TIMEOUT_S):
            return await ready()
    except TimeoutError:
        return False


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def _open_log(path: Path) -> int:
    grown = path.exists() and path.stat().st_size > _LOG_BYTES_MAX
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if grown else 0)
    return os.open(path, flags, 0o600)


def tail(path: Path, lines: int = 12) -> str:
    """Return the last lines of a log, or nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


async def guarded(work: Coroutine[Any, Any, T], watch: Coroutine[Any, Any, None]) -> T:
    """Return what ``work`` returns, unless ``watch``, which only ever ends by raising, does so first."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch)
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            # What broke is the reason; that calls fail now is only its consequence.
            watching.result()
        return await working
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def together(work: Sequence[Awaitable[None]]) -> None:
    """Do everything at once, wait for all of it whatever happens, then raise the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; when cancelled, wait for its end first, so that what it started can be stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
