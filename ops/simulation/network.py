"""The network in the simulation: the sandbox's own core, answers, register and couriers, on wires that can fail.

Its decisions rest in a SQLite database in memory, which survives a crash as a disk does; couriers and whatever was on
its way do not. Exchanges reach it through ``SimulatedPeer``; its couriers reach them through ``SimulatedSender``.
What it received and what it was acknowledged is noted for the checkers.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import resources
from random import Random
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from chukan.chance import SeededChance
from chukan.errors import Problem
from chukan.ops.sandbox import register
from chukan.ops.sandbox.admin import AgencyEntry, StopEntry, to_microseconds
from chukan.ops.sandbox.answers import Answers
from chukan.ops.sandbox.core import Core, ListCheck, Surroundings
from chukan.ops.sandbox.delivery import Delivery, Means
from chukan.ops.sandbox.endpoints import ListRefused, Route, Sender, Unreachable
from chukan.ops.sandbox.faults import Channel, NoFaults
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.store import Job, Store
from chukan.ops.simulation.cell import NOBODY, Tell
from chukan.ops.simulation.keys import NetworkKey
from chukan.ops.simulation.loop import Gone, Process, ProcessClock, SimulatedLoop
from chukan.ops.simulation.weather import Weather
from chukan.platform.exchange.inbox import Inbox
from chukan.platform.peer import NetworkPeer, NetworkTrouble
from chukan.platform.permits import sign_list
from chukan.platform.wire.network import (
    Ack,
    AnswerDelivery,
    AnswerKey,
    KeyReply,
    Notice,
    PermitReply,
    PermitRequest,
    Receipt,
)
from chukan.platform.wire.network import Answer as AnswerMessage

T = TypeVar("T")
ROUTE: Final = "chukan"
NAME: Final = "network"
SWEEP_S: Final = 1.0
GIVE_UP_S: Final = 4.0
"""How long the caller waits where a message was lost: less than on a site, for a simulation is short of time."""

_request: Final = msgspec.json.Decoder(PermitRequest)
_answer: Final = msgspec.json.Decoder(AnswerMessage)
_key: Final = msgspec.json.Decoder(AnswerKey)
_notice: Final = msgspec.json.Decoder(Notice)
_delivery: Final = msgspec.json.Decoder(AnswerDelivery)
Replies = list[bytes]


class Acknowledged(NamedTuple):
    """An acknowledgement that the network got for a message that it had pushed."""

    channel: str
    body: bytes
    ack: Ack


@dataclass
class NetworkJournal:
    """What the network saw, in order."""

    answers: list[tuple[float, bytes]] = field(default_factory=list)
    acks: list[Acknowledged] = field(default_factory=list)


@cache
def _template() -> bytes:
    connection = sqlite3.connect(":memory:")
    schema = resources.files("chukan.ops.sandbox").joinpath("network_schema.sql").read_text(encoding="utf-8")
    connection.executescript(schema)
    return connection.serialize()


class SimulatedStore:
    """The store's two calls, each done at once: a commit of this party is not what is simulated."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
        self.connection.deserialize(_template())

    def apply(self, job: Job[T]) -> T:
        """Run a job as one transaction."""
        self.connection.execute("SAVEPOINT job")
        try:
            result = job(self.connection)
        except BaseException:
            self.connection.execute("ROLLBACK TO job")
            raise
        finally:
            self.connection.execute("RELEASE job")
        return result

    async def write(self, job: Job[T]) -> T:
        """Run a job that writes."""
        return self.apply(job)

    async def read(self, job: Job[T]) -> T:
        """Run a job that reads."""
        return job(self.connection)


class SimulatedNetwork:
    """The network as a process that can freeze, crash and come back with what it had stored."""

    def __init__(
        self,
        loop: SimulatedLoop,
        draw: Random,
        weather: Weather,
        law: ListCheck,
        key: NetworkKey,
        tell: Tell,
        permit_valid_s: float,
    ) -> None:
        self.store = SimulatedStore()
        self.journal = NetworkJournal()
        self.process = Process(NAME, skew_s=draw.uniform(-0.5, 0.5))
        self.exchanges: list[tuple[Process, Callable[[], Inbox]]] = []
        self.loop = loop
        self.draw = draw
        self.weather = weather
        self.tell = tell
        self._chance = SeededChance(draw.getrandbits(64), ProcessClock(self.process, loop))
        self._surroundings = partial(
            Surroundings,
            law=law,
            chance=self._chance,
            sign=lambda bodies: sign_list(bodies, list_id=self._chance.uuid7(), key_id=NAME, key=key.private),
            route_key=bytes(32),
            permit_valid=dt.timedelta(seconds=permit_valid_s),
        )
        self._delivery: Delivery | None = None

    def start(self) -> None:
        """Be a process, a new one after every crash, on the same store."""
        self.process = Process(NAME, skew_s=self.process.skew_s)
        self.clock = ProcessClock(self.process, self.loop)
        on = self._surroundings(clock=self.clock)
        self._core, self._answers = Core(on), Answers(on)
        route = Route(ROUTE, [], frozenset(), self.clock)
        sender = cast("Sender", SimulatedSender(self))
        means = Means(cast("Store", self.store), sender, self.clock, self._chance, NoFaults)
        self._delivery = Delivery(means, [route])
        self.process.context.run(self._delivery.start)
        self.process.spawn(self._sweep())

    def crash(self) -> None:
        """Lose everything but the store."""
        self.tell(NAME, "crashes")
        self.process.kill(self.loop)

    def faults(self) -> list[str]:
        """What ended the couriers by mistake: they run until they are told to stop."""
        running = None if self._delivery is None else self._delivery._running  # noqa: SLF001 - the sandbox shows it to nobody
        if running is None or not running.done() or running.cancelled():
            return []
        return [f"the couriers ended: {running.exception()!r}"]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.store.apply(self._answers.sweep)

    # ------------------------------------------------------------ what it is told beforehand

    def know(self, agencies: Iterable[AgencyEntry], codes: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Register agencies, and the codes (agency, code, management code) that were made before the world began."""
        known = list(agencies)
        self.store.apply(lambda connection: register.add_agencies(connection, known))
        self.store.connection.executemany("INSERT INTO codes (agency, code, management, at) VALUES (?, ?, ?, 0)", codes)

    def stop(self, stops: Sequence[StopEntry]) -> None:
        """Set the core's own kill switch."""
        self.store.apply(lambda connection: register.put_stops(connection, stops))

    # ------------------------------------------------------------ its calls

    def permit_requests(self, items: Sequence[bytes]) -> Replies:
        """Decide about permit requests."""
        requests = [(_request.decode(item), item) for item in items]
        replies = self.store.apply(lambda connection: self._core.permit_requests(connection, ROUTE, requests))
        if self.weather.is_replayed(self.draw):
            self._replay()
        self._wake()
        return replies

    def answers(self, items: Sequence[bytes]) -> Replies:
        """Receive answers."""
        self.journal.answers += [(self.loop.now_s, item) for item in items]
        answers = [(_answer.decode(item), item) for item in items]
        receipts = self.store.apply(lambda connection: self._answers.receive(connection, ROUTE, answers))
        self._wake()
        return receipts

    def answer_keys(self, items: Sequence[bytes]) -> Replies:
        """Take answer keys."""
        keys = [_key.decode(item) for item in items]
        now = to_microseconds(self.clock.now())
        return self.store.apply(lambda connection: register.put_keys(connection, ROUTE, keys, now))

    def _wake(self) -> None:
        if self._delivery is not None:
            self._delivery.wake()

    def _replay(self) -> None:
        """Somebody sends a permit again in a notice with an id of its own."""
        rows = self.store.connection.execute("SELECT body, until FROM outbox WHERE channel = 'notices'").fetchall()
        for body, until in rows[:2]:
            again = Notice(id=self._chance.uuid7(), permit=_notice.decode(body).permit)
            self.store.apply(
                lambda connection, again=again, until=until: put_out(  # type: ignore[misc]
                    connection, Push(ROUTE, "notices", again.id, msgspec.json.encode(again), until)
                )
            )
            self.tell(NAME, "a permit is sent again in another message")


class SimulatedPeer(NetworkPeer):
    """The network as one exchange calls it."""

    def __init__(self, network: SimulatedNetwork, process: Process) -> None:
        self._network = network
        self._process = process

    async def permit_requests(self, items: Sequence[bytes]) -> list[PermitReply]:
        """Ask for permits."""
        return await self._ask("permit requests", self._network.permit_requests, items, PermitReply)

    async def answers(self, items: Sequence[bytes]) -> list[Receipt]:
        """Hand over answers."""
        return await self._ask("answers", self._network.answers, items, Receipt)

    async def answer_keys(self, items: Sequence[bytes]) -> list[KeyReply]:
        """Announce answer keys."""
        return await self._ask("answer keys", self._network.answer_keys, items, KeyReply)

    async def _ask(
        self, what: str, work: Callable[[Sequence[bytes]], Replies], items: Sequence[bytes], kind: type[T]
    ) -> list[T]:
        self._process.check_alive()
        network = self._network
        fate = network.weather.wire(network.draw)
        loop = network.loop
        reply: asyncio.Future[Replies] = loop.create_future()
        name = f"{self._process.name} → network"
        if fate.refused:
            trouble = NetworkTrouble("invalid_field", about_items=True)
            loop.call_later(fate.there_s, _fail, reply, trouble, context=NOBODY)
            network.tell(name, f"{len(items)} {what}: the list is refused")
        elif fate.lost:
            loop.call_later(GIVE_UP_S, _fail, reply, NetworkTrouble("timeout"), context=NOBODY)
            network.tell(name, f"{len(items)} {what}: lost")
        else:
            there = partial(self._arrive, reply, work, items, fate.back_s, lost=fate.reply_lost)
            loop.call_later(fate.there_s, there, context=network.process.context)
            if fate.twice_after_s is not None:
                again = partial(self._arrive, None, work, items, 0.0, lost=True)
                loop.call_later(fate.there_s + fate.twice_after_s, again, context=network.process.context)
            # A frozen or dead network answers nobody; who asked gives up.
            loop.call_later(2 * GIVE_UP_S, _fail, reply, NetworkTrouble("timeout"), context=NOBODY)
            odd = "reply lost" if fate.reply_lost else "sent twice" if fate.twice_after_s is not None else ""
            network.tell(name, f"{len(items)} {what}{': ' + odd if odd else ''}")
        return [msgspec.json.decode(item, type=kind) for item in await reply]

    def _arrive(
        self,
        reply: asyncio.Future[Replies] | None,
        work: Callable[[Sequence[bytes]], Replies],
        items: Sequence[bytes],
        back_s: float,
        *,
        lost: bool,
    ) -> None:
        network = self._network
        if network.process.dead:
            if reply is not None:
                network.loop.call_later(back_s, _fail, reply, NetworkTrouble("unreachable"), context=NOBODY)
            return
        replies = work(items)
        if reply is not None and not lost:
            network.loop.call_later(back_s, _succeed, reply, replies, context=NOBODY)


class SimulatedSender:
    """The couriers' way to the exchanges: to any of them, the other one when it fails."""

    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    async def post(self, route: Route, path: str, items: Sequence[bytes]) -> Replies:
        """Push a list. Raises ``Unreachable`` or ``ListRefused`` as the real one does."""
        _ = route
        network = self._network
        channel = cast("Channel", path.rpartition("/")[2])
        places = network.draw.sample(network.exchanges, len(network.exchanges))
        for process, inbox in places:
            with suppress(Gone, TimeoutError, Problem):
                return await self._try(process, inbox, channel, items)
        raise Unreachable

    async def _try(
        self, process: Process, inbox: Callable[[], Inbox], channel: Channel, items: Sequence[bytes]
    ) -> Replies:
        network = self._network
        fate = network.weather.wire(network.draw)
        name = f"network → {process.name}"
        if fate.refused and len(items) > 1:
            network.tell(name, f"{len(items)} {channel}: the list is refused")
            raise ListRefused
        await asyncio.sleep(fate.there_s)
        if fate.lost or process.dead:
            network.tell(name, f"{len(items)} {channel}: lost")
            await asyncio.sleep(0.0 if process.dead else GIVE_UP_S / 4)
            raise Gone
        if fate.twice_after_s is not None:
            network.tell(name, f"{len(items)} {channel}: twice")
            again = partial(self._once_more, process, inbox, channel, items)
            network.loop.call_later(fate.twice_after_s, again, context=NOBODY)
        async with asyncio.timeout(GIVE_UP_S):
            acks = await process.serve(partial(take, inbox(), channel, items))
        if fate.reply_lost:
            network.tell(name, f"{len(items)} {channel}: acks lost")
            raise Gone
        words: dict[str, int] = {}
        for ack in acks:
            word = ack.status if ack.reason is None else f"{ack.status} ({ack.reason})"
            words[word] = words.get(word, 0) + 1
        network.tell(name, f"{len(items)} {channel}: " + ", ".join(f"{n} {word}" for word, n in words.items()))
        bodies = {_identity(item): item for item in items}
        network.journal.acks += [Acknowledged(channel, bodies[ack.id], ack) for ack in acks]
        return [msgspec.json.encode(ack) for ack in acks]

    def _once_more(
        self, process: Process, inbox: Callable[[], Inbox], channel: Channel, items: Sequence[bytes]
    ) -> None:
        """The same list a second time; nobody waits for its acks."""
        if not process.dead:
            process.spawn(_quietly(partial(take, inbox(), channel, items)))


async def take(inbox: Inbox, channel: Channel, items: Sequence[bytes]) -> list[Ack]:
    """Decode a pushed list and hand it to the exchange's inbox."""
    if channel == "notices":
        return await inbox.notices([_notice.decode(item) for item in items])
    return await inbox.answers([_delivery.decode(item) for item in items])


async def _quietly(work: Callable[[], Awaitable[Any]]) -> None:
    with suppress(Problem):
        await work()


class _Named(msgspec.Struct):
    id: uuid.UUID


def _identity(item: bytes) -> uuid.UUID:
    return msgspec.json.decode(item, type=_Named).id


def _fail(reply: asyncio.Future[Any], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


def _succeed(reply: asyncio.Future[T], result: T) -> None:
    if not reply.done():
        reply.set_result(result)
