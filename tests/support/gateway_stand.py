"""A gateway whose back ends, packet filter and database are in memory, for the controller's loop and its passes."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.tenants import link_plan
from chukan.tenants.links import Desired, DesiredPeer, Drifted, GatewayRow, Seen
from chukan.vpn.firewall import Ruleset
from chukan.vpn.firewall_drops import DROPS
from chukan.vpn.gateway.config import Mode, Timing
from chukan.vpn.gateway.controller import Controller
from chukan.vpn.gateway.learning import Learner
from chukan.vpn.gateway.state import Store
from chukan.vpn.gateway.telling import Teller
from chukan.vpn.gateway.tenant_filter import TenantFilter
from chukan.vpn.gateway.wireguard import Device, WireGuardKind
from chukan.vpn.model import Actual, Interface, Peer, Remove, Step
from chukan.vpn.nft import Counters, Difference
from chukan.vpn.wireguard.keys import public_key_of

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
PRIVATE = b"\x01" * 32
A, B, C = "131016-1", "131016-2", "131016-3"


def key(word: str) -> bytes:
    return word.encode().ljust(32, b"k")


def peer(link: str, generation: int = 1, **changes: Any) -> DesiredPeer:
    given: dict[str, Any] = {
        "link": link,
        "body": link[:6],
        "mode": "pair",
        "kind": "wireguard",
        "state": "active",
        "public_key": key(link),
        "next_public_key": None,
        "psk": b"psk of " + link.encode(),
        "next_psk": None,
        "prefixes": link_plan.prefixes(link),
        "valid_from": None,
        "valid_until": None,
        "generation": generation,
        "endpoint": None,
    }
    return DesiredPeer(**(given | changes))


class MemoryTunnels:
    """An interface in memory that keeps what the port promises: a prefix has one owner."""

    def __init__(self) -> None:
        self.alive = False
        self.starts = 0
        self.public: bytes | None = None
        self.peers: dict[bytes, Peer] = {}
        self.log: list[Step] = []
        self.died = asyncio.Event()
        self.fails: Exception | None = None

    @property
    def tunnels(self) -> "MemoryTunnels":
        return self

    async def ensure(self) -> bool:
        if self.alive:
            return False
        self.alive, self.starts = True, self.starts + 1
        self.peers, self.public = {}, None
        self.died = asyncio.Event()
        return True

    def kill(self) -> None:
        self.alive = False
        self.died.set()

    async def gone(self) -> None:
        await self.died.wait()

    def close(self) -> None:
        pass

    async def get(self) -> Actual:
        if self.fails is not None:
            raise self.fails
        if not self.alive:
            raise Problem("link_interface_away")
        return Actual(public_key=self.public, listen_port=51820, peers=dict(self.peers))

    async def set_interface(self, interface: Interface) -> None:
        self.public = public_key_of(interface.private_key)

    async def apply(self, steps: Sequence[Step]) -> None:
        self.log.extend(steps)
        for step in steps:
            if isinstance(step, Remove):
                self.peers.pop(step.public_key, None)
                continue
            wanted = step.wanted
            old = self.peers.get(wanted.public_key)
            if old is None and not step.new:
                continue
            made = old or Peer(public_key=wanted.public_key)
            changes: dict[str, Any] = {}
            if step.psk:
                changes["preshared_key"] = wanted.preshared_key
            if step.allowed:
                self._take(wanted.allowed)
                changes["allowed"] = wanted.allowed
            if step.endpoint:
                changes["endpoint"] = wanted.endpoint
            if step.keepalive:
                changes["keepalive_s"] = wanted.keepalive_s
            self.peers[wanted.public_key] = msgspec.structs.replace(made, **changes)

    def _take(self, allowed: Iterable[str]) -> None:
        for name, other in self.peers.items():
            self.peers[name] = msgspec.structs.replace(other, allowed=other.allowed - frozenset(allowed))

    def change(self, public_key: bytes, **changes: Any) -> None:
        self.peers[public_key] = msgspec.structs.replace(self.peers[public_key], **changes)


class MemoryFirewall:
    """The packet filter in memory."""

    def __init__(self, log: list[str]) -> None:
        self.table: Ruleset | None = None
        self.log = log

    async def add(self, prefixes: Iterable[str]) -> None:
        self._put(add=prefixes)

    async def remove(self, prefixes: Iterable[str]) -> None:
        self.log.append("filter")
        self._put(remove=prefixes)

    async def drain(self, _ruleset: Ruleset, *, on: bool) -> None:
        assert self.table is not None
        self.table = msgspec.structs.replace(self.table, draining=on)

    def _put(self, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        assert self.table is not None
        now = (self.table.prefixes | frozenset(add)) - frozenset(remove)
        self.table = msgspec.structs.replace(self.table, prefixes=now)

    async def compare(self, ruleset: Ruleset) -> Difference:
        if self.table is None:
            return Difference(table=True)
        missing, extra = ruleset.prefixes - self.table.prefixes, self.table.prefixes - ruleset.prefixes
        return Difference(missing=missing, extra=extra, drain=ruleset.draining != self.table.draining)

    async def repair(self, ruleset: Ruleset, _difference: Difference) -> None:
        self.table = ruleset

    async def counters(self) -> Counters:
        return Counters(traffic={}, drops=dict.fromkeys(DROPS, 0), body_drops={}, resets=0)


class Cell:
    """The database: what it says, what it was told, and whether it is there."""

    def __init__(self) -> None:
        self.desired_now = Desired(number=0, gateway=None, peers=())
        self.away = False
        self.heard: Callable[[], None] | None = None
        self.audit: list[Drifted] = []
        self.sightings: list[Seen] = []
        self.turned: list[tuple[str, int | None]] = []

    def say(self, *peers: DesiredPeer, number: int = 1, gateway: GatewayRow | None = None) -> None:
        self.desired_now = Desired(number=number, gateway=gateway, peers=peers)
        if self.heard is not None:
            self.heard()

    async def desired(self, _centre: str) -> Desired:
        if self.away:
            raise Problem("no_primary")
        return self.desired_now

    async def hear(self, heard: Callable[[], None]) -> None:
        self.heard = heard
        await asyncio.Event().wait()

    async def seen(self, _centre: str, sightings: Sequence[Seen]) -> int:
        self._answer()
        self.sightings.extend(sightings)
        return len(sightings)

    async def drifted(self, _centre: str, differences: Sequence[Drifted]) -> int:
        self._answer()
        self.audit.extend(differences)
        return len(differences)

    async def rotated(self, _centre: str, link: str, generation: int | None = None) -> bool:
        self._answer()
        self.turned.append((link, generation))
        return True

    def _answer(self) -> None:
        if self.away:
            raise Problem("no_primary")


class Stand:
    """A gateway whose parts are in memory; ``controller`` may be replaced, as by a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(NOW)
        self.cell = Cell()
        self.order: list[str] = []
        self.tunnels = MemoryTunnels()
        self.firewall = MemoryFirewall(self.order)
        self.store = Store(folder, "east")

    def new(self, mode: Mode = "repair", every_s: float = 30.0) -> Controller:
        async def prepared() -> None:
            return None

        device = Device("ckt0", self.tunnels, Interface(private_key=PRIVATE, listen_port=51820), prepared)
        kind = WireGuardKind("wireguard", [device], lambda each: each.mode == "pair")
        rules = Ruleset(
            tunnels=frozenset({"ckt0"}),
            outer="outer",
            inner="inner",
            listen_ports=frozenset({51820}),
            ipsec=False,
            services=frozenset({("10.255.0.1", 8443)}),
            health_ports=frozenset({8445}),
        )
        self.controller = Controller(
            "east",
            mode,
            Timing(every_s=every_s),
            kinds=[kind],
            tenants=TenantFilter(self.firewall, rules),  # type: ignore[arg-type]
            store=self.store,
            open_psk=lambda _link, sealed: sealed.ljust(32, b"s") if sealed.startswith(b"psk") else None,
            clock=self.clock,
        )
        self.learner = Learner(self.cell, "east", self.controller.learnt, self.clock, every_s=every_s, read_s=2.0)
        self.teller = Teller(self.cell, "east", self.store, self.learner.ask)
        self.controller.attach(self.learner, self.teller)
        return self.controller

    async def passes(self, count: int = 1) -> None:
        """Learn, pass and tell, as often as told."""
        for _ in range(count):
            await self.learner.once()
            assert await self.controller.once() == []
            await self.teller.keep()
            await self.teller.tell()

    def prefixes(self) -> frozenset[str]:
        assert self.firewall.table is not None
        return self.firewall.table.prefixes

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.controller.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(good: Callable[[], object]) -> None:
    """Let the loop go on until something is so. ``TimeoutError``."""
    async with asyncio.timeout(10):
        while not good():
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
