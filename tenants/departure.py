"""How an agency leaves (退去): what it ordered is handed over, what it ordered destroyed is destroyed (invariant 14).

Both take an ``Approved`` order, which only ``orders.demand`` makes, and enter it in the book of orders before they do
anything. Destruction takes the keys first: from then on nothing that rests anywhere, a backup included, can be read.

Invariant: nothing of an agency is opened for a file, and no key or table of one is destroyed, without an order that was
entered. Every step may be repeated, so an interrupted act goes on under the same order; an export that was finished
never happens again under it. Destroying what is destroyed already does nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from chukan import log
from chukan.chance import Chance
from chukan.errors import Problem
from chukan.replication.primary import (
    CONNECT_TIMEOUT_S,
    DRIVER_ERRORS,
    Cells,
    Connection,
    bounded,
    cell_context,
    translate,
)
from chukan.settings import Cell
from chukan.tenants import births, order_book
from chukan.tenants.changes import Changes
from chukan.tenants.directory import AgencyRow
from chukan.tenants.export_file import ExportWriter, Manifest, Written
from chukan.tenants.handover import HANDED, read_rows
from chukan.tenants.keystore import KeyStores
from chukan.tenants.orders import Action, Approved
from chukan.tenants.partition import act_for
from chukan.tenants.publishing import Published, Publisher
from chukan.tenants.sealing import AgencyKeys

CLOSE_TIMEOUT_S: Final = 120.0
PAGE_TIMEOUT_S: Final = 120.0

_log = log.get("departure")


async def export_agency(
    approved: Approved,
    agency: AgencyRow,
    *,
    cells: Cells,
    keys: AgencyKeys,
    path: Path,
    chance: Chance,
    at: dt.datetime,
) -> tuple[Manifest, Written]:
    """Write everything that an agency is handed, sealed to the order's recipient, into a new file.

    Raises:
        Problem: order_invalid for an order of another act, or one that was carried out; file_exists, file_unwritable;
            as the cell does.
    """
    recipient = approved.order.recipient
    if recipient is None:
        raise Problem("order_invalid", expected="a recipient")
    _check(approved, agency, "export")
    if await _begin(cells, approved, agency) == "done":
        _log.warning("order refused", agency=agency.number, stage="export", request_id=approved.order.id, reason="used")
        raise Problem("order_invalid", expected="an order that was not carried out before")
    door = partial(act_for, cells.primary(agency.cell).app, agency.number, timeout_s=PAGE_TIMEOUT_S)
    with ExportWriter(
        path,
        order=approved.order.id,
        agency=agency.code,
        recipient=recipient,
        made_at=at,
        chance=chance,
        environment=cells.environment,
    ) as writer:
        for table in HANDED:
            writer.table(table)
            async for row in read_rows(door, keys, table):
                writer.row(row.table, row.row, readable=row.readable)
        manifest, written = writer.finish()
    async with cells.steward(agency.cell) as steward:
        if not await order_book.finish(steward, approved):
            # Somebody else carried out the same order meanwhile; once is once.
            writer.withdraw()
            raise Problem("order_invalid", expected="an order that was not carried out before")
    _log.warning("order carried out", agency=agency.number, stage="export", request_id=approved.order.id)
    return manifest, written


async def destroy_agency(
    approved: Approved,
    agency: AgencyRow,
    *,
    cells: Cells,
    keystores: KeyStores,
    publisher: Publisher,
    admin: Connection,
) -> Published:
    """Destroy a closed agency's keys in every centre, then its tables and its role, then its clients' rights.

    Args:
        approved: the order.
        agency: its row of the common data in force.
        cells: the connection provider.
        keystores: those of all centres.
        publisher: publishes that nobody has rights at the agency any more.
        admin: an administrator's connection to the agency's cell.

    Raises:
        Problem: agency_open; order_invalid; keys_unconfirmed when a key store could not be reached (the others are
            cleared, nothing else is done: repeat it); busy when locks were not to be had; as the cells do.
    """
    await destroy_keys(approved, agency, cells=cells, keystores=keystores)
    try:
        await births.depart(admin, agency.number)
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    async with cells.steward(agency.cell) as steward:
        await order_book.finish(steward, approved)
    # Last, because from here on the officers are registered no more and the order would not be accepted again.
    published = await publisher.publish(Changes().forget_agency(agency.code))
    _log.warning("order carried out", agency=agency.number, stage="destroy", request_id=approved.order.id)
    return published


async def destroy_keys(approved: Approved, agency: AgencyRow, *, cells: Cells, keystores: KeyStores) -> None:
    """Destroy a closed agency's keys in every centre: the first half of its destruction, and of effect by itself.

    The order stays begun, so that ``destroy_agency`` may go on under it. Raises ``Problem`` as it does.
    """
    _check(approved, agency, "destroy")
    if agency.state != "closed":
        raise Problem("agency_open")
    await _begin(cells, approved, agency)
    await close_in_cell(cells, agency)
    await asyncio.to_thread(keystores.destroy, agency.number)
    _log.warning("keys destroyed", agency=agency.number, request_id=approved.order.id)


@asynccontextmanager
async def administrator(cell: Cell, user: str, password_file: Path) -> AsyncIterator[Connection]:
    """Lend an administrator's (superuser's) connection to a cell, which only a destruction and a move need.

    ``Problem`` settings_unreadable for the password's file, no_primary.
    """
    try:
        password = password_file.read_text(encoding="ascii").strip()  # noqa: ASYNC240 - a line on a local disk
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable password file of the administrator") from None
    admin = await _connect_admin(cell, user, password)
    try:
        yield admin
    finally:
        admin.terminate()


async def _connect_admin(cell: Cell, user: str, password: str) -> Connection:
    """Connect to the cell's server, or to that of its members which writes; ``Problem`` no_primary."""
    context = cell_context(cell)
    servers = [(member.host, member.port) for member in cell.members] or [(cell.host, cell.port)]
    for place, (host, port) in enumerate(servers, 1):
        try:
            admin: Connection = await asyncpg.connect(
                host=host,
                port=port,
                user=user,
                password=password,
                database=cell.database,
                timeout=CONNECT_TIMEOUT_S,
                target_session_attrs=SessionAttribute.read_write,
                ssl=context,
            )
        except DRIVER_ERRORS as error:
            if place == len(servers):
                raise translate(error) from None
        else:
            return admin
    raise Problem("no_primary", retry_after_s=1)


async def close_in_cell(cells: Cells, agency: AgencyRow) -> bool:
    """Have the agency's cell refuse every set that names it; False when it has no tables there (any more)."""
    try:
        async with cells.steward(agency.cell) as steward:
            return await bounded(steward, births.close(steward, agency.number), CLOSE_TIMEOUT_S)
    except DRIVER_ERRORS as error:
        raise translate(error) from None


def _check(approved: Approved, agency: AgencyRow, action: Action) -> None:
    """Refuse an order of something else once more, where it would take effect (a check in pairs with ``demand``)."""
    if approved.order.action != action or approved.order.agency != agency.code:
        raise Problem("order_invalid", expected="an order for this act at this agency")


async def _begin(cells: Cells, approved: Approved, agency: AgencyRow) -> order_book.Standing:
    async with cells.steward(agency.cell) as steward:
        return await order_book.begin(steward, approved, agency.number)
