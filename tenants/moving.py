"""How an agency moves (機関の移動): frozen, copied, compared, opened elsewhere in the next generation (DESIGN §7).

While it moves every request for it is answered ``agency_moved`` with a time to come back, and messages from the network
are asked for once more: nothing is accepted that could be lost, and what was accepted before moves along. The lines are
taken out of the workers' hands by the freeze and given to those of the new cell by its opening, so nobody works on them
twice. Keys do not move: they are the centres', not the cells'.

The steps, each one commit: *freeze* where it lives; *receive* and *copy* into the new cell; *open* there, after which
there is no way back; *leave*, which raises the generation in the old cell; *publish*, at once. A move that was
interrupted goes on with the first step that was not done, or is taken back as long as nothing was opened. What is left
in the old cell is kept frozen until ``discard`` destroys it.

Invariant: an agency is open in one cell at most, and the new one is not opened before its tables were read back as the
same. One move at a time, in the turn of those who publish.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import NamedTuple

import asyncpg

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, Connection, translate
from chukan.tenants import births, move_copy
from chukan.tenants.agency_steps import agency_in_force, patient, whereabouts
from chukan.tenants.births import AgencyHere
from chukan.tenants.changes import Changes, require_agency
from chukan.tenants.directory import AgencyRow
from chukan.tenants.partition import schema_name
from chukan.tenants.publishing import Published, Publisher
from chukan.tenants.table_copy import Sent

Admins = Callable[[str], AbstractAsyncContextManager[Connection]]
"""Lends an administrator's connection to a cell."""

_log = log.get("move")


class Moved(NamedTuple):
    """A move that was finished."""

    agency: AgencyRow
    """Its row of the common data now."""
    from_cell: str | None
    """Where it was before; None when it was there already."""
    sent: dict[str, Sent]
    """What was copied by this call, by table; empty where an earlier one had."""
    published: Published


class Mover:
    """Moves agencies between the cells of one installation."""

    def __init__(self, cells: Cells, publisher: Publisher, admins: Admins) -> None:
        self._cells = cells
        self._publisher = publisher
        self._admins = admins

    async def move(self, code: str, to: str) -> Moved:
        """Move an agency, or go on with a move that was interrupted; safe to repeat after any failure.

        Raises:
            Problem: unknown_agency, agency_closed; invalid_field for a cell that there is none of; move_too_late when
                it was opened in another cell than ``to``; old_copy_kept; move_differs; busy when locks were not to be
                had, or a transaction of the agency goes on for too long; as the cells do.
        """
        if to not in self._cells.names:
            raise Problem("invalid_field", pointer="/to", expected=" or ".join(sorted(self._cells.names)))
        async with self._publisher.turn():
            agency = await agency_in_force(self._cells, self._publisher, code)
            if agency.state != "open":
                raise Problem("agency_closed")
            here = await whereabouts(self._cells, agency)
            sent: dict[str, Sent] = {}
            if agency.cell != to and not self._is_open_in(to, agency, here):
                await self._clear_others(agency, to, here)
                sent = await self._carry(agency, to)
            source = None if agency.cell == to else agency.cell
            generation = agency.generation if source is None else agency.generation + 1
            if source is not None:
                await self._step(source, "SELECT chukan.move_leave($1, $2)", agency.number, generation)
                async with self._admins(source) as admin:
                    await move_copy.drop_marks(admin, agency.number)
            published = await self._publisher.publish(Changes().move_agency(code, to, generation), at_once=True)
            _log.warning("agency moved", agency=agency.number, cell=to, snapshot=published.snapshot.number)
            return Moved(require_agency(published.snapshot, code), source, sent, published)

    async def take_back(self, code: str) -> AgencyRow:
        """Open an agency again where it lives, as if it had never begun to move; what arrived elsewhere is destroyed.

        ``Problem`` unknown_agency, agency_not_moving, move_too_late; as the cells do.
        """
        async with self._publisher.turn():
            agency = await agency_in_force(self._cells, self._publisher, code)
            here = await whereabouts(self._cells, agency)
            if here[agency.cell] is None or here[agency.cell].state != "moving":  # type: ignore[union-attr]
                raise Problem("agency_not_moving")
            await self._clear_others(agency, None, here)
            await self._step(agency.cell, "SELECT chukan.move_thaw($1)", agency.number)
            _log.warning("agency stays", agency=agency.number, cell=agency.cell)
            return agency

    async def discard(self, code: str, cell: str) -> AgencyRow:
        """Destroy what an agency left in a cell that it moved away from; it must be open where it lives, with its log.

        ``Problem`` unknown_agency, agency_not_moving when nothing was left there, move_differs, as the cells do.
        """
        async with self._publisher.turn():
            agency = await agency_in_force(self._cells, self._publisher, code)
            here = await whereabouts(self._cells, agency)
            left, lives = here.get(cell), here.get(agency.cell)
            if cell == agency.cell or left is None or left.state != "moved":
                raise Problem("agency_not_moving")
            if lives is None or lives.state != "open" or lives.generation < left.generation:
                raise Problem("agency_not_moving")
            async with AsyncExitStack() as stack:
                old = await stack.enter_async_context(self._admins(cell))
                new = await stack.enter_async_context(self._admins(agency.cell))
                if not await _continues(old, new, agency.number):
                    raise Problem("move_differs", expected="log")
                try:
                    await births.depart(old, agency.number)
                except DRIVER_ERRORS as error:
                    raise translate(error) from None
            _log.warning("what an agency left was destroyed", agency=agency.number, cell=cell)
            return agency

    # ------------------------------------------------------------ steps

    async def _carry(self, agency: AgencyRow, to: str) -> dict[str, Sent]:
        """Freeze, receive, copy, and open."""
        number, generation = agency.number, agency.generation + 1
        await self._step(agency.cell, "SELECT chukan.move_freeze($1, $2)", number, agency.generation)
        _log.warning("agency frozen", agency=number, cell=agency.cell)
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(self._admins(agency.cell))
            target = await stack.enter_async_context(self._admins(to))
            in_the_way = await patient(target, "SELECT chukan.move_receive($1, $2)", number, generation)
            if in_the_way is not None:
                raise Problem("old_copy_kept" if in_the_way == "moved" else "number_in_use")
            sent = await move_copy.copy_over(source, target, number)
            await _copy_orders(source, target, number)
            await move_copy.copy_marks(source, target, number)
            hold_version, head, event = await marks(source, number)
            await _keep_opening(source, target, number)
            sql = "SELECT chukan.move_open($1, $2, $3, $4, $5)"
            await patient(target, sql, number, generation, hold_version, head, event)
        _log.warning("agency opened", agency=number, cell=to, count=sum(each.rows for each in sent.values()))
        return sent

    async def _step(self, cell: str, sql: str, *values: object) -> object:
        async with self._admins(cell) as admin:
            return await patient(admin, sql, *values)

    async def _clear_others(self, agency: AgencyRow, to: str | None, here: dict[str, AgencyHere | None]) -> None:
        """Destroy half-made arrivals in other cells than ``to``; ``Problem`` move_too_late when one was opened."""
        for cell, found in here.items():
            if cell in (to, agency.cell) or found is None:
                continue
            if found.state == "open" and found.generation > agency.generation:
                raise Problem("move_too_late", expected=cell)
            if found.state == "arriving":
                async with self._admins(cell) as admin:
                    try:
                        await births.depart(admin, agency.number)
                    except DRIVER_ERRORS as error:
                        raise translate(error) from None

    # ------------------------------------------------------------ looking

    @staticmethod
    def _is_open_in(cell: str, agency: AgencyRow, here: dict[str, AgencyHere | None]) -> bool:
        found = here[cell]
        return found is not None and found.state == "open" and found.generation > agency.generation


async def _keep_opening(source: Connection, target: Connection, agency: int) -> None:
    """A permit that was too old before the move is so after it; must be called before anything is opened."""
    kept = "UPDATE chukan.agencies SET opened_at = greatest(opened_at, $2) WHERE agency = $1"
    try:
        since = await source.fetchval("SELECT opened_at FROM chukan.agencies WHERE agency = $1", agency)
        await target.execute(kept, agency, since)
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def _copy_orders(source: Connection, target: Connection, agency: int) -> None:
    """Orders that were taken up are known in the new cell too: each has its effect once, wherever the agency lives."""
    columns = "id, step, agency, action, digest, at"
    try:
        rows = await source.fetch(f"SELECT {columns} FROM chukan.orders WHERE agency = $1", agency)
        await target.executemany(
            f"INSERT INTO chukan.orders ({columns}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id, step) DO NOTHING",
            [tuple(row) for row in rows],
        )
        begun = await source.fetch("SELECT id, agency, version, at FROM chukan.retirements WHERE agency = $1", agency)
        await target.executemany(
            "INSERT INTO chukan.retirements (id, agency, version, at) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (id) DO NOTHING",
            [tuple(row) for row in begun],
        )
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def marks(source: Connection, agency: int) -> tuple[int, int, int]:
    """Return the version of its holds, the head of its log, and the number of its last event."""
    schema = schema_name(agency)
    try:
        row = await source.fetchrow(
            "SELECT a.hold_version, coalesce(h.seq, 0) AS head,"
            f" (SELECT coalesce(max(e.n), 0) FROM {schema}.events e) AS event"
            " FROM chukan.agencies a LEFT JOIN chukan.log_heads h ON h.agency = a.agency WHERE a.agency = $1",
            agency,
        )
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    if row is None:
        raise Problem("unknown_agency")
    return row["hold_version"], row["head"], row["event"]


async def _continues(old: Connection, new: Connection, agency: int) -> bool:
    """Tell whether the log in the new cell continues the one that was left: the same leaf where that one ends."""
    schema = schema_name(agency)
    leaf = f"SELECT seq, leaf_hash FROM {schema}.log WHERE agency = $1"
    try:
        last = await old.fetchrow(f"{leaf} ORDER BY seq DESC LIMIT 1", agency)
        if last is None:
            return True
        same = await new.fetchrow(f"{leaf} AND seq = $2", agency, last["seq"])
    except asyncpg.UndefinedTableError:
        return False
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    return same is not None and same["leaf_hash"] == last["leaf_hash"]
