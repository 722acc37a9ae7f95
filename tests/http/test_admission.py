"""Admission: shares, places, the queue, and that one agency's flood does not take another's place."""

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.admission import Admission, Limits, Priority, Share
from chukan.platform.metrics import Metrics

WIDE = Share(at_once=1000, lines_per_s=1e6, burst_lines=1_000_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC))


@pytest.fixture
def make(clock: ManualClock) -> Callable[..., Admission]:
    def made(**limits: Any) -> Admission:
        limits.setdefault("shares", (WIDE, WIDE, WIDE))
        return Admission(Limits(**limits), clock, Metrics())

    return made


async def _refused(admission: Admission, agency: int, priority: Priority, lines: int = 1) -> Problem:
    with pytest.raises(Problem) as raised:
        async with admission.work(agency, priority, lines):
            raise AssertionError("let in")
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s >= 1
    return raised.value


@pytest.mark.requirement("PLT-07")
async def test_an_agency_has_so_many_requests_at_once(make: Callable[..., Admission]) -> None:
    admission = make(shares=(Share(2, 1e6, 1000), WIDE, WIDE))
    async with admission.work(1, Priority.COUNTER), admission.work(1, Priority.COUNTER):
        assert (await _refused(admission, 1, Priority.COUNTER)).code == "rate_limited"
        async with admission.work(2, Priority.COUNTER), admission.work(1, Priority.BATCH):
            assert admission.at_work == 4
    async with admission.work(1, Priority.COUNTER):
        assert admission.at_work == 1


async def test_an_agency_s_lines_fill_up_again_with_time(make: Callable[..., Admission], clock: ManualClock) -> None:
    admission = make(shares=(WIDE, Share(10, 100.0, 1000), WIDE))
    async with admission.work(1, Priority.BATCH, 1000):
        pass
    problem = await _refused(admission, 1, Priority.BATCH, 500)
    assert (problem.code, problem.retry_after_s) == ("rate_limited", 5)
    async with admission.work(2, Priority.BATCH, 1000):
        pass
    clock.advance(4.9)
    assert (await _refused(admission, 1, Priority.BATCH, 500)).retry_after_s == 1
    clock.advance(0.2)
    async with admission.work(1, Priority.BATCH, 500):
        pass


async def test_a_list_larger_than_the_bucket_is_not_refused_for_ever(make: Callable[..., Admission]) -> None:
    admission = make(shares=(WIDE, Share(10, 1.0, 10), WIDE))
    async with admission.work(1, Priority.BATCH, 1000):
        pass
    assert (await _refused(admission, 1, Priority.BATCH, 1000)).retry_after_s == 10


async def test_refused_requests_take_no_lines(make: Callable[..., Admission]) -> None:
    admission = make(shares=(WIDE, Share(10, 1.0, 10), WIDE))
    async with admission.work(1, Priority.BATCH, 4):
        pass
    for _ in range(3):
        await _refused(admission, 1, Priority.BATCH, 7)
    async with admission.work(1, Priority.BATCH, 6):
        pass


async def test_lower_priorities_leave_places_for_the_counter(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=4, queue_wait_s=0.01)
    async with AsyncExitStack() as stack:
        for agency in range(2):
            await stack.enter_async_context(admission.work(agency, Priority.REGISTRATION))
        assert (await _refused(admission, 9, Priority.REGISTRATION)).code == "busy"
        await stack.enter_async_context(admission.work(9, Priority.BATCH))
        await stack.enter_async_context(admission.work(9, Priority.COUNTER))
        assert (await _refused(admission, 9, Priority.COUNTER)).code == "busy"


async def test_the_queue_is_bounded(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=1, queue_max=1, queue_wait_s=5)
    async with admission.work(1, Priority.COUNTER):
        waiting = asyncio.ensure_future(_once(admission, 2, Priority.COUNTER, []))
        await asyncio.sleep(0)
        assert (await _refused(admission, 3, Priority.COUNTER)).code == "busy"
    await waiting


async def _once(admission: Admission, agency: int, priority: Priority, order: list[Any]) -> None:
    async with admission.work(agency, priority):
        order.append((priority, agency))
        await asyncio.sleep(0)


async def test_places_go_to_agencies_in_turn(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=1)
    order: list[Any] = []
    async with admission.work(0, Priority.COUNTER):
        flood = [asyncio.ensure_future(_once(admission, 1, Priority.COUNTER, order)) for _ in range(5)]
        await asyncio.sleep(0)
        other = asyncio.ensure_future(_once(admission, 2, Priority.COUNTER, order))
        await asyncio.sleep(0)
    await asyncio.gather(*flood, other)
    assert order[:3] == [(Priority.COUNTER, 1), (Priority.COUNTER, 2), (Priority.COUNTER, 1)]


async def test_priorities_share_by_weight_and_none_starves(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=1, places=(1.0, 1.0, 1.0))
    order: list[Any] = []
    async with admission.work(0, Priority.COUNTER):
        tasks = [
            asyncio.ensure_future(_once(admission, 1, priority, order)) for priority in Priority for _ in range(24)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    first = [priority for priority, _ in order[:24]]
    counts = {priority: first.count(priority) for priority in Priority}
    assert counts[Priority.COUNTER] == pytest.approx(16, abs=1)
    assert counts[Priority.BATCH] == pytest.approx(6, abs=1)
    assert counts[Priority.REGISTRATION] == pytest.approx(2, abs=1)
    assert len(order) == 72


async def test_who_gives_up_leaves_no_hole(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=1, queue_wait_s=5)
    async with admission.work(1, Priority.COUNTER):
        quitter = asyncio.ensure_future(_once(admission, 2, Priority.COUNTER, []))
        stayer = asyncio.ensure_future(_once(admission, 3, Priority.COUNTER, []))
        await asyncio.sleep(0)
        quitter.cancel()
    await stayer
    assert admission.at_work == 0
    async with admission.work(2, Priority.COUNTER):
        assert admission.at_work == 1


async def test_who_gives_up_in_the_turn_of_its_place_hands_it_on(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=1, queue_wait_s=5)
    first = admission.work(1, Priority.COUNTER)
    await first.__aenter__()
    quitter = asyncio.ensure_future(_once(admission, 2, Priority.COUNTER, []))
    stayer = asyncio.ensure_future(_once(admission, 3, Priority.COUNTER, []))
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)  # the place goes to the quitter,
    quitter.cancel()  # who leaves before it has noticed
    await stayer
    assert admission.at_work == 0


@pytest.mark.requirement("TEN-04")
async def test_a_flood_of_one_agency_leaves_another_s_counter_alone(make: Callable[..., Admission]) -> None:
    admission = make(in_flight_max=8, queue_max=64, shares=(Share(4, 1e6, 1000), Share(4, 1e6, 1000), WIDE))
    stop = asyncio.Event()

    async def flood() -> None:
        while not stop.is_set():
            try:
                async with admission.work(1, Priority.BATCH, 10):
                    await asyncio.sleep(0)
            except Problem:
                await asyncio.sleep(0)

    floods = [asyncio.ensure_future(flood()) for _ in range(40)]
    for _ in range(50):
        async with asyncio.timeout(0.5), admission.work(2, Priority.COUNTER):
            await asyncio.sleep(0)
    stop.set()
    await asyncio.gather(*floods)


async def test_bodies_on_their_way_hold_share_and_memory_but_no_place(make: Callable[..., Admission]) -> None:
    admission = make(
        shares=(Share(2, 1e6, 1000), WIDE, WIDE), reading_bytes_max=100, in_flight_max=1, reading_wait_s=0.01
    )
    async with admission.reading(1, Priority.COUNTER, 60):
        assert admission.at_work == 0
        with pytest.raises(Problem, match="busy"):
            await _read(admission, 2, Priority.COUNTER, 60)
        async with admission.reading(1, Priority.COUNTER, 40):
            with pytest.raises(Problem, match="rate_limited"):
                await _read(admission, 1, Priority.COUNTER, 0)
            async with admission.work(1, Priority.COUNTER, reading=True):
                assert admission.at_work == 1
            await _read(admission, 2, Priority.COUNTER, 0)  # what has no body waits for no memory
    await _read(admission, 1, Priority.COUNTER, 1000)  # a body larger than the budget is let in alone


async def _read(admission: Admission, agency: int, priority: Priority, size: int, order: Any = None) -> None:
    async with admission.reading(agency, priority, size):
        if order is not None:
            order.append((priority, agency))
        await asyncio.sleep(0)


@pytest.mark.requirement("PLT-07")
async def test_a_body_waits_for_memory_in_turn_and_is_refused_at_its_deadline(make: Callable[..., Admission]) -> None:
    admission = make(reading_bytes_max=100, reading_wait_s=5)
    order: list[Any] = []
    async with admission.reading(0, Priority.REGISTRATION, 100):  # alone, it may take everything
        files = [asyncio.ensure_future(_read(admission, agency, Priority.REGISTRATION, 40, order)) for agency in (1, 1)]
        await asyncio.sleep(0)
        files.append(asyncio.ensure_future(_read(admission, 2, Priority.REGISTRATION, 40, order)))
        await asyncio.sleep(0)
        counter = asyncio.ensure_future(_read(admission, 3, Priority.COUNTER, 40, order))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await _read(admission, 4, Priority.REGISTRATION, 0)  # nothing comes in, so it need not wait behind files
        assert order == []
    await asyncio.gather(*files, counter)
    assert order.index((Priority.COUNTER, 3)) == 0
    assert order[1:] == [(Priority.REGISTRATION, agency) for agency in (1, 2, 1)]
    short = make(reading_bytes_max=100, reading_wait_s=0.01)
    async with short.reading(0, Priority.COUNTER, 100):
        with pytest.raises(Problem, match="busy"):
            await _read(short, 1, Priority.REGISTRATION, 1)
    async with short.reading(1, Priority.COUNTER, 100):
        pass


@pytest.mark.requirement("TEN-04")
async def test_files_on_slow_links_leave_memory_for_the_counter(make: Callable[..., Admission]) -> None:
    admission = make(reading_bytes_max=100, reading_wait_s=0.01)
    async with admission.reading(1, Priority.REGISTRATION, 40):
        with pytest.raises(Problem, match="busy"):
            await _read(admission, 1, Priority.REGISTRATION, 40)
        await _read(admission, 2, Priority.COUNTER, 60)


async def test_who_asks_for_little_goes_on_when_the_one_before_gives_up(make: Callable[..., Admission]) -> None:
    admission = make(reading_bytes_max=100, reading_wait_s=5)
    async with admission.reading(0, Priority.COUNTER, 60):
        much = asyncio.ensure_future(_read(admission, 1, Priority.COUNTER, 90))
        await asyncio.sleep(0)
        little = asyncio.ensure_future(_read(admission, 2, Priority.COUNTER, 10))
        await asyncio.sleep(0)
        assert not little.done()
        much.cancel()
        async with asyncio.timeout(2):
            await little


def test_parking_is_bounded_per_agency_and_in_all(make: Callable[..., Admission]) -> None:
    admission = make(parked_max=2, parked_per_agency=1)
    with (
        admission.park(1) as first,
        admission.park(1) as again,
        admission.park(2) as second,
        admission.park(3) as third,
    ):
        assert (first, again, second, third) == (True, False, True, False)
    with admission.park(3) as free:
        assert free
