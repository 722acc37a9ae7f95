"""Connections follow the leader through a real failover: two real servers, and what their Patroni says is scripted."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.replication.doors import NO_LEADER_WAIT_S
from chukan.replication.durability import Durability
from chukan.replication.primary import Cells
from chukan.settings import Cell
from chukan.tenants.partition import act_for
from chukan.tenants.sets import CellSets
from chukan.tenants.states import Side
from chukan.tests.replication.fake_members import FakeMember, serving
from chukan.tests.replication.pair import Pair, pause, until
from chukan.tests.replication.test_client_rules import lines_kept, request

OTHER = "other"


@dataclass
class Followed:
    """A cell of two members, and a second cell that nothing happens to."""

    pair: Pair
    first: FakeMember
    second: FakeMember
    cells: Cells

    @property
    def sets(self) -> CellSets:
        return CellSets(self.cells.primary("here").broker, timeout_s=10.0)

    async def led_by(self, member: str) -> None:
        async def met() -> bool:
            picture = self.cells.picture("here")
            return picture is not None and picture.serving and picture.leader.member == member

        await until(met, f"{member} serves")


@pytest.fixture
async def followed(pair: Pair, make_cell: Any, debian_server: Any) -> AsyncIterator[Followed]:
    admin = await pair.admin()
    system = await admin.fetchval("SELECT system_identifier::text FROM pg_control_system()")
    await admin.close()
    first, second = FakeMember("first", system=system), FakeMember("second", system=system)
    first.lead(1)
    calm: Cell = await asyncio.to_thread(lambda: make_cell(debian_server, [1]).settings)
    async with serving(first, second) as urls, Cells({"here": pair.members(urls), OTHER: calm}) as cells:
        yield Followed(pair, first, second, cells)


async def tried(sets: CellSets) -> tuple[str, float]:
    """Try one accepted list; how it ended and how long that took."""
    started = time.monotonic()
    batch, line = request()
    try:
        await sets.accept([batch], [line])
    except Problem as problem:
        return problem.code, time.monotonic() - started
    return "accepted", time.monotonic() - started


@dataclass
class Calm:
    """Somebody works in the other cell all the time."""

    cells: Cells
    seconds: list[float]

    async def run(self) -> None:
        other = CellSets(self.cells.primary(OTHER).broker, timeout_s=10.0)
        while True:
            started = time.monotonic()
            await other.canary()
            self.seconds.append(time.monotonic() - started)
            await pause(0.05)


@contextlib.asynccontextmanager
async def meanwhile(*works: Any) -> AsyncIterator[None]:
    """Run some work on the side; what broke in it breaks the test."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def bereaved(followed: Followed) -> None:
    """The primary dies, its Patroni says no more, and nobody leads for a while."""
    await followed.pair.settled()
    followed.first.black_hole = True
    await asyncio.to_thread(followed.pair.first.kill)
    ends = [await tried(followed.sets) for _ in range(3)]
    assert {code for code, _ in ends} <= {"no_primary", "unavailable"}
    assert max(seconds for _, seconds in ends) < NO_LEADER_WAIT_S + 5
    await until(_true(lambda: followed.cells.leader("here") is None), "it is known that nobody leads")
    await pause(NO_LEADER_WAIT_S)
    code, seconds = await tried(followed.sets)
    assert code == "no_primary"
    assert seconds < 0.5, "past the first moment the answer is immediate"


@pytest.mark.requirement("CON-01", "CON-02")
async def test_work_goes_on_at_the_new_leader_and_the_other_cell_never_notices(followed: Followed) -> None:
    cells, calm, heard = followed.cells, Calm(followed.cells, []), []
    (batch, line), owner = request(), "worker-00000000"
    await followed.sets.accept([batch], [line])
    await followed.sets.worker_share(owner, Side.INQUIRER, 60)
    before = await followed.sets.lease(owner, Side.INQUIRER, 64, 60)
    assert cells.leader("here").who[:2] == ("first", 1)
    async with meanwhile(
        cells.hear("here", ["chukan_inquirer"], lambda channel, _told: heard.append(channel)), calm.run()
    ):
        await until(_true(lambda: heard), "the listener listens")
        await bereaved(followed)
        heard.clear()
        heir = await followed.pair.fail_over()
        followed.second.lead(2)
        await followed.led_by("second")
        assert (await tried(followed.sets))[0] == "accepted"
        assert await lines_kept(heir, [line]) == 1, "what was acknowledged before is there"
        await until(_true(lambda: heard), "the listener follows")
    epochs = {row["epoch"] for row in await heir.fetch("SELECT epoch FROM chukan.leases")}
    assert min(epochs) > max(grant.epoch for grant in before), "no grant of the time before stands"
    with pytest.raises(Problem, match="stale_lease"):
        await followed.sets.take_inquiries(before, 10)
    async with act_for(cells.primary("here").app, 1) as partition:
        assert await partition.fetchval("SELECT 1") == 1
    async with cells.steward("here") as steward:
        assert await steward.fetchval("SELECT pg_is_in_recovery()") is False
    assert await cells.durability("here") is Durability.ONE_DISK
    picture = cells.picture("here")
    assert (picture.changes, picture.leader.member, picture.leader.timeline) == (1, "second", 2)
    assert picture.leaderless_s > NO_LEADER_WAIT_S
    assert len(calm.seconds) > 20
    assert sorted(calm.seconds)[len(calm.seconds) // 2] < 0.5, "the other cell went on"
    await heir.close()


async def test_what_was_in_flight_at_a_quick_change_is_done_once_at_the_new_leader(followed: Followed) -> None:
    """Nobody outside notices a change that is quick enough: the call is repeated where the leader is now."""
    await followed.led_by("first")
    mine = [request() for _ in range(5)]
    await followed.pair.settled()

    async def change() -> None:
        heir = await followed.pair.fail_over()
        await heir.close()
        followed.first.follow(1)
        followed.second.lead(2)

    async def accept(number: int) -> Any:
        await pause(number * 0.1)
        (accepted,) = await CellSets(followed.cells.primary("here").broker).accept([mine[number][0]], [mine[number][1]])
        return accepted.batch

    *accepted, _ = await asyncio.gather(*(accept(number) for number in range(5)), change(), return_exceptions=True)
    done = [batch for batch in accepted if not isinstance(batch, BaseException)]
    heir = await followed.pair.heir()
    kept = [line for batch, line in mine if batch.batch in done]
    assert await lines_kept(heir, kept) == len(done), "what was acknowledged is there"
    await heir.close()


def _true(said: Any) -> Any:
    async def met() -> bool:
        return bool(said())

    return met


@pytest.mark.requirement("CON-01")
async def test_a_server_that_is_not_what_its_patroni_says_is_not_served_with(followed: Followed) -> None:
    """A REST that claims timeline 2 in front of a server on timeline 1: the server itself is asked."""
    followed.first.lead(2)
    await pause(1.0)
    code, _ = await tried(followed.sets)
    assert code == "no_primary"
    assert followed.cells.picture("here").serving is False
    followed.first.lead(2)
    followed.first.system = "1"
    code, _ = await tried(followed.sets)
    assert code == "no_primary"


async def test_a_lost_standby_is_told_by_the_durability_of_the_next_commit(followed: Followed) -> None:
    await followed.led_by("first")
    assert await followed.cells.durability("here") is Durability.TWO_CENTRES
    leader = followed.cells.leader("here")
    assert leader is not None
    told = f"two-centres; leader={leader.member}; timeline={leader.timeline}"
    assert await followed.cells.told_durability("here") == told
    assert await followed.cells.told_durability(OTHER) == "one-server"
    assert await followed.cells.durability(OTHER) is Durability.ONE_SERVER
    await followed.pair.cut()
    admin = await followed.pair.admin()
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()
    assert (await tried(followed.sets))[0] == "accepted"
    assert await followed.cells.durability("here") is Durability.ONE_DISK
    # Many questions at once are one or two.
    found = await asyncio.gather(*(followed.cells.durability("here") for _ in range(50)))
    assert set(found) == {Durability.ONE_DISK}
