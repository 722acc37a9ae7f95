"""How a stage makes batches, and what becomes of failures, of waiters that give up, and of the end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.stages import Stage

Simulate = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


async def pause(seconds: float) -> None:
    """Wait on a timer of the simulated loop."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


class Work:
    """Doubles numbers, one second a batch; remembers its batches; fails as told."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.poison: dict[int, BaseException] = {}
        self.in_flight = 0
        self.in_flight_most = 0
        self.seconds = 1.0

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            await pause(self.seconds)
        finally:
            self.in_flight -= 1
        for item in items:
            if item in self.poison:
                raise self.poison[item]
        return [item * 2 for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


def make(work: Work, clock: Clock, **bounds: Any) -> Stage[int, int]:
    return Stage("test", work, clock=clock, **bounds)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def outcomes(*waits: Coroutine[Any, Any, Any]) -> list[Any]:
    return await asyncio.gather(*waits, return_exceptions=True)


def code(outcome: object) -> str:
    assert isinstance(outcome, Problem)
    return outcome.code


# ---------------------------------------------------------------- batches


def test_a_single_item_leaves_at_once(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock)
        started = now_s()
        assert await stage.submit(21, 10) == 42
        assert now_s() - started == 1.0

    simulate(main)
    assert work.batches == [[21]]


def test_who_submits_in_the_same_turn_comes_along(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock)
        assert await outcomes(*(stage.submit(n, 10) for n in range(5))) == [0, 2, 4, 6, 8]

    simulate(main)
    assert work.batches == [[0, 1, 2, 3, 4]]


def test_a_batch_forms_while_the_others_are_in_flight(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, flights=2)
        waits = []
        for number in range(8):
            waits.append(asyncio.ensure_future(stage.submit(number, 10)))
            await pause(0.1)
        assert await asyncio.gather(*waits) == [number * 2 for number in range(8)]

    simulate(main)
    assert work.batches == [[0], [1], [2, 3, 4, 5, 6, 7]]
    assert work.in_flight_most == 2


def test_a_batch_has_at_most_cap_items_and_keeps_the_order(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, cap=3, flights=1)
        assert await stage.submit_many(range(8), 10) == [number * 2 for number in range(8)]

    simulate(main)
    assert work.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_no_items_need_no_flight(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        assert await make(work, loop_clock).submit_many([], 10) == []

    simulate(main)
    assert work.batches == []


def test_none_is_a_result_like_any_other(simulate: Simulate, loop_clock: Clock) -> None:
    async def nothing(items: list[int]) -> list[None]:
        return [None for _ in items]

    async def main() -> list[None]:
        return await Stage("test", nothing, clock=loop_clock).submit_many([1, 2], 10)

    assert simulate(main) == [None, None]


@pytest.mark.parametrize("bound", ["cap", "flights", "queue_max"])
def test_bounds_are_at_least_one(work: Work, loop_clock: Clock, bound: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make(work, loop_clock, **{bound: 0})


# ---------------------------------------------------------------- bounds


def test_a_full_queue_says_busy_and_takes_nothing(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, cap=2, flights=1, queue_max=4)
        flying = asyncio.ensure_future(stage.submit_many([1, 2], 10))
        await pause(0.1)
        waiting = asyncio.ensure_future(stage.submit_many([3, 4, 5], 10))
        await pause(0.1)
        assert stage.waiting == 3
        with pytest.raises(Problem, match="busy") as caught:
            await stage.submit_many([6, 7], 10)
        assert caught.value.retry_after_s == 1
        assert await stage.submit(8, 10) == 16
        assert await waiting == [6, 8, 10]
        assert await flying == [2, 4]

    simulate(main)
    assert sorted(item for batch in work.batches for item in batch) == [1, 2, 3, 4, 5, 8]


def test_withdrawn_items_make_room(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, cap=1, flights=1, queue_max=3)
        flying = asyncio.ensure_future(stage.submit(1, 10))
        await pause(0.1)
        with pytest.raises(Problem, match="deadline_exceeded"):
            await stage.submit_many([2, 3, 4], 0.2)
        assert stage.waiting == 0
        assert await stage.submit_many([5, 6, 7], 10) == [10, 12, 14]
        assert await flying == 2

    simulate(main)
    assert work.batches == [[1], [5], [6], [7]]


# ---------------------------------------------------------------- failures


def test_a_poison_row_alone_gets_its_error(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    work.poison[3] = ValueError("row")

    async def main() -> list[Any]:
        stage = make(work, loop_clock)
        return await outcomes(*(stage.submit(n, 60) for n in range(5)))

    results = simulate(main)
    assert [results[n] for n in (0, 1, 2, 4)] == [0, 2, 4, 8]
    assert isinstance(results[3], ValueError)
    assert work.batches == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4]]


def test_a_poison_row_of_a_list_does_not_hide_the_others(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    work.poison[1] = Problem("agency_moved")

    async def main() -> None:
        stage = make(work, loop_clock)
        each = await stage.submit_each([0, 1, 2], 60)
        assert [each[0], code(each[1]), each[2]] == [0, "agency_moved", 4]
        with pytest.raises(Problem, match="agency_moved"):
            await stage.submit_many([0, 1, 2], 60)

    simulate(main)


@pytest.mark.parametrize("whole", ["no_primary", "unavailable", "network_unavailable", "deadline_exceeded"])
def test_a_database_that_is_away_is_not_asked_once_a_row(
    simulate: Simulate, work: Work, loop_clock: Clock, whole: str
) -> None:
    work.poison = {n: Problem(whole) for n in range(5)}

    async def main() -> list[Any]:
        stage = make(work, loop_clock)
        return await outcomes(*(stage.submit(n, 60) for n in range(5)))

    results = simulate(main)
    assert [code(result) for result in results] == [whole] * 5
    assert len({id(result) for result in results}) == 5, "raising changes an exception: each waiter has its own"
    assert work.batches == [[0, 1, 2, 3, 4]]


def test_a_trouble_that_may_be_about_an_item_is_looked_for(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    trouble = Problem("network_unavailable")
    trouble.about_items = True  # type: ignore[attr-defined]
    work.poison[1] = trouble

    async def main() -> list[Any]:
        stage = make(work, loop_clock)
        return await stage.submit_each([0, 1, 2], 60)

    results = simulate(main)
    assert [results[0], code(results[1]), results[2]] == [0, "network_unavailable", 4]


def test_what_goes_away_during_the_retry_ends_the_retry(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    work.poison = {0: ValueError("row"), 2: Problem("no_primary")}

    async def main() -> list[Any]:
        return await make(work, loop_clock).submit_each([0, 1, 2, 3, 4], 60)

    results = simulate(main)
    assert isinstance(results[0], ValueError)
    assert results[1] == 2
    assert [code(result) for result in results[2:]] == ["no_primary"] * 3
    assert work.batches == [[0, 1, 2, 3, 4], [0], [1], [2]]


def test_a_wrong_number_of_results_is_a_failure(simulate: Simulate, loop_clock: Clock) -> None:
    async def short(items: list[int]) -> list[int]:
        return items[1:] if len(items) > 1 else [items[0], 99]

    async def main() -> list[Any]:
        return await Stage("test", short, clock=loop_clock).submit_each([1, 2], 10)

    assert [type(result) for result in simulate(main)] == [RuntimeError, RuntimeError]


def test_work_that_cancels_itself_leaves_nobody_waiting(simulate: Simulate, loop_clock: Clock) -> None:
    calls: list[list[int]] = []

    async def cancelled(items: list[int]) -> list[int]:
        calls.append(items)
        if len(calls) == 1:
            raise asyncio.CancelledError
        return items

    async def main() -> None:
        stage = Stage("test", cancelled, clock=loop_clock)
        assert [code(outcome) for outcome in await stage.submit_each([1, 2], 60)] == ["unavailable"] * 2
        assert await stage.submit(3, 60) == 3

    simulate(main)


def test_work_that_raises_before_it_awaits(simulate: Simulate, loop_clock: Clock) -> None:
    def at_once(_items: list[int]) -> Any:
        raise StopIteration

    async def main() -> list[Any]:
        return await Stage("test", at_once, clock=loop_clock).submit_each([1], 10)

    [result] = simulate(main)
    assert isinstance(result, Exception)


def test_a_metrics_hook_that_breaks_leaves_nobody_waiting(
    simulate: Simulate, work: Work, loop_clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str, size: int, seconds: float, *, failed: bool) -> None:
        raise ZeroDivisionError

    async def main() -> list[Any]:
        return await make(work, loop_clock, observe=broken).submit_each([1, 2], 60)

    assert [code(outcome) for outcome in simulate(main)] == ["unavailable"] * 2
    assert '"error":"ZeroDivisionError"' in capfd.readouterr().err.replace(" ", "")


def test_the_hook_is_told_of_every_call_of_the_work(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    work.poison[1] = ValueError("row")
    seen: list[tuple[str, int, float, bool]] = []

    def observe(name: str, size: int, seconds: float, *, failed: bool) -> None:
        seen.append((name, size, seconds, failed))

    async def main() -> None:
        await make(work, loop_clock, observe=observe).submit_each([0, 1], 60)

    simulate(main)
    assert seen == [("test", 2, 1.0, True), ("test", 1, 1.0, False), ("test", 1, 1.0, True)]


# ---------------------------------------------------------------- waiters that give up


def test_a_waiter_that_times_out_leaves_the_work_going(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock)
        started = now_s()
        hasty, patient = await outcomes(stage.submit(1, 0.25), stage.submit(2, 10))
        assert (code(hasty), patient) == ("deadline_exceeded", 4)
        assert now_s() - started == 1.0
        assert await stage.submit(3, 10) == 6

    simulate(main)
    assert work.batches == [[1, 2], [3]]


def test_a_waiter_that_times_out_in_the_queue_is_withdrawn(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, flights=1, cap=1)
        first = asyncio.ensure_future(stage.submit(1, 10))
        await pause(0.1)
        hasty, patient = await outcomes(stage.submit(2, 0.25), stage.submit(3, 10))
        assert (code(hasty), patient) == ("deadline_exceeded", 6)
        assert await first == 2

    simulate(main)
    assert work.batches == [[1], [3]]


def test_a_cancelled_waiter_takes_nothing_from_the_others(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, flights=1, cap=4)
        waits = [asyncio.ensure_future(stage.submit(number, 10)) for number in range(8)]
        await pause(0.5)
        waits[1].cancel()
        waits[5].cancel()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert [results[n] for n in (0, 2, 3, 4, 6, 7)] == [0, 4, 6, 8, 12, 14]
        assert all(isinstance(results[n], asyncio.CancelledError) for n in (1, 5))

    simulate(main)
    assert work.batches == [[0, 1, 2, 3], [4, 6, 7]]


def test_a_list_that_times_out_has_what_was_done(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, flights=1, cap=2)
        each = await stage.submit_each([1, 2, 3, 4, 5, 6], 1.5)
        assert each[:2] == [2, 4]
        assert [code(outcome) for outcome in each[2:]] == ["deadline_exceeded"] * 4

        assert await stage.submit(7, 10) == 14

    simulate(main)
    assert work.batches == [[1, 2], [3, 4], [7]]


def test_a_result_at_the_last_moment_is_not_lost(simulate: Simulate, loop_clock: Clock) -> None:
    """The result comes, then the deadline strikes, both before the waiter has its turn: the result wins."""
    turn: list[str] = []

    async def barely(items: list[int]) -> list[int]:
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, turn.append, "deadline")  # due together with the waiter's own, and right before it
        loop.advance(2.0)  # type: ignore[attr-defined]
        # One more turn of the loop: it finds this task ready, and behind it the timers that are due.
        await asyncio.sleep(0)
        turn.append("result")
        return items

    async def main() -> list[int]:
        return await Stage("test", barely, clock=loop_clock).submit_many([7], 1.0)

    assert simulate(main) == [7]
    assert turn == ["result", "deadline"]


def test_no_time_is_no_wait(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock)
        with pytest.raises(Problem, match="deadline_exceeded"):
            await stage.submit(1, 0)
        await stage.close(5)

    simulate(main)


def test_abandoned_items_are_not_retried_alone(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    work.poison[0] = ValueError("row")

    async def main() -> None:
        stage = make(work, loop_clock)
        results = await outcomes(stage.submit(0, 60), *(stage.submit(n, 1.5) for n in range(1, 9)))
        assert isinstance(results[0], ValueError)
        await stage.close(60)

    simulate(main)
    assert len(work.batches) <= 3


# ---------------------------------------------------------------- the end


def test_close_finishes_what_waits(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        stage = make(work, loop_clock, flights=1, cap=2)
        waits = [asyncio.ensure_future(stage.submit(number, 60)) for number in range(6)]
        await pause(0.1)
        await stage.close(10)
        assert await asyncio.gather(*waits) == [0, 2, 4, 6, 8, 10]
        with pytest.raises(Problem, match="unavailable"):
            await stage.submit(7, 10)

    simulate(main)


def test_close_gives_up_at_its_deadline(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    work.seconds = 100.0

    async def main() -> None:
        stage = make(work, loop_clock, flights=1, cap=2)
        waits = [asyncio.ensure_future(stage.submit(number, 1000)) for number in range(6)]
        await pause(0.1)
        started = now_s()
        await stage.close(3)
        assert now_s() - started == 3.0
        assert [code(outcome) for outcome in await outcomes(*waits)] == ["unavailable"] * 6
        await stage.close(3)

    simulate(main)
    assert work.batches == [[0, 1]]


def test_close_does_not_wait_for_work_that_will_not_be_cancelled(simulate: Simulate, loop_clock: Clock) -> None:
    async def stubborn(items: list[int]) -> list[int]:
        for _ in range(3):
            try:
                await pause(20.0)
            except asyncio.CancelledError:
                continue
        return items

    async def main() -> None:
        stage = Stage("test", stubborn, clock=loop_clock)
        wait = asyncio.ensure_future(stage.submit(1, 1000))
        await pause(0.1)
        started = now_s()
        await stage.close(3)
        assert now_s() - started == 8.0
        assert await wait == 1

    simulate(main)


def test_an_empty_stage_closes_at_once(simulate: Simulate, work: Work, loop_clock: Clock) -> None:
    async def main() -> None:
        started = now_s()
        await make(work, loop_clock).close(10)
        assert now_s() == started

    simulate(main)
