"""How an agency stands (機関の状態), without any of its content: tables, keys, and how many rows of what.

Invariant: numbers and states only. Counting acts for the agency through door 1, like everything that reads its tables.
"""

from __future__ import annotations

from typing import NamedTuple

from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, translate
from chukan.tenants import births
from chukan.tenants.births import AgencyHere
from chukan.tenants.directory import AgencyRow
from chukan.tenants.keystore import KeyStores
from chukan.tenants.partition import Partition, act_for

COUNT_TIMEOUT_S = 120.0
_COUNTED = ("copies", "holds", "codes", "records", "log", "queries", "provisions", "statistics")


class Standing(NamedTuple):
    """An agency beside its row of the common data."""

    here: AgencyHere | None
    """Its tables in its cell; None when it has none there."""
    keys: bool
    """Whether a key store holds keys of it."""
    counts: dict[str, int]
    """Rows by table; empty when it has no tables."""


async def look(agency: AgencyRow, *, cells: Cells, keystores: KeyStores) -> Standing:
    """Return how an agency stands. ``Problem`` no_primary, unavailable, busy; setting_missing without a steward."""
    try:
        async with cells.steward(agency.cell) as steward:
            here = {each.agency: each for each in await births.list_agencies(steward)}.get(agency.number)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    counts: dict[str, int] = {}
    if here is not None:
        counts = await count_in_cell(agency, cells)
    return Standing(here, agency.number in keystores.agencies(), counts)


async def count_in_cell(agency: AgencyRow, cells: Cells) -> dict[str, int]:
    """Return how many rows an agency has by table; ``Problem`` unknown_agency when it has no tables in its cell."""
    pool = cells.primary(agency.cell).app
    async with act_for(pool, agency.number, timeout_s=COUNT_TIMEOUT_S) as partition:
        return await _count(partition)


async def _count(partition: Partition) -> dict[str, int]:
    counts = ", ".join(f"(SELECT count(*) FROM {partition.table(name)}) AS {name}" for name in _COUNTED)
    row = await partition.fetchrow(f"SELECT {counts}")
    if row is None:
        raise Problem("internal")
    return dict(row)
