"""The driver calls when woken, again while batches are full, stands by for another, and cannot hide being stuck."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants import sequencer
from chukan.tenants.sequencer import BATCH, Sequencer

DEADLINE_S = 5.0


class Ages:
    """Keeps the ages that were reported; ``reaches`` waits for the first that is old enough."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self.changed = asyncio.Event()

    def __call__(self, age_s: float) -> None:
        self.all.append(age_s)
        self.changed.set()

    async def reaches(self, age_s: float, count: int = 1) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.all) < count or self.all[-1] < age_s:
                self.changed.clear()
                await self.changed.wait()


class Cell:
    """A cell whose sequence function answers from a script, then with 0 for ever."""

    def __init__(self, *script: int | Exception) -> None:
        self.script = list(script)
        self.calls = 0
        self.age = 0.0
        self.changed = asyncio.Event()

    async def sequence(self, owner: str, limit: int) -> int:
        assert (owner, limit) == ("east-1", BATCH)
        self.calls += 1
        self.changed.set()
        answer = self.script.pop(0) if self.script else 0
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sequencer_age(self) -> float:
        return self.age

    async def reaches(self, calls: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.calls < calls:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def running(cell: Cell, on_age: Callable[[float], None] = lambda _: None) -> AsyncIterator[Sequencer]:
    driver = Sequencer(cell, "east-1", SystemClock(), on_age)
    task = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        driver.stop()
        async with asyncio.timeout(DEADLINE_S):
            await task


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every pause endless, so that a test sees only what events cause."""
    for name in ("SWEEP_S", "STANDBY_S", "FAILED_S"):
        monkeypatch.setattr(sequencer, name, 3600.0 + len(name))


async def test_full_batches_follow_one_another_without_a_pause(slow: None) -> None:
    cell = Cell(BATCH, BATCH, 3)
    async with running(cell):
        await cell.reaches(3)
        await asyncio.sleep(0)
        assert cell.calls == 3


async def test_a_wake_is_followed_by_a_look(slow: None) -> None:
    cell = Cell()
    async with running(cell) as driver:
        await cell.reaches(1)
        driver.wake()
        await cell.reaches(2)


async def test_without_a_wake_it_looks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "SWEEP_S", 0.01)
    cell = Cell()
    async with running(cell):
        await cell.reaches(3)


async def test_while_another_holds_the_lock_no_wake_makes_it_press(slow: None) -> None:
    cell = Cell(-1)
    async with running(cell) as driver:
        await cell.reaches(1)
        for _ in range(20):
            driver.wake()
            await asyncio.sleep(0)
        assert cell.calls == 1


async def test_it_takes_over_when_the_lock_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "STANDBY_S", 0.01)
    cell = Cell(-1, -1, 5)
    async with running(cell):
        await cell.reaches(3)


async def test_a_failure_is_survived_and_logged_by_its_type_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sequencer, "FAILED_S", 0.01)
    cell = Cell(Problem("no_primary"), ValueError("A0001"), 5)
    async with running(cell):
        await cell.reaches(3)
    logged = capsys.readouterr().err
    assert "no_primary" in logged
    assert "ValueError" in logged
    assert "A0001" not in logged


async def test_a_stuck_sequencer_shows_by_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "MEASURE_S", 0.01)
    ages = Ages()
    cell = Cell()
    cell.age = 30.0
    stuck = asyncio.Event()

    async def hang(owner: str, limit: int) -> int:
        stuck.set()
        await asyncio.Event().wait()
        return 0

    cell.sequence = hang  # type: ignore[method-assign]
    task = asyncio.create_task(Sequencer(cell, "east-1", SystemClock(), ages).run())
    async with asyncio.timeout(DEADLINE_S):
        await stuck.wait()
    await ages.reaches(30.0, count=3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_age_that_cannot_be_measured_grows_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "MEASURE_S", 0.01)
    ages = Ages()
    cell = Cell()
    cell.age = 7.0

    async def fail() -> float:
        raise Problem("no_primary")

    async with running(cell, ages):
        await ages.reaches(7.0)
        cell.sequencer_age = fail  # type: ignore[method-assign]
        await ages.reaches(7.05)


async def test_stopping_ends_a_pause_at_once(slow: None) -> None:
    cell = Cell(-1)
    async with running(cell):
        await cell.reaches(1)
