"""One world: agencies, people, copies, two cells, two exchanges and the network, all made from one seed.

Every agency counts its people from one, so that the same addressee number means somebody else at every agency; every
value of a copy says whose it is and who lodged it. What mixes up people or agencies therefore shows in an answer.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from chukan import settings
from chukan.chance import SeededChance
from chukan.errors import Problem
from chukan.ops.sandbox.admin import AgencyEntry
from chukan.ops.simulation.cell import Journal, SimulatedCell
from chukan.ops.simulation.keys import NetworkKey, SimulatedKeyStores
from chukan.ops.simulation.loop import START, Process, ProcessClock, SimulatedLoop
from chukan.ops.simulation.network import NAME, ROUTE, SimulatedNetwork, SimulatedPeer
from chukan.ops.simulation.rules import put_snapshot, stage_snapshot
from chukan.ops.simulation.servers import SilentMeter, SimulatedCells, SimulatedExchange
from chukan.ops.simulation.tables import AgencyTables, CellTables, CodeEntry, CopyEntry
from chukan.ops.simulation.weather import Weather
from chukan.platform.law import Law
from chukan.tenants import directory
from chukan.tenants.copies import Copy, seal_copy
from chukan.tenants.directory import AgencyRow
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.sets import CommonRow, SnapshotRow
from chukan.tenants.states import LinkStatus

KIND: Final = "TM00000000000002"
OTHER_KIND: Final = "TM00000000000089"
AFFAIR: Final = "JM01000000121000"
PROCEDURE: Final = "JT01010000000214"
AGENCIES: Final = (
    ("9901131121000001", "east"),
    ("9901011002000001", "east"),
    ("9901271004000001", "west"),
    ("9901401307000001", "west"),
)
CENTRES: Final = ("east", "west")
PERMIT_VALID_S: Final = (4.0, 30.0, 300.0, 1800.0)
_FROM: Final = dt.date(2026, 6, 1)


@cache
def law() -> Law:
    """The shipped law, read once."""
    return Law.load()


@cache
def items() -> tuple[str, ...]:
    """The items that the procedure may receive of the kind, on the day of the world."""
    return tuple(sorted(law().allowed_items(PROCEDURE, KIND, START.date())))


@cache
def site(centre: str) -> settings.Settings:
    """The settings of an exchange; no file that they name is ever opened."""
    nothing = Path("/nonexistent")
    cell = settings.Cell(host="none", port=0, broker_password_file=nothing, app_password_file=nothing)
    return settings.Settings(
        site=settings.Site(centre=centre, address_check=False, sandbox=True),
        cells=dict.fromkeys(CENTRES, cell),
        exchange=settings.Exchange(
            name=centre,
            tls_certificate_file=nothing,
            tls_key_file=nothing,
            tls_ca_file=nothing,
            signing_key_file=nothing,
            directory_key_file=nothing,
        ),
        network=settings.Network(url="https://network", ca_file=nothing, verify_key_file=nothing, name=NAME),
        keystores={},
    )


@dataclass
class Server:
    """One place where an exchange runs: the process and the exchange change with every restart."""

    name: str
    skew_s: float
    drift: float
    process: Process
    exchange: SimulatedExchange
    up: bool = False


class World:
    """Everything there is; made by ``run``, judged by the checkers."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self.draw = Random(seed)  # noqa: S311 - reproducible on purpose
        self.loop = SimulatedLoop(Random(self.draw.getrandbits(64)))  # noqa: S311 - the same
        self.weather = Weather.drawn(self.draw)
        self.trace: list[tuple[float, str, str]] | None = [] if trace else None
        self.journal = Journal()
        self.network_key, self.directory_key = NetworkKey("network"), NetworkKey("directory")
        self.chance = SeededChance(self.draw.getrandbits(64), ProcessClock(Process("world"), self.loop))
        self.keystores = SimulatedKeyStores(self.chance.token)
        self.errors: list[str] = []
        """Faults that the exchange's own task boundaries caught and logged."""
        self.cells = {
            name: SimulatedCell(CellTables(name), self.loop, self.draw, self.weather, self.journal, self.tell)
            for name in CENTRES
        }
        self.network = SimulatedNetwork(
            self.loop,
            self.draw,
            self.weather,
            law(),
            self.network_key,
            self.tell,
            permit_valid_s=self.draw.choice(PERMIT_VALID_S),
        )
        self.snapshot = directory.first(START, law().number, "sandbox")
        self._last_number = 0
        self._people()
        self.servers = {name: self._server(name) for name in CENTRES}

    def tell(self, actor: str, text: str) -> None:
        """Add a line to the dialogue where one is wanted."""
        if self.trace is not None:
            self.trace.append((self.loop.now_s, actor, text))

    # ------------------------------------------------------------ making

    def _people(self) -> None:
        count = self.draw.randint(2, len(AGENCIES))
        chosen = AGENCIES[:2] if count == 2 and self.draw.random() < 0.3 else self.draw.sample(AGENCIES, count)  # noqa: PLR2004
        for code, cell in chosen:
            self.snapshot = directory.add_agency(
                self.snapshot, START, code=code, body=code[4:10], name=f"機関{code[4:10]}", cell=cell
            )
        self.people = range(self.draw.randint(2, 6))
        codes = []
        for agency in self.agencies():
            table = AgencyTables(agency.number)
            self.cells[agency.cell].tables.agencies[agency.number] = table
            for person in self.people:
                if self.draw.random() < 0.9:  # noqa: PLR2004 - most people have a code
                    codes.append((agency.code, linkage_code(agency, person), management_code(person)))
                    self._lodge(table, agency, person)
        self.network.know([AgencyEntry(code=row.code, name=row.name, route=ROUTE) for row in self.agencies()], codes)
        self.publish(self.snapshot)

    def _lodge(self, table: AgencyTables, agency: AgencyRow, person: int) -> None:
        """Give a person a code at an agency, and perhaps a copy."""
        keys = self.keys(agency)
        addressee = addressee_of(agency, person)
        who = keys.digest("addressee", addressee.encode())
        code = linkage_code(agency, person)
        digest = keys.digest("code", code)
        status = LinkStatus.SUSPENDED if self.draw.random() < 0.05 else LinkStatus.ACTIVE  # noqa: PLR2004
        table.codes[who] = CodeEntry(who, status, 1, b"-", code_digest=digest, code=keys.seal("code", digest, code))
        if self.draw.random() < 0.2:  # noqa: PLR2004 - one in five has no copy
            return
        values: dict[str, object] = {item: value_of(agency, person, n) for n, item in enumerate(items())}
        if self.draw.random() < 0.3:  # noqa: PLR2004 - some copies have a gap
            values[self.draw.choice(items())] = {"gap": "01"}
        copy = Copy(
            addressee=addressee,
            kind=KIND,
            layout=law().layouts_in_force(KIND, START.date())[-1].version,
            effective_from=_FROM,
            period="2026",
            items=msgspec.json.encode(values),
            review=self.draw.random() < 0.15,  # noqa: PLR2004 - some people's answers need an officer
        )
        sealed = seal_copy(keys, copy)
        row = CopyEntry(sealed.id, who, KIND, copy.period, copy.effective_from, copy.layout, sealed.body, sealed.review)
        table.copies[who, KIND] = [row]

    def _server(self, name: str) -> Server:
        skew_s = self.draw.choice((0.0, 0.0, self.draw.uniform(-1.5, 1.5), self.draw.uniform(-20.0, 20.0)))
        drift = self.draw.uniform(-2e-4, 2e-4)
        process, exchange = self._exchange(name, skew_s, drift)
        server = Server(name, skew_s, drift, process, exchange)
        self.network.exchanges.append((process, lambda: server.exchange.inbox))
        return server

    def _exchange(self, name: str, skew_s: float, drift: float) -> tuple[Process, SimulatedExchange]:
        process = Process(name, skew_s=skew_s, drift=drift)
        process.dead = True  # not born yet
        clock = ProcessClock(process, self.loop)
        exchange = SimulatedExchange(
            site(name),
            cells=SimulatedCells(process, self.cells, self.draw, self.weather),
            peer=SimulatedPeer(self.network, process),
            keystores=self.keystores,
            law=law(),
            network_key=self.network_key.public,
            directory_key=self.directory_key.public,
            clock=clock,
            chance=SeededChance(self.draw.getrandbits(64), clock),
            meter=SilentMeter(),
        )
        return process, exchange

    # ------------------------------------------------------------ servers

    async def start(self, server: Server) -> None:
        """Start an exchange at a place; it serves once it has the common data."""
        server.process.dead = False
        self.tell(server.name, "starts")
        work = server.process.spawn(server.exchange.start(), name="start")

        def started(_task: object) -> None:
            if work.cancelled():
                return
            error = work.exception()
            if error is None:
                server.up = True
            elif not isinstance(error, Problem):
                self.errors.append(f"an exchange did not start: {error!r}")

        work.add_done_callback(started)

    def crash(self, server: Server) -> None:
        """Kill an exchange and put a new one at its place, not started yet."""
        self.tell(server.name, "crashes")
        server.process.kill(self.loop)
        server.up = False
        server.process, server.exchange = self._exchange(server.name, server.skew_s, server.drift)
        place = next(n for n, (process, _) in enumerate(self.network.exchanges) if process.name == server.name)
        self.network.exchanges[place] = (server.process, lambda: server.exchange.inbox)

    # ------------------------------------------------------------ common data

    def publish(self, snapshot: directory.Snapshot, cells: tuple[str, ...] = CENTRES) -> None:
        """Put a snapshot in force in cells."""
        self.snapshot = snapshot
        signed = directory.sign(snapshot, self.directory_key.private)
        row = SnapshotRow(snapshot.number, signed.body, signed.signature, signed.key, START)
        for name in cells:
            cell = self.cells[name]
            if cell.tables.snapshot_number < row.number:
                cell.execute("site", "snapshot", lambda tx, cell=cell: put_snapshot(cell.tables, tx, row), snapshot)  # type: ignore[misc]

    def next_number(self) -> int:
        """A number that no common data ever had."""
        self._last_number = max(self._last_number, self.snapshot.number) + 1
        return self._last_number

    def stage(self, snapshot: directory.Snapshot, at: dt.datetime, name: str) -> CommonRow:
        """Have a snapshot wait in a cell for its time."""
        signed = directory.sign(snapshot, self.directory_key.private)
        row = CommonRow(snapshot.number, signed.body, signed.signature, signed.key, START, at, False, False, None)  # noqa: FBT003
        cell = self.cells[name]
        cell.execute("operator", "stage", lambda tx: stage_snapshot(cell.tables, tx, row))
        return row

    # ------------------------------------------------------------ facts

    def agencies(self) -> list[AgencyRow]:
        """The agencies of this world, as the newest common data have them."""
        return list(self.snapshot.agencies)

    def keys(self, agency: AgencyRow) -> AgencyKeys:
        """An agency's keys."""
        return self.keystores.load(agency.number)

    def table(self, agency: AgencyRow) -> AgencyTables:
        """An agency's tables, wherever it lives."""
        return self.cells[agency.cell].tables.agency(agency.number)

    def tables(self) -> Iterator[tuple[AgencyRow, CellTables, AgencyTables]]:
        """Every agency with its cell's tables and its own."""
        for agency in self.agencies():
            yield agency, self.cells[agency.cell].tables, self.table(agency)


def addressee_of(agency: AgencyRow, person: int) -> str:
    """The addressee number of a person at an agency: small numbers that mean somebody else at each of them."""
    return f"{(person + agency.number) % 7:015d}"


def linkage_code(agency: AgencyRow, person: int) -> bytes:
    """The linkage code of a person at an agency."""
    return hashlib.sha256(f"code {agency.code} {person}".encode()).digest()


def management_code(person: int) -> bytes:
    """The network's own code of a person."""
    return hashlib.sha256(f"person {person}".encode()).digest()


def value_of(agency: AgencyRow, person: int, item: int) -> str:
    """What stands in a copy: who lodged it, about whom, and which item it is."""
    return str(1_000_000 + agency.number * 10_000 + person * 100 + item)
