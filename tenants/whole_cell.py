"""Reads a whole cell as its superuser can, row by row of every table there is, to search it for what must not be there.

Needs an administrator's login, which no process that serves has. It opens nothing sealed: it has no key. What it reads
goes to the caller's ``take`` in pieces and is kept nowhere; nothing is changed.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from chukan.replication.driver import DRIVER_ERRORS, Connection

COPY_TIMEOUT_S: Final = 86_400
_VIEWS: Final = ("pg_stat_activity", "pg_prepared_xacts", "pg_stat_statements", "pg_settings", "pg_seclabels")
"""Views over what the server has in its memory: statements with their values, names of transactions, settings."""

_RELATIONS: Final = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relpersistence = 't' AS temporary
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') OR (c.relkind = 'v' AND n.nspname <> 'information_schema' AND c.relname = ANY ($1))
 ORDER BY 1
"""


class Relation(NamedTuple):
    """A table, or a view over the server's memory; ``temporary`` ones of other sessions nobody can read."""

    name: str
    temporary: bool


class ServerFiles(NamedTuple):
    """Where a cell's server says that it keeps its files; empty where it has none."""

    data_directory: str
    log_directory: str
    tablespaces: list[str]


async def relations(admin: Connection) -> list[Relation]:
    """Return everything that has rows: of every schema, the catalogue and large objects included."""
    rows = await admin.fetch(_RELATIONS, list(_VIEWS))
    return [Relation(row["name"], row["temporary"]) for row in rows]


async def read_relation(admin: Connection, name: str, take: Callable[[bytes], Coroutine[Any, Any, None]]) -> bool:
    """Hand every row of a relation, as COPY writes text, to ``take``; False where the server refused it.

    ``name`` is quoted already, by ``relations``. A partitioned table's rows come with its partitions.
    """
    try:
        await admin.copy_from_query(f"SELECT * FROM {name}", output=take, timeout=COPY_TIMEOUT_S)
    except DRIVER_ERRORS:
        return False
    return True


async def server_files(admin: Connection) -> ServerFiles:
    """Have everything that is in memory written to the disks, and return where they are."""
    await admin.fetch("CHECKPOINT")
    (row,) = await admin.fetch(
        "SELECT current_setting('data_directory') AS data, current_setting('log_directory') AS log,"
        " ARRAY(SELECT pg_tablespace_location(oid) FROM pg_tablespace) AS spaces"
    )
    return ServerFiles(row["data"], row["log"], [space for space in row["spaces"] if space])
