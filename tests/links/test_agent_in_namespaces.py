"""The device's agent as a real process between two real tunnels: losses, drains, its own death, changed keys."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import device_view
from chukan.tenants.link_plan import inner_v4
from chukan.tests.support.device_world import CENTRES, LINK, MUNICIPALITY, Caller, World, eventually
from chukan.vpn import enrolment
from chukan.vpn.device import enrolling, running
from chukan.vpn.device.folder import DeviceFolder
from chukan.vpn.wireguard.keys import to_base64

MOVED_S = 5.0
SETTLED_S = 20.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two gateways, a device that was enrolled, and its agent, at home in the east."""
    made = World(tmp_path_factory.mktemp("device-world"))
    try:
        made.build()
        _set_quick(made)
        made.start_agent()
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def settled(world: World) -> None:
    """Each test begins with everything good, and the route at home, whatever became of the one before."""
    for gateway in world.gateways.values():
        gateway.mend()
    at_home(world)


def at_home(world: World) -> None:
    eventually(lambda: world.stands("east", east="good", west="good"), SETTLED_S, "both good, the route in the east")


@pytest.mark.requirement("TEN-03")
def test_what_shows_green_is_what_the_stock_tools_show(world: World) -> None:
    seen = device_view.look(DeviceFolder(world.device.path), SystemClock().now())
    assert seen.green
    assert {each.lamp for each in seen.centres.values()} == {"good"}
    assert world.route() == world.device.identity.interfaces["east"]
    for centre, gateway in world.gateways.items():
        tunnel = world.device.tunnel(centre)
        assert tunnel is not None
        assert gateway.has_heard(tunnel.public_key)


def test_a_silent_loss_moves_the_route_and_the_return_loses_nothing(world: World) -> None:
    with world.client() as client:
        eventually(lambda: client.last() == "east", MOVED_S, "answered by the east")
        world.gateways["east"].fall_silent()
        eventually(lambda: world.stands("west", east="down"), MOVED_S, "moved to the west")
        eventually(lambda: client.last() == "west", MOVED_S, "answered by the west")
        assert 0.5 < client.gap_s() < MOVED_S
        world.gateways["east"].speak_again()
    with world.client() as client:
        at_home(world)
        eventually(lambda: client.last() == "east", MOVED_S, "answered by the east")
    assert client.failed() == 0
    assert {each.centre for each in client.asked} == {"east", "west"}


@pytest.mark.parametrize("way", ["503", "reset"])
def test_a_planned_drain_and_its_end_lose_nothing(world: World, way: str) -> None:
    east = world.gateways["east"]
    with world.client() as client:
        if way == "503":
            east.ready_status = 503
        else:
            east.refuse_health()
        eventually(lambda: world.stands("west", east="drain"), MOVED_S, "drained to the west")
        east.ready_status = 200
        if way == "reset":
            east.allow_health()
        at_home(world)
        eventually(lambda: client.last() == "east", MOVED_S, "answered by the east")
    assert client.failed() == 0
    assert len(client.asked) > 20
    assert {each.centre for each in client.asked} == {"east", "west"}


@pytest.mark.requirement("TEN-03")
def test_a_request_under_way_is_finished_where_it_began(world: World) -> None:
    """A drain leads away what begins, and cuts nothing that is open: neither a slow answer nor a kept connection."""
    east = world.gateways["east"]
    slow, kept = Caller(world), Caller(world)
    slow.begin()
    assert kept.ask() == "east"
    east.ready_status = 503
    eventually(lambda: world.stands("west", east="drain"), MOVED_S, "drained to the west")
    assert Caller(world).ask() == "west"
    assert kept.ask() == "east"
    east.answer_slowly.set()
    assert slow.finish() == "east"


def test_a_connection_of_a_lost_centre_is_reset_and_does_not_hang(world: World) -> None:
    caller = Caller(world, timeout_s=MOVED_S)
    assert caller.ask() == "east"
    world.gateways["east"].fall_silent()
    caller.begin()
    begun = time.monotonic()
    with pytest.raises(ConnectionResetError):
        caller.finish()
    assert time.monotonic() - begun < MOVED_S


def test_both_in_drain_is_no_reason_to_move(world: World) -> None:
    for gateway in world.gateways.values():
        gateway.ready_status = 503
    with world.client() as client:
        eventually(lambda: any(world.stands(at, east="drain", west="drain") for at in CENTRES), MOVED_S, "both drain")
    for gateway in world.gateways.values():
        gateway.ready_status = 200
    assert client.failed() == 0


def test_a_killed_agent_leaves_the_tunnels_and_the_next_one_takes_them_over(world: World) -> None:
    device = world.device.tunnel("east")
    assert device is not None
    with world.client() as client:
        assert world.end_agent(signal.SIGKILL) == -signal.SIGKILL
        before = world.gateways["east"].wg("show", world.gateways["east"].interface, "latest-handshakes")
        world.start_agent()
        pid = world.agent.pid if world.agent is not None else 0
        eventually(lambda: (status := world.status()) is not None and status.pid == pid, SETTLED_S, "the next agent")
        at_home(world)
        after = world.gateways["east"].wg("show", world.gateways["east"].interface, "latest-handshakes")
    status = world.status()
    assert status is not None
    assert (client.failed(), status.moves) == (0, 0)
    assert before == after, "the session went on"


def test_a_second_agent_on_one_folder_is_refused(world: World) -> None:
    clock = SystemClock()
    second = running.run(DeviceFolder(world.device.path), asyncio.Event(), clock, SystemChance(clock))
    with pytest.raises(Problem) as caught:
        asyncio.run(second)
    assert caught.value.code == "already_running"


def test_an_interface_that_dies_is_made_again(world: World) -> None:
    interface = world.device.identity.interfaces["east"]
    world.spaces.do(MUNICIPALITY, f"link del {interface}")
    eventually(lambda: not world.stands("east", east="good"), MOVED_S, "the loss is seen")
    at_home(world)
    assert world.route() == interface


def test_a_route_that_somebody_took_away_is_put_back(world: World) -> None:
    world.spaces.do(MUNICIPALITY, "route del 10.255.255.1/32")
    eventually(lambda: world.route() == world.device.identity.interfaces["east"], MOVED_S, "the route is back")


def test_a_new_key_comes_into_use_without_a_failure(world: World) -> None:
    """As a gateway does it: the new peer gets the prefixes at its first handshake, and the old one goes."""
    east, old = world.gateways["east"], world.device.tunnel("east")
    assert old is not None
    now = SystemClock().now()
    wish = enrolment.read_rotation(enrolling.rotate(world.device, "east", now)).content
    with world.client() as client:
        world.accept({"east": wish.key}, prefixes=False)
        eventually(lambda: east.has_heard(wish.key), SETTLED_S, "the new key shakes hands")
        east.wg("set", east.interface, "peer", to_base64(wish.key), "allowed-ips", f"{inner_v4(LINK)}/32")
        east.forget(old.public_key)
        eventually(lambda: _key(world) == wish.key, SETTLED_S, "the new key is in use")
        at_home(world)
    assert client.failed() == 0
    assert world.device.publics("east") == {wish.key}


@pytest.mark.full
def test_a_new_key_that_the_gateway_does_not_know_gives_way_to_the_old_one(world: World) -> None:
    old = world.device.tunnel("east")
    wish = enrolment.read_rotation(enrolling.rotate(world.device, "east", SystemClock().now())).content
    world.end_agent()
    _set_quick(world, handshake_s=1.0)
    world.accept({"east": wish.key}, prefixes=False)
    world.gateways["east"].forget(wish.key)
    with world.client() as client:
        world.start_agent()
        eventually(lambda: world.stands("west"), SETTLED_S, "aside while the key is tried")
        at_home(world)
    assert client.failed() == 0
    assert world.device.tunnel("east") == old
    assert world.device.next_tunnel("east") is not None, "it is tried again later"
    world.device.forget_next("east")


def test_in_good_order_the_agent_leaves_route_and_tunnels(world: World) -> None:
    with world.client() as client:
        assert world.end_agent() == 0
        count = len(client.asked)
        eventually(lambda: len(client.asked) > count + 10, MOVED_S, "asked after the end")
    status = world.status()
    assert status is not None
    assert status.ended
    assert client.failed() == 0
    assert world.route() == world.device.identity.interfaces["east"]
    seen = device_view.look(DeviceFolder(world.device.path), SystemClock().now())
    assert (seen.green, {each.lamp for each in seen.centres.values()}) == (False, {"unknown"})
    world.start_agent()


def test_told_to_take_everything_away_the_agent_leaves_nothing(world: World) -> None:
    def says(*words: str) -> str:
        return world.spaces.run(MUNICIPALITY, *words)

    assert "chukan_device" in says("nft", "list", "ruleset")
    world.end_agent()
    _set_quick(world, at_end="remove")
    world.start_agent()
    # The status of the one before says that it has ended, until the next one writes.
    at_home(world)
    assert world.end_agent() == 0
    assert says("nft", "list", "ruleset") == ""
    assert "fwmark" not in says("ip", "rule")
    assert "10.255" not in says("ip", "route", "show", "table", "all")
    assert all(name not in says("ip", "link") for name in world.device.identity.interfaces.values())
    world.start_agent()


def _key(world: World) -> bytes | None:
    tunnel = DeviceFolder(Path(world.device.path)).tunnel("east")
    return None if tunnel is None else tunnel.public_key


def _set_quick(world: World, **more: float | str) -> None:
    world.set_agent(
        home="east", icmp_every_s=0.5, icmp_misses=2, ready_every_s=0.5, ready_misses=4, good_for=2, dwell_s=0.5,
        keep_every_s=0.5, start_jitter_s=0.0, **more,
    )  # fmt: skip
