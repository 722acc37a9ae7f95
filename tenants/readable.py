"""Which rows of an agency open under the keys that still stand (復元後に読める行), told without opening any.

A sealed value names the version of the key that sealed it (see ``sealing``), so the first bytes of a column say what
can be read and what cannot: what was sealed under a key that has been destroyed stays unreadable wherever it is put.

Invariant: counts only; no sealed value leaves the database but its head. Takes an administrator's connection.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from chukan.replication.primary import DRIVER_ERRORS, Connection, translate
from chukan.tenants.partition import schema_name
from chukan.tenants.sealing import HEAD_BYTES, AgencyKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNT_TIMEOUT_S: Final = 1800.0

SEALED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "answers": ("sealed",),
        "codes": ("addressee", "number", "code"),
        "copies": ("body",),
        "corrections": ("sealed",),
        "delegations": ("body",),
        "files": ("body",),
        "messages": ("sealed",),
        "operations": ("body",),
        "outbox": ("sealed",),
        "permits": ("sealed",),
        "provisions": ("notice",),
        "queries": ("request",),
        "records": ("sealed",),
    }
)
"""The columns of an agency's tables that hold sealed values."""


class Rows(NamedTuple):
    """How many rows a table has, and how many of them hold something that no key opens any more."""

    rows: int
    unreadable: int


async def survey(
    connection: Connection, agency: int, keys: AgencyKeys | None, tables: tuple[str, ...]
) -> dict[str, Rows]:
    """Count the rows of these of ``SEALED``, by table; ``keys`` None is for keys that were destroyed.

    Raises ``Problem`` as the cell does.
    """
    schema = schema_name(agency)
    try:
        return {name: await _count(connection, f"{schema}.{name}", SEALED[name], keys) for name in tables}
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def _count(connection: Connection, table: str, columns: tuple[str, ...], keys: AgencyKeys | None) -> Rows:
    heads = [f"substr({column}, 1, {HEAD_BYTES})" for column in columns]
    union = " UNION ".join(f"SELECT {head} AS head FROM {table}" for head in heads)
    found = await connection.fetch(f"SELECT head FROM ({union}) u WHERE head IS NOT NULL", timeout=COUNT_TIMEOUT_S)
    lost = [row["head"] for row in found if keys is None or not keys.holds(row["head"])]
    # An absent value is NULL, and nothing is lost by it.
    some = " OR ".join(f"coalesce({head} = ANY ($1::bytea[]), false)" for head in heads)
    sql = f"SELECT count(*) AS rows, count(*) FILTER (WHERE {some}) AS unreadable FROM {table}"
    row = await connection.fetchrow(sql, lost, timeout=COUNT_TIMEOUT_S)
    if row is None:
        raise AssertionError("a count has one row")
    return Rows(row["rows"], row["unreadable"])
