"""One lab of two centres (2+1) for all tests here, in a thread of its own: only that thread stands in its network."""

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from chukan.clock import SystemClock, today_jst
from chukan.ops.centres.place import LabPlace
from chukan.ops.centres.running import CentresRunning
from chukan.ops.demo.lodging import Lodging
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import Planned, plan
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.systems import connect
from chukan.ops.local.machine import is_root, state_folder
from chukan.platform.law import Law

collect_ignore = [] if is_root() else ["test_link.py"]
"""Links that can be made long and broken need network namespaces."""

PEOPLE = 240
QUERIES = 400
UP_S = 300.0
CALL_S = 240.0
LOG_LINES = 40
T = TypeVar("T")


class StandingLab:
    """A lab that stands; ``run`` does something in its thread."""

    def __init__(self, name: str = "test-centres", *, people: int = PEOPLE, bodies: Sequence[str] = ()) -> None:
        self.place = LabPlace(state_folder() / f"{name}-{os.getpid()}")
        population = Population(people, 11, today_jst(SystemClock()))
        law = Law.load()
        self.running = CentresRunning(self.place, Screen(for_program=True), population, law, "2+1", bodies=bodies)
        self.stage = self.running.stage
        self.planned: list[Planned] = [query for query in plan(population, law, QUERIES, 0) if query.aim == "answered"]
        self.up_s = 0.0
        self._up: Future[None] = Future()
        self._told: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stand()))

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._up.result(UP_S)
        except BaseException:
            self._end()
            print_ends_of_logs(self.place.lab)
            shutil.rmtree(self.place.lab, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        assert not self.stage.pids()
        shutil.rmtree(self.place.lab, ignore_errors=True)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._told.set)
        self._thread.join(120)
        assert not self._thread.is_alive()

    async def _stand(self) -> None:
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.running.lay()
            with self.running.wires.inside():
                await self._bring_up()
                self._up.set_result(None)
                await self._told.wait()
        except BaseException as error:
            if not self._up.done():
                self._up.set_exception(error)
            raise
        finally:
            await self.running.stop()

    async def _bring_up(self) -> None:
        begun = self._loop.time()
        await self.running.start()
        self.up_s = self._loop.time() - begun
        async with connect(self.running) as systems:
            lodging = Lodging(self.running, systems)
            await lodging.lodge(lambda _: None)
            await lodging.acquire(lambda _: None)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[StandingLab]:
    failed = request.session.testsfailed
    with StandingLab() as standing:
        yield standing
        if request.session.testsfailed > failed:
            print_ends_of_logs(standing.place.lab)


def print_ends_of_logs(lab: Path) -> None:
    """Show what everybody in the lab said last: its trees go with it."""
    for log in sorted(lab.glob("*/log/*.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        sys.stderr.write("\n".join([f"--- {log.relative_to(lab)}", *lines[-LOG_LINES:], ""]))
