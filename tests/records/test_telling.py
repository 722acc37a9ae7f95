"""An exchange tells the network what was signed, and hears of it when the network has seen another log."""

import sqlite3
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.sandbox.kept_checkpoints import KeptCheckpoints
from chukan.platform.exchange.telling import Teller
from chukan.platform.wire.checkpoints import CheckpointReply, CheckpointTold
from chukan.tenants import reopening
from chukan.tenants.evidence import Signer
from chukan.tests.records.bending import CODE, KEYS

pytestmark = pytest.mark.requirement("REC-02")


class Network:
    """A network that keeps checkpoints, reached without a wire."""

    def __init__(self) -> None:
        self.store = sqlite3.connect(":memory:", isolation_level=None)
        schema = resources.files("chukan.ops.sandbox").joinpath("network_schema.sql").read_text(encoding="utf-8")
        self.store.executescript(schema)
        self.store.execute("INSERT INTO agencies (code, name, route) VALUES (?, 'x', 'platform')", (CODE,))
        self.kept = KeptCheckpoints(KEYS.name, KEYS.public, SystemClock())
        self.calls = 0

    async def checkpoints(self, items: Sequence[bytes]) -> list[CheckpointReply]:
        self.calls += 1
        told = [msgspec.json.decode(item, type=CheckpointTold) for item in items]
        replies = self.kept.take(self.store, "platform", told)
        return [msgspec.json.decode(reply, type=CheckpointReply) for reply in replies]

    def sizes(self) -> list[int]:
        return [row[0] for row in self.store.execute("SELECT size FROM checkpoints")]


class Town:
    """One agency whose exchange signs its log and tells the network of it."""

    def __init__(self, shelf: Any) -> None:
        self.shelf, self.network = shelf, Network()
        self.signer = Signer(shelf.sets, KEYS, {shelf.agency: CODE}.get, lambda _: None)
        self.teller = self.another()

    def another(self) -> Teller:
        """Return another exchange's teller: it does not know what the network keeps."""
        codes = {self.shelf.agency: CODE}
        return Teller(self.shelf.sets, self.network, codes.get, SystemChance(SystemClock()), lambda _: None)

    async def grow(self, count: int) -> None:
        await self.shelf.records(count)
        await self.shelf.sequence()
        assert await self.signer.sign_due() == 1

    async def set_back(self, size: int) -> tuple[int, bytes]:
        """Take away what came after a size, as a restore does; return the last tree that stood."""
        last = await self.shelf.sets.evidence_last(self.shelf.agency)
        for table, column in (("log", "seq"), ("checkpoints", "size")):
            await self.shelf.admin.execute(f"DELETE FROM {self.shelf.schema}.{table} WHERE {column} > $1", size)
        await self.shelf.admin.execute(f"DELETE FROM {self.shelf.schema}.tiles WHERE (n + 1) * 16 > $1", size)
        for table, column in (("log_heads", "seq"), ("evidence_heads", "size")):
            sql = f"UPDATE chukan.{table} SET {column} = $2 WHERE agency = $1"
            await self.shelf.admin.execute(sql, self.shelf.agency, size)
        return last.size, last.root


@pytest.fixture
def town(shelf: Any) -> Town:
    return Town(shelf)


async def test_each_growth_is_told_once_with_its_proof(town: Town) -> None:
    assert await town.teller.tell_due() == 0
    for count, size, calls in ((3, 3, 1), (30, 33, 1), (2, 35, 1)):
        await town.grow(count)
        before = town.network.calls
        assert await town.teller.tell_due() == 1
        assert (town.network.sizes(), town.network.calls - before) == ([size], calls)
        assert await town.teller.tell_due() == 0
    await town.grow(4)
    assert await town.another().tell_due() == 1, "another exchange is told first where to prove from"
    assert town.network.sizes() == [39]


async def test_a_log_that_went_back_is_refused_and_said_loudly(town: Town) -> None:
    await town.grow(18)
    await town.grow(5)
    await town.teller.tell_due()
    await town.set_back(18)
    await town.grow(9)
    assert await town.teller.tell_due() == 0
    assert town.teller.refused == {town.shelf.agency}
    assert town.network.sizes() == [23]


async def test_a_restored_log_is_taken_again_by_its_leaf(town: Town) -> None:
    await town.grow(18)
    await town.grow(5)
    await town.teller.tell_due()
    await reopening.mark_restored(town.shelf.admin, town.shelf.agency, 2, [await town.set_back(18)])
    await town.grow(9)
    for teller in (town.teller, town.another()):
        assert await teller.tell_due() == 1
        assert teller.refused == set()
    assert town.network.sizes() == [28]
