"""The versions of the master data (配信マスター) as they rest in the cells, by the steward's login.

A version is put into every cell before anybody is told of it; what was done with versions is entered in every cell too,
so that the loss of a centre loses neither. Whoever reads takes the first cell (by its name).

Invariant: nothing here judges or signs; a version that rests is never changed, only approved once.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Final, NamedTuple

import asyncpg

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, bounded, translate
from chukan.tenants.masters import Master

TIMEOUT_S: Final = 15.0
VERSIONS_MAX: Final = 1000
_TAKEN: Final = frozenset({"CK003", "23505"})
"""What a cell says of a number or a proposal that is another one's, also where both came at the same moment."""


class VersionRow(NamedTuple):
    """A version without its bytes."""

    digest: bytes
    version: int
    proposal: bytes
    approval: bytes | None


class ActRow(NamedTuple):
    """What somebody did with a version."""

    version: int
    act: str
    by: str
    reason: str
    at: dt.datetime


async def put(cells: Cells, master: Master) -> None:
    """Have a version, or its approval, in every cell; safe to repeat.

    ``Problem`` master_state where its number is another version's; and as a cell says that is away.
    """
    for name in sorted(cells.names):
        await _run(cells, name, "SELECT chukan.master_put($1, $2, $3, $4, $5)", *master_columns(master))


def master_columns(master: Master) -> tuple[object, ...]:
    """Return a version as ``chukan.master_put`` takes it."""
    return master.digest, master.version, master.body, master.proposal, master.approval


async def enter(cells: Cells, act: uuid.UUID, row: ActRow) -> None:
    """Enter in every cell what somebody did with a version; safe to repeat under the same id."""
    for name in sorted(cells.names):
        sql = "SELECT chukan.master_enter($1, $2, $3, $4, $5, $6)"
        await _run(cells, name, sql, act, row.version, row.act, row.by, row.reason, row.at)


async def versions(cells: Cells) -> list[VersionRow]:
    """Return the newest versions, at most a thousand, the newest first."""
    rows = await _run(cells, min(cells.names), "SELECT * FROM chukan.master_versions($1)", VERSIONS_MAX)
    return [VersionRow(**row) for row in rows]


async def acts(cells: Cells) -> list[ActRow]:
    """Return what was done with them, the oldest first."""
    rows = await _run(cells, min(cells.names), "SELECT * FROM chukan.master_acts($1)", 10 * VERSIONS_MAX)
    return [ActRow(**row) for row in rows]


async def get(cells: Cells, digest: bytes) -> Master:
    """Return a version with its bytes; ``Problem`` not_found."""
    rows = await _run(cells, min(cells.names), "SELECT * FROM chukan.master_get($1)", digest)
    if not rows:
        raise Problem("not_found")
    return Master(digest, **rows[0])


async def get_anywhere(cells: Cells, digest: bytes) -> Master:
    """Return a version of the first cell that answers and has it; ``Problem`` as the last one says."""
    problem = Problem("not_found")
    for name in sorted(cells.names):
        try:
            rows = await _run(cells, name, "SELECT * FROM chukan.master_get($1)", digest)
        except Problem as met:
            problem = met
            continue
        if rows:
            return Master(digest, **rows[0])
    raise problem


async def _run(cells: Cells, name: str, sql: str, *values: object) -> list[asyncpg.Record]:
    try:
        async with cells.steward(name) as steward:
            rows: list[asyncpg.Record] = await bounded(steward, steward.fetch(sql, *values), TIMEOUT_S)
            return rows
    except asyncpg.PostgresError as error:
        if error.sqlstate in _TAKEN:
            raise Problem("master_state") from None
        raise translate(error) from None
    except DRIVER_ERRORS as error:
        raise translate(error) from None
