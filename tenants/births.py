"""Births and departures of agencies: an agency's role, schema and tables come and go while the cell works.

A birth is one transaction of a function with a lock timeout of 200 ms: it attaches tables made before, gives way to
whoever holds a lock, and is tried again here (DESIGN §10). A departure detaches the leaves concurrently, one by one,
and drops them only when no parent knows them any more, so that nobody else waits for it.

Invariant: ``birth``, ``close`` and the snapshots need no more than the steward's login, which can read nothing.
``depart`` destroys; it takes an administrator's connection and must only be called on an order signed by two officers
of that agency (invariant 14).
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import asyncpg

from chukan.errors import Problem
from chukan.replication.primary import Connection
from chukan.tenants.partition import schema_name

T = TypeVar("T")

_TRIES_MAX: Final = 60
_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_YIELDING: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


class AgencyHere(NamedTuple):
    """An agency that this cell has tables for; ``state`` is ``open`` or ``closed``."""

    agency: int
    generation: int
    state: str


async def birth(connection: Connection, agency: int, generation: int = 1, tablespace: str | None = None) -> bool:
    """Give an agency (1…99999) its role, schema and tables; False when it has them already.

    ``tablespace`` must exist, and ``chukan_owner`` must have CREATE on it. ``Problem`` busy when locks were not to be
    had in about a minute; nothing is left half done.
    """
    schema_name(agency)
    return bool(
        await patiently(lambda: connection.fetchval("SELECT chukan.birth($1, $2, $3)", agency, generation, tablespace))
    )


async def close(connection: Connection, agency: int) -> bool:
    """Refuse every set that names the agency from now on, its data untouched; False when it is not here."""
    return bool(await patiently(lambda: connection.fetchval("SELECT chukan.close_agency($1)", agency)))


async def list_agencies(connection: Connection) -> list[AgencyHere]:
    """Return the agencies of this cell, by number."""
    rows = await connection.fetch("SELECT agency, generation, state FROM chukan.list_agencies()")
    return [AgencyHere(row["agency"], row["generation"], row["state"]) for row in rows]


async def put_snapshot(connection: Connection, number: int, body: bytes, signature: bytes, key: str) -> bool:
    """Put a signed snapshot of common data in force in this cell; False when this very one is already.

    ``Problem`` common_data_stale when the cell has a newer one, or another one under this number.
    """
    try:
        return bool(
            await connection.fetchval("SELECT chukan.snapshot_put($1, $2, $3, $4)", number, body, signature, key)
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate == "CK003":
            raise Problem("common_data_stale") from None
        raise


class PlannedSnapshot(NamedTuple):
    """A signed snapshot as it is put into a cell; ``effective_at`` None puts it in force at once."""

    number: int
    body: bytes
    signature: bytes
    key: str
    effective_at: dt.datetime | None = None
    confirmed: bool = True
    """False until it was read back from every cell: before that it cannot become due."""


async def plan_snapshots(connection: Connection, planned: Sequence[PlannedSnapshot], known: Sequence[int]) -> bool:
    """Make these snapshots what a cell has: one in force at once if any is, the others waiting, and no others waiting.

    ``known`` are the confirmed ones that the caller has seen waiting and replaces. False when nothing changed.
    ``Problem`` common_data_stale when somebody else was quicker.
    """
    columns = [list(column) for column in zip(*planned, strict=True)] or [[] for _ in PlannedSnapshot._fields]
    sql = "SELECT chukan.snapshot_plan($1, $2, $3, $4, $5, $6, $7)"
    try:
        return bool(await connection.fetchval(sql, *columns, list(known)))
    except asyncpg.PostgresError as error:
        if error.sqlstate == "CK003":
            raise Problem("common_data_stale") from None
        raise


async def confirm_snapshot(connection: Connection, number: int, signature: bytes) -> bool:
    """Say that every cell has a snapshot that waits, so that it may become due; False when that was said before.

    ``Problem`` common_data_stale when it does not wait here any more.
    """
    try:
        return bool(await connection.fetchval("SELECT chukan.snapshot_confirm($1, $2)", number, signature))
    except asyncpg.PostgresError as error:
        if error.sqlstate == "CK003":
            raise Problem("common_data_stale") from None
        raise


async def depart(admin: Connection, agency: int) -> None:
    """Remove a closed agency for ever: leaves detached concurrently, schema and role dropped, work rows deleted.

    May be called again after an interruption. ``Problem`` agency_open while the agency is not closed; busy when
    locks were not to be had.
    """
    schema = schema_name(agency)
    state = await admin.fetchval("SELECT state FROM chukan.agencies WHERE agency = $1", agency)
    if state == "open":
        raise Problem("agency_open")
    # What waits for the schema's tables goes first: a sequencer or worker must not find a row without its leaf.
    waiting = ("inquiry_work", "provision_work", "to_sequence", "log_aside", "operations_waiting", "operation_heads")
    for table in waiting:
        await admin.execute(f"DELETE FROM chukan.{table} WHERE agency = $1", agency)
    await admin.execute("SET lock_timeout = '200ms'")
    try:
        for parent, pending in await _leaves(admin, schema):
            await patiently(lambda p=parent, f=pending: _detach(admin, schema, p, pending=f))  # type: ignore[misc]
        await patiently(lambda: admin.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
    finally:
        await admin.execute("RESET lock_timeout")
    for table in ("log_heads", "agencies"):
        await admin.execute(f"DELETE FROM chukan.{table} WHERE agency = $1", agency)
    try:
        await admin.execute(f"DROP ROLE IF EXISTS {schema}")
    except asyncpg.DependentObjectsStillExistError:
        return  # the role serves another database of this server too


async def _leaves(admin: Connection, schema: str) -> list[tuple[str, bool]]:
    rows = await admin.fetch(
        "SELECT p.relname, i.inhdetachpending FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " JOIN pg_class p ON p.oid = i.inhparent WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'",
        schema,
    )
    return [(row["relname"], row["inhdetachpending"]) for row in rows]


async def _detach(admin: Connection, schema: str, table: str, *, pending: bool) -> None:
    """Detach one leaf; one whose concurrent detaching was interrupted is waiting to be finalised."""
    how = "FINALIZE" if pending else "CONCURRENTLY"
    try:
        await admin.execute(f"ALTER TABLE chukan.{table} DETACH PARTITION {schema}.{table} {how}")
    except _YIELDING:
        still = dict(await _leaves(admin, schema))
        if still.get(table):
            await patiently(lambda: _detach(admin, schema, table, pending=True))
        else:
            raise


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until the locks are to be had, giving way in between; a lock queue would stall everybody behind it."""
    pause_s = _PAUSE_S
    for _ in range(_TRIES_MAX):
        try:
            return await attempt()
        except _YIELDING:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
    raise Problem("busy", retry_after_s=60)
