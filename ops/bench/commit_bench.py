"""``chukan bench commit``: what a commit costs that waits for the other centre, at several lengths of the link.

Brings up the cells of a lab of its own (2+1, three etcd, Patroni) with a cable between the centres, and measures the
east's: nobody but the benchmark works there. At each length and number of clients pgbench and ours take turns.

Invariant: nothing is measured unless the leader says that it is where it belongs, that its commits wait for a standby
in the other centre, and that all of it is on disk. However it ends, no process and no namespace is left.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from rich.table import Table

from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.ops.bench import commits, limit, machine
from chukan.ops.bench.commits import Commits
from chukan.ops.bench.driving import RoundTripError
from chukan.ops.bench.figures import Figure, Run, figure, run_of
from chukan.ops.bench.measuring import EXIT_FAILED, LIMIT, SEED, Measured, measured, require_runs, tell
from chukan.ops.centres.databases import leaders
from chukan.ops.centres.picture import Painter
from chukan.ops.centres.place import LabPlace
from chukan.ops.centres.running import LEADERS_TIMEOUT_S, SETTLED_TIMEOUT_S, CentresRunning
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.installation import open_installation
from chukan.ops.local.machine import state_folder
from chukan.platform.law import Law
from chukan.replication.durability import Durability
from chukan.replication.superuser import superuser
from chukan.settings import load
from chukan.tenants.directory import AgencyRow
from chukan.tenants.sets import CellSets

CELL: Final = "east"
DELAYS_MS: Final = (0.0, 5.0, 10.0)
CLIENTS: Final = (1, 16, 64)
TOPOLOGY: Final = "2+1"
_PEOPLE: Final = 400
_MS: Final = 1000.0
_LOOK_S: Final = 0.5
_SETTLE_S: Final = 60.0
_CONNECTS_PER_S: Final = 16
"""pgbench's time begins before it has connected, which costs a handshake each; its rate counts from then on."""
_DURABLE: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class Options(msgspec.Struct, frozen=True):
    """What the command line said."""

    runs: int
    quick: bool
    seconds: float
    as_json: bool
    delays_ms: Sequence[float] = DELAYS_MS
    clients: Sequence[int] = CLIENTS


class CommitFigure(Figure, frozen=True):
    """One figure: one length of the link, one number of clients, as many of pgbench's as of ours."""

    delay_ms: float
    """Each way, as asked for."""
    round_trip_ms: float
    """There and back, as measured on the idle link."""
    clients: int
    lines_per_commit: float
    """How many clients' lines ours gathered in a commit, on average; pgbench commits each by itself."""


class Settings(msgspec.Struct, frozen=True):
    """How it was measured."""

    runs: int
    seconds: float
    topology: str
    leader: str
    synchronous_standby_names: str
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    python: str


class Result(Measured, frozen=True):
    """What ``--json`` prints."""

    settings: Settings
    figures: list[CommitFigure]


def run(options: Options, place: LabPlace | None = None) -> int:
    """Measure, and return the exit status: 0, 1 when a commit was not good, 130 interrupted. Raises ``Problem``."""
    require_runs(options.runs, quick=options.quick)
    place = place or LabPlace(state_folder() / "bench-commit")
    return measured(place, lambda: CommitBench(options, place))


class CommitBench:
    """One measurement."""

    def __init__(self, options: Options, place: LabPlace) -> None:
        """Prepare only. Raises ``Problem`` runtime_missing where PostgreSQL, etcd or Patroni are not installed."""
        self._options, self._place = options, place
        self._clock = SystemClock()
        self._machine = machine.look()
        self._screen = Screen(for_program=True)
        people = Population(_PEOPLE, SEED, today_jst(self._clock))
        first = options.delays_ms[0]
        self._lab = CentresRunning(place, self._screen, people, Law.load(), TOPOLOGY, delay_ms=first)
        self._program = self._lab.site.postgresql / "pgbench"
        if not self._program.exists():
            raise Problem("runtime_missing", expected=f"{self._program} (Debian's package postgresql-15)")
        self.stopping = False

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        try:
            await self._lab.lay()
        except BaseException:
            await asyncio.shield(self._lab.stop())
            raise
        with self._lab.wires.inside():
            try:
                return await self._work()
            except RoundTripError as error:
                self._screen.say(f"  ✗ a commit was not good: {error.what}. The logs are in {self._place.lab}.")
                return EXIT_FAILED
            finally:
                self.stopping = True
                with self._screen.step("everything is being stopped"):
                    await asyncio.shield(self._lab.stop())

    async def _work(self) -> int:
        self._screen.title("Bringing up")
        await self._lab.start_cells()
        with self._screen.step("both standbys of the east stream, synchronous"):
            await self._until_synchronous()
        async with self._ready() as (ours, agency):
            postgresql, settings = await self._settings()
            (self._place.files / "commit.sql").write_text(commits.script(agency), encoding="ascii")
            self._write_password()
            figures = [each for delay_ms in self._options.delays_ms for each in await self._at(delay_ms, ours)]
        result = Result(
            bench="commit",
            at=self._clock.now().isoformat(timespec="seconds"),
            quick=self._options.quick,
            machine=self._machine,
            postgresql=postgresql,
            settings=settings,
            figures=figures,
        )
        self._screen.console.print(table(result))
        if self._options.as_json:
            tell(result)
        return 0

    async def _until_synchronous(self) -> None:
        """Wait until the east's leader stands at home and all its standbys are synchronous."""
        try:
            async with asyncio.timeout(SETTLED_TIMEOUT_S), Painter(self._lab.site) as painter:
                while True:
                    cell = next(cell for cell in (await painter.paint()).cells if cell.name == CELL)
                    if cell.leader_centre == cell.home and len(cell.sync) == cell.sync_wanted:
                        return
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Problem("deadline_exceeded") from None

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[tuple[Commits, AgencyRow]]:
        """Give the write path to the east, for one of its agencies."""
        async with open_installation(load(self._place.operator, os.environ)) as installation:
            self._cells = installation.cells
            agency = next(row for row in (await installation.snapshot()).agencies if row.cell == CELL)
            ours = Commits(CellSets(installation.cells.primary(CELL).broker), agency)
            try:
                yield ours, agency
            finally:
                await ours.close()

    async def _settings(self) -> tuple[str, Settings]:
        """Return what the leader says of itself. Raises ``Problem`` setting_invalid where a commit would not wait."""
        leader = (await leaders(self._lab.site, LEADERS_TIMEOUT_S))[CELL]
        self._leader = leader
        database = self._lab.site.cells[CELL].database
        async with superuser(self._lab.site, leader, database) as admin:
            told = {
                name: str(await admin.fetchval("SELECT current_setting($1)", name))
                for name in ("server_version", "synchronous_standby_names", *_DURABLE)
            }
        for name, wanted in _DURABLE.items():
            if told[name] != wanted:
                raise Problem("setting_invalid", pointer=f"/cells/{CELL}/{name}", expected=wanted)
        options = self._options
        python = ".".join(map(str, sys.version_info[:3]))
        version = told.pop("server_version")
        return version, Settings(
            runs=options.runs, seconds=options.seconds, topology=TOPOLOGY, leader=leader, python=python, **told
        )

    # ------------------------------------------------------------ measuring

    async def _at(self, delay_ms: float, ours: Commits) -> list[CommitFigure]:
        """Measure at one length of the link, with each number of clients."""
        round_trip_s = await self._lab.lengthen(delay_ms)
        self._screen.title(f"Measuring: {delay_ms:g} ms each way ({round_trip_s * _MS:.2f} ms there and back)")
        await self._until_synchronous()
        return [await self._figure(delay_ms, round_trip_s, clients, ours) for clients in self._options.clients]

    async def _figure(self, delay_ms: float, round_trip_s: float, clients: int, ours: Commits) -> CommitFigure:
        options = self._options
        await self._require_two_centres(ours)
        await ours.run(clients, min(options.seconds, 1.0))
        before, lines, runs = ours.commits, 0, list[Run]()
        with self._screen.bar(f"{clients} clients: pgbench and ours in turn", options.runs) as advance:
            for _ in range(options.runs):
                limit_per_s = await self._pgbench(clients, options.seconds)
                sample = await ours.run(clients, options.seconds)
                runs.append(run_of(sample, limit_per_s))
                lines += sample.lines
                advance(1)
        commits_made = ours.commits - before
        await self._require_two_centres(ours)
        found = figure(f"commit-{delay_ms:g}ms-{clients}", LIMIT, runs, set_size=1, limit_clients=clients)
        return CommitFigure(
            **msgspec.structs.asdict(found),
            delay_ms=delay_ms,
            round_trip_ms=round(round_trip_s * _MS, 2),
            clients=clients,
            lines_per_commit=round(lines / commits_made, 1),
        )

    async def _require_two_centres(self, ours: Commits) -> None:
        """Raise ``Problem`` setting_invalid unless what was committed just now is on disk in both centres."""
        await ours.one()
        found = await self._cells.durability(CELL)
        if found is not Durability.TWO_CENTRES:
            raise Problem("setting_invalid", pointer=f"/cells/{CELL}/durability", expected=Durability.TWO_CENTRES)

    def _write_password(self) -> None:
        _, node = self._lab.site.node(self._leader)
        address = self._lab.site.address(node.host)
        password = (self._lab.site.operator.directory / "passwords" / f"{CELL}-broker").read_text(encoding="ascii")
        path = self._place.files / "pgpass"
        path.touch(0o600)
        path.write_text(f"{address}:{node.port}:*:chukan_broker:{password.strip()}\n", encoding="ascii")

    async def _pgbench(self, clients: int, seconds: float) -> float:
        """Return pgbench's commits per second; ``Problem`` process_failed, naming its log, for a run that broke."""
        site = self._lab.site
        cell, node = site.node(self._leader)
        command = [
            str(self._program),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--time={max(1, round(seconds + clients / _CONNECTS_PER_S))}",
            f"--file={self._place.files / 'commit.sql'}",
            f"--host={site.address(node.host)}",
            f"--port={node.port}",
            "--username=chukan_broker",
            site.cells[cell].database,
        ]
        environment = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C",
            "PGPASSFILE": str(self._place.files / "pgpass"),
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(site.operator.directory / "ca.pem"),
        }
        path = self._place.log / "pgbench-commit.log"
        with path.open("w+b") as file:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )
            status = await limit.ended(process, seconds + _SETTLE_S)
        try:
            rate = limit.per_s(path.read_text(encoding="utf-8", errors="replace"), 1)
        except ValueError:
            status, rate = -1, 0.0
        if status != 0:
            raise Problem("process_failed", expected=str(path))
        return rate


def table(result: Result) -> Table:
    """Return the figures for a terminal."""
    quick = " (quick: no measurement)" if result.quick else ""
    drawn = Table(
        title=f"Acknowledged commits{quick}, medians of {result.settings.runs} runs",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading in (
        "ms one way",
        "there+back",
        "clients",
        "ours/s",
        "pgbench/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "together",
    ):
        drawn.add_column(heading, justify="right")
    for each in result.figures:
        drawn.add_row(
            f"{each.delay_ms:g}",
            f"{each.round_trip_ms:.2f}",
            str(each.clients),
            f"{each.per_s:,.0f}",
            f"{each.limit_per_s:,.0f}",
            f"{each.ratio:.2f}",
            f"{each.p50_ms:,.1f}",
            f"{each.p99_ms:,.1f}",
            f"{each.lines_per_commit:g}",
        )
    return drawn
