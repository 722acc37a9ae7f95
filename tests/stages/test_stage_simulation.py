"""A stage in any weather: clients come, wait, give up and leave; batches take their time, fail, hang and break.

The plan of each run is drawn by hypothesis (a failing one is printed and made small); the checks read what the clients
and the work saw, never the stage's own word.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.stages import Stage

Simulate = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
Item = tuple[int, int]

TENTHS = st.integers(0, 60).map(lambda tenths: tenths / 10)


@dataclass(frozen=True)
class Client:
    """Comes at ``at_s`` with ``size`` items, waits ``patience_s``, is cancelled after ``leaves_s`` where given."""

    at_s: float
    size: int
    patience_s: float
    leaves_s: float | None


@dataclass(frozen=True)
class Plan:
    """One run: who comes, how long each call of the work takes and how it ends, which rows are poison."""

    clients: list[Client]
    calls: list[tuple[float, str]]
    poison: frozenset[Item]
    cap: int
    flights: int
    queue_max: int
    closes_s: float | None


CLIENTS = st.builds(Client, TENTHS, st.integers(1, 7), TENTHS, st.none() | TENTHS)
ENDS = st.sampled_from(["done"] * 6 + ["error", "whole", "cancel", "short"])
PLANS = st.builds(
    Plan,
    st.lists(CLIENTS, min_size=1, max_size=12),
    st.lists(st.tuples(TENTHS, ENDS), min_size=1, max_size=10),
    st.frozensets(st.tuples(st.integers(0, 11), st.integers(0, 6)), max_size=4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 20),
    st.none() | TENTHS,
)


class PoisonError(Exception):
    """What a poison row gets."""


class HiccupError(Exception):
    """A failure of one call; the same items may succeed at the next one."""


@dataclass
class World:
    """The work and its journal."""

    plan: Plan
    under_way: int = 0
    starts: Counter[Item] = field(default_factory=Counter)
    done: Counter[Item] = field(default_factory=Counter)
    calls: int = 0
    broken: list[str] = field(default_factory=list)

    async def work(self, items: list[Item]) -> list[str]:
        """Do a batch as the plan says."""
        seconds, end = self.plan.calls[self.calls % len(self.plan.calls)]
        self.calls += 1
        self.under_way += 1
        if self.under_way > self.plan.flights:
            self.broken.append("too many flights")
        if not 1 <= len(items) <= self.plan.cap:
            self.broken.append("a batch of a wrong size")
        if len(set(items)) != len(items):
            self.broken.append("an item twice in a batch")
        self.starts.update(items)
        try:
            await pause(seconds)
        finally:
            self.under_way -= 1
        if end == "cancel":
            raise asyncio.CancelledError
        if end == "whole":
            raise Problem("no_primary")
        if end == "error":
            raise HiccupError
        if self.plan.poison & set(items):
            raise PoisonError
        self.done.update(items)
        return [f"{item}" for item in items][1 if end == "short" else 0 :]


async def pause(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


Outcome = list[str | Exception] | Problem | asyncio.CancelledError


async def visit(stage: Stage[Item, str], number: int, client: Client, world: World) -> Outcome:
    """Be one client; note whether the stage kept its own promises about time and order."""
    loop = asyncio.get_running_loop()
    await pause(client.at_s)
    came = loop.time()
    try:
        return await stage.submit_each([(number, place) for place in range(client.size)], client.patience_s)
    except Problem as problem:
        return problem
    except asyncio.CancelledError as gone:
        return gone
    finally:
        if loop.time() - came > client.patience_s + 1e-6:
            world.broken.append("somebody waited beyond the deadline")


async def run(plan: Plan, clock: Clock) -> tuple[World, list[Outcome]]:
    world = World(plan)
    stage = Stage("simulated", world.work, clock=clock, cap=plan.cap, flights=plan.flights, queue_max=plan.queue_max)
    loop = asyncio.get_running_loop()
    visits = []
    for number, client in enumerate(plan.clients):
        visits.append(loop.create_task(visit(stage, number, client, world)))
        if client.leaves_s is not None:
            loop.call_later(client.at_s + client.leaves_s, visits[-1].cancel)
    if plan.closes_s is not None:
        await pause(plan.closes_s)
        await stage.close(2.0)
    outcomes = await asyncio.gather(*visits, return_exceptions=True)
    await stage.close(1000.0)
    if stage.waiting:
        world.broken.append("items were left in the queue")
    return world, outcomes  # type: ignore[return-value]


def check_items(world: World, outcomes: list[Outcome]) -> None:
    """Every item: its own result, only if it was done; done at most once; refused lists never started."""
    for number, outcome in enumerate(outcomes):
        size = world.plan.clients[number].size
        items = [(number, place) for place in range(size)]
        if isinstance(outcome, Problem):
            assert outcome.code in {"busy", "unavailable"}
            assert not any(world.starts[item] for item in items), "a refused list was worked on"
        if not isinstance(outcome, list):
            continue
        assert len(outcome) == size
        for item, result in zip(items, outcome, strict=True):
            if isinstance(result, str):
                assert result == f"{item}", "somebody else's result"
                assert world.done[item] >= 1
            elif isinstance(result, PoisonError):
                assert item in world.plan.poison, "somebody else's error"
            else:
                assert isinstance(result, HiccupError | Problem | RuntimeError)


@given(PLANS)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_nothing_is_lost_doubled_or_mixed_up(simulate: Simulate, loop_clock: Clock, plan: Plan) -> None:
    world, outcomes = simulate(lambda: run(plan, loop_clock))
    assert world.broken == []
    assert world.under_way == 0
    # Once in its batch, and once more alone where that batch failed; never a third time.
    assert max(world.starts.values(), default=0) <= 2
    check_items(world, outcomes)


@given(PLANS)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_in_good_weather_every_patient_client_is_served_once(simulate: Simulate, loop_clock: Clock, plan: Plan) -> None:
    patient = [Client(client.at_s, client.size, 10_000.0, None) for client in plan.clients]
    calls = [(seconds, "done") for seconds, _ in plan.calls]
    fair = Plan(patient, calls, frozenset(), plan.cap, plan.flights, queue_max=100, closes_s=None)
    world, outcomes = simulate(lambda: run(fair, loop_clock))
    assert outcomes == [[f"{(number, place)}" for place in range(c.size)] for number, c in enumerate(patient)]
    assert set(world.done.values()) == {1}
    assert world.broken == []


def test_the_same_plan_runs_the_same_way(simulate: Simulate, loop_clock: Clock) -> None:
    plan = Plan(
        [Client(0.1 * n, 1 + n % 5, 3.0, None) for n in range(12)],
        [(0.7, "done"), (0.3, "error")],
        frozenset({(3, 0)}),
        cap=4,
        flights=2,
        queue_max=20,
        closes_s=None,
    )
    runs = [simulate(lambda: run(plan, loop_clock)) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert [f"{outcome}" for outcome in runs[0][1]] == [f"{outcome}" for outcome in runs[1][1]]
