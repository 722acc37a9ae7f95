"""Copying an agency's tables from one cell to another (機関の移動), and comparing what arrived with what was sent.

Every table of the agency's schema goes through COPY in binary form, in the order of its key, from one snapshot of the
source into one transaction of the target. What the target has committed is then read back in the same order: the two
streams have the same SHA-256 or the move stops.

What the cell itself keeps of an agency goes along too (``copy_marks``): notices it has read, what of its records has
expired, how far its rows are re-encrypted, and under which key version its tables take nothing any more.

Invariant: nothing is decided by content and nothing is opened here; ciphertext goes over as it rests. Takes two
administrators' connections, and must only be called for an agency that is frozen in the source and closed to everybody
in the target.
"""

from __future__ import annotations

import re
from typing import Final

import asyncpg

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Connection, translate
from chukan.tenants.partition import schema_name
from chukan.tenants.table_copy import Sent
from chukan.tenants.table_copy import digest as _digest
from chukan.tenants.table_copy import pipe as _pipe
from chukan.tenants.table_copy import tables_of as _tables

LOCK_TIMEOUT_MS: Final = 30_000
"""For how long a transaction of the agency's own that had begun before the freeze may still write."""

_READ: Final = (
    "INSERT INTO chukan.notice_read (notice, agency, client, at)"
    " SELECT n.id, $1, $3, $4 FROM chukan.notice n WHERE n.id = $2 ON CONFLICT (notice, agency) DO NOTHING"
)
_EXPIRED: Final = "INSERT INTO chukan.expired (agency, month, count, at) VALUES ($1, $2, $3, $4)"
_WALK: Final = "SELECT version, sealed, begun_at, at, ended_at FROM chukan.reencryptions WHERE agency = $1"
_WALKED: Final = (
    "INSERT INTO chukan.reencryptions (agency, version, sealed, begun_at, at, ended_at) VALUES ($1, $2, $3, $4, $5, $6)"
)
_FLOORS: Final = (
    "SELECT c.relname::text AS relation, k.conname::text AS name FROM pg_constraint k"
    " JOIN pg_class c ON c.oid = k.conrelid WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'"
    " AND k.contype = 'c' AND k.conname LIKE 'key\\_floor\\_%' ORDER BY c.relname, k.conname"
)
_FLOOR: Final = re.compile(r"key_floor_(?P<sealed>[a-z_]+)_(?P<version>[0-9]{1,9})", re.ASCII)

_log = log.get("move")


async def copy_over(source: Connection, target: Connection, agency: int) -> dict[str, Sent]:
    """Copy all tables of a frozen agency into empty ones; return what was sent, once it was read back as the same.

    ``Problem`` busy while a transaction of the agency still writes; move_differs; as the cells do.
    """
    schema = schema_name(agency)
    try:
        tables = await _tables(source, schema)
        if tables != await _tables(target, schema):
            raise Problem("move_differs", expected="the same tables in both cells: migrate the older one first")
        async with source.transaction(isolation="repeatable_read", readonly=True):
            await source.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            # Before the snapshot is taken: who writes still, is waited for; who comes now has no right any more.
            names = ", ".join(f"{schema}.{table.name}" for table in tables)
            await source.execute(f"LOCK TABLE {names} IN SHARE MODE")
            async with target.transaction():
                # Triggers say when copies changed: they did not, they moved.
                await target.execute("SET LOCAL session_replication_role = replica")
                sent = {table.name: await _pipe(source, target, schema, table) for table in tables}
        for table in tables:
            if await _digest(target, schema, table) != sent[table.name]:
                _log.error("a table did not arrive as it was sent", agency=agency, stage=table.name)
                raise Problem("move_differs", expected=table.name)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    return sent


async def copy_marks(source: Connection, target: Connection, agency: int) -> None:
    """Carry over what the cell keeps of a frozen agency beside its tables; once more is the same.

    A walk of re-encryption that was under way begins anew in the new cell: it was told by places in files, and the rows
    have other places now. ``Problem`` key_versions_needed where rows are below a floor that was never proved; as the
    cells do.
    """
    try:
        reads = await source.fetch("SELECT notice, client, at FROM chukan.notice_read WHERE agency = $1", agency)
        expired = await source.fetch("SELECT month, count, at FROM chukan.expired WHERE agency = $1", agency)
        walks = await source.fetch(_WALK, agency)
        async with target.transaction():
            # A notice is in every cell, or its cell is behind: then the agency sees it as unread once it comes.
            await target.executemany(_READ, [(agency, *row) for row in reads])
            # What the old cell says is all there was: rows of an earlier stay here are among them.
            await target.execute("DELETE FROM chukan.expired WHERE agency = $1", agency)
            await target.executemany(_EXPIRED, [(agency, *row) for row in expired])
            await target.execute("DELETE FROM chukan.reencryptions WHERE agency = $1", agency)
            await target.executemany(_WALKED, [(agency, *row) for row in walks])
        await _raise_floors(source, target, agency)
    except asyncpg.CheckViolationError:
        raise Problem("key_versions_needed") from None
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def drop_marks(left: Connection, agency: int) -> None:
    """Take away what ``copy_marks`` carried over, where the agency has gone: reports of all cells count it once.

    ``Problem`` as the cell does.
    """
    try:
        for table in ("notice_read", "expired", "reencryptions"):
            await left.execute(f"DELETE FROM chukan.{table} WHERE agency = $1", agency)
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def _raise_floors(source: Connection, target: Connection, agency: int) -> None:
    """Have each table of the new cell refuse what its like in the old one refuses, before anybody writes there."""
    schema = schema_name(agency)
    floors = [
        (row["relation"], found["sealed"], int(found["version"]))
        for row in await source.fetch(_FLOORS, schema)
        if (found := _FLOOR.fullmatch(row["name"])) is not None
    ]
    for floor in floors:
        await target.execute("SELECT chukan.key_floor($1, $2, $3, $4)", agency, *floor)
        await target.execute("SELECT chukan.key_floor_prove($1, $2, $3, $4)", agency, *floor)
