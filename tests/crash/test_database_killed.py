"""kill -9 of a database under whoever talks to it: every call ends with a problem that may be tried again, none hangs.

What the driver raises while a server dies has many names; a name that is not translated would end a worker, a listener
or a whole exchange.
"""

import asyncio
import contextlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chukan import log
from chukan.errors import Problem
from chukan.ops.demo.supervisor import in_thread
from chukan.ops.local.postgres import Server
from chukan.platform.exchange.exchange import Exchange
from chukan.replication.primary import Cells, translate
from chukan.settings import Cell
from chukan.tenants.partition import act_for
from chukan.tenants.sets import CellSets, listen
from chukan.tenants.states import Side

AGENCY = 1
AT_ONCE = 12
CALLS = 40
"""So many calls are answered before the kill, and after it."""
RETRYABLE = {"no_primary", "unavailable", "busy"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="chk-crash-"))
    folder.chmod(0o755)
    one = Server("killed", folder / "data")
    try:
        one.init()
        one.start()
        yield one
    finally:
        one.kill()  # a fast stop would write out what is thrown away in the next line
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cell(server: Server, make_cell: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """The cell's settings, with a name of its socket folder that stays when the server is started again."""
    made: Cell = make_cell(server, [AGENCY]).settings
    link = tmp_path_factory.mktemp("s") / "link"
    link.symlink_to(server.socket_dir)
    values = {name: getattr(made, name) for name in made.__struct_fields__}
    return Cell(**{**values, "host": str(link)})


class Callers:
    """Many callers who never stop asking; what they get is counted."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._sets = CellSets(cells.primary("here").broker)
        self.seen: Counter[str] = Counter()
        self._good = asyncio.Condition()

    def calls(self) -> list[Callable[[], Awaitable[object]]]:
        """Both doors: reading, writing, and a transaction of several statements."""
        sets = self._sets
        return [
            sets.canary,
            sets.snapshot,
            sets.sequencer_age,
            lambda: sets.sequence("crash-00000000", 10),
            lambda: sets.lease("crash-00000000", Side.INQUIRER, 64, 10.0),
            self._act,
        ]

    async def _act(self) -> None:
        async with act_for(self._cells.primary("here").app, AGENCY) as partition:
            for _ in range(3):
                await partition.fetch(f"SELECT count(*) FROM {partition.table('records')}")

    async def ask(self, call: Callable[[], Awaitable[object]]) -> None:
        """Ask until cancelled; anything but a problem ends it."""
        while True:
            try:
                await call()
            except Problem as problem:
                self.seen[problem.code] += 1
                await asyncio.sleep(0)
                continue
            async with self._good:
                self.seen["good"] += 1
                self._good.notify_all()

    async def until_good(self, more: int) -> None:
        """Wait for so many more good answers."""
        wanted = self.seen["good"] + more
        async with asyncio.timeout(60), self._good:
            await self._good.wait_for(lambda: self.seen["good"] >= wanted)


async def _relink(cell: Cell, server: Server) -> None:
    link = Path(cell.host)
    aside = link.with_name("aside")
    aside.symlink_to(server.socket_dir)
    aside.rename(link)


async def test_everybody_gets_a_problem_and_then_an_answer(server: Server, cell: Cell) -> None:
    written = io.StringIO()
    log.configure(stream=written)
    heard = asyncio.Event()
    async with Cells({"here": cell}) as cells:
        callers = Callers(cells)
        asking = [asyncio.create_task(callers.ask(call)) for call in callers.calls() * (AT_ONCE // 6)]
        listening = asyncio.create_task(listen(cells, "here", lambda *_: heard.set()))
        try:
            await callers.until_good(CALLS)
            heard.clear()
            await in_thread(server.kill)
            await in_thread(server.start)
            await _relink(cell, server)
            # Whoever listens looks anew at every connect.
            async with asyncio.timeout(60):
                await heard.wait()
            await callers.until_good(CALLS)
            assert [task.exception() for task in (*asking, listening) if task.done()] == []
        finally:
            for task in (*asking, listening):
                task.cancel()
            await asyncio.gather(*asking, listening, return_exceptions=True)
            log.configure()
    assert set(callers.seen) - {"good"} <= RETRYABLE
    assert callers.seen["no_primary"] > 0
    assert '"level": "critical"' not in written.getvalue()
    assert [line for line in written.getvalue().splitlines() if '"level": "error"' in line] == []


async def test_who_goes_away_at_any_step_leaves_a_clean_connection(server: Server, cell: Cell) -> None:
    written = io.StringIO()
    log.configure(stream=written)
    try:
        async with Cells({"here": cell}) as cells:
            callers = Callers(cells)
            await callers._act()
            for steps in range(60):
                acting = asyncio.create_task(callers._act())
                for _ in range(steps):
                    await asyncio.sleep(0)
                acting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await acting
            with pytest.raises(Problem) as unknown:
                async with act_for(cells.primary("here").app, AGENCY + 1):
                    raise AssertionError("there is no such agency")
            assert unknown.value.code == "unknown_agency"
            await callers._act()
    finally:
        log.configure()
    # A connection given back in the middle of a transaction is what the driver would complain of.
    assert written.getvalue() == ""


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("in the middle of a message"),
        asyncpg.exceptions.TargetServerAttributeNotMatched("no primary"),
        asyncpg.InterfaceError("closed"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.CannotConnectNowError("starting"),
        FileNotFoundError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_driver_that_lost_its_server_says_that_there_is_no_primary(error: Exception) -> None:
    async def told() -> Problem:
        return translate(error)

    problem = asyncio.run(told())
    assert (problem.code, problem.retry_after_s) == ("no_primary", 1)


async def test_a_loop_of_an_exchange_that_ends_is_told() -> None:
    async def steadily() -> None:
        await asyncio.Event().wait()

    async def fault() -> None:
        raise ZeroDivisionError

    half = Exchange.__new__(Exchange)
    half._tasks, half._broken, half._stopping = set(), asyncio.Event(), False
    half._spawn("steady", steadily())
    (steady,) = half._tasks

    half._spawn("broken", fault())
    async with asyncio.timeout(10):
        await half.broken()
    assert not steady.done()
    steady.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await steady
