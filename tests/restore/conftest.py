"""A nation whose eastern cell can be set back to an earlier moment, as a restore from a backup does it.

The moment is kept as a copy of the cell's database; the restore puts the copy in its place, and both exchanges come
back with the cell's next epoch in their settings, as after ``chukan site render``.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chukan.ops import reopening
from chukan.ops.reopening import Opened, Place, Reconciled
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.wire.agency import Batch, ReviewDecision, ReviewPrepare
from chukan.tenants.directory import AgencyRow
from tests.support.nation import WAIT_S, World

CELL = "east"


class Town:
    """The nation, and what an operator does to its eastern cell."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.moment = world.clock.now()

    async def stop(self) -> None:
        for site in self.world.sites.values():
            await site.stop()
        self.world.sites.clear()

    async def start(self) -> None:
        for name in ("east", "west"):
            await self.world.start_site(name)

    async def keep(self) -> None:
        """Keep the moment: what is done from now on is lost by the restore."""
        await self.stop()
        admin = await self.world.admin("postgres")
        name = self.world.databases[CELL]
        await admin.execute(f'CREATE DATABASE "{name}_kept" TEMPLATE "{name}"')
        # A backup brings the rights on the database back as well.
        rights = "UPDATE pg_database SET datacl = (SELECT o.datacl FROM pg_database o WHERE o.datname = $1)"
        await admin.execute(f"{rights} WHERE datname = $2", name, f"{name}_kept")
        await admin.close()
        self.moment = self.world.clock.now()
        await self.start()

    async def restore(self) -> None:
        """Set the cell back; its exchanges know it as restored and not opened."""
        await self.stop()
        admin = await self.world.admin("postgres")
        name = self.world.databases[CELL]
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.execute(f'ALTER DATABASE "{name}_kept" RENAME TO "{name}"')
        await admin.close()
        self.world.epochs[CELL] = self.world.epochs.get(CELL, 1) + 1
        await self.start()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        site = self.world.sites["west"]
        admin = await self.world.admin(self.world.databases[CELL])
        try:
            yield Place(
                cell=CELL,
                epoch=site.settings.cells[CELL].restore_epoch,
                sets=site.exchange.sets[CELL],
                admin=admin,
                peer=site.peer,
                keys=self.world.keystores.load,
                agencies=[row for row in self.world.snapshot.agencies if row.cell == CELL],
                newest=None,
                witnesses=list(site.exchange.sets.values()),
                origin="log.example/{}".format,
                clock=self.world.clock,
                chance=self.world.chance,
            )
        finally:
            await admin.close()

    async def reconcile(self, *, redeliver: bool = True) -> Reconciled:
        async with self.place() as place:
            return await reopening.compare(place, self.moment, redeliver=redeliver)

    async def open(self, accept: int) -> Opened:
        """Open the cell and wait until both exchanges serve it."""
        async with self.place() as place:
            opened = await reopening.open_place(place, self.moment, accept=accept)
        await self.until_open()
        return opened

    async def until_open(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while any(site.exchange.openings.closed(CELL) for site in self.world.sites.values()):
                await pause(0.05, asyncio.Event())

    async def outcome(self, code: str, batch: Batch) -> str | None:
        done = await self.world.answered(code, batch, via="west")
        (line,) = done.lines
        return line.outcome

    async def settled(self) -> None:
        """Wait until the network has nothing to push any more."""
        async with asyncio.timeout(WAIT_S):
            while (await self.world.network.state()).outbox:
                await pause(0.05, asyncio.Event())

    async def release(self, code: str) -> None:
        """Two officers of an agency release what waits there."""
        world, agency = self.world, self.agency(code)
        review = await world.until_some(world.west.reviews.list, agency)
        await world.west.reviews.prepare(agency, world.officer(code, "a"), review.id, ReviewPrepare(decision="provide"))
        await world.west.reviews.approve(agency, world.officer(code, "b"), review.id, ReviewDecision())

    def agency(self, code: str) -> AgencyRow:
        return self.world.agency(code)

    async def replaced(self) -> int:
        """How many permits the network replaced."""
        count = "SELECT count(*) FROM replaced"
        return int(await self.world.network.store.read(lambda c: c.execute(count).fetchone()[0]))

    async def references(self, code: str) -> list[tuple[str, str | None]]:
        """An agency's records: outcome and the network's number."""
        await self.world.sequenced()
        return [(row.fields.outcome, row.fields.reference) for row in await self.world.records(code)]

    async def opened_at(self) -> dt.datetime:
        return (await self.world.west.sets[CELL].opening()).opened_at


@pytest.fixture
def town(nation: World) -> Town:
    return Town(nation)
