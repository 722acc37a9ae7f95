"""Running worlds for hostile tests: one a module, because each test leaves it as it found it.

``hostile`` is two exchanges and the network; ``api`` the same with one exchange served as the real process serves it,
with its listeners on real TLS sockets, and clients of two agencies.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from chukan.ops.sandbox.endpoints import pause
from chukan.ops.sandbox.faults import FaultPlan, FaultRule
from chukan.ops.serve import Ports, Server
from chukan.platform.tls import client_context
from chukan.tenants import directory
from chukan.tests.support.nation import ASKS, GIVES, GIVES_WEST, WAIT_S, World, running

FUNCTIONS = ["queries", "codes", "copies", "records", "holds"]


def problems_of(world: World, code: str) -> float:
    """How often the exchanges counted a problem (``chukan_problems``)."""
    counts = [
        site.metrics.registry.get_sample_value("chukan_problems_total", {"code": code}) for site in world.sites.values()
    ]
    return sum(count or 0.0 for count in counts)


def happened(world: World) -> dict[tuple[str, str], int]:
    """Which faults really happened, by fault and place."""
    return {(count.fault, count.at): count.times for count in world.network.fault_counts().counts}


def plan(world: World, *rules: FaultRule, seed: int = 1) -> None:
    """Let the network be hostile from now on."""
    world.network.put_faults(FaultPlan(seed=seed, rules=rules))


async def quiet(world: World, wait_s: float = WAIT_S) -> None:
    """Wait until the network has nothing left to push and every record has its place."""
    async with asyncio.timeout(wait_s):
        while (await world.network.state()).outbox:
            await pause(0.02, asyncio.Event())
    await world.sequenced()


async def digests(world: World) -> dict[str, tuple[int, int]]:
    """What rests in both cells: by table, how many rows and a number made of all they hold.

    Clocks and leases aside, and what is written of callers that were refused: the audit, and the log of an officer's
    own acts, which tests of refusals make longer.
    """
    moving = {"chukan.canary", "chukan.leases", "chukan.workers", "chukan.cell", "chukan.log_heads"}
    moving |= {"chukan.access_refused", "chukan.operations_waiting", "chukan.operation_heads"}
    acts = ("operations", "operation_log", "operation_tiles", "operation_checkpoints", "operation_cosignatures")
    found = {}
    for cell, database in world.databases.items():
        admin = await world.admin(database)
        names = await admin.fetch(
            "SELECT schemaname || '.' || tablename AS name FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        names = [row["name"] for row in names if row["name"].partition(".")[2] not in acts]
        wanted = sorted(set(names) - moving)
        parts = [
            f"SELECT '{name}' AS name, count(*) AS n, coalesce(sum(hashtext(t::text)::bigint), 0) AS s FROM {name} t"
            for name in wanted
        ]
        for row in await admin.fetch(" UNION ALL ".join(parts)):
            found[f"{cell} {row['name']}"] = (row["n"], int(row["s"]))
        await admin.close()
    return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hostile(embedded_server: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world whose network may be told to misbehave; persons are known before it is."""
    async with running(embedded_server, tmp_path_factory.mktemp("hostile")) as world:
        plan(world)
        yield world


class ServedSite:
    """An exchange as its process serves it, in the place of the world's ``east``."""

    def __init__(self, world: World, name: str) -> None:
        stores = {centre: world.folder / f"keys-{centre}" for centre in ("east", "west")}
        settings = world.settings(name)
        mine = msgspec.structs.replace(
            settings.exchange, agency_port=0, health_port=0, network_port=world.ports[name], network_host="127.0.0.1"
        )
        settings = msgspec.structs.replace(settings, keystores=stores, exchange=mine)
        self.told = asyncio.Event()
        self.server = Server(settings, self.told)
        self.exchange = self.server.exchange
        self.metrics = self.server._metrics
        self.peer = self.server._peer
        self.ports: Ports | None = None

    async def start(self) -> None:
        def listening(ports: Ports) -> None:
            self.ports = ports

        await self.server.start(listening)

    async def stop(self) -> None:
        await self.server.stop(1.0)


class Api:
    """A served agency API in a running world, and its clients: one system per agency, and officers of the provider."""

    def __init__(self, world: World, site: ServedSite) -> None:
        self.world = world
        self.site = site
        assert site.ports is not None
        self.port = site.ports.agency
        self._issued: dict[str, Any] = {}

    def certificate(self, name: str) -> Any:
        """The files of a client's certificate."""
        if name not in self._issued:
            self._issued[name] = self.world.authority.issue_client(name)
        return self._issued[name]

    def context(self, name: str) -> Any:
        issued = self.certificate(name)
        return client_context(issued.certificate, issued.key, self.world.authority.trusted)

    def url(self, path: str, agency: str = ASKS) -> str:
        return f"https://localhost:{self.port}/v1/agencies/{agency}{path}"

    @asynccontextmanager
    async def session(self, name: str = f"system-{ASKS}") -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=self.context(name))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session

    async def send(self, method: str, path: str, body: Any = None, *, agency: str = ASKS, **more: Any) -> Any:
        """Status, headers and JSON body of one call; ``by`` names the client, ``headers`` are added."""
        name = more.get("by", f"system-{agency}")
        headers = {"Idempotency-Key": str(uuid.uuid4()), **more.get("headers", {})}
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        if data is not None:
            headers.setdefault("Content-Type", "application/json")
        async with (
            asyncio.timeout(WAIT_S),
            self.session(name) as session,
            session.request(method, self.url(path, agency), data=data, headers=headers) as answer,
        ):
            raw = await answer.read()
            return answer.status, answer.headers, msgspec.json.decode(raw) if raw else None


def clients(world: World, agencies: Sequence[str]) -> None:
    """Register a system with every function for each agency, and two officers of the provider."""
    rows = [
        directory.ClientRow(
            id=f"system-{code}", body=code[4:10], kind="system", name="業務", agencies=[code], functions=FUNCTIONS
        )
        for code in agencies
    ]
    rows += [
        directory.ClientRow(
            id=f"officer-{name}",
            body=GIVES[4:10],
            kind="officer",
            name=name,
            agencies=[GIVES],
            functions=["reviews.prepare", "reviews.approve", "order"],
        )
        for name in ("first", "second")
    ]
    for row in rows:
        world.snapshot = directory.add_client(world.snapshot, world.clock.now(), row)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def api(embedded_server: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The agency API of a whole exchange, on real sockets."""
    async with running(embedded_server, tmp_path_factory.mktemp("api")) as world:
        clients(world, (ASKS, GIVES, GIVES_WEST))
        await world.publish()
        await world.sites.pop("east").stop()
        site = ServedSite(world, "east")
        await site.start()
        world.sites["east"] = site
        yield Api(world, site)
