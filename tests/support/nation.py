"""Two exchanges, two cells on a real PostgreSQL, and the simulated network on real sockets, in one process.

``nation`` is a running world with four municipal agencies (two in each cell) and helpers that act as their systems;
``running`` makes one for a fixture of a wider scope. The clock is the machine's; every wait is for an event, with a
deadline. A plugin of ``tests/conftest.py``, because several subjects stand on it.
"""

import asyncio
import datetime as dt
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chukan import settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority
from chukan.ops.sandbox import config as sandbox
from chukan.ops.sandbox.endpoints import pause
from chukan.ops.sandbox.listener import Listener
from chukan.ops.sandbox.network import Network
from chukan.ops.sandbox.network_app import network_application
from chukan.ops.sandbox.registry import RegistryClient
from chukan.platform import tls
from chukan.platform.envelope import Opener, Signer
from chukan.platform.exchange.exchange import Exchange
from chukan.platform.http.network import network_app
from chukan.platform.law import Law
from chukan.platform.metrics import Metrics
from chukan.platform.peer import NetworkPeer
from chukan.platform.wire.agency import Batch, CodeAsk, CodeLine, Queries, QueryLine, Review
from chukan.platform.wire.network import Condition
from chukan.replication.primary import Cells
from chukan.tenants import births, copies, directory, migrate, records
from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys

LAW = Law.load()
TAX = "TM00000000000002"
AFFAIR, PROCEDURE = "JM01000000121000", "JT01010000000214"
ASKS, GIVES, ASKS_WEST, GIVES_WEST = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)
CELL_OF = {ASKS: "east", GIVES: "east", ASKS_WEST: "west", GIVES_WEST: "west"}
PASSWORDS = {role: f"password-of-{role}" for role in migrate.LOGINS}  # the server's other cells have the same
WAIT_S = 30.0


def pem(folder: Path, name: str) -> tuple[Path, Path, Ed25519PrivateKey]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public, key


class Site:
    """One exchange with its push listener."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.world = world
        identity = world.tls(name)
        chance = SystemChance(world.clock)
        self.signer = Signer(name, sandbox.read_private_key(world.signing[name][0]), world.clock, chance)
        self.opener = Opener({"network": sandbox.read_public_key(world.signing["network"][1])}, world.clock)
        client = tls.client_context(identity.certificate_file, identity.key_file, identity.ca_file)
        self.settings = world.settings(name)
        self.peer = NetworkPeer(self.settings.network, self.signer, self.opener, client)
        self.cells = Cells(self.settings.cells, self.settings.site.environment)
        self.metrics = Metrics()
        self.exchange = Exchange(
            self.settings,
            cells=self.cells,
            peer=self.peer,
            keystores=world.keystores,
            law=LAW,
            network_key=sandbox.read_public_key(world.signing["network"][1]),
            directory_key=world.signing["directory"][2].public_key(),
            clock=world.clock,
            chance=chance,
            meter=self.metrics,
        )
        take = self.exchange.acquisition_asks.take
        app = network_app(
            self.exchange.inbox,
            self.opener,
            self.signer,
            acquisition_asks=take,
            corrections=self.exchange.corrections.take,
        )
        self.listener = Listener(app, "127.0.0.1", world.ports[name], identity)

    async def start(self) -> None:
        await self.exchange.start()
        await self.listener.start()

    async def stop(self) -> None:
        await self.listener.stop()
        await self.exchange.stop()
        await self.peer.close()
        await self.cells.close()


class World:
    """Everything; made by the fixture, driven by the tests."""

    def __init__(self, folder: Path, server) -> None:
        self.folder = folder
        self.server = server
        self.clock = SystemClock()
        self.chance = SystemChance(self.clock)
        self.authority = Authority.create(folder / "ca", "test", self.clock, "sandbox")
        self.signing = {name: pem(folder, name) for name in ("network", "east", "west", "registry", "directory")}
        self.ports = {"east": free_port(), "west": free_port()}
        self.databases = {cell: f"x_{uuid.uuid4().hex[:8]}_{cell}" for cell in ("east", "west")}
        self.keystores = KeyStores(
            {centre: folder / f"keys-{centre}" for centre in ("east", "west")}, environment="sandbox"
        )
        self.sites: dict[str, Site] = {}
        self.resident_codes: dict[str, str] = {}
        self.snapshot = directory.first(self.clock.now(), LAW.number, "sandbox")
        self.tokens = iter(range(1, 1_000_000))
        self.epochs: dict[str, int] = {}

    # ------------------------------------------------------------ making

    def tls(self, peer: str) -> sandbox.Tls:
        into = self.folder / f"tls-{peer}"
        if not into.exists():
            self.authority.issue_peer(peer, into)
        return sandbox.Tls(
            certificate_file=into / "certificate.pem", key_file=into / "key.pem", ca_file=self.authority.trusted
        )

    def settings(self, name: str) -> settings.Settings:
        identity = self.tls(name)
        for role, password in PASSWORDS.items():
            (self.folder / role).write_text(password)
        cells = {
            cell: settings.Cell(
                host=str(self.server.socket_dir),
                port=self.server.port,
                database=database,
                restore_epoch=self.epochs.get(cell, 1),
                broker_password_file=self.folder / "chukan_broker",
                app_password_file=self.folder / "chukan_app",
                steward_password_file=self.folder / "chukan_steward",
            )
            for cell, database in self.databases.items()
        }
        return settings.Settings(
            site=settings.Site(centre=name, address_check=False, sandbox=True),
            cells=cells,
            exchange=settings.Exchange(
                name=name,
                tls_certificate_file=identity.certificate_file,
                tls_key_file=identity.key_file,
                tls_ca_file=identity.ca_file,
                signing_key_file=self.signing[name][0],
                directory_key_file=self.signing["directory"][1],
            ),
            network=settings.Network(
                url=f"https://127.0.0.1:{self.network_config.port}",
                ca_file=identity.ca_file,
                verify_key_file=self.signing["network"][1],
            ),
            keystores={},
        )

    async def start(self) -> None:
        self.network_config = sandbox.NetworkConfig(
            state_directory=self.folder / "network",
            port=free_port(),
            admin_port=free_port(),
            tls=self.tls("network"),
            signing_key_file=self.signing["network"][0],
            peers={
                "east": sandbox.PeerConfig(verify_key_file=self.signing["east"][1], route="chukan"),
                "west": sandbox.PeerConfig(verify_key_file=self.signing["west"][1], route="chukan"),
                "registry": sandbox.PeerConfig(verify_key_file=self.signing["registry"][1]),
            },
            routes={
                "chukan": sandbox.RouteConfig(
                    endpoints=[f"https://127.0.0.1:{self.ports[name]}" for name in ("east", "west")]
                )
            },
            agencies={code: sandbox.AgencyConfig(name=code, route="chukan") for code in CELL_OF},
        )
        self.keystores.prepare()
        await self._databases()
        await self.start_network()
        self.registry = RegistryClient(
            sandbox.RegistryConfig(
                network_url=f"https://127.0.0.1:{self.network_config.port}",
                network_verify_key_file=self.signing["network"][1],
                tls=self.tls("registry"),
                signing_key_file=self.signing["registry"][0],
            ),
            self.clock,
            self.chance,
        )
        for name in ("east", "west"):
            await self.start_site(name)

    async def _databases(self) -> None:
        for code, cell in CELL_OF.items():
            body = code[4:10]
            self.snapshot = directory.add_agency(
                self.snapshot, self.clock.now(), code=code, body=body, name=f"機関{body}", cell=cell
            )
        for agency in self.snapshot.agencies:
            self.keystores.create(agency.number)
        admin = await self.admin("postgres")
        for database in self.databases.values():
            await admin.execute(f'CREATE DATABASE "{database}"')
        await admin.close()
        for cell, database in self.databases.items():
            admin = await self.admin(database)
            await migrate.prepare_cell(admin, cell, PASSWORDS, "sandbox")
            for agency in self.snapshot.agencies:
                if agency.cell == cell:
                    await births.birth(admin, agency.number, agency.generation)
            await admin.close()
        await self.publish()

    async def admin(self, database: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=str(self.server.socket_dir),
            port=self.server.port,
            user=self.server.superuser,
            password=self.server.superuser_password,
            database=database,
        )

    async def publish(self) -> None:
        """Put the snapshot in force in both cells, and wait until the running exchanges know it."""
        signed = directory.sign(self.snapshot, self.signing["directory"][2])
        for database in self.databases.values():
            admin = await self.admin(database)
            await births.put_snapshot(admin, self.snapshot.number, signed.body, signed.signature, signed.key)
            await admin.close()
        for site in self.sites.values():
            await site.exchange.common.refresh()

    async def start_network(self) -> None:
        self.network = Network(self.network_config, LAW, self.clock, self.chance)
        await self.network.start()
        self.network_listener = Listener(
            network_application(self.network), "127.0.0.1", self.network_config.port, self.network_config.tls
        )
        await self.network_listener.start()

    async def stop_network(self) -> None:
        await self.network_listener.stop()
        await self.network.stop()

    async def start_site(self, name: str) -> Site:
        site = Site(self, name)
        await site.start()
        self.sites[name] = site
        return site

    async def stop(self) -> None:
        for site in self.sites.values():
            await site.stop()
        await self.registry.close()
        await self.stop_network()
        admin = await self.admin("postgres")
        for database in self.databases.values():
            await admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        await admin.close()

    # ------------------------------------------------------------ acting

    @property
    def east(self) -> Exchange:
        return self.sites["east"].exchange

    @property
    def west(self) -> Exchange:
        return self.sites["west"].exchange

    def agency(self, code: str) -> directory.AgencyRow:
        return directory.Directory(self.snapshot).agency(code)

    def keys(self, code: str) -> AgencyKeys:
        return self.keystores.load(self.agency(code).number)

    def caller(self, code: str) -> directory.ClientRow:
        return directory.ClientRow(
            id=f"system-{code}", body=code[4:10], kind="system", name="業務", agencies=[code], functions=["queries"]
        )

    def officer(self, code: str, name: str) -> directory.ClientRow:
        return directory.ClientRow(
            id=f"officer-{name}",
            body=code[4:10],
            kind="officer",
            name=name,
            agencies=[code],
            functions=["reviews.prepare"],
        )

    async def acquire(self, code: str, people: Sequence[tuple[str, str]]) -> None:
        """Acquire linkage codes for (addressee number, resident code) pairs, through registry and network."""
        ask = CodeAsk(lines=[CodeLine(addressee=addressee) for addressee, _ in people])
        statuses = await self.east.codes.ask(self.agency(code), ask, str(uuid.uuid4()))
        numbers = [status.acquisition_number for status in statuses.lines]
        assert all(numbers), statuses
        pairs = [(number, resident) for number, (_, resident) in zip(numbers, people, strict=True)]
        assert await self.registry.hand_over(pairs) == len(pairs)
        async with asyncio.timeout(WAIT_S):
            while {line.status for line in (await self.west.codes.search(self.agency(code), ask)).lines} != {"active"}:
                await pause(0.05, asyncio.Event())

    async def register(
        self, code: str, addressee: str, *, period="2026", review=False, gaps=False, layout=None
    ) -> None:
        """Register one tax copy by door 1."""
        found = LAW.layouts_in_force(TAX, dt.date(2026, 11, 23))[-1] if layout is None else LAW.layout(TAX, layout)
        items = {item: {"gap": "01"} if gaps and n == 0 else "0" for n, item in enumerate(sorted(found.items))}
        copy = copies.Copy(
            addressee=addressee,
            kind=TAX,
            layout=found.version,
            effective_from=dt.date(2026, 6, 1),
            period=period,
            items=json.dumps(items, sort_keys=True, separators=(",", ":")).encode(),
            review=review,
        )
        agency = self.agency(code)
        async with self.east.door(agency) as partition:
            await copies.register(partition, self.keys(code), [copy], source="test", at=self.clock.now())

    async def person(self, asks: str, gives: str, *, copy: bool = True, **changes) -> str:
        """A person known to both agencies under the same addressee number (each agency's own digest differs)."""
        n = next(self.tokens)
        addressee, resident = f"{n:015d}", f"99{n:08d}0"
        await self.acquire(asks, [(addressee, resident)])
        await self.acquire(gives, [(addressee, resident)])
        if copy:
            await self.register(gives, addressee, **changes)
        return addressee

    def line(self, addressee: str, provider: str, **changes) -> QueryLine:
        values = {
            "addressee": addressee,
            "kind": TAX,
            "provider": provider,
            "affair": AFFAIR,
            "procedure": PROCEDURE,
            "department": "給付課",
            "condition": Condition(period="0"),
        }
        return QueryLine(**{**values, **changes})

    async def ask(self, code: str, lines: Sequence[QueryLine], *, key: str | None = None, via: str = "east") -> Batch:
        body = Queries(lines=list(lines))
        key = key or str(uuid.uuid4())
        exchange = self.sites[via].exchange
        return await exchange.inquiries.accept(self.agency(code), self.caller(code), body, key, repr(body).encode())

    async def answered(self, code: str, batch: Batch, *, via: str = "east") -> Batch:
        return await self.sites[via].exchange.inquiries.wait(self.agency(code), batch.batch, WAIT_S)

    async def state_of(self, code: str, batch: Batch) -> str:
        (line,) = (await self.east.inquiries.view(self.agency(code), batch.batch)).lines
        return line.state

    async def until(self, look: Callable[[], Awaitable[str]], wanted: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while await look() != wanted:
                await pause(0.02, asyncio.Event())

    async def until_some(self, reviews, agency: directory.AgencyRow) -> Review:
        """The first review of an agency, once there is one."""
        async with asyncio.timeout(WAIT_S):
            while not (found := (await reviews(agency)).reviews):
                await pause(0.02, asyncio.Event())
        return found[0]

    async def until_records(self, code: str, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(await self.records(code)) < count:
                await pause(0.02, asyncio.Event())

    async def sequenced(self) -> None:
        """Wait until every record of both cells has its place in its log."""
        async with asyncio.timeout(WAIT_S):
            while any([await sets.sequencer_age() for sets in self.east.sets.values()]):
                await pause(0.02, asyncio.Event())

    async def records(self, code: str) -> list[records.StoredRecord]:
        agency = self.agency(code)
        found: list[records.StoredRecord] = []
        after: str | None = None
        async with self.east.door(agency) as partition:
            while True:
                page = await records.list_records(partition, self.keys(code), after=after, limit=1000)
                found += page.records
                after = page.next
                if after is None:
                    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(server, folder: Path) -> AsyncIterator[World]:
    """A started world on a database server, stopped at the end; ``folder`` is its own."""
    world = World(folder, server)
    async with AsyncExitStack() as stack:
        await world.start()
        stack.push_async_callback(world.stop)
        yield world


@pytest.fixture
async def nation(embedded_server, tmp_path) -> AsyncIterator[World]:
    async with running(embedded_server, tmp_path) as world:
        yield world
