"""The simulated information-provision network as one object: store, core, couriers, and the calls of its protocol.

It stands between the wire (``network_app``) and the jobs (``core``, ``answers``, ``acquisition``, ``register``):
decodes a list, runs one job in the store, wakes the couriers after the commit. A reply is given only when its effect
is durable.

Invariant: one item that cannot be read refuses its list with the item's line, before anything has happened.
"""

import asyncio
import datetime as dt
import hashlib
import hmac
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox import delegations, forgery, outbox, register
from chukan.ops.sandbox.acquisition import Acquisitions
from chukan.ops.sandbox.acquisition_asks import AcquisitionAsks
from chukan.ops.sandbox.admin import (
    Agencies,
    AgencyEntry,
    NetworkRecords,
    PiaFlags,
    State,
    Stops,
    to_microseconds,
)
from chukan.ops.sandbox.answers import Answers
from chukan.ops.sandbox.codes import CodeMaker, keep_secret
from chukan.ops.sandbox.config import NetworkConfig, read_private_key, read_public_key
from chukan.ops.sandbox.core import Core, ListCheck, Surroundings
from chukan.ops.sandbox.corrections import Corrections
from chukan.ops.sandbox.delivery import Delivery, Means
from chukan.ops.sandbox.endpoints import Route, Sender
from chukan.ops.sandbox.faults import PLACE_OF_PUSH, Channel, FaultCounts, FaultPlan, Faults, NoFaults
from chukan.ops.sandbox.holders import Holders
from chukan.ops.sandbox.hostility import PlannedFaults
from chukan.ops.sandbox.kept_checkpoints import KeptCheckpoints
from chukan.ops.sandbox.redelivery import Redelivery
from chukan.ops.sandbox.reissues import REASON, Reissues
from chukan.ops.sandbox.store import Store
from chukan.platform import tls
from chukan.platform.envelope import Opener, Signed, Signer
from chukan.platform.permits import sign_list
from chukan.platform.wire.checkpoints import CheckpointTold
from chukan.platform.wire.network import (
    AcquisitionRequest,
    Answer,
    AnswerKey,
    HolderRequest,
    InventoryRequest,
    PermitRequest,
    RedeliveryRequest,
    ResidentCode,
    SignedPermit,
)
from chukan.platform.wire.network_asks import AcquisitionAsk, ProviderKeyRequest
from chukan.platform.wire.registrations import Correction, Delegation

SWEEP_S: Final = 0.5
_STORE_FILE: Final = "network.sqlite"
_CORE_KEY_FILE: Final = "core.key"

_log = log.get("sandbox.network")
T = TypeVar("T")

_permit_request: Final = msgspec.json.Decoder(PermitRequest)
_answer: Final = msgspec.json.Decoder(Answer)
_acquisition: Final = msgspec.json.Decoder(AcquisitionRequest)
_answer_key: Final = msgspec.json.Decoder(AnswerKey)
_holder_request: Final = msgspec.json.Decoder(HolderRequest)
_provider_key: Final = msgspec.json.Decoder(ProviderKeyRequest)
_acquisition_ask: Final = msgspec.json.Decoder(AcquisitionAsk)
_inventory_request: Final = msgspec.json.Decoder(InventoryRequest)
_correction: Final = msgspec.json.Decoder(Correction)
_delegation: Final = msgspec.json.Decoder(Delegation)
_redelivery_request: Final = msgspec.json.Decoder(RedeliveryRequest)
_checkpoint: Final = msgspec.json.Decoder(CheckpointTold)
_resident_code: Final = msgspec.json.Decoder(ResidentCode)


class Network:
    """The network; make one per process and event loop, ``start`` it, ``stop`` it."""

    def __init__(
        self,
        config: NetworkConfig,
        law: ListCheck,
        clock: Clock,
        chance: Chance,
        faults: Faults | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.faults: Faults = faults or NoFaults()
        self._key = key = read_private_key(config.signing_key_file)
        public = {name: read_public_key(peer.verify_key_file) for name, peer in config.peers.items()}
        self.signer = Signer(config.name, key, clock, chance)
        self.opener = Opener(public, clock)
        secret = _core_secret(config.state_directory, chance)
        schema = resources.files("chukan.ops.sandbox").joinpath("network_schema.sql").read_text(encoding="utf-8")
        self.store = Store(config.state_directory / _STORE_FILE, schema)
        surroundings = Surroundings(
            law=law,
            clock=clock,
            chance=chance,
            sign=self._sign,
            route_key=hmac.digest(secret, b"chukan-core-v1\nroute\n", hashlib.sha256),
            permit_valid=dt.timedelta(seconds=config.permit_valid_s),
            permit_valid_by_procedure={
                procedure: dt.timedelta(seconds=valid_s)
                for procedure, valid_s in config.permit_valid_by_procedure.items()
            },
        )
        self._core = Core(surroundings)
        self._answers = Answers(surroundings)
        self._acquisitions = Acquisitions(CodeMaker(secret), clock, chance)
        self._asks = AcquisitionAsks(clock, chance)
        self._holders = Holders(surroundings)
        self._reissues = Reissues(surroundings)
        self._redelivery = Redelivery(clock)
        self._corrections = Corrections(clock, chance)
        evidence = {centre: read_public_key(path) for centre, path in config.evidence_key_files.items()}
        self._checkpoints = KeptCheckpoints(config.evidence_name, evidence, clock)
        self._chance = chance
        self._sender: Sender | None = None
        self._delivery: Delivery | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register the configured agencies, begin to deliver what waits, and let permits lapse in time."""
        known = [
            AgencyEntry(code=code, name=agency.name, route=agency.route, pia=agency.pia)
            for code, agency in self.config.agencies.items()
        ]
        if known:
            await self.store.write(lambda connection: register.add_agencies(connection, known))
        context = tls.client_context(
            self.config.tls.certificate_file, self.config.tls.key_file, self.config.tls.ca_file
        )
        self._sender = Sender(self.signer, self.opener, context, outgoing=self._outgoing)
        means = Means(self.store, self._sender, self.clock, self._chance, lambda: self.faults, self._refused)
        self._delivery = Delivery(means, self._routes())
        self._delivery.start()
        self._sweeping = asyncio.create_task(self._sweep())

    def _routes(self) -> list[Route]:
        return [
            Route(
                name,
                route.endpoints,
                frozenset(peer for peer, known in self.config.peers.items() if known.route == name),
                self.clock,
            )
            for name, route in self.config.routes.items()
        ]

    async def stop(self) -> None:
        """Stop delivering and close the store; what was not delivered is delivered by the next start."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
        if self._delivery is not None:
            await self._delivery.stop()
        if self._sender is not None:
            await self._sender.close()
        await self.store.close()

    # ------------------------------------------------------------ the protocol

    async def permit_requests(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Decide about permit requests; a ``PermitReply`` per item. Raises ``Problem``."""
        requests = list(zip(_decode(_permit_request, items), items, strict=True))
        return await self._effect(lambda connection: self._core.permit_requests(connection, route, requests))

    async def answers(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Receive answers; a ``Receipt`` per item. Raises ``Problem``."""
        answers = list(zip(_decode(_answer, items), items, strict=True))
        return await self._effect(lambda connection: self._answers.receive(connection, route, answers))

    async def acquisitions(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Give acquisition numbers; an ``AcquisitionReply`` per item. Raises ``Problem``."""
        requests = _decode(_acquisition, items)
        return await self.store.write(lambda connection: self._acquisitions.numbers(connection, route, requests))

    async def answer_keys(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Take answer keys; a ``KeyReply`` per item. Raises ``Problem``."""
        keys = _decode(_answer_key, items)
        now = to_microseconds(self.clock.now())
        return await self.store.write(lambda connection: register.put_keys(connection, route, keys, now))

    async def holders(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Say who holds codes; a ``HolderReply`` per item. Raises ``Problem``."""
        requests = _decode(_holder_request, items)
        return await self.store.read(lambda connection: self._holders.look_up(connection, route, requests))

    async def provider_keys(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Tell answer keys of providers without a code; a ``ProviderKeyReply`` per item. Raises ``Problem``."""
        requests = _decode(_provider_key, items)
        return await self.store.read(lambda connection: self._asks.keys(connection, route, requests))

    async def acquisition_asks(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Pass requests to acquire on; an ``AcquisitionAskReply`` per item. Raises ``Problem``."""
        asks = _decode(_acquisition_ask, items)
        return await self._effect(lambda connection: self._asks.ask(connection, route, asks))

    async def inventories(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Say what was exchanged with agencies; an ``InventoryReply`` per item. Raises ``Problem``."""
        requests = _decode(_inventory_request, items)
        return await self.store.read(lambda connection: self._redelivery.inventories(connection, route, requests))

    async def delegations(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Register halves of delegations; a ``DelegationReply`` per item. Raises ``Problem``."""
        halves = _decode(_delegation, items)
        return await self.store.write(lambda connection: delegations.register_halves(connection, route, halves))

    async def corrections(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Take corrections of records and pass them on; a ``CorrectionReply`` per item. Raises ``Problem``."""
        pairs = list(zip(_decode(_correction, items), items, strict=True))
        return await self._effect(lambda connection: self._corrections.take(connection, route, pairs))

    async def redeliveries(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Push again what was accepted before; a ``RedeliveryReply`` per item. Raises ``Problem``."""
        requests = _decode(_redelivery_request, items)
        return await self._effect(lambda connection: self._redelivery.redeliver(connection, route, requests))

    async def checkpoints(self, route: str, items: Sequence[bytes]) -> list[bytes]:
        """Keep what continues what was kept; a ``CheckpointReply`` per item. Raises ``Problem``."""
        told = _decode(_checkpoint, items)
        return await self.store.write(lambda connection: self._checkpoints.take(connection, route, told))

    async def resident_codes(self, items: Sequence[bytes]) -> list[bytes]:
        """From the registry network only: make linkage codes; a ``RegistryReply`` per item. Raises ``Problem``."""
        lines = _decode(_resident_code, items)
        return await self._effect(lambda connection: self._acquisitions.resident_codes(connection, lines))

    # ------------------------------------------------------------ administration

    async def put_agencies(self, body: Agencies) -> int:
        """Add agencies or replace them; returns how many."""
        return await self.store.write(lambda connection: register.put_agencies(connection, body.agencies))

    async def put_stops(self, body: Stops) -> int:
        """Replace the stops in force; returns how many stand."""
        return await self.store.write(lambda connection: register.put_stops(connection, body.stops))

    async def put_pia(self, body: PiaFlags) -> int:
        """Set which assessments are published; returns how many known agencies were named."""
        return await self.store.write(lambda connection: register.put_pia(connection, body.flags))

    def put_faults(self, plan: FaultPlan) -> int:
        """Let the network be hostile by a plan from now on; returns how many rules it has."""
        means = forgery.Means(self._sign, self.clock, self._chance)
        seen = self.faults.seen if isinstance(self.faults, PlannedFaults) else None
        self.faults = PlannedFaults(plan, sender=self.config.name, key=self._key, means=means, seen=seen)
        return len(plan.rules)

    def fault_counts(self) -> FaultCounts:
        """What faults really happened under the plan in force; none without one."""
        return self.faults.counts() if isinstance(self.faults, PlannedFaults) else FaultCounts(seed=0, counts=[])

    async def records(self, after: int, limit: int) -> NetworkRecords:
        """A page of the network's own records."""
        return await self.store.read(lambda connection: register.records(connection, after, limit))

    async def state(self) -> State:
        """Counts of everything that the network holds."""
        return await self.store.read(self._state)

    def _state(self, connection: sqlite3.Connection) -> State:
        def count(table: str) -> int:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

        outcomes = connection.execute("SELECT coalesce(outcome, 'open'), count(*) FROM exchanges GROUP BY 1")
        return State(
            name=self.config.name,
            now=self.clock.now(),
            agencies=count("agencies"),
            stops=count("stops"),
            codes=count("codes"),
            open_acquisitions=count("acquisitions"),
            exchanges=dict(outcomes.fetchall()),
            outbox=outbox.waiting(connection),
        )

    # ------------------------------------------------------------ inside

    def _sign(self, bodies: Sequence[bytes]) -> list[SignedPermit]:
        return sign_list(bodies, list_id=self._chance.uuid7(), key_id=self.config.name, key=self._key)

    def _refused(self, connection: sqlite3.Connection, channel: Channel, body: bytes, reason: str) -> None:
        if channel == "notices" and reason == REASON:
            self._reissues.replace(connection, body)
        elif channel == "codes" and reason == "not_found":
            self._acquisitions.refused(connection, body)

    def _outgoing(self, signed: Signed) -> Signed:
        channel = next(name for name in PLACE_OF_PUSH if signed.path.endswith(f"/{name}"))
        return self.faults.envelope(PLACE_OF_PUSH[channel], signed)

    async def _effect(self, job: Callable[[sqlite3.Connection], T]) -> T:
        result = await self.store.write(job)
        if self._delivery is not None:
            self._delivery.wake()
        return result

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                lapsed = await self.store.write(self._answers.sweep)
                gone = await self.store.write(self._acquisitions.sweep)
                await self.store.write(self._redelivery.sweep)
            except (Problem, sqlite3.Error) as error:
                _log.warning("sweep failed", error=type(error).__name__)
                continue
            if lapsed or gone:
                _log.info("permits lapsed", count=lapsed)


def _core_secret(directory: Path, chance: Chance) -> bytes:
    """Return the core's secret. Raises ``Problem`` settings_unreadable where it is lost: other codes would follow."""
    path = directory / _CORE_KEY_FILE
    if (directory / _STORE_FILE).exists() and not path.exists():
        raise Problem("settings_unreadable", expected="the core's key beside its store")
    return keep_secret(path, chance)


def _decode(decoder: msgspec.json.Decoder[T], items: Sequence[bytes]) -> list[T]:
    """Decode every item. Raises ``Problem`` invalid_field with the 1-based line of the first that cannot be read."""
    decoded: list[Any] = []
    for line, item in enumerate(items, start=1):
        try:
            decoded.append(decoder.decode(item))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem("invalid_field", pointer=f"/items/{line - 1}", line=line) from None
    return decoded
