"""One table through COPY in binary form, in the order of its key, from one server to another, and its SHA-256.

What moves an agency (``move_copy``) and what restores one (``restore_copy``) stand on it. The order does not depend
on a server's collation, so that the same rows give the same stream everywhere.

Invariant: nothing is decided by content; ciphertext goes over as it rests. Takes administrators' connections.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from chukan.replication.primary import Connection

TABLE_TIMEOUT_S: Final = 4 * 3600.0
_CHUNKS_MAX: Final = 16


class Sent(NamedTuple):
    """One table as it was sent: how many rows, and the SHA-256 of its COPY stream."""

    rows: int
    sha256: bytes


class Table(NamedTuple):
    """A table to copy: what is given on insertion, the types, and the order in which rows are read on both sides."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    order: str

    def query(self, schema: str) -> str:
        """Return the statement that reads it."""
        return f"SELECT {', '.join(self.columns)} FROM {schema}.{self.name} ORDER BY {self.order}"


async def tables_of(connection: Connection, schema: str) -> list[Table]:
    """Return the tables of a schema, by name."""
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
        found.append(Table(row["name"], tuple(row["columns"]), tuple(row["types"]), ", ".join(keys)))
    return found


async def pipe(source: Connection, target: Connection, schema: str, table: Table, into: str | None = None) -> Sent:
    """Send one table from the source to the target; ``into`` is its ``schema.table`` there unless it has the same."""
    to_schema, to_table = (into or f"{schema}.{table.name}").split(".")
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS_MAX)
    sha256 = hashlib.sha256()

    async def take(chunk: bytes) -> None:
        sha256.update(chunk)
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
        to_table,
        schema_name=to_schema,
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
    return Sent(_rows(reading.result()), sha256.digest())


async def digest(connection: Connection, schema: str, table: Table) -> Sent:
    """Read a table as it would be sent, and return what that comes to."""
    sha256 = hashlib.sha256()

    async def take(chunk: bytes) -> None:
        sha256.update(chunk)

    status = await connection.copy_from_query(
        table.query(schema), output=take, format="binary", timeout=TABLE_TIMEOUT_S
    )
    return Sent(_rows(status), sha256.digest())


def _rows(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])
