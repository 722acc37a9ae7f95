"""``chukan bench breach``: how long it takes to say whom an incident affects (影響を受けた本人), beside a plain scan.

A database of its own is filled with provision records of several agencies, made, placed and linked as exchanges do it.
Then, in turn:

- ``persons``: each agency, one after the other, finds its persons of the whole period: every record is opened, held to
  its leaf, counted, and each person led back to the agency's own number. The limit: COPY of the same rows as they rest.
- ``agencies``: the operator counts records and persons of every agency. The limit: one statement that counts them all.

Invariant: a run that does not find every record and every person is a failure, not a figure. However it ends, no
process is left. The people are synthetic, their numbers made from a counter.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import msgspec
from rich.table import Table

from chukan.chance import Chance, SystemChance
from chukan.clock import SystemClock
from chukan.ops.bench import machine
from chukan.ops.bench.driving import RoundTripError
from chukan.ops.bench.figures import Figure, Run, Sample, figure, run_of
from chukan.ops.bench.measuring import EXIT_FAILED, Measured, measured, require_runs, tell
from chukan.ops.demo.config import keep_password
from chukan.ops.demo.place import Place
from chukan.ops.demo.screen import Screen
from chukan.ops.local.machine import CLONE, state_folder
from chukan.ops.local.postgres import Server
from chukan.replication.primary import Cells
from chukan.settings import Cell
from chukan.tenants import migrate
from chukan.tenants.affected import Scope, find_affected
from chukan.tenants.births import birth
from chukan.tenants.incidents import count_affected
from chukan.tenants.partition import act_for, schema_name
from chukan.tenants.records import RecordFields, make_record
from chukan.tenants.rows import RecordRow
from chukan.tenants.sealing import AgencyKeys, KeySet
from chukan.tenants.sets import CellSets

RECORDS: Final = 200_000
AGENCIES: Final = 4
RECORDS_OF_A_PERSON: Final = 10
QUICK_RECORDS: Final = 2_000
_CELL: Final = "east"
_DATABASE: Final = "chukan"
_SLICE: Final = 200
_PLACED: Final = 5_000
_KEY_BYTES: Final = 32
_LOGINS: Final = {"broker": "chukan_broker", "app": "chukan_app", "steward": "chukan_steward", "links": "chukan_links"}
_RECORD_COLUMNS: Final = ("agency", "id", "label", "month", "sealed", "commitment", "amends")


class Options(msgspec.Struct, frozen=True):
    """What the command line said."""

    runs: int
    quick: bool
    as_json: bool
    records: int = RECORDS
    agencies: int = AGENCIES


class Settings(msgspec.Struct, frozen=True):
    """How it was measured."""

    runs: int
    records: int
    agencies: int
    persons: int


class Result(Measured, frozen=True):
    """What ``--json`` prints."""

    settings: Settings
    figures: list[Figure]
    persons_s: float
    """Seconds for all agencies' lists, one after the other (median)."""


def run(options: Options, where: Place | None = None) -> int:
    """Measure, and return the exit status: 0, 1 when something was not found, 130 interrupted. Raises ``Problem``."""
    require_runs(options.runs, quick=options.quick)
    where = where or Place(CLONE / "var" / "bench-breach", state_folder() / "bench-breach")
    return measured(where, lambda: BreachBench(options, where))


class BreachBench:
    """One measurement."""

    def __init__(self, options: Options, where: Place) -> None:
        """Prepare only."""
        self._options = options
        self._each = options.records // options.agencies
        self._persons = max(1, self._each // RECORDS_OF_A_PERSON)
        self._place = where
        self._clock = SystemClock()
        self._chance: Chance = SystemChance(self._clock)
        self._machine = machine.look()
        self._screen = Screen(for_program=True)
        self._server = Server("breach", where.databases / "breach")
        self._keys = {
            agency: AgencyKeys(_key_set(agency, self._chance), self._chance.token)
            for agency in range(1, options.agencies + 1)
        }
        self._scope = Scope(self._clock.now() - dt.timedelta(hours=1), self._clock.now() + dt.timedelta(days=1))
        self.stopping = False

    async def run(self) -> int:
        """Do everything; takes everything down before it returns or raises."""
        try:
            async with AsyncExitStack() as stack:
                cells = await self._bring_up(stack)
                for agency in self._keys:
                    with self._screen.step(f"agency {agency}: {self._each:,} records of {self._persons:,} persons"):
                        await self._fill(agency)
                with self._screen.step("places in the logs"):
                    await self._place_all(cells)
                return await self._measure(cells)
        except RoundTripError as error:
            self._screen.say(f"  ✗ {error.what}. The logs are in {self._place.files}.")
            return EXIT_FAILED
        finally:
            self.stopping = True
            with self._screen.step("everything is being stopped"):
                await asyncio.to_thread(self._server.kill)

    async def _bring_up(self, stack: AsyncExitStack) -> Cells:
        self._screen.title("Bringing up")
        await asyncio.to_thread(self._server.init)
        await asyncio.to_thread(self._server.start)
        files = {short: self._place.files / f"{short}.password" for short in _LOGINS}
        passwords = {role: keep_password(files[short], self._chance) for short, role in _LOGINS.items()}
        admin = await self._server.admin("postgres")
        await admin.execute(f"CREATE DATABASE {_DATABASE}")
        await admin.close()
        admin = await self._server.admin(_DATABASE)
        try:
            await migrate.prepare_cell(admin, _CELL, passwords, "sandbox")
            for agency in self._keys:
                await birth(admin, agency)
        finally:
            await admin.close()
        cell = Cell(
            host=self._server.socket_dir,
            port=self._server.port,
            database=_DATABASE,
            broker_password_file=files["broker"],
            app_password_file=files["app"],
            steward_password_file=files["steward"],
        )
        return await stack.enter_async_context(Cells({_CELL: cell}, "sandbox"))

    # ------------------------------------------------------------ filling

    async def _fill(self, agency: int) -> None:
        keys, schema = self._keys[agency], schema_name(agency)
        people = [keys.digest("addressee", f"{n:015d}".encode()) for n in range(self._persons)]
        rows = []
        for n, row in enumerate(self._records(keys, people)):
            if n % _SLICE == 0:
                await asyncio.sleep(0)
            rows.append(row)
        links = [(person, 1, keys.seal("addressee", person, f"{n:015d}".encode())) for n, person in enumerate(people)]
        admin = await self._server.admin(_DATABASE)
        try:
            values = [(agency, *(getattr(row, name) for name in _RECORD_COLUMNS[1:])) for row in rows]
            await admin.copy_records_to_table("records", schema_name=schema, records=values, columns=_RECORD_COLUMNS)
            await admin.copy_records_to_table(
                "codes", schema_name=schema, records=links, columns=("person", "status", "addressee")
            )
            waiting = [(agency, row.id) for row in rows]
            await admin.copy_records_to_table(
                "to_sequence", schema_name="chukan", records=waiting, columns=("agency", "record")
            )
        finally:
            await admin.close()

    def _records(self, keys: AgencyKeys, people: list[bytes]) -> Iterator[RecordRow]:
        now = self._clock.now()
        for n in range(self._each):
            fields = RecordFields(
                id=self._chance.uuid7(),
                side="provider",
                inquirer=f"99011310160000{n % 90 + 10}",
                provider="9901011002000001",
                department="保育課",
                affair="JM01000000121000",
                procedure="JT01010000000214",
                kind="TM00000000000002",
                items=[f"TK{item:014d}" for item in range(8)],
                outcome="provided",
                asked_at=now,
                closed_at=now,
            )
            yield make_record(keys, self._chance, fields, person=people[n % len(people)])

    async def _place_all(self, cells: Cells) -> None:
        sets = CellSets(cells.primary(_CELL).broker)
        for _ in range(self._options.records // _PLACED + self._options.agencies + 1):
            if await sets.sequence("bench", _PLACED) == 0:
                break
        admin = await self._server.admin(_DATABASE)
        await admin.execute("VACUUM ANALYZE")
        await admin.close()

    # ------------------------------------------------------------ measuring

    async def _measure(self, cells: Cells) -> int:
        figures = [
            await self._figure("persons", "COPY", partial(self._find, cells), self._scan),
            await self._figure("agencies", "one count", partial(self._count, cells), self._count_all),
        ]
        admin = await self._server.admin(_DATABASE)
        version = str(await admin.fetchval("SHOW server_version"))
        await admin.close()
        result = Result(
            bench="breach",
            at=self._clock.now().isoformat(timespec="seconds"),
            quick=self._options.quick,
            machine=self._machine,
            postgresql=version,
            settings=Settings(
                runs=self._options.runs,
                records=self._each * len(self._keys),
                agencies=len(self._keys),
                persons=self._persons * len(self._keys),
            ),
            figures=figures,
            persons_s=round(self._each * len(self._keys) / figures[0].per_s, 1),
        )
        self._show(result)
        if self._options.as_json:
            tell(result)
        return 0

    async def _figure(
        self, name: str, limit: str, ours: Callable[[], Awaitable[Sample]], theirs: Callable[[], Awaitable[float]]
    ) -> Figure:
        """Warm both up, then measure both in turn."""
        self._screen.title(f"Measuring: {name}")
        await theirs()
        await ours()
        runs: list[Run] = []
        with self._screen.bar(f"{name}: {limit} and ours in turn", self._options.runs) as advance:
            for _ in range(self._options.runs):
                limit_per_s = await theirs()
                runs.append(run_of(await ours(), limit_per_s))
                advance(1)
        return figure(name, limit, runs, set_size=self._each, limit_clients=1)

    async def _find(self, cells: Cells) -> Sample:
        async def one(agency: int) -> None:
            door = partial(act_for, cells.primary(_CELL).app, agency)
            found = await find_affected(door, self._keys[agency], self._scope)
            named = sum(each.addressee is not None for each in found.persons.values())
            self._require((found.records, named))

        return await self._timed(one)

    async def _count(self, cells: Cells) -> Sample:
        async def one(agency: int) -> None:
            found = await count_affected(cells, _CELL, agency, self._scope.since, self._scope.until)
            self._require((found.records, found.persons))

        return await self._timed(one)

    async def _timed(self, one: Callable[[int], Awaitable[None]]) -> Sample:
        taken = []
        begin = self._clock.monotonic()
        for agency in self._keys:
            before = self._clock.monotonic()
            await one(agency)
            taken.append(self._clock.monotonic() - before)
        return Sample(self._each * len(self._keys), self._clock.monotonic() - begin, taken)

    def _require(self, found: tuple[int, int]) -> None:
        if found != (self._each, self._persons):
            raise RoundTripError("not every record and every person was found")

    async def _scan(self) -> float:
        """Return the records a second of COPY: the rows as ours reads them, to nobody."""
        size = 0

        async def take(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)

        admin = await self._server.admin(_DATABASE)
        begin = self._clock.monotonic()
        for agency in self._keys:
            schema = schema_name(agency)
            await admin.copy_from_query(
                f"SELECT l.seq, l.at AS placed_at, l.leaf_data, r.* FROM {schema}.log l JOIN {schema}.records r"
                " ON r.agency = l.agency AND r.id = l.record ORDER BY l.seq",
                output=take,
                format="binary",
            )
        elapsed = self._clock.monotonic() - begin
        await admin.close()
        if not size:
            raise RoundTripError("the scan read nothing")
        return self._each * len(self._keys) / elapsed

    async def _count_all(self) -> float:
        admin = await self._server.admin(_DATABASE)
        begin = self._clock.monotonic()
        rows = await admin.fetch(
            "SELECT r.agency, count(*) AS records, count(DISTINCT r.label) AS persons FROM chukan.records r"
            " WHERE r.at >= $1 AND r.at < $2 GROUP BY r.agency",
            self._scope.since,
            self._scope.until,
        )
        elapsed = self._clock.monotonic() - begin
        await admin.close()
        for row in rows:
            self._require((row["records"], row["persons"]))
        return self._each * len(self._keys) / elapsed

    def _show(self, result: Result) -> None:
        quick = " (quick: no measurement)" if result.quick else ""
        table = Table(title=f"Whom an incident affects{quick}, medians of {result.settings.runs} runs")
        for heading in ("", "records/s", "limit", "limit/s", "ratio", "p50 ms of an agency"):
            table.add_column(heading, justify="left" if heading in {"", "limit"} else "right")
        for each in result.figures:
            table.add_row(
                each.name,
                f"{each.per_s:,.0f}",
                each.limit,
                f"{each.limit_per_s:,.0f}",
                f"{each.ratio:.3f}",
                f"{each.p50_ms:,.0f}",
            )
        self._screen.console.print(table)
        load = ", ".join(map(str, result.machine.load_before))
        self._screen.say(
            f"{result.settings.records:,} records of {result.settings.persons:,} persons in {result.persons_s} s;"
            f" {result.machine.cores} cores, load average before: {load}"
        )


def _key_set(agency: int, chance: Chance) -> KeySet:
    data, index, answer = (chance.token(_KEY_BYTES) for _ in range(3))
    return KeySet(agency, {1: data}, index, {1: answer})
