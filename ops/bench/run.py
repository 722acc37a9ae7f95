"""``chukan bench exchange`` from beginning to end: bring up, lodge, copy, measure limit and exchanges in turn, tell.

Each run of ours follows a run of its limit, so that whatever else the machine does meanwhile is shared fairly.

Invariant: however it ends, by Ctrl-C, a signal or a failure, no process is left; a result is printed only when every
round trip of every run was good.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from rich.table import Table

from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.ops.bench import machine, stand
from chukan.ops.bench.driving import Driver, RoundTripError, open_driver
from chukan.ops.bench.figures import Figure, Run, Sample, figure, run_of
from chukan.ops.bench.limit import Limit, Plan, find_pgbench
from chukan.ops.bench.measuring import EXIT_FAILED, LIMIT, SEED, Measured, measured, require_runs, tell
from chukan.ops.bench.questions import ask
from chukan.ops.demo.bring_up import Running
from chukan.ops.demo.place import Place
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.supervisor import guarded, tail
from chukan.ops.demo.systems import connect
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.law import Law


class Options(msgspec.Struct, frozen=True):
    """What the command line said."""

    runs: int
    quick: bool
    seconds: float
    clients: int
    lists: int
    lines: int
    people: int
    as_json: bool


class Settings(msgspec.Struct, frozen=True):
    """How it was measured."""

    runs: int
    seconds: float
    clients: int
    lists: int
    lines: int
    people: int
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    wal_sync_method: str
    shared_buffers: str
    python: str


class Result(Measured, frozen=True):
    """What ``--json`` prints."""

    settings: Settings
    figures: list[Figure]


def run(options: Options, place: Place | None = None) -> int:
    """Measure, and return the exit status: 0, 1 when a round trip was not good, 130 interrupted. Raises ``Problem``."""
    require_runs(options.runs, quick=options.quick)
    find_pgbench()
    place = place or stand.place()
    return measured(place, lambda: Bench(options, place))


class Bench:
    """One measurement."""

    def __init__(self, options: Options, place: Place) -> None:
        """Prepare only."""
        self._options = options
        self._clock = SystemClock()
        self._machine = machine.look()
        self._screen = Screen(for_program=True)
        self._population = Population(options.people, SEED, today_jst(self._clock))
        self._law = Law.load()
        self._running = Running(place, self._screen, self._population, self._law)
        self._place = place
        self.stopping = False

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        try:
            return await self._work()
        except RoundTripError as error:
            self._screen.say(f"  ✗ a round trip was not good: {error.what}. The logs are in {self._place.log}.")
            return EXIT_FAILED
        except ClientError as error:
            raise error.as_problem() from None
        except Problem as problem:
            path = Path(problem.expected or "")
            if path.is_absolute() and path.suffix == ".log":
                self._screen.say(f"\nThe end of {path}:\n{tail(path)}\n")
            raise
        finally:
            self.stopping = True
            with self._screen.step("everything is being stopped"):
                await asyncio.shield(self._running.stop())

    async def _work(self) -> int:
        self._screen.title("Bringing up")
        await self._running.start()
        servers = await stand.servers(self._running)
        self._screen.say(
            f"  every commit synchronous: fsync {servers.fsync}, synchronous_commit {servers.synchronous_commit},"
            f" full_page_writes {servers.full_page_writes} (both servers, PostgreSQL {servers.postgresql})"
        )
        figures = await guarded(self._measure(), self._watch())
        result = self._result(servers, figures)
        self._show(result)
        if self._options.as_json:
            tell(result)
        return 0

    async def _watch(self) -> None:
        """End the measurement when a server or a process ends by itself: what it was part of is no figure."""

        def ended(name: str) -> None:
            raise Problem("process_failed", expected=str(self._place.log / f"{name}.log"))

        await guarded(self._running.supervisor.watch(ended), self._running.databases.watch())

    async def _measure(self) -> list[Figure]:
        questions = ask(self._population, self._law)
        async with connect(self._running) as systems:
            await stand.lodge(self._running, systems, self._screen)
        async with open_driver(self._running, questions) as driver:
            self._screen.title("Warming up")
            with self._screen.step("one list from every inquirer"):
                await driver.lists(len(questions), min(self._options.lines, 100), 0)
            limit = Limit(self._running, questions, await stand.agencies(self._running))
            with self._screen.step("copies of both databases for pgbench"):
                await limit.prepare()
                await stand.until_ready(self._running)
            return [await self._singles(driver, limit), await self._lists(driver, limit)]

    async def _singles(self, driver: Driver, limit: Limit) -> Figure:
        options = self._options

        async def ours() -> Sample:
            return await driver.singles(options.clients, options.seconds)

        return await self._figure("single", limit, ours, in_flight=options.clients, single=True)

    async def _lists(self, driver: Driver, limit: Limit) -> Figure:
        options = self._options

        async def ours() -> Sample:
            return await driver.lists(options.lists, options.lines, options.seconds)

        return await self._figure("batch", limit, ours, in_flight=options.lists * options.lines, single=False)

    async def _figure(
        self, name: str, limit: Limit, ours: Callable[[], Awaitable[Sample]], *, in_flight: int, single: bool
    ) -> Figure:
        """Warm both up, see which sets the exchanges form, then measure both in turn."""
        self._screen.title(f"Measuring: {name}")
        with self._screen.step("warming up"):
            before = await stand.formed(self._running)
            await ours()
            size = (await stand.formed(self._running)).size_since(before)
            sets = 1 if single else max(1, self._options.lines // size)
            planned = limit.plan(name, single=single, size=size, sets=sets, in_flight=in_flight)
            await limit.run(planned, 1)
        self._screen.say(f"    sets of {size} lines; pgbench with {planned.clients} connections to each server")
        runs: list[Run] = []
        with self._screen.bar(f"{name}: pgbench and exchanges in turn", self._options.runs) as advance:
            for _ in range(self._options.runs):
                runs.append(await self._pair(limit, planned, ours))
                advance(1)
        return figure(name, LIMIT, runs, set_size=size, limit_clients=2 * planned.clients)

    async def _pair(self, limit: Limit, planned: Plan, ours: Callable[[], Awaitable[Sample]]) -> Run:
        limit_per_s = await limit.run(planned, self._options.seconds)
        return run_of(await ours(), limit_per_s)

    def _result(self, servers: stand.Servers, figures: list[Figure]) -> Result:
        options = self._options
        settings = Settings(
            runs=options.runs,
            seconds=options.seconds,
            clients=options.clients,
            lists=options.lists,
            lines=options.lines,
            people=options.people,
            fsync=servers.fsync,
            synchronous_commit=servers.synchronous_commit,
            full_page_writes=servers.full_page_writes,
            wal_sync_method=servers.wal_sync_method,
            shared_buffers=servers.shared_buffers,
            python=".".join(map(str, sys.version_info[:3])),
        )
        return Result(
            bench="exchange",
            at=self._clock.now().isoformat(timespec="seconds"),
            quick=options.quick,
            machine=self._machine,
            postgresql=servers.postgresql,
            settings=settings,
            figures=figures,
        )

    def _show(self, result: Result) -> None:
        quick = " (quick: no measurement)" if result.quick else ""
        table = Table(
            title=f"Brokered round trips{quick}, medians of {result.settings.runs} runs", title_justify="left"
        )
        for heading in ("", "lines/s", "limit", "limit/s", "ratio", "p50 ms", "p99 ms", "sets of"):
            table.add_column(heading, justify="left" if heading in {"", "limit"} else "right")
        for each in result.figures:
            table.add_row(
                each.name,
                f"{each.per_s:,.0f}",
                each.limit,
                f"{each.limit_per_s:,.0f}",
                f"{each.ratio:.2f}",
                f"{each.p50_ms:,.1f}",
                f"{each.p99_ms:,.1f}",
                str(each.set_size),
            )
        self._screen.console.print(table)
        load = ", ".join(map(str, result.machine.load_before))
        self._screen.say(
            f"{result.machine.cores} cores, load average before: {load}; batch: p50 and p99 are of a list."
        )
