"""Pushes what the network has to say to the exchanges: notices, answers and codes, at least once (電文の配信).

One courier per route and channel takes messages from the outbox in order, up to 256 at a time, two lists in flight. A
list that no exchange takes is sent again after a pause that grows; a message that is answered ``again`` comes back by
itself later; one that is past its time is dropped. What was accepted leaves the outbox in a commit of its own; a crash
before that means a second push, which the receiver knows by the message's id.

Invariant: nothing leaves the outbox but by an acknowledgement, a refusal or the end of its time.
"""

import asyncio
import heapq
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.sandbox import outbox
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.endpoints import ListRefused, Route, Sender, Unreachable, backoff_s, pause
from chukan.ops.sandbox.faults import Channel, Faults, Lost
from chukan.ops.sandbox.outbox import Parcel
from chukan.ops.sandbox.store import Store
from chukan.platform.wire.network import Ack

LIST_MAX: Final = 256
FLIGHTS: Final = 2
WAITING_AGAIN_MAX: Final = 4096
"""So many messages may wait for another try; no new ones are taken from the outbox beyond."""
RESCAN_S: Final = 1.0
NO_REASONS: Final[Mapping[int, str | None]] = MappingProxyType({})

_acks: Final = msgspec.json.Decoder(Ack)
_log = log.get("sandbox.delivery")


def _let_go(_connection: sqlite3.Connection, _channel: Channel, _body: bytes, _reason: str) -> None:
    """Nothing."""


class Means(NamedTuple):
    """What every courier works with."""

    store: Store
    sender: Sender
    clock: Clock
    chance: Chance
    faults: Callable[[], Faults]
    """What the network does to its messages at this moment."""
    refused: Callable[[sqlite3.Connection, Channel, bytes, str], None] = _let_go
    """What else becomes of a refused message (its exact bytes) by the reason that was given; a part of the job."""


class _Later(NamedTuple):
    """A message that waits for another try, in the order of its time."""

    due_s: float
    n: int
    tries: int
    parcel: Parcel


class Courier:
    """Delivers one channel of one route; ``run`` ends when it is cancelled."""

    def __init__(self, means: Means, route: Route, channel: Channel) -> None:
        self._means = means
        self._route = route
        self._channel = channel
        self._after = 0
        self._later: list[_Later] = []
        self._tries: dict[int, int] = {}
        self._taking = asyncio.Lock()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Say that the outbox may hold something new."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled; what is in flight then is pushed again by the next run."""
        async with asyncio.TaskGroup() as flights:
            for _ in range(FLIGHTS):
                flights.create_task(self._fly())

    async def _fly(self) -> None:
        while True:
            parcels = await self._take()
            try:
                await self._deliver(parcels)
            except (Problem, sqlite3.Error) as error:
                _log.warning("delivery not settled", error=type(error).__name__, count=len(parcels))
                self._put_back(parcels)

    async def _take(self) -> list[Parcel]:
        """Return the next list, waiting for one; only one flight takes at a time, so that none is taken twice."""
        async with self._taking:
            while True:
                self._woken.clear()
                parcels = self._due()
                room = LIST_MAX - len(parcels)
                if room > 0 and len(self._later) < WAITING_AGAIN_MAX:
                    parcels += await self._fresh(room)
                if parcels:
                    return parcels
                wait_s = self._later[0].due_s - self._means.clock.monotonic() if self._later else RESCAN_S
                await pause(min(max(wait_s, 0.01), RESCAN_S), self._woken)

    def _due(self) -> list[Parcel]:
        now_s = self._means.clock.monotonic()
        due: list[Parcel] = []
        while self._later and self._later[0].due_s <= now_s and len(due) < LIST_MAX:
            due.append(heapq.heappop(self._later).parcel)
        return due

    async def _fresh(self, room: int) -> list[Parcel]:
        try:
            fresh = await self._means.store.read(
                lambda connection: outbox.following(connection, self._route.name, self._channel, self._after, room)
            )
        except (Problem, sqlite3.Error) as error:
            _log.warning("outbox not read", error=type(error).__name__)
            return []
        if fresh:
            self._after = fresh[-1].n
        return fresh

    async def _deliver(self, parcels: list[Parcel]) -> None:
        """Push a list until an exchange has taken it or its messages are past their time."""
        tries = 0
        while parcels := await self._drop_late(parcels):
            try:
                acks = await self._push(parcels)
            except Unreachable:
                await asyncio.sleep(backoff_s(tries, self._means.chance))
                tries += 1
                continue
            except ListRefused:
                await self._one_by_one(parcels)
                return
            await self._settle(parcels, acks)
            return

    async def _one_by_one(self, parcels: list[Parcel]) -> None:
        """After a list was refused: the good messages arrive alone, and the bad one is alone in waiting."""
        for parcel in parcels:
            try:
                acks = await self._push([parcel])
            except (Unreachable, ListRefused):
                self._put_back([parcel])
            else:
                await self._settle([parcel], acks)

    async def _push(self, parcels: Sequence[Parcel]) -> dict[uuid.UUID, Ack]:
        path = f"/exchange/v1/{self._channel}"
        try:
            faults, genuine = self._means.faults(), [parcel.body for parcel in parcels]
            acks: list[Ack] = []
            for items in await faults.push(self._channel, genuine):
                replies = await self._means.sender.post(self._route, path, items)
                acks += [_acks.decode(reply) for reply in replies]
            await faults.pushed(self._channel, genuine)
        except (Lost, msgspec.MsgspecError):
            raise Unreachable from None
        return {ack.id: ack for ack in acks}

    async def _settle(self, parcels: Sequence[Parcel], acks: dict[uuid.UUID, Ack]) -> None:
        sorted_out: dict[str, list[Parcel]] = {"accepted": [], "refused": [], "again": []}
        for parcel in parcels:
            ack = acks.get(uuid.UUID(bytes=parcel.id))
            sorted_out["again" if ack is None else ack.status].append(parcel)
        accepted, refused = sorted_out["accepted"], sorted_out["refused"]
        if refused:
            _log.warning("messages refused", peer=self._route.name, stage=self._channel, count=len(refused))
        if accepted or refused:
            reasons = {parcel.n: ack.reason for parcel in refused if (ack := acks.get(uuid.UUID(bytes=parcel.id)))}
            await self._leave(accepted, refused, reasons)
        self._put_back(sorted_out["again"])

    async def _leave(
        self, accepted: Sequence[Parcel], dropped: Sequence[Parcel], reasons: Mapping[int, str | None] = NO_REASONS
    ) -> None:
        now = to_microseconds(self._means.clock.now())

        def settle(connection: sqlite3.Connection) -> None:
            outbox.settle(connection, self._channel, accepted, dropped, now)
            for parcel in dropped:
                if (reason := reasons.get(parcel.n)) is not None:
                    self._means.refused(connection, self._channel, parcel.body, reason)

        await self._means.store.write(settle)
        if reasons:
            self.wake()
        for parcel in (*accepted, *dropped):
            self._tries.pop(parcel.n, None)

    async def _drop_late(self, parcels: list[Parcel]) -> list[Parcel]:
        now = to_microseconds(self._means.clock.now())
        late = [parcel for parcel in parcels if parcel.until < now]
        if late:
            _log.warning("messages past their time", peer=self._route.name, stage=self._channel, count=len(late))
            await self._leave((), late)
        return [parcel for parcel in parcels if parcel.until >= now]

    def _put_back(self, parcels: Iterable[Parcel]) -> None:
        now_s = self._means.clock.monotonic()
        for parcel in parcels:
            tries = self._tries[parcel.n] = self._tries.get(parcel.n, -1) + 1
            heapq.heappush(self._later, _Later(now_s + backoff_s(tries, self._means.chance), parcel.n, tries, parcel))


class Delivery:
    """All couriers of the network; ``start`` and ``stop`` in one event loop."""

    def __init__(self, means: Means, routes: Iterable[Route]) -> None:
        self._couriers = [Courier(means, route, channel) for route in routes for channel in outbox.CHANNELS]
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver what the outbox holds."""
        self._running = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Say that something was queued."""
        for courier in self._couriers:
            courier.wake()

    async def stop(self) -> None:
        """Stop at once; nothing is lost, because the outbox keeps what was not acknowledged."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as couriers:
            for courier in self._couriers:
                couriers.create_task(courier.run())
