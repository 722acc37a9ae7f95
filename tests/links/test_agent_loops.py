"""The agent's loops over a machine that is made up: what fails is tried again, and nothing ends but by being told."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tests.links.test_device_folder import LINK, NOW, PEM, ask, granted, rotated
from chukan.vpn.device import enrolling
from chukan.vpn.device.agent import Agent
from chukan.vpn.device.folder import DeviceFolder, Tunnel, create
from chukan.vpn.device.health import Answer
from chukan.vpn.device.settings import AgentSettings
from chukan.vpn.device.status import FILE, Status
from chukan.vpn.model import Peer

QUICK = AgentSettings(
    home="east", icmp_every_s=0.05, icmp_misses=2, ready_every_s=0.05, ready_misses=2, good_for=2, dwell_s=0.0,
    keep_every_s=0.05, start_jitter_s=0.0, handshake_s=1.0, psk_handshake_s=1.0,
)  # fmt: skip


class Machine:
    """Ways and answers that a test sets; it remembers what it was asked to do."""

    def __init__(self) -> None:
        self.route: str | None = None
        self.silent: set[str] = set()
        self.refuses: set[str] = set()
        self.shakes = True
        self.done: list[tuple[str, str]] = []

    def _do(self, act: str, centre: str) -> None:
        if act in self.refuses:
            raise Problem("link_network_refused", expected=act)
        self.done.append((act, centre))

    async def ensure(self, tunnel: Tunnel) -> None:
        self._do("ensure", tunnel.centre)

    async def renew(self, tunnel: Tunnel) -> None:
        self._do(f"renew {tunnel.psk[:1].decode()}", tunnel.centre)

    async def peer(self, centre: str) -> Peer | None:
        return Peer(public_key=bytes(32), handshake_at=1.0 if self.shakes else None)

    async def gone(self, centre: str) -> None:
        await asyncio.Event().wait()

    async def active(self) -> str | None:
        return self.route

    async def point(self, centre: str, gone: Collection[str]) -> bool:
        before = self.route
        if before != centre or "point" in self.refuses:
            self._do("point", centre)
        self.route = centre
        return before != centre

    async def remove(self) -> None:
        self._do("remove", "")

    async def echo(self, centre: str, timeout_s: float) -> bool:
        return centre not in self.silent

    async def ready(self, centre: str, timeout_s: float) -> Answer:
        return "missed" if centre in self.silent else "ready"


@pytest.fixture
def device(tmp_path: Path) -> DeviceFolder:
    made = create(tmp_path / "device", LINK, ("east", "west"), PEM, prefix="t")
    enrolling.accept(made, granted(ask(made)), NOW)
    return made


@asynccontextmanager
async def running(device: DeviceFolder, machine: Machine, **changes: Any) -> AsyncIterator[Agent]:
    clock = SystemClock()
    settings = msgspec.structs.replace(QUICK, **changes)
    agent = Agent(device, settings, machine, machine, clock, SystemChance(clock))
    told = asyncio.Event()
    async with asyncio.timeout(15):
        task = asyncio.create_task(agent.run(told, pid=7))
        try:
            yield agent
        finally:
            told.set()
            await task


async def until(holds: Any) -> None:
    """Let the others run until something holds; the timeout of ``running`` ends the wait."""
    while not holds():
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, waiting.set_result, None)
        await waiting


def status(device: DeviceFolder) -> Status:
    return msgspec.json.decode(device.read(FILE), type=Status)


async def test_a_move_that_the_machine_refuses_is_told_and_tried_again(device: DeviceFolder) -> None:
    machine = Machine()
    machine.refuses = {"point"}
    async with running(device, machine) as agent:
        await until(lambda: (device.path / FILE).exists() and status(device).problem == "link_network_refused")
        assert agent.state.active is None
        machine.refuses = set()
        await until(lambda: agent.state.active == "east")
        await until(lambda: status(device).problem is None)
    assert machine.route == "east"


async def test_one_interface_that_cannot_be_does_not_hold_up_the_other(device: DeviceFolder) -> None:
    machine = Machine()
    machine.refuses = {"ensure"}
    machine.silent = {"east"}
    async with running(device, machine) as agent:
        await until(lambda: agent.state.active == "west")
        await until(lambda: status(device).active == "west")
        assert status(device).centres["west"].problem == "link_network_refused"
        assert not status(device).centres["west"].up


async def test_a_route_that_is_good_is_taken_over_and_not_moved(device: DeviceFolder) -> None:
    machine = Machine()
    machine.route = "west"
    async with running(device, machine, fail_back=False) as agent:
        await until(lambda: all(heard.rounds > 3 for heard in agent.state.centres.values()))
        assert agent.state.active == "west"
    assert [act for act in machine.done if act[0] == "point"] == []


async def test_the_end_leaves_everything_unless_told_otherwise(device: DeviceFolder) -> None:
    for at_end, removed in (("leave", 0), ("remove", 1)):
        machine = Machine()
        async with running(device, machine, at_end=at_end) as agent:
            await until(lambda agent=agent: agent.state.active == "east")
        assert machine.done.count(("remove", "")) == removed
        assert status(device).ended


async def test_a_new_tunnel_waits_until_the_traffic_can_go_elsewhere(device: DeviceFolder) -> None:
    machine = Machine()
    machine.silent = {"west"}
    new, file = rotated(device, "east")
    enrolling.accept(device, file, NOW)
    async with running(device, machine) as agent:
        await until(lambda: agent.state.active == "east" and agent.state.centres["east"].rounds > 5)
        assert not [act for act in machine.done if act[0].startswith("renew")]
        machine.silent = set()
        await until(lambda: device.next_tunnel("east") is None)
        await until(lambda: agent.state.active == "east")
    acts = [act for act in machine.done if act[0] != "ensure"]
    assert acts == [("point", "east"), ("point", "west"), ("renew q", "east"), ("point", "east")]
    assert device.publics("east") == {new}


async def test_a_new_tunnel_without_a_handshake_is_given_up_for_a_while(device: DeviceFolder) -> None:
    machine = Machine()
    machine.shakes = False
    _, file = rotated(device, "west")
    enrolling.accept(device, file, NOW)
    async with running(device, machine):
        await until(lambda: ("renew p", "west") in machine.done)
        count = len(machine.done)
        await until(lambda: len(machine.done) > count + 10)
    renewed = [act for act in machine.done if act[0].startswith("renew")]
    assert renewed == [("renew q", "west"), ("renew p", "west")]
    assert device.next_tunnel("west") is not None


async def test_an_interface_is_left_alone_while_its_new_keys_are_tried(device: DeviceFolder) -> None:
    machine = Machine()
    machine.shakes = False
    _, file = rotated(device, "west")
    enrolling.accept(device, file, NOW)
    async with running(device, machine):
        await until(lambda: ("renew p", "west") in machine.done)
    during = machine.done[machine.done.index(("renew q", "west")) : machine.done.index(("renew p", "west"))]
    assert ("ensure", "east") in during
    assert ("ensure", "west") not in during


async def test_who_is_told_to_end_before_it_began_does_nothing(device: DeviceFolder) -> None:
    clock, machine, told = SystemClock(), Machine(), asyncio.Event()
    told.set()
    settings = msgspec.structs.replace(QUICK, start_jitter_s=5.0)
    async with asyncio.timeout(3):
        await Agent(device, settings, machine, machine, clock, SystemChance(clock)).run(told, pid=7)
    assert machine.done == []
