"""The finder on real HTTP: races, black holes, zombies, stale answers, and how soon it knows."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from chukan.errors import Problem
from chukan.replication.leader import Finder, Leader
from chukan.replication.patroni import Patroni
from chukan.tests.replication.fake_members import FakeMember, serving
from chukan.tests.replication.pair import pause, until

WAIT_S = 15.0


@dataclass
class Watch:
    """A finder at work, and what it told."""

    finder: Finder
    told: list[tuple[str, int] | None] = field(default_factory=list)
    answering: set[str] = field(default_factory=set)
    """Whose server takes connections although its Patroni is silent."""
    asked: list[str] = field(default_factory=list)

    def _told(self, wanted: tuple[str, int] | None) -> Callable[[], Awaitable[bool]]:
        async def met() -> bool:
            return (self.told[-1] if self.told else None) == wanted

        return met

    async def sees(self, wanted: tuple[str, int] | None) -> float:
        """Wait until this is what it told last; return how long that took."""
        started = time.monotonic()
        await until(self._told(wanted), f"to be told {wanted}", WAIT_S)
        return time.monotonic() - started


@contextlib.asynccontextmanager
async def watching(*members: FakeMember) -> AsyncIterator[Watch]:
    async with serving(*members) as urls:
        patroni = Patroni(urls, None)

        def changed(leader: Leader | None) -> None:
            watch.told.append(None if leader is None else (leader.member, leader.timeline))

        async def answers(member: str) -> bool:
            watch.asked.append(member)
            return member in watch.answering

        watch = Watch(Finder("here", patroni, answers, changed))
        running = asyncio.create_task(watch.finder.run())
        try:
            yield watch
        finally:
            running.cancel()
            await asyncio.wait({running})
            await patroni.close()


def four() -> list[FakeMember]:
    members = [FakeMember(name, leader_seen="e1") for name in ("e1", "e2", "ew1", "ew2")]
    members[0].lead(1)
    return members


@pytest.mark.requirement("CON-01")
async def test_a_black_holed_member_does_not_delay_the_race() -> None:
    e1, e2, ew1, ew2 = four()
    e2.black_hole = True
    async with watching(e1, e2, ew1, ew2) as watch:
        assert await watch.sees(("e1", 1)) < 3.0
        # While the leader answers only it is asked, and all of them now and then.
        await pause(3.0)
        assert e1.asked > ew2.asked


async def test_a_new_leader_is_found_within_a_second_or_two_and_at_once_when_poked() -> None:
    e1, e2, ew1, ew2 = four()
    async with watching(e1, e2, ew1, ew2) as watch:
        await watch.sees(("e1", 1))
        e1.follow(1)
        e2.lead(2)
        watch.finder.poke()
        assert await watch.sees(("e2", 2)) < 2.5
        assert watch.told == [("e1", 1), ("e2", 2)], "never none in between, never back"


async def test_it_looks_oftener_while_nobody_leads() -> None:
    e1, *others = four()
    async with watching(e1, *others) as watch:
        await watch.sees(("e1", 1))
        before = e1.asked
        await pause(4.0)
        led = e1.asked - before
        e1.follow(1)
        await watch.sees(None)
        before = e1.asked
        await pause(4.0)
        assert e1.asked - before >= 2 * led, "those who wait for a leader break no connection that would tell of one"


async def test_the_same_member_on_a_new_timeline_is_another_leader() -> None:
    e1, *others = four()
    async with watching(e1, *others) as watch:
        await watch.sees(("e1", 1))
        e1.lead(2)
        await watch.sees(("e1", 2))


@pytest.mark.requirement("CON-01")
async def test_a_zombie_is_not_taken_back() -> None:
    """The old primary wakes up and says that it leads; its timeline is the one that was left behind."""
    e1, e2, ew1, ew2 = four()
    async with watching(e1, e2, ew1, ew2) as watch:
        await watch.sees(("e1", 1))
        e1.black_hole = True
        ew1.lead(2)
        await watch.sees(("ew1", 2))
        e1.black_hole = False
        await pause(2.5)
        assert watch.told[-1] == ("ew1", 2)
        ew1.black_hole = True  # and not even when it is the only one that speaks
        await watch.sees(None)
        await pause(2.5)
        assert watch.told == [("e1", 1), ("ew1", 2), None]


async def test_a_silent_patroni_does_not_end_a_server_that_answers() -> None:
    e1, *others = four()
    async with watching(e1, *others) as watch:
        await watch.sees(("e1", 1))
        watch.answering.add("e1")
        e1.black_hole = True
        await pause(4.5)
        assert watch.told == [("e1", 1)]
        assert watch.asked, "its server was asked"
        watch.answering.clear()
        assert await watch.sees(None) < 4.0


async def test_garbage_and_strangers_are_silent() -> None:
    e1, e2, *others = four()
    e2.garbage = True
    stranger = FakeMember("x1", scope="there")
    stranger.lead(9)
    async with watching(e1, e2, *others, stranger) as watch:
        await watch.sees(("e1", 1))
        assert watch.finder.states["e2"] is None
        e1.follow(1)
        await watch.sees(None)


async def test_of_two_on_one_timeline_the_majority_decides_and_a_stale_view_does_not() -> None:
    e1, e2, ew1, ew2 = four()
    e2.lead(1)
    e2.leader_seen = "e2"  # just thawed: it sees the world of before
    async with watching(e1, e2, ew1, ew2) as watch:
        await watch.sees(("e1", 1))
        patroni = watch.finder._members
        assert next(member.name for member in await patroni.cluster() if member.role == "leader") == "e1"


async def test_orders_go_to_one_member_and_refusals_come_back() -> None:
    e1, e2, ew1, ew2 = four()
    async with serving(e1, e2, ew1, ew2) as urls:
        patroni = Patroni(urls, None, password=("patroni", "secret"))
        assert await patroni.primaries() == ["e1"]
        assert "Successfully" in await patroni.switchover("e1", "ew1")
        assert await patroni.patch_config({"synchronous_mode_strict": False})
        assert await patroni.config() == {"ttl": 20}
        assert e1.orders == [
            ("POST", "switchover", {"leader": "e1", "candidate": "ew1"}),
            ("PATCH", "config", {"synchronous_mode_strict": False}),
        ]
        assert [member.orders for member in (e2, ew1, ew2)] == [[], [], []]
        ew1.refuses = "failover is not possible: no good candidates have been found"
        with pytest.raises(Problem) as caught:
            await patroni.failover("ew1")
        assert (caught.value.code, caught.value.expected) == ("order_refused", ew1.refuses)
        # One that may have taken it is not followed by another that takes it again.
        e1.black_hole = True
        with pytest.raises(Problem, match="node_unreachable"):
            await patroni.switchover("e1", "ew1", timeout_s=0.5)
        assert (e2.orders, len(ew1.orders)) == ([], 1)
        await patroni.close()
