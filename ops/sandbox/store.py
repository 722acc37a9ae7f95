"""A durable store for one simulated neighbour: one SQLite file, one writer thread, group commit.

Every write job runs in the writer's thread inside a savepoint of the transaction that all waiting jobs share; its
caller gets the result only after the commit is on disk (WAL, ``synchronous = FULL``). Jobs run one after the other, so
a job that reads and then decides cannot be overtaken. Reads have a thread and a connection of their own and never wait
for a write.

Invariants: a job that fails undoes itself alone; a commit that fails fails every job in it; no more than
``WAITING_MAX`` jobs wait (``busy`` beyond). This store must never hold anything of the platform's: it is another
party's memory.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from chukan.errors import Problem

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

WAITING_MAX: Final = 1024
GROUP_MAX: Final = 64
_BUSY_S: Final = 30.0
_CLOSE_S: Final = 30.0


class _Waiting:
    """A job on its way: what to run, and the future of whoever waits for it."""

    def __init__(self, job: Job[Any]) -> None:
        self.job = job
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Hand over the result in the event loop; a caller that has gone away wants none."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Hand(threading.Thread):
    """One thread with one connection that works off a bounded queue."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.jobs: queue.Queue[_Waiting | None] = queue.Queue(WAITING_MAX + 1)
        self.closed = False
        self._path = path
        self.start()

    async def do(self, job: Job[T]) -> T:
        if self.closed or self.jobs.qsize() >= WAITING_MAX or not self.is_alive():
            raise Problem("busy", retry_after_s=1)
        waiting = _Waiting(job)
        self.jobs.put_nowait(waiting)
        result: T = await waiting.future
        return result

    def run(self) -> None:
        connection = connect(self._path)
        try:
            while (group := self._take()) is not None:
                self._work(connection, group)
                for waiting in group:
                    # A loop that was closed meanwhile has nobody left who could wait.
                    with suppress(RuntimeError):
                        waiting.loop.call_soon_threadsafe(waiting.settle)
        finally:
            connection.close()

    def _take(self) -> list[_Waiting] | None:
        """Return what is waiting, at least one; None when told to end (jobs queued before that are done first)."""
        first = self.jobs.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                following = self.jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self.jobs.put_nowait(None)
                break
            group.append(following)
        return group

    def _work(self, connection: sqlite3.Connection, group: list[_Waiting]) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        with suppress(queue.Full):
            self.jobs.put_nowait(None)
        self.join(_CLOSE_S)


class _Writer(_Hand):
    def _work(self, connection: sqlite3.Connection, group: list[_Waiting]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for waiting in group:
                connection.execute("SAVEPOINT job")
                if not _attempt(connection, waiting):
                    connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for waiting in group:
                waiting.error = error


class _Reader(_Hand):
    def _work(self, connection: sqlite3.Connection, group: list[_Waiting]) -> None:
        for waiting in group:
            _attempt(connection, waiting)


def _attempt(connection: sqlite3.Connection, waiting: _Waiting) -> bool:
    """Run one job; its caller gets what it raises, and the others of the group go on."""
    try:
        waiting.result = waiting.job(connection)
    except Exception as error:  # noqa: BLE001 - the boundary of a job
        waiting.error = error
        return False
    return True


def connect(path: Path) -> sqlite3.Connection:
    """Open the file with durable commits; the caller owns the connection."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, cached_statements=256)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


class Store:
    """One file with its schema; ``write`` and ``read`` may be called from any task of one event loop."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open or create the file. ``schema`` is made of CREATE … IF NOT EXISTS statements."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with_schema = connect(path)
        with_schema.executescript(schema)
        with_schema.close()
        self._writer = _Writer(path, "store-writer")
        self._reader = _Reader(path, "store-reader")

    async def write(self, job: Job[T]) -> T:
        """Run a job in the shared transaction and return its result once that is durable.

        Raises:
            Problem: ``busy`` when too many jobs wait.
            sqlite3.Error: the commit failed; nothing of the job remains.
        """
        return await self._writer.do(job)

    async def read(self, job: Job[T]) -> T:
        """Run a job that only reads, on committed data. Raises ``Problem`` busy."""
        return await self._reader.do(job)

    async def close(self) -> None:
        """Finish what was asked, then close; whoever asks from now on is told that it is busy."""
        self._writer.closed = self._reader.closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.stop()
        self._reader.stop()
