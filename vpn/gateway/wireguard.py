"""The kind of links that are WireGuard peers: one interface, or two while the gateway's own key is changed.

Both interfaces have the same peers. A link's place is the interface on which it shook hands last; there it has
endpoint and keepalive, and to there its routes lead. On the other one it is only awaited: the gateway must not call a
device under a key that the device does not know.

What changed since the last pass is applied before anything is read, from what was read then: reading 2,500 peers takes
longer than a change may. Then everything is read and compared, repaired, and read again where there was something to
repair.

Invariant: peers are changed one by one, never replaced as a whole. Where the gate is shut (the service is another
centre's) there are no peers, and shutting it takes effect between two messages to the back end, not after a pass.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from chukan.errors import Problem
from chukan.tenants.links import DesiredPeer
from chukan.vpn.gateway.calling import EVERY_S, in_groups
from chukan.vpn.gateway.desired import Goal, LinkGoal
from chukan.vpn.gateway.kinds import Pass, Report, Sighting, merge_sightings
from chukan.vpn.gateway.rotation import NONE, Progress, choose, done
from chukan.vpn.model import Actual, Drift, Interface, Peer, Put, Remove, Step, Wanted
from chukan.vpn.plan import plan, settled
from chukan.vpn.wireguard.port import Tunnels

OFF: Final = "off"
_ROUNDS: Final = 2
"""Repairs of a pass: more would only race with whoever undoes them."""

Peers = Mapping[bytes, Peer]


class BackEnd(Protocol):
    """What makes an interface: the kernel, or a process."""

    @property
    def tunnels(self) -> Tunnels:
        """The port to its peers."""
        ...

    async def ensure(self) -> bool:
        """Bring it up; tell whether it was started anew. Raises ``Problem``."""
        ...

    async def gone(self) -> None:
        """Return when it is gone."""
        ...

    def close(self) -> None:
        """Let it go on without us."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """One interface of the gateway; ``prepare`` brings it up with its size and routes once it is there."""

    name: str
    back_end: BackEnd
    interface: Interface
    prepare: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Given:
    """What each device shall have, and what follows."""

    wanted: list[dict[bytes, Wanted]]
    progress: dict[str, Progress]
    marks: dict[str, str]
    rotated: tuple[str, ...]
    places: dict[str, int]


Lead = Callable[[Mapping[str, str]], Awaitable[None]]
"""``lead({prefix: interface})``: all prefixes of the kind's links that the common route does not lead to."""

PREPARE_S: Final = 20.0
"""How often size and routes of the interfaces are looked at again."""


class WireGuardKind:
    """One or two interfaces with the same peers; see ``kinds.Kind``."""

    def __init__(
        self,
        name: str,
        devices: Sequence[Device],
        serves: Callable[[DesiredPeer], bool],
        *,
        gate: Callable[[], bool] = lambda: True,
        lead: Lead | None = None,
        apart: bool = False,
    ) -> None:
        """Put it together; nothing is started.

        Args:
            name: for logs and metrics.
            devices: the interfaces, the gateway's present key first.
            serves: which links are this kind's.
            gate: whether this gateway may have peers at all now.
            lead: makes routes of their own; without it the common route leads to all.
            apart: whether the first device has routes of its own too, since the common one leads elsewhere.
        """
        self._name = name
        self._devices = list(devices)
        self._serves = serves
        self._gate = gate
        self._lead = lead
        self._apart = apart
        self._prepared_at: float | None = None
        self._turn = asyncio.Lock()
        self._last: list[dict[bytes, Peer]] | None = None
        self._links: Mapping[str, LinkGoal] = {}
        self._known: Mapping[bytes, str] = {}

    @property
    def name(self) -> str:
        """A short name for logs and metrics."""
        return self._name

    def mine(self, peer: DesiredPeer) -> bool:
        """Tell whether a link is to be served by this kind now."""
        return self._serves(peer)

    async def ensure(self) -> bool:
        """Bring the interfaces up; tell whether one was started anew. Raises ``Problem``."""
        started = False
        for device in self._devices:
            if await device.back_end.ensure():
                started = True
                self._last = None
        now = asyncio.get_running_loop().time()
        if started or self._prepared_at is None or now - self._prepared_at >= PREPARE_S:
            for device in self._devices:
                await device.prepare()
            self._prepared_at = now
        return started

    async def cut(self, goal: Goal, links: Collection[str]) -> None:
        """End the sessions of links at once. Raises ``Problem``."""
        keys = [key for key, link in goal.known.items() if link in links]
        async with self._turn:
            await self._each([Remove(key) for key in keys])

    async def cut_all(self) -> None:
        """Take every peer away. Raises ``Problem``."""
        async with self._turn:
            for device in self._devices:
                peers = (await device.back_end.tunnels.get()).peers
                await device.back_end.tunnels.apply([Remove(key) for key in peers])
            self._last = None

    async def reconcile(self, now: Pass) -> Report:
        """Compare, and repair where told to. Raises ``Problem``."""
        began = asyncio.get_running_loop().time()
        now, count = await self._apply_changes(now) if now.repair else (now, 0)
        found = await self._read(now)
        given, steps, differences = self._compare(now, found)
        now = _chosen(now, given)
        left, rounds = differences, 0
        while now.repair and any(steps) and rounds < _ROUNDS and not (rounds and now.hurried()):
            count += sum(map(len, steps))
            rounds += 1
            await self._apply(steps, now.hurried)
            found = await self._read(now)
            given, steps, left = self._compare(now, found)
        if now.repair and self._lead is not None:
            names = [device.name for device in self._devices]
            await self._lead(
                {prefix: names[place] for link, place in given.places.items() for prefix in now.links[link].prefixes}
            )
        ended_s = now.now_s + asyncio.get_running_loop().time() - began
        self._last, self._links, self._known = [dict(each) for each in found], now.links, now.goal.known
        return Report(
            differences=tuple(differences),
            left=tuple(left),
            steps=count,
            marks=given.marks,
            progress={link: done(each, ended_s) for link, each in given.progress.items()},
            rotated=given.rotated,
            sightings=_sightings(now, found),
        )

    async def died(self) -> None:
        """Return when one of the back ends is gone."""
        waits = [asyncio.ensure_future(device.back_end.gone()) for device in self._devices]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    async def close(self) -> None:
        """Let go of what this process holds; tunnels and sessions go on."""
        for device in self._devices:
            device.back_end.close()

    # ------------------------------------------------------------ one pass

    async def _apply_changes(self, now: Pass) -> tuple[Pass, int]:
        """Apply what is wanted otherwise than in the last pass, by what was read then; return how many steps."""
        if self._last is None:
            return now, 0
        changed = {link for link, goal in now.links.items() if self._links.get(link) is not goal}
        changed |= self._links.keys() - now.links.keys() - now.goal.held.keys()
        if not changed:
            return now, 0
        links = {link: goal for link, goal in now.links.items() if link in changed}
        known = now.goal.known
        found = [{key: peer for key, peer in peers.items() if known.get(key) in changed} for peers in self._last]
        given, steps, _ = self._compare(msgspec.structs.replace(now, links=links), found)
        if any(steps):
            await self._apply(steps, now.hurried)
        return _chosen(now, given), sum(map(len, steps))

    async def _read(self, now: Pass) -> list[dict[bytes, Peer]]:
        return [self._mend(await self._get(device, now), now) for device in self._devices]

    async def _get(self, device: Device, now: Pass) -> Actual:
        try:
            actual = await device.back_end.tunnels.get()
        except Problem as problem:
            if now.repair or problem.code != "link_interface_away":
                raise
            # Who only looks finds an interface that is not there as it is: without any peer.
            return Actual(public_key=None, listen_port=0, peers={})
        if now.repair and not settled(device.interface, actual):
            await device.back_end.tunnels.set_interface(device.interface)
        return actual

    def _mend(self, actual: Actual, now: Pass) -> dict[bytes, Peer]:
        """Leave out the peers of held links: they are neither made nor taken away."""
        held, known = now.goal.held, now.goal.known
        return {key: peer for key, peer in actual.peers.items() if known.get(key) not in held}

    def _compare(self, now: Pass, found: Sequence[Peers]) -> tuple[_Given, list[list[Step]], list[Drift]]:
        given = self._give(now, found)
        steps: list[list[Step]] = []
        differences: list[Drift] = []
        for wanted, peers in zip(given.wanted, found, strict=True):
            made = plan(wanted, peers)
            steps.append(list(made.steps))
            differences.extend(each for each in made.drift if each.kind != "rogue")
            rogues = (step.public_key for step in made.steps if isinstance(step, Remove))
            # A next key that another one replaced is in no row any more, but was in the last pass's.
            differences.extend(Drift("rogue", now.goal.known.get(key) or self._known.get(key)) for key in rogues)
        return given, steps, list(dict.fromkeys(differences))

    def _give(self, now: Pass, found: Sequence[Peers]) -> _Given:
        # Who only looks cannot know whose the service is: peers on its interface say that it is held here.
        open_ = self._gate() or (not now.repair and any(found))
        given = _Given([{} for _ in self._devices], {}, dict.fromkeys(now.goal.known.values(), OFF), (), {})
        rotated: list[str] = []
        seen = found[0] if len(found) == 1 else _newest(found)
        for link, goal in now.links.items() if open_ else ():
            progress = now.progress.get(link, NONE)
            choice = choose(goal, seen, progress, now.endpoints.get(link), now.now_s)
            if choice is None:
                continue
            if choice.progress != NONE:
                given.progress[link] = choice.progress
            if choice.rotated:
                rotated.append(link)
            given.marks[link] = _mark(goal.peer.generation, choice.progress)
            place = _place(found, choice.wanted)
            if place or self._apart:
                given.places[link] = place
            for number, wanted in enumerate(given.wanted):
                for one in choice.wanted:
                    wanted[one.public_key] = one if number == place else _awaited(one)
        return _Given(given.wanted, given.progress, given.marks, tuple(rotated), given.places)

    async def _apply(self, steps: Sequence[Sequence[Step]], hurried: Callable[[], bool]) -> None:
        calls: list[list[list[Step]]] = []
        async with self._turn:
            for number, (device, mine) in enumerate(zip(self._devices, steps, strict=True)):
                # The gate is looked at with the turn in hand: who shut it waits for the turn to take the peers away.
                allowed = mine if self._gate() else [step for step in mine if isinstance(step, Remove)]
                first, groups = in_groups(allowed)
                if first:
                    await device.back_end.tunnels.apply(first)
                self._remember(number, allowed)
                calls.append(groups)
        await self._call(calls, hurried)

    async def _call(self, calls: Sequence[Sequence[Sequence[Step]]], hurried: Callable[[], bool]) -> None:
        """Call devices, a group at a time; who is cut meanwhile is not called, for a call makes no peer.

        Where the next pass waits already it goes on with the others: somebody may have to be cut.
        """
        for number, groups in enumerate(calls):
            for at, group in enumerate(groups):
                if at and hurried():
                    return
                await asyncio.sleep(EVERY_S)
                async with self._turn:
                    if self._gate():
                        await self._devices[number].back_end.tunnels.apply(group)

    async def _each(self, steps: Sequence[Remove]) -> None:
        for number, device in enumerate(self._devices):
            await device.back_end.tunnels.apply(steps)
            if self._last is not None:
                for step in steps:
                    self._last[number].pop(step.public_key, None)

    def _remember(self, number: int, steps: Sequence[Step]) -> None:
        """Keep what was read last true to what was done since."""
        if self._last is None:
            return
        peers = self._last[number]
        for step in steps:
            if isinstance(step, Remove):
                peers.pop(step.public_key, None)
            else:
                peers[step.wanted.public_key] = _after(step, peers.get(step.wanted.public_key))


def _after(step: Put, peer: Peer | None) -> Peer:
    wanted = step.wanted
    return Peer(
        public_key=wanted.public_key,
        preshared_key=wanted.preshared_key,
        allowed=wanted.allowed,
        endpoint=wanted.endpoint if peer is None or peer.endpoint is None else peer.endpoint,
        keepalive_s=wanted.keepalive_s,
        handshake_at=None if peer is None else peer.handshake_at,
        rx=0 if peer is None else peer.rx,
        tx=0 if peer is None else peer.tx,
    )


def _mark(generation: int, progress: Progress) -> str:
    turn = "promoted" if progress.promoted else progress.psk if progress.psk_of else "-"
    return f"{generation} {turn}"


def _chosen(now: Pass, given: _Given) -> Pass:
    """Let what was chosen hold for the whole pass: a handshake in the middle of it must not choose anew."""
    return msgspec.structs.replace(now, progress={**now.progress, **given.progress})


def _awaited(one: Wanted) -> Wanted:
    return msgspec.structs.replace(one, endpoint=None, keepalive_s=0)


def _newest(found: Sequence[Peers]) -> dict[bytes, Peer]:
    newest: dict[bytes, Peer] = {}
    for peers in found:
        for key, peer in peers.items():
            if key not in newest or (peer.handshake_at or 0.0) > (newest[key].handshake_at or 0.0):
                newest[key] = peer
    return newest


def _place(found: Sequence[Peers], wanted: Sequence[Wanted]) -> int:
    """Return the number of the device on which a link shook hands last, the first where it never did."""
    if len(found) == 1:
        return 0
    latest = [max((_shook_at(peers, one) for one in wanted), default=0.0) for peers in found]
    return latest.index(max(latest))


def _shook_at(peers: Peers, one: Wanted) -> float:
    peer = peers.get(one.public_key)
    return 0.0 if peer is None or peer.handshake_at is None else peer.handshake_at


def _sightings(now: Pass, found: Sequence[Peers]) -> dict[str, Sighting]:
    sightings: dict[str, Sighting] = {}
    for peers in found:
        for key, peer in peers.items():
            link = now.goal.known.get(key)
            if link is None:
                continue
            one = Sighting(endpoint=peer.endpoint, handshake_at=peer.handshake_at, rx=peer.rx, tx=peer.tx)
            with contextlib.suppress(KeyError):
                one = merge_sightings(sightings[link], one)
            sightings[link] = one
    return sightings
