"""Where the primary of each cell (セル) is, and connections to it that are safe to serve with.

Every connection is checked when it is made: commits must wait for what the cell promises (``synchronous_commit``),
plans must not be generic, and no door in pg_catalog may stand open; else it is refused and nothing is served. Array
types are learnt at the same time, for an agency's role may not ask for them later (it has no ``set_config``).

Invariant: a statement whose end was not awaited is never cancelled on the server. A cancel would end the wait for the
other centre, and the commit would be visible without being safe; so the connection is dropped (``bounded``) and whoever
asked finds out by a repeat. For the same reason the server's warning that such a wait was cancelled is an error here.

For now each cell is one host; finding the leader among several will stand behind the same names.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

import asyncpg
import asyncpg.pool

from chukan import log
from chukan.errors import Problem
from chukan.settings import Cell

# The driver's classes are generic for the type checker only.
if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]
    Pool: TypeAlias = asyncpg.Pool[Any]
    Proxy: TypeAlias = asyncpg.pool.PoolConnectionProxy[Any]
else:
    Connection, Pool, Proxy = asyncpg.Connection, asyncpg.Pool, asyncpg.pool.PoolConnectionProxy
T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 10.0

_PROBE_S: Final = 20.0
_RETRY_S: Final = 0.5
_IDLE_MAX_S: Final = 300.0
_STATEMENTS_MAX: Final = 50_000
_ARRAYS: Final = (
    "SELECT $1::int[], $2::bigint[], $3::smallint[], $4::text[], $5::uuid[], $6::bytea[], $7::bool[], $8::date[],"
    " $9::timestamptz[]"
)
_WARM_ROLES: Final = "SELECT pg_has_role(oid, $1) FROM pg_roles WHERE rolname ~ '^a[0-9]{5}$' LIMIT 1"
_SET_OPTION_SINCE: Final = 16
_UNSAFE_COMMIT: Final = "canceling wait for synchronous replication"
_UNREACHABLE: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Everything that a call of the driver raises; ``translate`` makes a problem of it. An internal error of the client is
among them: it is how the driver says that a server is no primary, or that one was killed in the middle of a message."""
_NO_PRIMARY: Final = asyncpg.exceptions.TargetServerAttributeNotMatched
_CODES: Final = {"CK001": "stale_lease", "CK002": "agency_moved"}
_LOCKED: Final = "55P03"
_RETRYABLE: Final = frozenset({"40001", "40P01", "57014", "53200", "53100"})

_log = log.get("primary")


@dataclass(frozen=True, slots=True)
class CellConnections:
    """The two doors to one cell: ``broker`` calls set functions, ``app`` acts for one agency at a time."""

    broker: Pool
    app: Pool


class Cells:
    """The connection provider: ``open`` once in the running loop (or ``async with``), then ``primary(name)``.

    Opening connects to nothing, so that an exchange starts while a cell is away; every connection is made and checked
    when it is first needed, and what is wrong with it is that caller's problem.
    """

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self._cells = dict(cells)
        self._pools = {name: _pools(cell) for name, cell in self._cells.items()}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def names(self) -> list[str]:
        """The cells, in the order of the settings."""
        return list(self._cells)

    async def open(self) -> None:
        """Make the pools usable in this event loop."""
        for connections in self._pools.values():
            await connections.broker
            await connections.app

    def primary(self, name: str) -> CellConnections:
        """Return the connections to the primary of a cell; ``KeyError`` when there is no such cell.

        Acquiring one raises ``Problem`` unavailable when the database must not be served with.
        """
        return self._pools[name]

    @contextlib.asynccontextmanager
    async def steward(self, name: str) -> AsyncIterator[Connection]:
        """Lend one connection of the steward's login, which may make and close agencies and put snapshots.

        ``Problem`` no_primary, unavailable; setting_missing when no password file is set.
        """
        if self._cells[name].steward_password_file is None:
            raise Problem("setting_missing", pointer=f"/cells/{name}/steward_password_file")
        connection = await self._connect(name, "chukan_steward")
        try:
            yield connection
        finally:
            connection.terminate()

    async def hear(self, name: str, channels: Sequence[str], heard: Callable[[str], None]) -> None:
        """Call ``heard(channel)`` at each notification and, for every channel, on every (re)connect, until cancelled.

        A notification is a hint, and those of the time without a connection are lost: so whoever listens also looks
        when the connection is back, and by itself every second.
        """
        while True:
            try:
                connection = await self._connect(name, "chukan_broker")
            except Problem:
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                await _hear(connection, channels, heard)
            except (*DRIVER_ERRORS, Problem) as error:
                _log.warning("a listener lost its connection", cell=name, exc_info=error)
            finally:
                connection.terminate()

    async def close(self) -> None:
        """Drop all connections; what was in flight on them is found out by a repeat."""
        for connections in self._pools.values():
            for pool in (connections.broker, connections.app):
                with contextlib.suppress(asyncpg.InterfaceError):  # a pool that was never opened has nothing to drop
                    pool.terminate()

    async def _connect(self, name: str, user: str) -> Connection:
        try:
            connection: Connection = await asyncpg.connect(
                **_target(self._cells[name], user), password=_password(self._cells[name], user)
            )
        except DRIVER_ERRORS as error:
            raise translate(error) from None
        try:
            await _inspect(connection)
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise translate(error) from None
        except BaseException:
            connection.terminate()
            raise
        return connection


async def bounded(connection: Connection | Proxy, work: Awaitable[T], timeout_s: float) -> T:
    """Await a statement for at most so many seconds; past that, or when cancelled, drop the connection.

    ``Problem`` unavailable at the deadline, and when the server reports a commit that did not wait.
    """
    unsafe: list[str] = []

    def listen(_connection: object, message: Any) -> None:  # noqa: ANN401 - asyncpg's message has no common type
        if _UNSAFE_COMMIT in str(message.message):
            unsafe.append(_UNSAFE_COMMIT)

    connection.add_log_listener(listen)
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            raise Problem("unavailable", retry_after_s=1)
        result = task.result()
    except asyncpg.InternalClientError:
        # The driver has lost its place on this connection: nobody must ever get it again.
        connection.terminate()
        raise
    finally:
        if not task.done():
            connection.terminate()
            await asyncio.wait({task}, timeout=_RETRY_S)
            task.cancelled() or task.exception()  # seen, so that it is not reported as forgotten
        with contextlib.suppress(asyncpg.InterfaceError):
            # A connection that was dropped is out of the pool's hands already, and its listeners with it.
            connection.remove_log_listener(listen)
    if unsafe:
        raise Problem("unavailable", retry_after_s=1)
    return result


def is_gone(connection: Proxy) -> bool:
    """Tell whether a pool's connection was closed, or dropped and so taken out of our hands."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def translate(error: Exception) -> Problem:
    """Return the problem that stands for a driver's or server's error; its own text may quote values and is dropped.

    Raises ``CancelledError`` in a task that is being cancelled: dropping its connection made the driver's error, and a
    problem in its place would let the task go on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    if isinstance(error, Problem):
        return error
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate in _CODES:
        return Problem(_CODES[sqlstate], retry_after_s=1)
    if isinstance(error, _UNREACHABLE):
        if isinstance(error, asyncpg.InternalClientError) and not isinstance(error, _NO_PRIMARY):
            _log.warning("the driver lost its place on a connection", exc_info=error)
        return Problem("no_primary", retry_after_s=1)
    if sqlstate == _LOCKED:
        return Problem("busy", retry_after_s=5)
    if isinstance(error, TimeoutError) or sqlstate in _RETRYABLE:
        return Problem("unavailable", retry_after_s=1)
    _log.error("the database refused a statement", code=str(sqlstate), exc_info=error)
    return Problem("internal")


async def _hear(connection: Connection, channels: Sequence[str], heard: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _connection: ended.set())
    for channel in channels:
        await connection.add_listener(channel, lambda *told: heard(str(told[2])))
        heard(channel)
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_S):
                await ended.wait()
            return
        # A connection that a firewall forgot says nothing for ever; a question finds out.
        await bounded(connection, connection.fetchval("SELECT 1"), CONNECT_TIMEOUT_S)


def _password(cell: Cell, user: str) -> str:
    """Read a login's password; read anew for each connection, so that a changed file needs no restart."""
    files = {
        "chukan_broker": cell.broker_password_file,
        "chukan_app": cell.app_password_file,
        "chukan_steward": cell.steward_password_file,
    }
    try:
        return (files[user] or Path()).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected=f"a readable password file of {user}") from None


def _target(cell: Cell, user: str) -> dict[str, Any]:
    return {
        "host": cell.host,
        "port": cell.port,
        "database": cell.database,
        "user": user,
        "timeout": CONNECT_TIMEOUT_S,
        "target_session_attrs": "read-write",
        "server_settings": {"application_name": user},
    }


def _pools(cell: Cell) -> CellConnections:
    broker, app = (
        asyncpg.create_pool(
            **_target(cell, user),
            password=functools.partial(_password, cell, user),
            min_size=0,
            max_size=size,
            max_queries=_STATEMENTS_MAX,  # a backend grows by every leaf that it touches; a new one starts small
            max_inactive_connection_lifetime=_IDLE_MAX_S,
            init=_inspect,
            reset=reset,
        )
        for user, size, reset in (
            ("chukan_broker", cell.broker_connections, _nothing),
            ("chukan_app", cell.app_connections, _reset),
        )
    )
    return CellConnections(broker, app)


async def _inspect(connection: Connection) -> None:
    """Refuse a connection that must not be served with; ``Problem`` unavailable, the reason in the log."""
    settings = await connection.fetchrow(
        "SELECT current_setting('synchronous_commit'), current_setting('plan_cache_mode'), pg_is_in_recovery()"
    )
    if settings is None or tuple(settings) != ("on", "force_custom_plan", False):
        _log.critical("refused to serve: the session's settings are not safe")
        raise Problem("unavailable", retry_after_s=10)
    try:
        doors = [row[0] for row in await connection.fetch("SELECT chukan.open_doors()")]
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError):
        doors = ["an unprepared database"]
    if doors:
        _log.critical("refused to serve: the database is not hardened", count=len(doors), reason=doors[0])
        raise Problem("unavailable", retry_after_s=10)
    await connection.fetch(_ARRAYS, [], [], [], [], [], [], [], [], [])
    # The first look at the memberships of a login that may act for thousands of agencies takes long: not in a request.
    how = "SET" if connection.get_server_version().major >= _SET_OPTION_SINCE else "MEMBER"
    await connection.fetchval(_WARM_ROLES, how)


async def _nothing(_connection: Connection) -> None:
    """Broker sessions have no state: they only ever call functions, each its own transaction."""


async def _reset(connection: Connection) -> None:
    await connection.execute("RESET ROLE; RESET ALL")
