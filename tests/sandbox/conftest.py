"""A simulated network on real sockets with certificates of its own, and exchanges that only record what they are told.

``world`` stands on a clock that the test moves; what is signed and encrypted is real. Agencies: two of a platform with
the exchanges ``east`` and ``west``, one of the counterpart ``nation``, and one that nobody has asked to come (no code).
"""

import asyncio
import datetime as dt
import itertools
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chukan.chance import SystemChance
from chukan.clock import ManualClock, SystemClock
from chukan.ops.certificates import Authority
from chukan.ops.sandbox.admin import State
from chukan.ops.sandbox.config import (
    AgencyConfig,
    NetworkConfig,
    PeerConfig,
    RegistryConfig,
    RouteConfig,
    Tls,
    read_private_key,
    read_public_key,
)
from chukan.ops.sandbox.endpoints import pause
from chukan.ops.sandbox.faults import Faults
from chukan.ops.sandbox.listener import Listener
from chukan.ops.sandbox.network import Network
from chukan.ops.sandbox.network_app import admin_application, network_application
from chukan.ops.sandbox.registry import RegistryClient
from chukan.platform import tls
from chukan.platform.envelope import Opener, Signer
from chukan.platform.http.network import network_app
from chukan.platform.law import Decision, Verdict
from chukan.platform.peer import NetworkPeer
from chukan.platform.permits import PermitVerifier
from chukan.platform.wire.network import (
    Ack,
    AcquiredCode,
    AcquisitionRequest,
    Answer,
    AnswerDelivery,
    AnswerKey,
    Condition,
    Notice,
    PermitReply,
    PermitRequest,
    ProviderPermit,
    Receipt,
    SealedAnswer,
)
from chukan.settings import Network as NetworkSettings

ASKS = "9901011002000001"
GIVES = "9901131016000001"
BOARD = "9902011002000001"
NATION = "9909000000000010"
AFFAIR = "JMX0000000000018"
PROCEDURE = "JTX0000000000023"
KIND = "TM00000000000002"
ITEMS = ["TKX0020000000001", "TKX0020000000040"]
VALID_S = 900.0


class TestLaw:
    """A list that says yes to one procedure; one kind is unknown to it."""

    __test__ = False

    def decide(
        self,
        *,
        inquirer: str,
        provider: str,
        affair: str,
        procedure: str,
        kind: str,
        day: dt.date,
        consent: bool = False,
    ) -> Decision:
        if kind == "TMX0000000000099":
            return Decision(Verdict.UNKNOWN, "unresolved_words")
        if (affair, procedure) == (AFFAIR, PROCEDURE) and inquirer != provider:
            return Decision(Verdict.YES, "listed")
        return Decision(Verdict.NO, "not_listed")

    def own_refusal(self, affair: str, *, on_behalf_of: str | None, withheld: bool) -> str | None:
        return None

    def allowed_items(self, procedure: str, kind: str, day: dt.date) -> frozenset[str]:
        return frozenset(ITEMS)


@dataclass
class Recorder:
    """A push port that remembers what it was told and acknowledges as it is set to."""

    status: str = "accepted"
    reason: str | None = None
    notices_: list[Notice] = field(default_factory=list)
    answers_: list[AnswerDelivery] = field(default_factory=list)
    codes_: list[AcquiredCode] = field(default_factory=list)
    calls: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def _take(self, into: list[Any], items: Iterable[Notice | AnswerDelivery | AcquiredCode]) -> list[Ack]:
        self.calls += 1
        taken = list(items)
        into.extend(taken)
        self.arrived.set()
        return [msgspec.convert({"id": item.id, "status": self.status, "reason": self.reason}, Ack) for item in taken]

    async def notices(self, items: list[Notice], /) -> list[Ack]:
        return self._take(self.notices_, items)

    async def answers(self, items: list[AnswerDelivery], /) -> list[Ack]:
        return self._take(self.answers_, items)

    async def codes(self, items: list[AcquiredCode], /) -> list[Ack]:
        return self._take(self.codes_, items)

    async def until(self, ready: Callable[[], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not ready():
                self.arrived.clear()
                await self.arrived.wait()


_ports = itertools.count(10_000 + os.getpid() * 37 % 18_000)


def free_port() -> int:
    """A port below those that the system gives to outgoing connections, so that nobody takes it before we do."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Keys:
    """Identities of everybody in a test: certificates and signing keys, as files."""

    def __init__(self, folder: Path) -> None:
        self._clock = ManualClock(SystemClock().now())
        self.authority = Authority.create(folder / "ca", "test", self._clock)
        self._folder = folder

    def tls(self, peer: str) -> Tls:
        into = self._folder / f"tls-{peer}"
        if not into.exists():
            self.authority.issue_peer(peer, into)
        return Tls(certificate_file=into / "certificate.pem", key_file=into / "key.pem", ca_file=self.authority.trusted)

    def signing(self, peer: str) -> Path:
        path = self._folder / f"{peer}.signing.pem"
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            self.verify(peer).write_bytes(public)
        return path

    def verify(self, peer: str) -> Path:
        return self._folder / f"{peer}.verify.pem"


class Exchange:
    """An exchange that only speaks the protocol: calls the network, and records what it pushes."""

    def __init__(self, keys: Keys, name: str, network_url: str, port: int, clock: ManualClock) -> None:
        chance = SystemChance(clock)
        identity = keys.tls(name)
        self.signer = Signer(name, read_private_key(keys.signing(name)), clock, chance)
        public = {"network": read_public_key(keys.verify("network"))}
        opener = Opener(public, clock)
        settings = NetworkSettings(
            url=network_url, ca_file=identity.ca_file, verify_key_file=keys.verify("network"), timeout_s=10
        )
        context = tls.client_context(identity.certificate_file, identity.key_file, identity.ca_file)
        self.peer = NetworkPeer(settings, self.signer, opener, context)
        self.verifier = PermitVerifier(public, clock, 2.0)
        self.inbox = Recorder()
        self._identity = identity
        self._port = port
        self._app = lambda: network_app(self.inbox, opener, self.signer)
        self.listener: Listener | None = None

    async def listen(self) -> None:
        self.listener = Listener(self._app(), "127.0.0.1", self._port, self._identity)
        await self.listener.start()

    async def close(self) -> None:
        await self.peer.close()
        if self.listener is not None:
            await self.listener.stop()


class World:
    """The network, its neighbours, and short ways to make messages."""

    def __init__(self, folder: Path, clock: ManualClock, faults: Faults | None = None) -> None:
        self.clock = clock
        self.chance = SystemChance(clock)
        self.keys = Keys(folder)
        for name in ("network", "east", "west", "nation", "registry"):
            self.keys.signing(name)
        self.ports = {name: free_port() for name in ("east", "west", "nation")}
        self.config = NetworkConfig(
            state_directory=folder / "network",
            port=free_port(),
            admin_port=free_port(),
            tls=self.keys.tls("network"),
            signing_key_file=self.keys.signing("network"),
            permit_valid_s=VALID_S,
            peers={
                "east": PeerConfig(verify_key_file=self.keys.verify("east"), route="platform"),
                "west": PeerConfig(verify_key_file=self.keys.verify("west"), route="platform"),
                "nation": PeerConfig(verify_key_file=self.keys.verify("nation"), route="nation"),
                "registry": PeerConfig(verify_key_file=self.keys.verify("registry")),
            },
            routes={
                "platform": RouteConfig(
                    endpoints=[f"https://127.0.0.1:{self.ports[name]}" for name in ("east", "west")]
                ),
                "nation": RouteConfig(endpoints=[f"https://127.0.0.1:{self.ports['nation']}"]),
            },
            agencies={
                ASKS: AgencyConfig(name="照会市長", route="platform"),
                GIVES: AgencyConfig(name="提供市長", route="platform"),
                BOARD: AgencyConfig(name="照会市教育委員会", route="platform"),
                NATION: AgencyConfig(name="国の機関", route="nation"),
            },
        )
        self.faults = faults
        self.answer_private = X25519PrivateKey.generate()
        self.network_url = f"https://127.0.0.1:{self.config.port}"
        self.exchanges: dict[str, Exchange] = {}
        self.registry: RegistryClient | None = None
        self._listeners: list[Listener] = []

    async def start(self) -> None:
        self.network = Network(self.config, TestLaw(), self.clock, self.chance, self.faults)
        await self.network.start()
        self._listeners = [
            Listener(network_application(self.network), "127.0.0.1", self.config.port, self.config.tls),
            Listener(admin_application(self.network), "127.0.0.1", self.config.admin_port),
        ]
        for listener in self._listeners:
            await listener.start()

    async def stop(self) -> None:
        for listener in self._listeners:
            await listener.stop()
        await self.network.stop()

    async def close(self) -> None:
        for exchange in self.exchanges.values():
            await exchange.close()
        if self.registry is not None:
            await self.registry.close()
        await self.stop()

    async def exchange(self, name: str, *, listening: bool = True) -> Exchange:
        if name not in self.exchanges:
            made = Exchange(self.keys, name, self.network_url, self.ports[name], self.clock)
            self.exchanges[name] = made
            if listening:
                await made.listen()
        return self.exchanges[name]

    def registry_config(self) -> RegistryConfig:
        return RegistryConfig(
            network_url=self.network_url,
            network_verify_key_file=self.keys.verify("network"),
            tls=self.keys.tls("registry"),
            signing_key_file=self.keys.signing("registry"),
        )

    async def acquire(self, agency: str, resident_code: str, exchange: Exchange) -> AcquiredCode:
        """Run a whole acquisition and return what was pushed."""
        if self.registry is None:
            self.registry = RegistryClient(self.registry_config(), self.clock, self.chance)
        request = AcquisitionRequest(id=self.chance.uuid7(), agency=agency)
        (reply,) = await exchange.peer.acquisitions([msgspec.json.encode(request)])
        before = len(exchange.inbox.codes_)
        assert await self.registry.hand_over([(reply.number, resident_code)]) == 1
        await exchange.inbox.until(lambda: len(exchange.inbox.codes_) > before)
        return exchange.inbox.codes_[-1]

    async def until(self, ready: Callable[[State], bool], timeout_s: float = 30.0) -> None:
        """Wait for what only the network itself can tell."""
        async with asyncio.timeout(timeout_s):
            while not ready(await self.network.state()):
                await pause(0.02, asyncio.Event())

    async def until_empty(self) -> None:
        """Wait until everything that was pushed has left the outbox."""
        await self.until(lambda state: state.outbox == {})

    async def everything(self) -> str:
        """Everything that rests in the network's store, as text; bytes as Latin-1."""

        def dump(connection: sqlite3.Connection) -> str:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            cells = [cell for table in tables for row in connection.execute(f"SELECT * FROM {table}") for cell in row]
            return "\n".join(cell.decode("latin-1") if isinstance(cell, bytes) else str(cell) for cell in cells)

        return await self.network.store.read(dump)

    async def announce(self, agency: str, exchange: Exchange) -> None:
        key = AnswerKey(id="k1", agency=agency, public=self.answer_private.public_key().public_bytes_raw())
        (reply,) = await exchange.peer.answer_keys([msgspec.json.encode(key)])
        assert reply.status == "accepted"

    def request(self, own_code: bytes, **changes: Any) -> PermitRequest:
        base = PermitRequest(
            id=self.chance.uuid7(),
            inquirer=ASKS,
            department="市民税課",
            affair=AFFAIR,
            procedure=PROCEDURE,
            kind=KIND,
            items=ITEMS,
            provider=NATION,
            code=own_code,
            condition=Condition(period="1", year="2026"),
            asked_at=self.clock.now(),
            answer_key="k1",
        )
        return msgspec.structs.replace(base, **changes)

    def answer(self, permit: ProviderPermit, **changes: Any) -> Answer:
        base = Answer(
            id=self.chance.uuid7(),
            permit=permit.permit,
            route=permit.route,
            provider=permit.provider,
            outcome="provided",
            answered_at=self.clock.now(),
            sealed=SealedAnswer(key=permit.answer_key, encapsulation=b"e", counter=0, ciphertext=b"SEALED CONTENT"),
        )
        return msgspec.structs.replace(base, **changes)


@dataclass
class Pair:
    """An inquirer on the platform and a provider outside it, ready to exchange about one person."""

    world: World
    east: Exchange
    nation: Exchange
    asks_code: bytes
    gives_code: bytes

    async def ask(self, **changes: Any) -> tuple[PermitRequest, PermitReply]:
        request = self.world.request(self.asks_code, **changes)
        (reply,) = await self.east.peer.permit_requests([msgspec.json.encode(request)])
        return request, reply

    async def notice(self) -> ProviderPermit:
        """Ask, and return the permit that the provider was told."""
        before = len(self.nation.inbox.notices_)
        await self.ask()
        await self.nation.inbox.until(lambda: len(self.nation.inbox.notices_) > before)
        return self.nation.verifier.verify_provider(self.nation.inbox.notices_[-1].permit)

    async def send(self, *answers: Answer, by: Exchange | None = None) -> list[Receipt]:
        return await (by or self.nation).peer.answers([msgspec.json.encode(answer) for answer in answers])


PERSON = "99000000017"
STRANGER = "99000000025"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now().replace(microsecond=0))


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    made = World(tmp_path, clock)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def pair(world: World) -> Pair:
    """Both sides have the person's code; the inquirer has announced its answer key."""
    east, nation = await world.exchange("east"), await world.exchange("nation")
    asks = await world.acquire(ASKS, PERSON, east)
    gives = await world.acquire(NATION, PERSON, nation)
    await world.announce(ASKS, east)
    assert asks.code is not None
    assert gives.code is not None
    return Pair(world, east, nation, asks.code, gives.code)
