"""An operations log that goes on from a restore: cosigned once in its epoch, and what was lost is told."""

from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.ops.restored_logs import RestoredLogs
from chukan.tenants import evidence_check
from chukan.tenants.cosigning import Cosigner, Restores
from chukan.tenants.directory import AgencyRow
from chukan.tenants.evidence import CentreKeys, Signer
from chukan.tenants.evidence_check import find_restores
from chukan.tenants.evidence_report import Report, Rules
from chukan.tenants.operations import OPERATORS
from chukan.tenants.operations_export import AgencyLog, read_entries
from chukan.tenants.operations_tree import OperationTrees
from chukan.tests.records.acting import NAME, ActingTown, place
from chukan.tests.records.bending import CODE, KEYS, PRIVATE

pytestmark = pytest.mark.requirement("AUT-03")
BACK, SEEN, NOW = 20, 50, 24
THERE = CentreKeys("log.example", "sandbox", "west", PRIVATE["w"], KEYS.public)


class Restored(ActingTown):
    """A log of 50 leaves that the other centre has cosigned, and that is set back to 20."""

    def cosigner(self, epoch: int) -> Cosigner:
        trees, sets = OperationTrees(self.shelf.sets), self.shelf.sets
        named = {self.shelf.agency: NAME}.get
        return Cosigner(trees, sets, THERE, named, SystemClock(), restores=Restores(epoch, trees, sets))

    async def fill_seen(self) -> None:
        """Fill it, and let the other centre's cosigner see it."""
        await self.fill()
        # Every agency of these tests has the same code; what was seen of the one before is not this one's.
        await self.shelf.admin.execute("DELETE FROM chukan.witnessed WHERE origin = $1", KEYS.origin(NAME))
        cosigner = self.cosigner(1)
        await cosigner.cosign_due()
        assert self.shelf.agency not in cosigner.forked

    async def set_back(self) -> None:
        await self.run(f"DELETE FROM {{s}}.records WHERE id IN (SELECT operation FROM {{s}}.log WHERE seq > {BACK})")
        for table, column in (("log", "seq"), ("checkpoints", "size"), ("cosignatures", "size")):
            await self.run(f"DELETE FROM {{s}}.{table} WHERE {column} > {BACK}")
        await self.run(f"DELETE FROM {{s}}.tiles WHERE (n + 1) * 16 > {BACK}")
        await self.shelf.admin.execute(
            "UPDATE chukan.operation_heads SET seq = $2, size = $2 WHERE agency = $1", self.shelf.agency, BACK
        )

    async def mark(self) -> None:
        row = AgencyRow(number=self.shelf.agency, code=CODE, body="131016", name="x", cell="here", generation=1)
        sets = [self.shelf.sets]
        await RestoredLogs("here", 2, self.shelf.admin, [row], sets, KEYS.origin).mark()

    async def go_on(self, count: int) -> None:
        for n in range(count):
            await self.enter(f"officer-{n}")
        await place(self.shelf)
        signer = Signer(OperationTrees(self.shelf.sets), KEYS, {self.shelf.agency: NAME}.get, lambda _: None)
        assert await signer.sign_due() == 1

    async def judged(self, *known: int, allow: bool = False) -> Report:
        lines = await self.export()
        notes = [self.notes[size] for size in known]
        rules = Rules(KEYS.known(NAME), notes, restores=find_restores(iter(lines)), allow_restored=allow)
        return evidence_check.check(iter(lines), rules)


@pytest.fixture
async def town(shelf: Any) -> Restored:
    town = Restored(shelf)
    await town.fill_seen()
    await town.set_back()
    return town


async def test_the_leaf_lets_the_log_go_on_and_names_what_was_lost(town: Restored) -> None:
    await town.mark()
    await town.mark()
    await town.go_on(NOW - BACK - 1)
    unaware, aware = town.cosigner(1), town.cosigner(2)
    await unaware.cosign_due()
    assert town.shelf.agency in unaware.forked, "no log can say of itself that it was restored"
    await aware.cosign_due()
    assert town.shelf.agency not in aware.forked
    found = await town.judged(BACK)
    assert (found.findings, found.leaves, found.records) == ([], NOW, NOW - 1)
    assert [(each.position, each.epoch, each.size) for each in found.restores] == [(BACK + 1, 2, SEEN)]
    told = await town.judged(SEEN)
    assert [(each.code, each.first, each.last) for each in told.findings] == [("restored", BACK + 1, SEEN)]
    assert (await town.judged(SEEN, allow=True)).sound
    # The leaf of the restore is nobody's act; all acts are read around it.
    entries = await read_entries(AgencyLog(town.shelf.open), town.shelf.keys, 0, 100)
    assert [position for position, _ in entries] == [*range(1, BACK + 1), *range(BACK + 2, NOW + 1)]


async def test_without_its_leaf_a_restored_log_is_not_cosigned_on(town: Restored) -> None:
    await town.go_on(NOW - BACK)
    cosigner = town.cosigner(2)
    await cosigner.cosign_due()
    assert town.shelf.agency in cosigner.forked
    assert not (await town.judged(SEEN, allow=True)).sound


async def test_the_operators_log_is_marked_too(town: Restored) -> None:
    await town.mark()
    marks = [data for _, data in await town.shelf.sets.operations_restored(OPERATORS)]
    assert len(marks) == 1


async def test_entries_of_a_frozen_agency_stand_in_nobodys_way(shelf: Any, neighbour: Any) -> None:
    """The batch is taken from what can have its place: the oldest of all wait for a thaw, the others do not."""
    here, there = ActingTown(neighbour), ActingTown(shelf)
    await place(shelf)
    for _ in range(3):
        await here.enter("officer-1")
    await shelf.admin.execute("UPDATE chukan.agencies SET state = 'closed' WHERE agency = $1", neighbour.agency)
    await there.enter("officer-2")
    assert await shelf.sets.operations_sequence(2) == 1
    assert len(await there.leaves()) == 1
    await shelf.admin.execute("UPDATE chukan.agencies SET state = 'open' WHERE agency = $1", neighbour.agency)
    await place(shelf)
    assert len(await here.leaves()) == 3
