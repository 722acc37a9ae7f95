"""Door 1: acting for exactly one agency (機関) — ``async with act_for(pool, agency) as partition:``.

One transaction under the agency's own role, which has rights in the agency's own schema only; forced row security is
the second belt. Tables are named by ``partition.table("copies")``, always with their schema.

Invariant: only single statements in the extended protocol go through here, and only SELECT, INSERT, UPDATE, DELETE
(WITH before them) and LOCK: a second statement could leave the role, a SET or RESET would. The role ends with the
transaction, because it is set LOCAL; a connection whose end is unknown is dropped, never cancelled. What moves a flow
is never written here (``tenants.sets`` does that). This module must never take a table's name from outside.
"""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any, Final

import asyncpg

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Pool, Proxy, bounded, is_gone, translate

Record = asyncpg.Record

TABLES: Final = frozenset(
    {
        "queries", "permits", "answers", "provisions", "records", "events", "log", "codes",
        "idempotency", "copies", "loads", "load_parts", "stage", "holds", "review_drafts", "copy_marks",
        "files", "statistics", "delegations", "corrections", "tiles", "checkpoints", "cosignatures", "map_pages",
        "code_changes", "acquisition_asks",
        "messages",
        "operations", "operation_log", "operation_tiles", "operation_checkpoints", "operation_cosignatures",
        "officers", "officer_changes", "officer_sessions", "own_information_flags",
    }
)  # fmt: skip
"""The tables that an agency's role may read; the database says which of them it may write."""

_AGENCY_MAX: Final = 99_999
_VERBS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "LOCK"})
_COPIED: Final = frozenset({"stage"})


def schema_name(agency: int) -> str:
    """Return the name of an agency's schema and role, e.g. ``a00042``; ``Problem`` unknown_agency out of 1…99999."""
    if not 1 <= agency <= _AGENCY_MAX:
        raise Problem("unknown_agency")
    return f"a{agency:05d}"


class Partition:
    """One agency's tables, for the time of one transaction."""

    def __init__(self, connection: Proxy, agency: int, timeout_s: float) -> None:
        self._connection: Proxy | None = connection
        self._timeout_s = timeout_s
        self._schema = schema_name(agency)
        self.agency = agency
        self.denied = False
        """Whether the database refused a statement for want of a right."""

    def table(self, name: str) -> str:
        """Return the schema-qualified name of one of ``TABLES``; ``KeyError`` for any other."""
        if name not in TABLES:
            raise KeyError("no such table of an agency")
        return f"{self._schema}.{name}"

    async def fetch(self, sql: str, *values: object) -> list[Record]:
        """Run one statement and return its rows."""
        connection = self._checked(sql)
        rows: list[Record] = await self._run(connection.fetch(sql, *values))
        return rows

    async def fetchrow(self, sql: str, *values: object) -> Record | None:
        """Run one statement and return its first row."""
        connection = self._checked(sql)
        row: Record | None = await self._run(connection.fetchrow(sql, *values))
        return row

    async def fetchval(self, sql: str, *values: object) -> Any:  # noqa: ANN401 - whatever the statement selects
        """Run one statement and return the first column of its first row."""
        row = await self.fetchrow(sql, *values)
        return None if row is None else row[0]

    async def execute(self, sql: str, *values: object) -> int:
        """Run one statement and return how many rows it touched (0 for one that touches none)."""
        connection = self._checked(sql)

        async def run() -> str:
            # Prepared, because ``execute`` without values would be the simple protocol with its many statements.
            statement = await connection.prepare(sql)
            await statement.fetch(*values)
            return str(statement.get_statusmsg())

        word = (await self._run(run())).rsplit(" ", 1)[-1]
        return int(word) if word.isdigit() else 0

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of values; prefer one statement over arrays."""
        connection = self._checked(sql)
        await self._run(connection.executemany(sql, rows))

    async def copy_in(
        self, table: str, rows: Iterable[Sequence[object]] | AsyncIterable[Sequence[object]], columns: Sequence[str]
    ) -> int:
        """COPY rows into the agency's stage and return how many there were."""
        if table not in _COPIED:
            raise KeyError("nothing is copied into this table")
        connection = self._open()
        status = await self._run(
            connection.copy_records_to_table(table, schema_name=self._schema, records=rows, columns=list(columns))
        )
        return int(str(status).rsplit(" ", 1)[-1])

    def _open(self) -> Proxy:
        if self._connection is None:
            raise RuntimeError("the partition's transaction has ended")
        if is_gone(self._connection):
            raise Problem("no_primary", retry_after_s=1)
        return self._connection

    def _checked(self, sql: str) -> Proxy:
        if sql.split(None, 1)[0].upper() not in _VERBS:
            raise ValueError("only SELECT, INSERT, UPDATE, DELETE and LOCK go through a partition")
        return self._open()

    async def _run(self, work: Any) -> Any:  # noqa: ANN401 - one helper for every kind of result
        try:
            return await bounded(self._open(), work, self._timeout_s)
        except DRIVER_ERRORS as error:
            self.denied = isinstance(error, asyncpg.InsufficientPrivilegeError)
            raise translate(error) from None

    def _end(self) -> None:
        self._connection = None


@contextlib.asynccontextmanager
async def act_for(pool: Pool, agency: int, *, timeout_s: float = 30.0) -> AsyncIterator[Partition]:
    """Open one transaction for one agency; it commits at the end of the block and rolls back when the block raises.

    Args:
        pool: the ``app`` pool of the agency's cell.
        agency: the agency's number.
        timeout_s: the deadline of each statement, and of waiting for a connection.

    Raises:
        Problem: unknown_agency when the cell has no such agency; agency_moved when it is moving, or has moved, to
            another one; busy, no_primary, unavailable, internal.
    """
    role = schema_name(agency)
    try:
        connection = await pool.acquire(timeout=timeout_s)
    except TimeoutError:
        raise Problem("busy", retry_after_s=1) from None
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    try:
        partition = Partition(connection, agency, timeout_s)
        try:
            # Within: who is cancelled at the instant at which the transaction has begun must not leave it open.
            await _begin(connection, role, timeout_s)
            yield partition
        except BaseException:
            partition._end()  # noqa: SLF001 - the two are one piece
            await _finish(connection, "ROLLBACK", timeout_s)
            if partition.denied and await _is_moving(connection, role, timeout_s):
                raise Problem("agency_moved", retry_after_s=1) from None
            raise
        partition._end()  # noqa: SLF001 - the same
        await _finish(connection, "COMMIT", timeout_s)
    finally:
        # One that cannot be given back has been dropped by the pool; what was committed on it stays committed.
        with contextlib.suppress(*DRIVER_ERRORS):
            await pool.release(connection)


async def _begin(connection: Proxy, role: str, timeout_s: float) -> None:
    words = f"BEGIN; SET LOCAL statement_timeout = {round(timeout_s * 1000)}; SET LOCAL ROLE {role}"
    try:
        await bounded(connection, connection.execute(words), timeout_s)
    except asyncpg.InvalidParameterValueError:
        raise Problem("unknown_agency") from None
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def _is_moving(connection: Proxy, role: str, timeout_s: float) -> bool:
    """Tell whether the agency's role has no right to anything here: it is frozen (DESIGN §7)."""
    if is_gone(connection):
        return False
    try:
        await _begin(connection, role, timeout_s)
        sql = "SELECT has_table_privilege($1, 'SELECT')"
        return not await bounded(connection, connection.fetchval(sql, f"{role}.copies"), timeout_s)
    except (*DRIVER_ERRORS, Problem):
        return False
    finally:
        await _finish(connection, "ROLLBACK", timeout_s)


async def _finish(connection: Proxy, word: str, timeout_s: float) -> None:
    """Commit or roll back; a dropped connection has rolled back by itself."""
    if is_gone(connection):
        if word == "COMMIT":
            raise Problem("unavailable", retry_after_s=1)
        return
    try:
        done = await bounded(connection, connection.execute(word), timeout_s)
    except DRIVER_ERRORS as error:
        if word == "COMMIT":
            raise translate(error) from None
        return
    if done != word:
        # A COMMIT of a transaction in which a statement failed is answered with ROLLBACK: nothing was done.
        raise Problem("internal")
