"""What moving an agency and restoring one stand on: where it is, and one step at a time.

Invariant: nothing is decided here; a step is one commit, or nothing was done.
"""

from __future__ import annotations

from typing import Final

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, Connection, bounded, translate
from chukan.tenants import births
from chukan.tenants.births import AgencyHere
from chukan.tenants.changes import require_agency
from chukan.tenants.common_reading import read_common
from chukan.tenants.directory import AgencyRow
from chukan.tenants.publishing import Publisher

STEP_TIMEOUT_S: Final = 120.0
LIST_TIMEOUT_S: Final = 15.0


async def agency_in_force(cells: Cells, publisher: Publisher, code: str) -> AgencyRow:
    """Return an agency's row of the common data in force, which every cell must answer for.

    Raises ``Problem`` unknown_agency; as the cells do.
    """
    common = await read_common(cells, publisher.public)
    if common.snapshot is None:
        raise Problem("unknown_agency")
    return require_agency(common.snapshot, code)


async def whereabouts(cells: Cells, agency: AgencyRow) -> dict[str, AgencyHere | None]:
    """Return how an agency stands in each cell, None where it never was. Raises ``Problem`` as the cells do."""
    found: dict[str, AgencyHere | None] = {}
    for cell in sorted(cells.names):
        try:
            async with cells.steward(cell) as steward:
                listed = await bounded(steward, births.list_agencies(steward), LIST_TIMEOUT_S)
        except DRIVER_ERRORS as error:
            raise translate(error) from None
        found[cell] = next((each for each in listed if each.agency == agency.number), None)
    return found


async def patient(admin: Connection, sql: str, *values: object) -> object:
    """Run one step as one commit, giving way and trying again while locks are not to be had."""

    async def attempt() -> object:
        return await bounded(admin, admin.fetchval(sql, *values), STEP_TIMEOUT_S)

    try:
        return await births.patiently(attempt)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
