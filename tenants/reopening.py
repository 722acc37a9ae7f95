"""A restored cell (セル) before it is opened: what it still knows, and the opening itself (DESIGN §7).

By an administrator's connection, for no login of ours may open a cell. What is asked here is answered by existence
alone: a message was taken or not, a permit used or not. Nothing is opened or decrypted.

Invariant: a cell is opened in an epoch in which it never was; whoever knows an earlier one is sent away by it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Connection, bounded, translate
from chukan.tenants import births
from chukan.tenants.sets import CommonRow, Opening

STEP_TIMEOUT_S: Final = 30.0
T = TypeVar("T")

_log = log.get("reopening")


async def read_opening(admin: Connection) -> Opening:
    """Return how the cell stands. Raises ``Problem`` as the cell does."""
    row = await _step(admin, admin.fetchrow("SELECT epoch, opened_at FROM chukan.opening()"))
    if row is None:
        raise Problem("internal")
    return Opening.of(row)


async def known_permits(admin: Connection, agency: int, permits: Sequence[bytes]) -> list[bool]:
    """Tell of each permit, by its keyed digest, whether an agency has used it. Raises ``Problem`` as the cell does."""
    found = await _step(admin, admin.fetchval("SELECT chukan.known_permits($1, $2)", agency, list(permits)))
    return list(found)


async def known_messages(admin: Connection, agency: int, messages: Sequence[uuid.UUID]) -> list[bool]:
    """Tell of each message of the network whether an agency has taken it. Raises ``Problem`` as the cell does."""
    count = len(messages)
    places = await _step(
        admin,
        admin.fetchval("SELECT chukan.known_messages($1, $2, $3)", [agency] * count, list(messages), [True] * count),
    )
    found = set(places)
    return [place in found for place in range(1, count + 1)]


async def catch_up(admin: Connection, have: int, newest: CommonRow) -> bool:
    """Put the common data in force that another cell has, where this one is behind; False where it is not."""
    if newest.number <= have or newest.body is None:
        return False
    await _step(admin, births.put_snapshot(admin, newest.number, newest.body, newest.signature, newest.key))
    return True


async def mark_restored(admin: Connection, agency: int, epoch: int, trees: Sequence[tuple[int, bytes]]) -> list[int]:
    """End an agency's log as it was restored: a leaf for each tree (size, root) that was seen of it (``restored``).

    May be repeated. Returns the leaves' positions. Raises ``Problem`` as the cell does.
    """
    places = []
    for size, root in trees:
        sql = "SELECT chukan.restored_leaf($1, $2, $3, $4)"
        places.append(int(await _step(admin, admin.fetchval(sql, agency, epoch, size, root))))
    return places


async def log_heads(admin: Connection) -> dict[int, int]:
    """Return how many leaves each agency's log has. Raises ``Problem`` as the cell does."""
    rows = await _step(admin, admin.fetch("SELECT agency, seq FROM chukan.log_heads"))
    return {row["agency"]: row["seq"] for row in rows}


async def operations_heads(admin: Connection, logs: Sequence[int]) -> dict[int, int]:
    """Return how many leaves these operations logs have; one without tables here is left out. Raises ``Problem``."""
    sql = "SELECT agency, seq FROM chukan.operations_lengths($1)"
    return {row["agency"]: row["seq"] for row in await _step(admin, admin.fetch(sql, list(logs)))}


async def mark_operations(admin: Connection, log: int, epoch: int, trees: Sequence[tuple[int, bytes]]) -> list[int]:
    """End an operations log as it was restored, as ``mark_restored``; ``operations.OPERATORS`` names the cell's."""
    sql = "SELECT chukan.operations_restored_leaf($1, $2, $3, $4)"
    places = [await _step(admin, admin.fetchval(sql, log, epoch, size, root)) for size, root in trees]
    return [int(place) for place in places]


async def open_cell(admin: Connection, epoch: int, note: str) -> dt.datetime:
    """Open the cell in a new epoch and return since when; every session of a server process ends, to be checked anew.

    Raises ``Problem`` as the cell does; busy when sets in flight do not end.
    """
    opened_at = await _step(admin, admin.fetchval("SELECT chukan.open_cell($1, $2)", epoch, note))
    # What those sessions had in flight is found out by a repeat; their processes come back under inspection.
    ended = await _step(
        admin,
        admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
            " AND usename IN ('chukan_broker', 'chukan_app', 'chukan_steward', 'chukan_links')"
            " AND pid <> pg_backend_pid()"
        ),
    )
    _log.warning("a cell was opened in a new epoch", epoch=epoch, count=ended)
    if not isinstance(opened_at, dt.datetime):
        raise Problem("internal")
    return opened_at


async def _step(admin: Connection, work: Awaitable[T]) -> T:
    try:
        return await bounded(admin, work, STEP_TIMEOUT_S)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
