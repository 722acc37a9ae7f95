"""How an agency arrives: keys in every centre, then its tables, and only then does anybody hear of it.

The number of a new agency is settled when its snapshot is published; until then everything made under it is empty and
may be made again. So a crash at any step is repaired by adding the agency once more.

Invariant: no agency is put on top of another one's data. Keys are made for new agencies only: for one that the common
data knows, missing keys are a loss to be found out about, never a reason to make others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, bounded, translate
from chukan.tenants import births
from chukan.tenants.directory import AgencyRow
from chukan.tenants.keystore import KeyStores
from chukan.tenants.standing import count_in_cell

BIRTH_TIMEOUT_S: Final = 120.0

_log = log.get("arrival")


async def make_ready(agencies: Sequence[AgencyRow], *, cells: Cells, keystores: KeyStores) -> None:
    """Make keys and tables of agencies that the common data does not know yet; what is there already is kept.

    Raises:
        Problem: invalid_field for a cell that there is none of; keys_unconfirmed; agency_closed when keys under a
            number were destroyed; number_in_use when there is data under one; busy, no_primary, unavailable.
    """
    for agency in agencies:
        if agency.cell not in cells.names:
            raise Problem("invalid_field", pointer="/cell", expected=" or ".join(sorted(cells.names)))
    for agency in agencies:
        # Key stores write to disks, or talk to an HSM, and wait for it.
        await asyncio.to_thread(keystores.create, agency.number)
    by_cell = {name: [agency for agency in agencies if agency.cell == name] for name in cells.names}
    bearing = (_bear(name, here, cells) for name, here in by_cell.items() if here)
    # All of them are waited for before the first failure is raised: nothing goes on behind the caller's back.
    for done in await asyncio.gather(*bearing, return_exceptions=True):
        if done is not None:
            raise done


async def _bear(cell: str, agencies: Sequence[AgencyRow], cells: Cells) -> None:
    try:
        async with cells.steward(cell) as steward:
            for agency in agencies:
                birth = births.birth(steward, agency.number, agency.generation)
                if await bounded(steward, birth, BIRTH_TIMEOUT_S):
                    _log.info("agency born", agency=agency.number, cell=cell)
                else:
                    await _check_empty(agency, cells)
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def _check_empty(agency: AgencyRow, cells: Cells) -> None:
    """Refuse tables that were there before, unless a birth that nobody heard of left them: those are empty."""
    if any((await count_in_cell(agency, cells)).values()):
        _log.error("a number for a new agency is in use", agency=agency.number, cell=agency.cell)
        raise Problem("number_in_use")
