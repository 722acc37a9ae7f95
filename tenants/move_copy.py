"""Copying an agency's tables from one cell to another (機関の移動), and comparing what arrived with what was sent.

Every table of the agency's schema goes through COPY in binary form, in the order of its key, from one snapshot of the
source into one transaction of the target. What the target has committed is then read back in the same order: the two
streams have the same SHA-256 or the move stops.

Invariant: nothing is decided by content and nothing is opened here; ciphertext goes over as it rests. Takes two
administrators' connections, and must only be called for an agency that is frozen in the source and closed to everybody
in the target.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Connection, translate
from chukan.tenants.partition import schema_name

LOCK_TIMEOUT_MS: Final = 30_000
"""For how long a transaction of the agency's own that had begun before the freeze may still write."""
TABLE_TIMEOUT_S: Final = 4 * 3600.0
_CHUNKS_MAX: Final = 16

_log = log.get("move")


class Sent(NamedTuple):
    """One table as it was sent: how many rows, and the SHA-256 of its COPY stream."""

    rows: int
    sha256: bytes


class _Table(NamedTuple):
    """A table to copy: what is given on insertion, the types, and the order in which rows are read on both sides."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    order: str

    def query(self, schema: str) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {schema}.{self.name} ORDER BY {self.order}"


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


async def _tables(connection: Connection, schema: str) -> list[_Table]:
    rows = await connection.fetch(
        "SELECT c.relname::text AS name, array_agg(quote_ident(a.attname) ORDER BY a.attname) AS columns,"
        " array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attname) AS types,"
        " (SELECT array_agg(quote_ident(k.attname) ORDER BY array_position(i.indkey::int2[], k.attnum))"
        "  FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey)"
        "  WHERE i.indrelid = c.oid AND i.indisprimary) AS key"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
        " AND a.attgenerated = '' GROUP BY c.oid ORDER BY c.relname",
        schema,
    )
    found = []
    for row in rows:
        types = dict(zip(row["columns"], row["types"], strict=True))
        # The order must not depend on a server's collation.
        keys = [f'{key} COLLATE "C"' if types[key] == "text" else key for key in row["key"] or row["columns"]]
        found.append(_Table(row["name"], tuple(row["columns"]), tuple(row["types"]), ", ".join(keys)))
    return found


async def _pipe(source: Connection, target: Connection, schema: str, table: _Table) -> Sent:
    """Send one table from the source to the target."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS_MAX)
    digest = hashlib.sha256()

    async def take(chunk: bytes) -> None:
        digest.update(chunk)
        await chunks.put(bytes(chunk))

    async def read() -> str:
        status = await source.copy_from_query(
            table.query(schema), output=take, format="binary", timeout=TABLE_TIMEOUT_S
        )
        await chunks.put(None)
        return status

    async def given() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    writing = target.copy_to_table(
        table.name,
        schema_name=schema,
        columns=[column.strip('"') for column in table.columns],
        source=given(),
        format="binary",
        timeout=TABLE_TIMEOUT_S,
    )
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read(), name=f"read {table.name}")
            group.create_task(writing, name=f"write {table.name}")
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the other side was only stopped because of it
    return Sent(_rows(reading.result()), digest.digest())


async def _digest(connection: Connection, schema: str, table: _Table) -> Sent:
    digest = hashlib.sha256()

    async def take(chunk: bytes) -> None:
        digest.update(chunk)

    status = await connection.copy_from_query(
        table.query(schema), output=take, format="binary", timeout=TABLE_TIMEOUT_S
    )
    return Sent(_rows(status), digest.digest())


def _rows(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])
