"""A served agency API on real TLS sockets, over services that live in memory and remember what they were asked."""

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority, Issued
from chukan.platform.admission import Admission, Limits
from chukan.platform.http import openapi
from chukan.platform.http.api import AgencyApi
from chukan.platform.http.auth import AddressCheck
from chukan.platform.http.calls import Services
from chukan.platform.http.drain import Drain
from chukan.platform.http.listener import Listener
from chukan.platform.http.ports import Desks
from chukan.platform.http.routes import ROUTES
from chukan.platform.law import Law
from chukan.platform.metrics import Metrics
from chukan.platform.tls import client_context, server_context
from chukan.tenants.directory import AgencyRow, ClientRow, Directory, Snapshot
from chukan.tests.support.fake_addresses import AnyAddress
from chukan.tests.support.fake_code_changes import AcquisitionAskService, CodeChangeService
from chukan.tests.support.fake_delegations import Corrections, Delegations
from chukan.tests.support.fake_events import Events
from chukan.tests.support.fake_evidence import FakeEvidence, FakeOperations, FakeResidents
from chukan.tests.support.fake_exchange import Codes, Desk, Inquiries, Reviews
from chukan.tests.support.fake_files import CodeFiles, Files
from chukan.tests.support.fake_holders import Holders
from chukan.tests.support.fake_links import Links
from chukan.tests.support.fake_notices import Board

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
        _client("sato", [CITY], ["queries", "records"], kind="officer"),
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
class FakeExchange:
    """The parts of an exchange that the API calls, and everything that they were asked."""

    directory: Directory = field(default_factory=directory)
    inquiries: Inquiries = field(default_factory=Inquiries)
    reviews: Reviews = field(default_factory=Reviews)
    codes: Codes = field(default_factory=Codes)
    files: Files = field(default_factory=Files)
    events: Events = field(default_factory=Events)
    code_files: CodeFiles = field(default_factory=CodeFiles)
    code_changes: CodeChangeService = field(default_factory=CodeChangeService)
    acquisition_asks: AcquisitionAskService = field(default_factory=AcquisitionAskService)
    holders: Holders = field(default_factory=Holders)
    delegations: Delegations = field(default_factory=Delegations)
    corrections: Corrections = field(default_factory=Corrections)
    links: Links = field(default_factory=Links)
    notices: Board = field(default_factory=Board)
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
            *self.code_changes.calls,
            *self.acquisition_asks.calls,
            *self.holders.calls,
            *self.delegations.calls,
            *self.corrections.calls,
            *self.links.calls,
            *self.notices.calls,
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
    names = ["tax", "counter", "eager", "suzuki", "tanaka", "sato", "town", "stranger"]
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
            desks=Desks(
                exchange.desk,
                exchange.desk,
                exchange.desk,
                FakeEvidence(exchange.desk.calls),
                FakeResidents(exchange.desk.calls),
                FakeOperations(exchange.desk.calls),
            ),
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
