"""The doors to one cell (セル): pools of checked connections to its leader of the moment, behind names that stay.

A ``Door`` is what a caller keeps; behind it stands a pool to the present leader. When the leader changes, the old pools
are terminated, what was in flight on them ends with an error (its callers find out by a repeat), and who only waits for
a connection waits for one to the new leader. Before a new leader is used, ``chukan.resume()`` has voided the grants of
the timeline before.

While there is no leader a caller waits a moment, and past that gets ``no_primary`` at once: the moment is counted from
the loss of the leader and not from the call, so that a cell that stays away holds up nobody and takes no place from
callers of the other cell.

Invariant: every connection is checked before its first use (``inspect``): it writes, its commits wait for what the cell
promises, its plans are not generic, no door in pg_catalog stands open, it is of this environment, and it is the very
(system identifier, timeline) that was found to lead.
"""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import asyncpg.pool

from chukan import log
from chukan.errors import Problem
from chukan.replication.driver import DRIVER_ERRORS, Connection, Proxy, bounded, is_gone, is_unreachable, translate
from chukan.replication.inspection import inspect
from chukan.replication.leader import Leader
from chukan.settings import Cell, Environment

if TYPE_CHECKING:
    RawPool: TypeAlias = asyncpg.Pool[Any]
else:
    RawPool = asyncpg.Pool

CONNECT_TIMEOUT_S: Final = 10.0
MEMBER_CONNECT_TIMEOUT_S: Final = 3.0
"""A member that takes longer is not reachable from here: a black hole answers nothing for ever."""
NO_LEADER_WAIT_S: Final = 5.0
"""How long after the loss of a leader callers still wait for the next one: a planned switchover takes about that."""
RESUME_TIMEOUT_S: Final = 600.0
"""A first commit on a new leader waits until its standbys have found it. It is not given up early: each one given up
leaves a session on the server that waits on, and the finder ends it when the leader is another or dead."""
RESUME_AGAIN_S: Final = 0.5

_AGAIN_S: Final = 0.1
_IDLE_MAX_S: Final = 300.0
_STATEMENTS_MAX: Final = 50_000
_LENT_MAX: Final = 10_000
_WATCHER_CONNECTIONS: Final = 1
_LINKS_CONNECTIONS: Final = 2

_log = log.get("primary")


@dataclass(frozen=True, slots=True)
class Target:
    """Whereto, and as whom it presents itself: a leader to which it must lead, or a server of its own (None)."""

    host: str
    port: int
    leader: Leader | None
    context: ssl.SSLContext | None

    def arguments(self, cell: Cell, user: str) -> dict[str, Any]:
        """Return the driver's arguments for one login."""
        return {
            "host": self.host,
            "port": self.port,
            "database": cell.database,
            "user": user,
            "timeout": CONNECT_TIMEOUT_S if self.leader is None else MEMBER_CONNECT_TIMEOUT_S,
            "target_session_attrs": "read-write",
            "server_settings": {"application_name": user},
            **({} if self.context is None else {"ssl": self.context}),
        }


@dataclass(frozen=True, slots=True)
class _Pools:
    """The pools to one leader, by the name of their door."""

    target: Target
    pools: dict[str, RawPool]

    def of(self, door: str) -> RawPool:
        if door not in self.pools:
            raise Problem("setting_missing", expected=f"the password file of the login for {door}")
        return self.pools[door]

    def terminate(self) -> None:
        for pool in self.pools.values():
            with contextlib.suppress(asyncpg.InterfaceError):  # a pool that was never opened has nothing to drop
                pool.terminate()


class CellDoors:
    """All doors to one cell. ``lead`` gives them a leader, ``None`` takes it away; ``trouble`` hears of broken ones."""

    def __init__(self, name: str, cell: Cell, environment: Environment, trouble: Callable[[], None]) -> None:
        self.name = name
        self.cell = cell
        self._environment = environment
        self._trouble = trouble
        self._pools: _Pools | None = None
        self._changed = asyncio.Event()
        self._waited_from = 0.0
        self._broken_since: float | None = None
        self._waiting: set[asyncio.Timeout] = set()
        self._attached: set[Connection] = set()
        self._opening: asyncio.Task[None] | None = None
        self.broker, self.app, self.canary, self.links = (
            Door(self, name) for name in ("broker", "app", "canary", "links")
        )

    @property
    def watcher(self) -> str:
        """The login by which to look for a leader and to listen: the broker's, a gateway's where there is no broker."""
        return "chukan_broker" if self.cell.broker_password_file is not None else "chukan_links"

    @property
    def target(self) -> Target | None:
        """The leader that the doors lead to now."""
        return None if self._pools is None else self._pools.target

    # ---------------------------------------------------------------- who leads

    def expect(self) -> None:
        """Begin to wait for a leader: callers wait a moment for it from now on."""
        self._waited_from = asyncio.get_running_loop().time()

    def lead(self, target: Target | None) -> None:
        """Lead to another server from now on, or to none; must be called in the running loop."""
        old, self._pools = self._pools, None
        if self._opening is not None:
            self._opening.cancel()
        if old is not None:
            self.expect()
            old.terminate()
            for connection in list(self._attached):
                connection.terminate()
            self._interrupt()
        if target is not None:
            self.expect()
            self._opening = asyncio.create_task(self._open(target), name=f"open {self.name}")

    async def lead_alone(self, target: Target) -> None:
        """Lead to the one server of a cell without members; nothing is connected, nobody else can lead."""
        self._put(await self._make(target))

    async def close(self) -> None:
        """Drop all connections; what was in flight on them is found out by a repeat."""
        opening = self._opening
        self.lead(None)
        if opening is not None:
            await asyncio.wait({opening})

    async def _open(self, target: Target) -> None:
        """Make the pools to a new leader usable once grants of the past are void, however often that takes."""
        pools = await self._make(target)
        try:
            # A gateway's process has no grant that a new leader must void before it works.
            while "canary" in pools.pools:
                try:
                    await self._resume(pools.pools["canary"])
                    break
                except (*DRIVER_ERRORS, Problem) as error:
                    _log.warning("a new leader does not commit yet", cell=self.name, exc_info=error)
                    self._trouble()
                    await asyncio.sleep(RESUME_AGAIN_S)
        except BaseException:
            pools.terminate()
            raise
        self._put(pools)

    async def _resume(self, pool: RawPool) -> None:
        async with pool.acquire(timeout=2 * MEMBER_CONNECT_TIMEOUT_S) as connection:
            first = await bounded(connection, connection.fetchval("SELECT chukan.resume()"), RESUME_TIMEOUT_S)
        _log.warning("work resumes on a leader", cell=self.name, outcome="epochs raised" if first else "known")

    async def _make(self, target: Target) -> _Pools:
        pools: dict[str, RawPool] = {}
        if self.cell.broker_password_file is not None:
            pools["broker"] = self._pool(target, "chukan_broker", self.cell.broker_connections, _nothing)
            # What is busy must not look dead: whoever watches has a connection of its own.
            pools["canary"] = self._pool(target, "chukan_broker", _WATCHER_CONNECTIONS, _nothing)
        if self.cell.app_password_file is not None:
            pools["app"] = self._pool(target, "chukan_app", self.cell.app_connections, _reset)
        if self.cell.links_password_file is not None:
            pools["links"] = self._pool(target, "chukan_links", _LINKS_CONNECTIONS, _nothing)
        for pool in pools.values():
            await pool
        return _Pools(target, pools)

    def _pool(self, target: Target, user: str, size: int, reset: Any) -> RawPool:  # noqa: ANN401 - asyncpg's own type
        return asyncpg.create_pool(
            **target.arguments(self.cell, user),
            password=functools.partial(password, self.cell, user),
            min_size=0,
            max_size=size,
            max_queries=_STATEMENTS_MAX,  # a backend grows by every leaf that it touches; a new one starts small
            max_inactive_connection_lifetime=_IDLE_MAX_S,
            init=functools.partial(
                inspect, environment=self._environment, leader=target.leader, epoch=self.cell.restore_epoch
            ),
            reset=reset,
        )

    def _put(self, pools: _Pools) -> None:
        self._pools = pools
        self._changed.set()
        self._changed = asyncio.Event()

    def _interrupt(self) -> None:
        """Let everybody who waits for a connection to the former leader look again."""
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            with contextlib.suppress(RuntimeError):  # one whose time is just over looks again by itself
                scope.reschedule(now)

    # ---------------------------------------------------------------- connections

    async def present(self, timeout_s: float) -> Target:
        """Return whereto the doors lead; waits a moment where that is nowhere. Raises ``Problem`` no_primary."""
        return (await self._present(timeout_s)).target

    async def _present(self, timeout_s: float) -> _Pools:
        loop = asyncio.get_running_loop()
        until = min(loop.time() + timeout_s, self._waited_from + NO_LEADER_WAIT_S)
        while self._pools is None:
            if loop.time() >= until:
                raise Problem("no_primary", retry_after_s=1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
        return self._pools

    async def lend(self, door: str, timeout_s: float) -> tuple[Proxy, RawPool]:
        """Return a checked connection and the pool that it belongs to.

        Raises ``Problem`` no_primary, setting_missing for a door without its login's password file; ``TimeoutError``
        when all connections stay busy; what the driver raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            pools = await self._present(max(0.0, deadline - loop.time()))
            scope = asyncio.timeout_at(deadline)
            try:
                async with scope:
                    self._waiting.add(scope)
                    pool = pools.of(door)
                    connection = await pool.acquire()
            except TimeoutError:
                if pools is not self._pools and loop.time() < deadline:
                    continue  # the leader changed while nothing was asked yet
                if not scope.expired():
                    self._trouble()
                    raise Problem("no_primary", retry_after_s=1) from None
                raise
            except DRIVER_ERRORS as error:
                if pools is self._pools and not await self._may_change(error, deadline):
                    raise
            else:
                self._broken_since = None
                return connection, pool
            finally:
                self._waiting.discard(scope)

    async def _may_change(self, error: Exception, deadline: float) -> bool:
        """Tell whether it is worth trying again: a leader cannot be reached, and another one may be on its way."""
        now = asyncio.get_running_loop().time()
        if not is_unreachable(error) or self.target is None or self.target.leader is None:
            return False
        self._trouble()
        self._broken_since = self._broken_since or now
        if now >= min(deadline, self._broken_since + NO_LEADER_WAIT_S):
            return False
        await asyncio.sleep(_AGAIN_S)
        return True

    async def take_back(self, connection: Proxy, pool: RawPool) -> None:
        """Give a connection back to its pool; one that is gone tells that its server may be."""
        if is_gone(connection):
            self._trouble()
        # One that cannot be given back has been dropped by the pool; what was committed on it stays committed.
        with contextlib.suppress(*DRIVER_ERRORS):
            await pool.release(connection)

    async def connect(self, user: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
        """Make one checked connection outside the pools, dropped when the leader changes; the caller terminates it.

        Raises ``Problem``.
        """
        target = await self.present(timeout_s)
        try:
            connection: Connection = await asyncpg.connect(
                **target.arguments(self.cell, user), password=password(self.cell, user)
            )
        except DRIVER_ERRORS as error:
            self._trouble()
            raise translate(error) from None
        try:
            await inspect(connection, self._environment, target.leader, self.cell.restore_epoch)
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise translate(error) from None
        except BaseException:
            connection.terminate()
            raise
        self._attached.add(connection)
        connection.add_termination_listener(self._attached.discard)
        return connection


class Door:
    """Lends connections to a cell's leader of the moment, as a pool of the driver does."""

    def __init__(self, doors: CellDoors, name: str) -> None:
        self._doors = doors
        self._name = name
        self._lent: dict[Proxy, RawPool] = {}

    def acquire(self, *, timeout: float | None = None) -> "Lending":
        """Lend a connection: ``async with door.acquire() as connection``, or ``await`` it and ``release`` it."""
        return Lending(self, CONNECT_TIMEOUT_S if timeout is None else timeout)

    async def lend(self, timeout_s: float) -> Proxy:
        """Return a connection. Raises ``Problem`` no_primary; ``TimeoutError``; what the driver raises."""
        connection, pool = await self._doors.lend(self._name, timeout_s)
        if len(self._lent) >= _LENT_MAX:
            raise AssertionError("connections are lent and not given back")
        self._lent[connection] = pool
        return connection

    async def release(self, connection: Proxy) -> None:
        """Take a connection back."""
        await self._doors.take_back(connection, self._lent.pop(connection))

    async def expire_connections(self) -> None:
        """Have every connection replaced before its next use."""
        pools = await self._doors._present(CONNECT_TIMEOUT_S)  # noqa: SLF001 - the two are one piece
        await pools.of(self._name).expire_connections()


class Lending:
    """One loan of a connection, to be awaited or entered."""

    __slots__ = ("_connection", "_door", "_timeout_s")

    def __init__(self, door: Door, timeout_s: float) -> None:
        self._door = door
        self._timeout_s = timeout_s
        self._connection: Proxy | None = None

    def __await__(self) -> Generator[Any, None, Proxy]:
        return self._door.lend(self._timeout_s).__await__()

    async def __aenter__(self) -> Proxy:
        self._connection = await self._door.lend(self._timeout_s)
        return self._connection

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._door.release(connection)


def password(cell: Cell, user: str) -> str:
    """Read a login's password; read anew for each connection, so that a changed file needs no restart.

    Raises ``Problem`` settings_unreadable.
    """
    files = {
        "chukan_broker": cell.broker_password_file,
        "chukan_app": cell.app_password_file,
        "chukan_steward": cell.steward_password_file,
        "chukan_links": cell.links_password_file,
    }
    try:
        return (files[user] or Path()).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected=f"a readable password file of {user}") from None


async def _nothing(_connection: Connection) -> None:
    """Broker sessions have no state: they only ever call functions, each its own transaction."""


async def _reset(connection: Connection) -> None:
    await connection.execute("RESET ROLE; RESET ALL")
