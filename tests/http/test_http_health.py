"""Health: 503 for what another exchange does not share, 200 with detail for the rest, and within three seconds."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from chukan.clock import ManualClock, SystemClock
from chukan.errors import Problem
from chukan.platform.http.drain import Drain
from chukan.platform.http.health import CANARY_AGE_MAX_S, Health, Sources
from chukan.platform.http.listener import Listener
from chukan.platform.metrics import Metrics


@dataclass
class World:
    """Two cells, a key store and common data, each of which may fail."""

    down: dict[str, BaseException | asyncio.Event] = field(default_factory=dict)
    keys: BaseException | int = 3
    age_s: float = 0.5
    clock: Any = field(default_factory=lambda: ManualClock(dt.datetime(2026, 11, 23, tzinfo=dt.UTC)))
    drain: Drain = field(default_factory=Drain)
    network: bool = True
    listening: bool = True
    openings: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def _canary(self, cell: str) -> Callable[[], Any]:
        async def commit() -> None:
            fault = self.down.get(cell)
            if isinstance(fault, asyncio.Event):
                await fault.wait()
            elif fault is not None:
                raise fault

        return commit

    def _keys(self) -> int:
        if isinstance(self.keys, BaseException):
            raise self.keys
        return self.keys

    def health(self) -> Health:
        sources = Sources(
            canaries={cell: self._canary(cell) for cell in ("east", "west")},
            keys=self._keys,
            common_age_s=lambda: self.age_s,
            snapshot=lambda: 7,
            network_ok=lambda: self.network,
            listening=lambda: self.listening,
            opening=self.openings.get,
        )
        return Health(sources, self.clock, Metrics(), self.drain, {"exchange": "x1", "centre": "east"})


async def _looked(health: Health) -> Health:
    health.check_clock()
    await health.check_keys()
    for cell in health.cells:
        await health.check_cell(cell)
    return health


@asynccontextmanager
async def _serving(health: Health) -> AsyncIterator[Callable[[str], Any]]:
    listener = Listener(health.application(), "127.0.0.1", 0)
    port = await listener.start()
    async with aiohttp.ClientSession() as client:

        async def get(path: str) -> tuple[int, Any]:
            async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.json(content_type=None) if "json" in answer.content_type else (
                    await answer.text()
                )

        yield get
    await listener.close(0.2)


async def test_before_the_first_canary_nothing_is_ready() -> None:
    assert set(World().health().faults()) == {"keys", "no_primary"}


async def test_nobody_is_sent_to_listeners_that_are_not_open_yet() -> None:
    world = World(listening=False)
    health = await _looked(world.health())
    assert health.faults() == ["starting"]
    world.listening = True
    assert health.faults() == []


async def test_all_well_is_ready_with_detail() -> None:
    health = await _looked(World().health())
    async with _serving(health) as get:
        assert await get("/healthz") == (200, {"ok": True})
        status, detail = await get("/readyz")
        assert status == 200
        assert (detail["ready"], detail["faults"], detail["warnings"]) == (True, [], [])
        assert (detail["exchange"], detail["centre"]) == ("x1", "east")
        assert detail["common_data"] == {"number": 7, "age_s": 0.5}
        assert detail["cells"]["east"]["ok"]


async def test_one_cell_away_is_a_warning_and_a_503_for_that_cell_only() -> None:
    world = World(down={"west": Problem("no_primary")})
    async with _serving(await _looked(world.health())) as get:
        status, detail = await get("/readyz")
        assert (status, detail["warnings"], detail["cells"]["west"]["code"]) == (200, ["cell:west"], "no_primary")
        assert (await get("/readyz?cell=east"))[0] == 200
        assert (await get("/readyz?cell=west"))[0] == 503
        assert (await get("/readyz?cell=north"))[0] == 404


@pytest.mark.requirement("PLT-05")
async def test_a_cell_that_accepts_and_never_commits_is_seen() -> None:
    world = World(down={"east": asyncio.Event(), "west": asyncio.Event()}, clock=SystemClock())
    health = world.health()
    async with asyncio.timeout(2):
        await asyncio.gather(*(health.check_cell(cell) for cell in health.cells))
    assert "no_primary" in health.faults()
    assert health.cells["east"].code == "deadline_exceeded"


async def test_no_cell_at_all_is_not_ready() -> None:
    world = World(down={"east": Problem("no_primary"), "west": OSError()})
    async with _serving(await _looked(world.health())) as get:
        status, detail = await get("/readyz")
        assert (status, detail["faults"]) == (503, ["no_primary"])


async def test_a_canary_that_grows_old_says_so() -> None:
    world = World()
    health = await _looked(world.health())
    world.clock.advance(CANARY_AGE_MAX_S - 0.1)
    assert health.faults() == []
    world.clock.advance(0.2)
    assert health.faults() == ["no_primary"]
    await health.check_cell("east")
    assert health.faults() == []


async def test_keys_that_cannot_be_read_are_a_fault() -> None:
    world = World(keys=OSError())
    health = await _looked(world.health())
    assert health.faults() == ["keys"]
    world.keys = 3
    await health.check_keys()
    assert health.faults() == []


async def test_old_common_data_is_a_fault() -> None:
    assert (await _looked(World(age_s=10.5).health())).faults() == ["common_data"]
    assert (await _looked(World(age_s=float("inf")).health())).faults() == ["common_data"]


class _Clock:
    """A clock whose hands move apart."""

    def __init__(self) -> None:
        self.at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
        self.seconds = 0.0

    def now(self) -> dt.datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds


async def test_a_clock_that_jumps_is_a_fault_for_a_while() -> None:
    clock = _Clock()
    health = await _looked(World(clock=clock).health())
    assert health.faults() == []
    clock.at += dt.timedelta(seconds=3)
    health.check_clock()
    assert health.faults() == ["clock"]
    clock.seconds += 61
    clock.at += dt.timedelta(seconds=61)
    await _looked(health)
    assert health.faults() == []


async def test_a_stuck_loop_is_a_fault_until_it_runs_again() -> None:
    world = World()
    health = await _looked(world.health())
    health.note_lag(1.5)
    assert health.faults() == ["loop"]
    world.clock.advance(3.1)
    health.note_lag(0.0)
    await _looked(health)
    assert health.faults() == []


async def test_going_out_of_service_is_a_fault_of_one_s_own() -> None:
    world = World()
    health = await _looked(world.health())
    world.drain.begin()
    assert health.faults() == ["draining"]


async def test_the_network_away_is_told_and_takes_nobody_out() -> None:
    async with _serving(await _looked(World(network=False).health())) as get:
        status, detail = await get("/readyz")
        assert (status, detail["warnings"]) == (200, ["network"])


async def test_the_health_listener_has_no_other_calls() -> None:
    async with _serving(World().health()) as get:
        status, problem = await get("/v1/agencies/1310100000000001/queries")
        assert (status, problem["code"]) == (404, "not_found")


async def test_metrics_are_served() -> None:
    health = await _looked(World().health())
    async with _serving(health) as get:
        status, text = await get("/metrics")
    assert status == 200
    assert "chukan_keystore_usable 1.0" in text


@pytest.mark.requirement("PLT-05")
async def test_a_fault_shows_and_goes_within_three_seconds() -> None:
    world = World(clock=SystemClock())
    health = world.health()
    running = asyncio.ensure_future(health.run())

    async def until(ready: bool) -> float:  # noqa: FBT001 - reads well where it is called
        started = world.clock.monotonic()
        async with asyncio.timeout(5):
            while bool(health.faults()) is ready:
                # A cell's age is no event: it is looked at until it has passed the limit.
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await asyncio.Event().wait()
        return float(world.clock.monotonic() - started)

    try:
        assert await until(ready=True) < 3
        world.down = {cell: asyncio.Event() for cell in health.cells}
        assert await until(ready=False) < 3
        stuck, world.down = world.down, {}
        for event in stuck.values():
            assert isinstance(event, asyncio.Event)
            event.set()
        assert await until(ready=True) < 3
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_restored_cell_is_told_and_keeps_nobody_out_of_service() -> None:
    site = World(openings={"east": (1, True), "west": (3, False)})
    health = await _looked(site.health())
    detail = health.detail()
    assert (detail["ready"], detail["warnings"]) == (True, ["restored:east"])
    assert {cell: (each["restore_epoch"], each["restored"]) for cell, each in detail["cells"].items()} == site.openings
    health._report()
    page = health._metrics.render().decode()
    assert 'chukan_cell_closed{cell="east"} 1.0' in page
    assert 'chukan_cell_closed{cell="west"} 0.0' in page
    assert 'chukan_cell_restore_epoch{cell="west"} 3.0' in page
    site.openings.clear()
    assert "restore_epoch" not in health.detail()["cells"]["east"]
