"""Copying an agency's tables from one cell to another (機関の移動), and comparing what arrived with what was sent.

Every table of the agency's schema goes through COPY in binary form, in the order of its key, from one snapshot of the
source into one transaction of the target. What the target has committed is then read back in the same order: the two
streams have the same SHA-256 or the move stops.

Invariant: nothing is decided by content and nothing is opened here; ciphertext goes over as it rests. Takes two
administrators' connections, and must only be called for an agency that is frozen in the source and closed to everybody
in the target.
"""

from __future__ import annotations

from typing import Final

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
