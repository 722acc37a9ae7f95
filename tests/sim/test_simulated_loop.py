"""The ground of the simulation: time, order, and processes that freeze and die."""

import asyncio
from random import Random
from typing import Any

import pytest

from chukan.ops.simulation.loop import DeadlockError, Gone, Process, ProcessClock, SimulatedLoop


def run(main: Any, seed: int = 1) -> Any:
    loop = SimulatedLoop(Random(seed))  # noqa: S311 - reproducible on purpose
    result = loop.run(main(loop))
    assert loop.faults == []
    return result


async def pause(seconds: float) -> None:
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, lambda: over.done() or over.set_result(None))
    await over


def test_an_hour_takes_no_time_and_the_clock_moves() -> None:
    async def main(loop: SimulatedLoop) -> float:
        await pause(3600.0)
        return loop.now_s

    assert run(main) == pytest.approx(3600.0, abs=0.01)


def test_what_is_ready_at_once_runs_in_an_order_of_the_seed() -> None:
    async def main(_loop: SimulatedLoop) -> list[int]:
        order: list[int] = []

        async def one(n: int) -> None:
            await pause(1.0)
            order.append(n)

        await asyncio.gather(*(one(n) for n in range(8)))
        return order

    orders = [tuple(run(main, seed)) for seed in (1, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(8)) for order in orders)


def test_a_frozen_process_does_nothing_and_then_goes_on() -> None:
    async def main(loop: SimulatedLoop) -> list[float]:
        process = Process("east")
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                await pause(1.0)
                ticks.append(round(loop.now_s, 1))

        process.spawn(tick())
        await pause(2.5)
        process.pause(loop)
        await pause(10.0)
        process.resume(loop)
        await pause(1.2)
        assert process.held_up_s == pytest.approx(10.0, abs=0.01)
        process.kill(loop)
        await pause(5.0)
        return ticks

    assert run(main) == [1.0, 2.0, 12.5, 13.5]


def test_whoever_asked_a_process_that_dies_learns_that_it_is_gone() -> None:
    async def main(loop: SimulatedLoop) -> str:
        process = Process("east")
        asked = asyncio.ensure_future(process.serve(lambda: pause(100.0)))
        await pause(1.0)
        process.kill(loop)
        with pytest.raises(Gone):
            await asked
        with pytest.raises(asyncio.CancelledError):
            process.check_alive()
        with pytest.raises(Gone):
            await process.serve(lambda: pause(1.0))
        return "gone"

    assert run(main) == "gone"


def test_a_clock_is_off_and_drifts() -> None:
    async def main(loop: SimulatedLoop) -> tuple[float, float]:
        true, off = Process("true"), Process("off", skew_s=2.0, drift=0.001)
        await pause(1000.0)
        clocks = [ProcessClock(process, loop) for process in (true, off)]
        apart = clocks[1].now() - clocks[0].now()
        return apart.total_seconds(), clocks[1].monotonic() - clocks[0].monotonic()

    apart_s, drifted_s = run(main)
    assert apart_s == pytest.approx(3.0, abs=0.01)
    assert drifted_s == pytest.approx(1.0, abs=0.01)


def test_waiting_for_nothing_is_noticed() -> None:
    async def main(_loop: SimulatedLoop) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError):
        run(main)


def test_a_leap_lets_time_pass_in_which_nobody_runs() -> None:
    async def main(loop: SimulatedLoop) -> list[float]:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await pause(seconds)
            woken.append(round(loop.now_s))

        sleepers = asyncio.gather(sleeper(5.0), sleeper(7.0))
        await pause(1.0)
        loop.leap(100.0)
        await sleepers
        return woken

    assert run(main) == [101, 101]
