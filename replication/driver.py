"""What a statement to a cell (セル) may end in: a result, or a problem — and never a commit that only seems safe.

Invariant: a statement whose end was not awaited is never cancelled on the server. A cancel would end the wait for the
other centre, and the commit would be visible without being safe; so the connection is dropped (``bounded``) and whoever
asked finds out by a repeat. For the same reason the server's warning that such a wait was cancelled is an error here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import asyncpg
import asyncpg.pool

from chukan import log
from chukan.errors import Problem

# The driver's classes are generic for the type checker only.
if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]
    Proxy: TypeAlias = asyncpg.pool.PoolConnectionProxy[Any]
else:
    Connection, Proxy = asyncpg.Connection, asyncpg.pool.PoolConnectionProxy
T = TypeVar("T")

_DROP_S: Final = 0.5
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
            await asyncio.wait({task}, timeout=_DROP_S)
            task.cancelled() or task.exception()  # seen, so that it is not reported as forgotten
        with contextlib.suppress(asyncpg.InterfaceError):
            # A connection that was dropped is out of the pool's hands already, and its listeners with it.
            connection.remove_log_listener(listen)
    if unsafe:
        _log.critical("a commit did not wait for its standbys: somebody cancelled it on the server")
        raise Problem("unavailable", retry_after_s=1)
    return result


def is_gone(connection: Proxy) -> bool:
    """Tell whether a pool's connection was closed, or dropped and so taken out of our hands."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def is_unreachable(error: BaseException) -> bool:
    """Tell whether an error says that there is no primary at the other end (any more)."""
    return isinstance(error, _UNREACHABLE)


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
