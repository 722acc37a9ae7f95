"""A served agency API on real TLS sockets, over services that live in memory and remember what they were asked."""

import asyncio
import datetime as dt
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority, Issued
from chukan.platform.admission import Admission, Limits
from chukan.platform.http import openapi
from chukan.platform.http.api import AgencyApi
from chukan.platform.http.auth import AddressCheck
from chukan.platform.http.calls import Services
from chukan.platform.http.drain import Drain
from chukan.platform.http.listener import Listener
from chukan.platform.http.params import RecordSearch
from chukan.platform.http.ports import Desks, PartSource, RequestKey
from chukan.platform.http.routes import ROUTES
from chukan.platform.law import Law
from chukan.platform.metrics import Metrics
from chukan.platform.tls import client_context, server_context
from chukan.platform.wire import agency as wire
from chukan.platform.wire.compare import LoadCompare, LoadDifferences
from chukan.platform.wire.statistics import Statistics, StatisticsLine
from chukan.tenants.directory import AgencyRow, ClientRow, Directory, Snapshot
from chukan.tests.support.fake_addresses import AnyAddress
from chukan.tests.support.fake_events import Events
from chukan.tests.support.fake_evidence import FakeEvidence
from chukan.tests.support.fake_files import CodeFiles, Files
from chukan.tests.support.fake_holders import Holders
from chukan.tests.support.fake_links import Links

CITY = "1310100000000001"
SCHOOLS = "1310100000000002"
TOWN = "2710000000000003"
CLOSED = "1310100000000009"

AT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)
ALL = ["copies", "codes", "queries", "records", "holds"]


def _client(name: str, agencies: list[str], functions: list[str], *, kind: str = "system", body: str = "131016") -> Any:
    return {"id": name, "body": body, "kind": kind, "name": name, "agencies": agencies, "functions": functions}


def directory() -> Directory:
    rows: list[tuple[int, str, str, Literal["open", "closed"]]]
    rows = [(1, CITY, "131016", "open"), (2, SCHOOLS, "131016", "open"), (3, TOWN, "271004", "open")]
    rows.append((9, CLOSED, "131016", "closed"))
    agencies = [
        AgencyRow(number=n, code=code, body=body, name=f"agency {n}", cell="east", generation=1, state=state)
        for n, code, body, state in rows
    ]
    clients = [
        _client("tax", [CITY, SCHOOLS, CLOSED], ALL),
        _client("counter", [CITY], ["queries"]),
        _client("eager", [CITY], [*ALL, "reviews.prepare", "reviews.approve", "order"]),
        _client("suzuki", [CITY], ["reviews.prepare"], kind="officer"),
        _client("tanaka", [CITY], ["reviews.approve", "order"], kind="officer"),
        _client("town", [TOWN], ALL, body="271004"),
    ]
    return Directory(
        Snapshot(
            number=7,
            made_at=AT,
            agencies=agencies,
            clients=[ClientRow(**client) for client in clients],
            stopped=[],
            law_number=1,
        )
    )


@dataclass
class Inquiries:
    """InquiryService in memory: lines stay ``accepted`` until ``answer`` is called."""

    calls: list[Any] = field(default_factory=list)
    batches: dict[uuid.UUID, tuple[int, list[wire.QueryLineView]]] = field(default_factory=dict)
    refuse_lines: set[int] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    fails_with: BaseException | None = None

    async def accept(
        self, agency: AgencyRow, caller: ClientRow, body: wire.Queries, key: str, raw: bytes
    ) -> wire.Batch:
        self.calls.append(("accept", agency.code, caller.id, key, len(body.lines)))
        if self.fails_with is not None:
            raise self.fails_with
        batch = uuid.uuid4()
        lines = [
            wire.QueryLineView(line=n, state="accepted", id=uuid.uuid4(), updated_at=AT)
            for n in range(len(body.lines))
            if n not in self.refuse_lines
        ]
        self.batches[batch] = (agency.number, lines)
        refused = [
            wire.QueryLineView(line=n, state="refused_before_acceptance", outcome="bad_request")
            for n in sorted(self.refuse_lines)
        ]
        return wire.Batch(batch=batch, lines=sorted([*lines, *refused], key=lambda line: line.line))

    def answer(self) -> None:
        for batch, (agency, lines) in self.batches.items():
            done = [
                wire.QueryLineView(line=line.line, state="answered", outcome="provided", id=line.id) for line in lines
            ]
            self.batches[batch] = (agency, done)
        self.changed.set()

    def _find(self, agency: AgencyRow, reference: uuid.UUID) -> wire.Batch:
        owner, lines = self.batches.get(reference, (0, []))
        if owner != agency.number:
            raise Problem("not_found")
        return wire.Batch(batch=reference, lines=lines)

    async def wait(self, agency: AgencyRow, batch: uuid.UUID, timeout_s: float) -> wire.Batch:
        self.calls.append(("wait", agency.code, timeout_s))
        self.waiting.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            pass
        return self._find(agency, batch)

    async def view(self, agency: AgencyRow, reference: uuid.UUID) -> wire.Batch:
        self.calls.append(("view", agency.code))
        return self._find(agency, reference)

    async def collect(self, agency: AgencyRow, reference: uuid.UUID) -> wire.Batch:
        self.calls.append(("collect", agency.code))
        batch = self._find(agency, reference)
        content = wire.AnswerContent(kind="TM00000000000002", copies=[])
        lines = [
            wire.QueryLineView(line=line.line, state="collected", outcome="provided", id=line.id, content=content)
            if line.state == "answered"
            else line
            for line in batch.lines
        ]
        return wire.Batch(batch=batch.batch, lines=lines)

    async def page(self, agency: AgencyRow, state: str | None, after: str | None, limit: int) -> wire.QueryPage:
        self.calls.append(("page", agency.code, state, after, limit))
        return wire.QueryPage(lines=[])

    async def cancel(self, agency: AgencyRow, caller: ClientRow, reference: uuid.UUID) -> wire.Batch:
        self.calls.append(("cancel", agency.code, caller.id))
        return self._find(agency, reference)


@dataclass
class Reviews:
    """ReviewService in memory."""

    calls: list[Any] = field(default_factory=list)

    def _review(self, review: uuid.UUID) -> wire.Review:
        return wire.Review(
            id=review,
            inquirer=TOWN,
            affair="JM01000000121000",
            procedure="JT01010000000214",
            kind="TM00000000000002",
            items=[],
            asked_at=AT,
            expires_at=AT,
            state="held",
        )

    async def list(self, agency: AgencyRow) -> wire.Reviews:
        self.calls.append(("list", agency.code))
        return wire.Reviews(reviews=[])

    async def prepare(self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: Any) -> wire.Review:
        self.calls.append(("prepare", agency.code, officer.id, body.decision))
        return self._review(review)

    async def approve(self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: Any) -> wire.Review:
        self.calls.append(("approve", agency.code, officer.id))
        return self._review(review)

    async def refuse(self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: Any) -> wire.Review:
        self.calls.append(("refuse", agency.code, officer.id))
        return self._review(review)


@dataclass
class Codes:
    """CodeService in memory."""

    calls: list[Any] = field(default_factory=list)

    async def ask(self, agency: AgencyRow, body: wire.CodeAsk, key: str) -> wire.CodeStatuses:
        self.calls.append(("ask", agency.code, key))
        lines = [wire.CodeStatus(line=n, status="requested") for n in range(len(body.lines))]
        return wire.CodeStatuses(lines=lines)

    async def search(self, agency: AgencyRow, body: wire.CodeAsk) -> wire.CodeStatuses:
        self.calls.append(("search", agency.code))
        return wire.CodeStatuses(lines=[wire.CodeStatus(line=n, status="none") for n in range(len(body.lines))])


@dataclass
class Desk:
    """All three desks in memory."""

    calls: list[Any] = field(default_factory=list)
    parts: dict[int, list[Any]] = field(default_factory=dict)
    load_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def _results(self, count: int) -> wire.LineResults:
        return wire.LineResults(lines=[wire.LineResult(line=n, status="done") for n in range(count)])

    async def register(self, agency: AgencyRow, body: wire.Copies, key: RequestKey) -> wire.LineResults:
        self.calls.append(("register", agency.code, key.key))
        return self._results(len(body.lines))

    async def search(self, agency: AgencyRow, body: Any) -> Any:
        self.calls.append(("search", agency.code))
        return wire.Records(records=[]) if isinstance(body, RecordSearch) else wire.CopyPage(copies=[])

    async def export(self, agency: AgencyRow, body: wire.CopyExport) -> wire.CopyPage:
        self.calls.append(("export", agency.code, body.after, body.limit))
        return wire.CopyPage(copies=[])

    async def delete(self, agency: AgencyRow, body: wire.CopyDelete, key: RequestKey) -> wire.LineResults:
        self.calls.append(("delete", agency.code, key.key))
        return self._results(len(body.keys))

    async def hold(self, agency: AgencyRow, body: wire.Holds, key: RequestKey) -> wire.LineResults:
        self.calls.append(("hold", agency.code, key.key))
        return self._results(len(body.lines))

    def _load(self, load: uuid.UUID, state: Any = "open") -> wire.Load:
        return wire.Load(
            id=load,
            kind="TM00000000000002",
            layout=202506,
            mode="full",
            period="2026",
            state=state,
            expected=1,
            staged=sum(len(lines) for lines in self.parts.values()),
            refused=0,
            parts=sorted(self.parts),
        )

    async def open(self, agency: AgencyRow, body: wire.LoadOpen, key: RequestKey) -> wire.Load:
        self.calls.append(("open", agency.code, key.key))
        return self._load(self.load_id)

    async def get(self, agency: AgencyRow, load: uuid.UUID) -> wire.Load:
        self.calls.append(("get", agency.code))
        return self._load(load)

    async def part(self, agency: AgencyRow, load: uuid.UUID, part: int, source: PartSource) -> wire.Load:
        self.calls.append(("part", agency.code, part, source.digest.hex()))
        self.parts[part] = [line for bunch in source.bunches() for line in bunch]
        return self._load(load)

    async def commit(self, agency: AgencyRow, load: uuid.UUID, body: wire.LoadCommit) -> wire.Load:
        self.calls.append(("commit", agency.code, body.digest))
        return self._load(load, "committed")

    async def release(self, agency: AgencyRow, officer: ClientRow, load: uuid.UUID, body: wire.LoadCommit) -> wire.Load:
        self.calls.append(("release", agency.code, officer.id))
        return self._load(load, "committed")

    async def compare(self, agency: AgencyRow, load: uuid.UUID, body: LoadCompare) -> LoadDifferences:
        self.calls.append(("compare", agency.code, body.after, body.limit))
        return LoadDifferences(load=load, differences=[])

    async def abort(self, agency: AgencyRow, load: uuid.UUID) -> wire.Load:
        self.calls.append(("abort", agency.code))
        return self._load(load, "aborted")

    async def statistics(self, agency: AgencyRow, first: dt.date, last: dt.date) -> Statistics:
        self.calls.append(("statistics", agency.code, first, last))
        month = f"{first:%Y-%m}"
        line = StatisticsLine(
            month=month, fiscal_year=2026, side="inquirer", outcome="provided", records=0, amendments=1
        )
        return Statistics(first=month, last=f"{last:%Y-%m}", records=0, amendments=1, lines=[line])

    async def page(self, agency: AgencyRow, after: str | None, limit: int) -> wire.Records:
        self.calls.append(("page", agency.code, after, limit))
        return wire.Records(records=[])


@dataclass
class FakeExchange:
    """The parts of an exchange that the API calls, and everything that they were asked."""

    directory: Directory = field(default_factory=directory)
    inquiries: Inquiries = field(default_factory=Inquiries)
    reviews: Reviews = field(default_factory=Reviews)
    codes: Codes = field(default_factory=Codes)
    files: Files = field(default_factory=Files)
    events: Events = field(default_factory=Events)
    code_files: CodeFiles = field(default_factory=CodeFiles)
    holders: Holders = field(default_factory=Holders)
    links: Links = field(default_factory=Links)
    desk: Desk = field(default_factory=Desk)

    @property
    def calls(self) -> list[Any]:
        return [
            *self.inquiries.calls,
            *self.reviews.calls,
            *self.codes.calls,
            *self.files.calls,
            *self.events.calls,
            *self.code_files.calls,
            *self.holders.calls,
            *self.links.calls,
            *self.desk.calls,
        ]


@dataclass
class Served:
    """A running agency API."""

    port: int
    exchange: FakeExchange
    services: Services
    listener: Listener
    addresses: Any
    contexts: Callable[[str], ssl.SSLContext]

    def url(self, path: str, agency: str = CITY) -> str:
        return f"https://localhost:{self.port}/v1/agencies/{agency}{path}"

    @asynccontextmanager
    async def client(self, name: str = "tax") -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=self.contexts(name))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session

    @asynccontextmanager
    async def socket(self, name: str = "tax") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=self.contexts(name))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, text: bytes, name: str = "tax") -> tuple[int, dict[str, str], dict[str, Any]]:
        """Send bytes as they are and return status, headers (lower case) and JSON body of the first answer."""
        async with self.socket(name) as (reader, writer):
            writer.write(text)
            await writer.drain()
            async with asyncio.timeout(10):
                return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return int(head[0].split()[1]), fields, json.loads(body) if body else {}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki") / "authority", "test", SystemClock())


@pytest.fixture(scope="session")
def certificates(authority: Authority) -> dict[str, Issued]:
    names = ["tax", "counter", "eager", "suzuki", "tanaka", "town", "stranger"]
    issued = {name: authority.issue_client(name) for name in names}
    issued["exchange"] = authority.issue_peer("exchange")
    return issued


@pytest.fixture(scope="session")
def contexts(authority: Authority, certificates: dict[str, Issued]) -> Callable[[str], ssl.SSLContext]:
    made: dict[str, ssl.SSLContext] = {}

    def context(name: str) -> ssl.SSLContext:
        if name not in made:
            issued = certificates[name]
            made[name] = client_context(issued.certificate, issued.key, authority.trusted)
        return made[name]

    return context


@pytest.fixture(scope="session")
def server_tls(authority: Authority, certificates: dict[str, Issued]) -> ssl.SSLContext:
    issued = certificates["exchange"]
    return server_context(issued.certificate, issued.key, authority.trusted)


Serve = Callable[..., Any]


@pytest.fixture
async def serve(contexts: Callable[[str], ssl.SSLContext], server_tls: ssl.SSLContext) -> AsyncIterator[Serve]:
    """Start agency APIs: ``await serve(limits=…, addresses=…, request_bytes_max=…)``."""
    listeners: list[Listener] = []

    async def start(
        *,
        limits: Limits | None = None,
        addresses: AddressCheck | None = None,
        request_bytes_max: int = 1024 * 1024,
        connections_max: int = 100,
        **more: Any,
    ) -> Served:
        exchange = FakeExchange()
        clock, metrics = SystemClock(), Metrics()
        services = Services(
            exchange=exchange,
            desks=Desks(exchange.desk, exchange.desk, exchange.desk, FakeEvidence(exchange.desk.calls)),
            law=Law.load(),
            admission=Admission(limits or Limits(), clock, metrics),
            metrics=metrics,
            clock=clock,
            drain=Drain(),
            request_bytes_max=request_bytes_max,
            **more,
        )
        checked = addresses or AnyAddress()
        documents = (("/", openapi.index(ROUTES)), ("/openapi.json", openapi.render(ROUTES)))
        api = AgencyApi(services, ROUTES, checked, SystemChance(clock), documents)
        listener = Listener(api.application(), "localhost", 0, server_tls, connections_max=connections_max)
        port = await listener.start()
        listeners.append(listener)
        return Served(port, exchange, services, listener, checked, contexts)

    yield start
    for listener in listeners:
        await listener.close(0.2)


@pytest.fixture
async def served(serve: Serve) -> Served:
    """The agency API with everything at its default."""
    result: Served = await serve()
    return result


@pytest.fixture
def key() -> str:
    """A fresh Idempotency-Key."""
    return str(SystemChance(SystemClock()).uuid7())


@pytest.fixture
def headers(key: str) -> dict[str, str]:
    """What every POST needs."""
    return {"Idempotency-Key": key}


def query_line(**changes: Any) -> dict[str, Any]:
    line = {
        "addressee": "A1",
        "kind": "TM00000000000002",
        "provider": TOWN,
        "affair": "JM01000000121000",
        "procedure": "JT01010000000214",
        "department": "福祉課",
    }
    return line | changes


@pytest.fixture
def line() -> Callable[..., dict[str, Any]]:
    """A query line, with changes."""
    return query_line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
