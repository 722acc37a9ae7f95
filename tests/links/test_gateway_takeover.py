"""The service of devices with one tunnel: at most one centre has the peers, whatever happens to either."""

import asyncio
import datetime as dt

import pytest

from chukan.clock import Clock, ManualClock, SystemClock
from chukan.errors import Problem
from chukan.vpn.gateway.config import LEASE_MARGIN_S
from chukan.vpn.gateway.takeover import RENEWALS, Lease, Takeover

TTL_S = 20.0


class Database:
    """The lease as the database keeps it, by a clock of its own that is a little off."""

    def __init__(self, clock: ManualClock, rate: float = 1.0) -> None:
        self.clock = clock
        self.rate = rate
        self.owner: str | None = None
        self.until = 0.0
        self.epoch = 0

    def now(self) -> float:
        return self.clock.monotonic() * self.rate

    def hold(self, owner: str, ttl_s: float) -> int | None:
        if self.owner != owner and self.now() < self.until:
            return None
        if self.owner != owner:
            self.epoch += 1
        self.owner, self.until = owner, self.now() + ttl_s
        return self.epoch


class Side:
    """One centre: its lease, and whether it has peers."""

    def __init__(self, name: str, database: Database, clock: Clock) -> None:
        self.peers = False
        self.reaches = True
        self.fit = True
        self.left = 0
        self.drained = False
        self.stuck = False
        self.moved = asyncio.Event()
        self.renewed: list[float] = []
        self._name = name
        self._database = database
        self._clock = clock
        self.lease = Lease(TTL_S)
        self.takeover = Takeover(
            self.lease,
            self._ask,
            self._leave,
            fit=self._fit,
            drained=lambda: self.drained,
            renewed=self._renewed,
            changed=self._changed,
            clock=clock,
        )

    async def _ask(self, ttl_s: float) -> int | None:
        if not self.reaches:
            raise Problem("no_primary")
        return self._database.hold(self._name, ttl_s)

    async def _leave(self) -> bool:
        assert not self.peers, "the peers go before the lease is given back"
        self.left += 1
        self._database.until = 0.0
        return True

    async def _fit(self) -> bool:
        return self.fit

    async def _renewed(self) -> None:
        self.renewed.append(self.lease.left_s(self._clock.monotonic()))

    async def _changed(self, held: bool) -> bool:  # noqa: FBT001
        if self.stuck and not held:
            return False
        self.peers = held
        self.moved.set()
        return True

    async def tick(self) -> None:
        await self.takeover.once()

    async def look(self) -> None:
        await self.takeover._notice()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC))


@pytest.fixture
def sides(clock: ManualClock) -> tuple[Side, Side]:
    database = Database(clock)
    return Side("east", database, clock), Side("west", database, clock)


async def test_the_first_who_asks_has_the_peers_and_the_other_waits(sides: tuple[Side, Side]) -> None:
    east, west = sides
    await east.tick()
    await west.tick()
    assert (east.peers, west.peers) == (True, False)


@pytest.mark.parametrize("rate", [0.95, 1.0, 1.05])
async def test_a_holder_that_is_cut_off_lets_go_before_the_other_can_take_it(clock: ManualClock, rate: float) -> None:
    database = Database(clock, rate)
    east, west = Side("east", database, clock), Side("west", database, clock)
    await east.tick()
    east.reaches = False
    taken_after = None
    for second in range(1, 60):
        clock.advance(1)
        await east.tick()
        await east.look()
        await west.tick()
        assert not (east.peers and west.peers), "two centres call the same devices"
        if west.peers and taken_after is None:
            taken_after = second
    assert taken_after is not None
    assert taken_after <= TTL_S / rate + 1


async def test_it_lets_go_by_its_own_clock_without_any_answer(sides: tuple[Side, Side], clock: ManualClock) -> None:
    east, _ = sides
    await east.tick()
    clock.advance(TTL_S - LEASE_MARGIN_S - 0.1)
    await east.look()
    assert east.peers
    clock.advance(0.2)
    await east.look()
    assert not east.peers


async def test_who_cannot_serve_takes_the_peers_away_and_gives_it_back(sides: tuple[Side, Side]) -> None:
    east, west = sides
    await east.tick()
    east.fit = False
    await east.tick()
    assert (east.peers, east.left) == (False, 1)
    await west.tick()
    assert west.peers
    await east.tick()
    assert east.left == 1


async def test_it_is_not_given_back_while_devices_may_still_be_served(sides: tuple[Side, Side]) -> None:
    east, west = sides
    await east.tick()
    east.fit, east.stuck = False, True
    await east.tick()
    assert east.left == 0, "the other may not have it before the kernel's own time is over"
    await west.tick()
    assert not west.peers


async def test_the_kernel_is_told_at_each_renewal_how_long_it_lasts(
    sides: tuple[Side, Side], clock: ManualClock
) -> None:
    east, west = sides
    await east.tick()
    clock.advance(3)
    await east.tick()
    await west.tick()
    east.reaches = False
    clock.advance(3)
    await east.tick()
    assert east.renewed == [TTL_S - LEASE_MARGIN_S] * 2
    assert west.renewed == []
    assert west.lease.left_s(clock.monotonic()) == 0.0


async def test_a_holder_that_is_drained_gives_it_back_without_waiting_for_its_turn() -> None:
    side = Side("east", Database(ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC))), SystemClock())
    running = asyncio.create_task(side.takeover.run())
    async with asyncio.timeout((TTL_S - LEASE_MARGIN_S) / RENEWALS - 0.5):
        await side.moved.wait()
        side.moved.clear()
        side.fit, side.drained = False, True
        await side.moved.wait()
    assert not side.peers
    running.cancel()
    await asyncio.wait([running])


async def test_a_refusal_ends_it_at_once(sides: tuple[Side, Side], clock: ManualClock) -> None:
    east, west = sides
    await east.tick()
    clock.advance(TTL_S + 1)
    await west.tick()
    await east.tick()
    assert (east.peers, west.peers) == (False, True)


def test_the_time_counts_from_before_the_question() -> None:
    lease = Lease(TTL_S)
    lease.told(asked_at=100.0, epoch=1)
    assert lease.holds(114.9)
    assert not lease.holds(115.1)
    lease.told(asked_at=99.0, epoch=1)
    assert lease.holds(114.9), "an answer that comes late takes nothing away"


def test_a_lease_that_its_margin_eats_up_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        Lease(LEASE_MARGIN_S)


async def test_the_end_is_noticed_while_a_question_hangs(clock: ManualClock) -> None:
    """The loop that renews may wait for an answer; the one that watches does not."""
    hangs, asked = asyncio.Event(), asyncio.Event()
    gone = asyncio.Event()
    answers: list[int | None] = [1]

    async def ask(_ttl_s: float) -> int | None:
        if answers:
            return answers.pop()
        asked.set()
        await hangs.wait()
        return None

    async def changed(held: bool) -> bool:  # noqa: FBT001
        if not held:
            gone.set()
        return True

    async def yes() -> bool:
        return True

    async def renewed() -> None:
        return None

    takeover = Takeover(
        Lease(TTL_S), ask, yes, fit=yes, drained=lambda: False, renewed=renewed, changed=changed, clock=clock
    )
    await takeover.once()
    renewing, watching = asyncio.create_task(takeover.once()), asyncio.create_task(takeover._watch())
    async with asyncio.timeout(5):
        await asked.wait()
        clock.advance(TTL_S)
        await gone.wait()
    for task in (renewing, watching):
        task.cancel()
    await asyncio.wait((renewing, watching))
