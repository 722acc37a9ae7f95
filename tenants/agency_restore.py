"""One agency is restored alone (機関単位の復元, PLT-06): frozen, put back from a cell as of a moment, opened again.

Where the agency has its tables, its registrations go back (``restore_copy``) and what happened stays. Where its tables
are gone the whole partition is put back, as a move would carry it: then there is nothing that could have stayed. Only
this agency is frozen meanwhile (``agency_moved`` with a time to come back), everybody else's work goes on.

The steps: *freeze*; *put back*, one commit with the order's entry in the book and the next generation; *publish* that
generation at once. Interrupted before that commit everything is as before, but for the freeze, which the same command
or ``chukan agency move --back`` ends; after it everything is back, and ``settle`` publishes what was not.

Invariant: nothing is written over without an ``Approved`` order that is entered in the book (invariant 14), and under
one order once. One restore or move at a time, in the turn of those who publish.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, Connection, bounded, translate
from chukan.tenants import births, migrate, move_copy, order_book, readable, restore_copy
from chukan.tenants.agency_steps import LIST_TIMEOUT_S, STEP_TIMEOUT_S, agency_in_force, patient, whereabouts
from chukan.tenants.births import AgencyHere
from chukan.tenants.changes import Changes, require_agency
from chukan.tenants.directory import AgencyRow
from chukan.tenants.keystore import KeyStores
from chukan.tenants.moving import Admins, marks
from chukan.tenants.orders import Approved
from chukan.tenants.partition import schema_name
from chukan.tenants.publishing import Published, Publisher
from chukan.tenants.readable import Rows
from chukan.tenants.sealing import AgencyKeys

RESTORED_TABLES: Final = ("codes", "copies")
"""The tables with sealed values that come back where the partition still stands."""

_log = log.get("restore")


class Prospect(NamedTuple):
    """What a restore would put back, known before anything is done."""

    whole: bool
    """Whether the agency has no tables any more, so that the whole partition comes back."""
    tables: dict[str, Rows]
    keys: bool
    """False when the agency's keys were destroyed: nothing of it opens."""

    @property
    def unreadable(self) -> int:
        """How many rows would come back that no key opens."""
        return sum(each.unreadable for each in self.tables.values())


class Restored(NamedTuple):
    """A restore that was finished."""

    agency: AgencyRow
    """Its row of the common data now."""
    whole: bool
    rows: dict[str, int]
    """What was put back, by table; empty where an earlier call had."""
    kept: dict[str, int]
    """Rows of now that stay beside them."""


class Restorer:
    """Restores agencies of one installation."""

    def __init__(self, cells: Cells, publisher: Publisher, admins: Admins, keystores: KeyStores) -> None:
        self._cells = cells
        self._publisher = publisher
        self._admins = admins
        self._keystores = keystores

    async def settle(self, code: str) -> AgencyRow | None:
        """Publish what a restore left unpublished after its commit; None when there is nothing. Needs no order.

        ``Problem`` unknown_agency; as publishing and the cells do.
        """
        async with self._publisher.turn():
            agency = await agency_in_force(self._cells, self._publisher, code)
            here = (await self._whereabouts(agency))[agency.cell]
            if here is None or here.state != "open" or here.generation <= agency.generation:
                return None  # only a restore leaves an agency open in a generation that nobody was told
            published = await self._publish(_of_generation(agency, here.generation))
            return None if published is None else _row(published, agency)

    async def take_up(self, approved: Approved, code: str) -> Restored | None:
        """Enter an order durably before anything is done for it; a restore if an earlier call had carried it out.

        Raises:
            Problem: order_invalid for one of another act, or that was carried out and is in force everywhere; as
                publishing and the cells do.
        """
        async with self._publisher.turn():
            agency = await agency_in_force(self._cells, self._publisher, code)
            done = await self._begin(approved, agency) == "done"
            return await self._used(approved, agency) if done else None

    async def look(self, code: str, source: Connection) -> Prospect:
        """Tell what a restore would bring back, and what of it no key opens any more; changes nothing but ``source``.

        Args:
            code: the agency.
            source: an administrator's connection to the throw-away cell as of the moment; it is brought to the
                schema of this release.

        Raises:
            Problem: unknown_agency; agency_not_there_then; restore_unfit when the agency is on its way to another cell;
                agency_closed; keys_unconfirmed when a key store cannot be asked; as the cells do.
        """
        agency = await agency_in_force(self._cells, self._publisher, code)
        whole = await self._is_gone(agency, await self._whereabouts(agency))
        try:
            await migrate.migrate(source, "pre")
            await migrate.migrate(source, "post")
            state = await source.fetchval("SELECT state FROM chukan.agencies WHERE agency = $1", agency.number)
        except DRIVER_ERRORS as error:
            raise translate(error) from None
        if state not in ("open", "closed", "moving"):
            raise Problem("agency_not_there_then")
        keys = self._keys(agency)
        tables = tuple(sorted(readable.SEALED)) if whole else RESTORED_TABLES
        return Prospect(whole, await readable.survey(source, agency.number, keys, tables), keys is not None)

    async def restore(self, approved: Approved, code: str, source: Connection) -> Restored:
        """Restore an agency, or go on with a restore that was interrupted; ``source`` was looked at before.

        Raises:
            Problem: order_invalid for one of another act, or that was carried out; restore_differs; busy when locks
                were not to be had; as ``look``, publishing and the cells do.
        """
        async with self._publisher.turn():
            agency = await agency_in_force(self._cells, self._publisher, code)
            if await self._begin(approved, agency) == "done":
                return await self._used(approved, agency)
            here = await self._whereabouts(agency)
            whole = await self._is_gone(agency, here)
            act = self._put_back_whole if whole else self._put_back
            done = await act(agency, here[agency.cell], approved, source)
            count, order = sum(done.rows.values()), approved.order.id
            _log.warning("agency restored", agency=agency.number, cell=agency.cell, count=count, request_id=order)
            _log.warning("order carried out", agency=agency.number, stage="restore", request_id=order)
            published = await self._publish(done.agency)
            return done._replace(agency=done.agency if published is None else _row(published, agency))

    async def _begin(self, approved: Approved, agency: AgencyRow) -> order_book.Standing:
        if approved.order.action != "restore" or approved.order.agency != agency.code:
            raise Problem("order_invalid", expected="an order for this act at this agency")
        async with self._cells.steward(agency.cell) as steward:
            return await order_book.begin(steward, approved, agency.number)

    async def _used(self, approved: Approved, agency: AgencyRow) -> Restored:
        """Finish publishing what was carried out under an order; refused when nothing was left to do."""
        here = (await self._whereabouts(agency))[agency.cell]
        if here is not None and here.state == "open":
            published = await self._publish(_of_generation(agency, max(here.generation, agency.generation)))
            if published is not None and published.changed:
                return Restored(_row(published, agency), whole=False, rows={}, kept={})
        order = approved.order.id
        _log.warning("order refused", agency=agency.number, stage="restore", request_id=order, reason="used")
        raise Problem("order_invalid", expected="an order that was not carried out before")

    # ------------------------------------------------------------ putting back

    async def _put_back(
        self, agency: AgencyRow, _here: AgencyHere | None, approved: Approved, source: Connection
    ) -> Restored:
        """Freeze, and put the registrations back in one commit."""
        number, generation = agency.number, agency.generation + 1
        async with self._admins(agency.cell) as live:
            await patient(live, "SELECT chukan.move_freeze($1, $2)", number, agency.generation)
            _log.warning("agency frozen", agency=number, cell=agency.cell)
            await restore_copy.writers_gone(live, number)
            try:
                async with live.transaction():
                    done = await restore_copy.put_back(source, live, number)
                    sql = "SELECT chukan.restore_open($1, $2, $3)"
                    await bounded(live, live.fetchval(sql, number, generation, approved.order.id), STEP_TIMEOUT_S)
            except DRIVER_ERRORS as error:
                raise translate(error) from None
        rows = {name: sent.rows for name, sent in done.sent.items()}
        return Restored(_of_generation(agency, generation), whole=False, rows=rows, kept=done.kept)

    async def _put_back_whole(
        self, agency: AgencyRow, here: AgencyHere | None, approved: Approved, source: Connection
    ) -> Restored:
        """Carry the whole partition over, as a move does: it is closed to everybody until the last commit opens it."""
        number, closed = agency.number, agency.state == "closed"
        # The common data say nothing new of a closed one, and no set may name it.
        generation = max(agency.generation, here.generation if here else 0) + (0 if closed else 1)
        if here is not None and here.state == "arriving":
            generation = max(agency.generation + 1, here.generation)
        async with AsyncExitStack() as stack:
            live = await stack.enter_async_context(self._admins(agency.cell))
            try:
                if here is not None and here.state != "arriving":
                    await live.execute("UPDATE chukan.agencies SET state = 'closed' WHERE agency = $1", number)
                    await births.depart(live, number)
                then = "UPDATE chukan.agencies SET state = 'open' WHERE agency = $1 AND state = 'closed'"
                await source.execute(then, number)
                sql = "SELECT chukan.move_freeze($1, a.generation) FROM chukan.agencies a WHERE a.agency = $1"
                await patient(source, sql, number)
                if await patient(live, "SELECT chukan.move_receive($1, $2)", number, generation) is not None:
                    raise Problem("number_in_use")
                sent = await move_copy.copy_over(source, live, number)
                hold_version, head, event = await marks(source, number)
                async with live.transaction():
                    sql = "SELECT chukan.move_open($1, $2, $3, $4, $5)"
                    await live.fetchval(sql, number, generation, hold_version, head, event)
                    # Which permits were used since the moment is not known any more: none of before is served.
                    opened = "UPDATE chukan.agencies SET opened_at = clock_timestamp() WHERE agency = $1"
                    await live.execute(opened, number)
                    if closed:
                        await live.fetchval("SELECT chukan.close_agency($1)", number)
                    await live.fetchval("SELECT chukan.order_finish($1)", approved.order.id)
            except DRIVER_ERRORS as error:
                raise translate(error) from None
        rows = {name: each.rows for name, each in sent.items()}
        return Restored(_of_generation(agency, generation), whole=True, rows=rows, kept={})

    # ------------------------------------------------------------ looking and publishing

    async def _whereabouts(self, agency: AgencyRow) -> dict[str, AgencyHere | None]:
        """Return how it stands in each cell; ``Problem`` restore_unfit while it is on its way to another one."""
        found = await whereabouts(self._cells, agency)
        for cell, here in found.items():
            if cell != agency.cell and here is not None and here.state != "moved":
                raise Problem("restore_unfit", expected=f"no move that is unfinished in cell {cell}")
        return found

    async def _is_gone(self, agency: AgencyRow, here: dict[str, AgencyHere | None]) -> bool:
        """Tell whether the whole partition must come back; ``Problem`` agency_closed for one that is just closed."""
        state = here[agency.cell].state if here[agency.cell] is not None else None  # type: ignore[union-attr]
        if state in (None, "arriving"):
            return True
        async with self._admins(agency.cell) as live:
            schema = schema_name(agency.number)
            stands = await bounded(live, live.fetchval("SELECT to_regnamespace($1)", schema), LIST_TIMEOUT_S)
        if stands is not None and state not in ("open", "moving"):
            raise Problem("agency_closed")
        return stands is None

    def _keys(self, agency: AgencyRow) -> AgencyKeys | None:
        """Return its keys, None when they were destroyed."""
        try:
            return self._keystores.load(agency.number)
        except Problem as problem:
            if problem.code != "agency_closed":
                raise
            return None

    async def _publish(self, agency: AgencyRow) -> Published | None:
        """Have everybody know its generation; None for a closed one, of which there is nothing to know."""
        if agency.state == "closed":
            return None
        changes = Changes().move_agency(agency.code, agency.cell, agency.generation)
        return await self._publisher.publish(changes, at_once=True)


def _row(published: Published, agency: AgencyRow) -> AgencyRow:
    return require_agency(published.snapshot, agency.code)


def _of_generation(agency: AgencyRow, generation: int) -> AgencyRow:
    return msgspec.structs.replace(agency, generation=generation)
