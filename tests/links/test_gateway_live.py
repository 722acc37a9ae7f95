"""A gateway's controller as a process, over real tunnels, packet filter and database: killed, robbed, and cut off."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.tenants import link_plan
from chukan.tenants.bodies import bodies
from chukan.tests.support.gateway_world import (
    EAST,
    GatewayWorld,
    Town,
    exchange,
    key_text,
    pause,
    until,
)
from chukan.tests.support.link_spaces import spaces
from chukan.tests.support.link_world import HEALTH_PORT, OTHER_PORT
from chukan.vpn.model import Interface, Put, Wanted
from chukan.vpn.wireguard.keys import new_private_key, public_key_of

CUT_S = 5.0
"""Far above the second that is asked for, far below the half minute of a pass."""
BODIES = (each.code for each in bodies())


@pytest.fixture(scope="module")
def world(embedded_server: Any, make_cell: Callable[..., Any]) -> Iterator[GatewayWorld]:
    """A gateway with two links, both through."""
    folder = Path(tempfile.mkdtemp(prefix="ckl-"))
    with spaces() as made:
        world = GatewayWorld(made, folder, make_cell(embedded_server, []), BODIES)
        try:
            world.lay()
            asyncio.run(_begin(world))
            yield world
        finally:
            asyncio.run(world.end())
            shutil.rmtree(folder, ignore_errors=True)


async def _begin(world: GatewayWorld) -> None:
    await world.register()
    for name in ("a", "b"):
        town = world.towns[name]
        await world.enrol(town)
        await town.up()
        await town.know(world.public())
        town.device.close()
    world.start()
    async with exchange(world):
        await world.towns["a"].until_answered(30)
        await world.towns["b"].until_answered()


@pytest.fixture
async def gateway(world: GatewayWorld) -> AsyncIterator[GatewayWorld]:
    """The world at rest: the controller runs in repair mode and both links are through."""
    if world.process is None:
        world.configure()
        world.start()
    for town in world.towns.values():
        town.device.adopt()
    async with exchange(world):
        await asyncio.gather(*(world.towns[name].until_answered(20) for name in "ab"))
        yield world


async def has(world: GatewayWorld, *towns: str) -> bool:
    with contextlib.suppress(Problem):
        return set((await world.peers()).peers) == {world.towns[name].public for name in towns}
    return False


@pytest.mark.requirement("TEN-03")
async def test_the_stock_tool_and_our_own_show_what_is_desired(gateway: GatewayWorld) -> None:
    listed = set(gateway.wg("show", gateway.interface, "peers").split())
    assert listed == {key_text(gateway.towns[name].public) for name in "ab"}
    allowed = dict(line.split("\t") for line in gateway.wg("show", gateway.interface, "allowed-ips").splitlines())
    for name in "ab":
        town = gateway.towns[name]
        assert set(allowed[key_text(town.public)].split()) == set(link_plan.prefixes(town.link))
    checked = await asyncio.to_thread(gateway.tool, "check", "--json")
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    assert told["good"]
    assert told["read_now"]
    assert {row["link"]: row["up"] for row in told["links"]} == {gateway.towns[name].link: True for name in "ab"}


async def test_only_the_services_are_reached_and_metrics_count_the_rest(gateway: GatewayWorld) -> None:
    town = gateway.towns["a"]
    assert await town.answered(HEALTH_PORT)
    assert not await town.answered(OTHER_PORT)
    await until(lambda: _positive(gateway, "chukan_link_drops_total", "closed_port"))
    assert (await gateway.figure("chukan_link_body_drops_total", town.link, "closed_port") or 0) > 0
    assert await gateway.figure("chukan_link_body_drops_total", gateway.towns["b"].link, "closed_port") is None
    assert await gateway.figure("chukan_link_up", town.link) == 1
    assert (await gateway.figure("chukan_link_bytes_total", town.link, '"in"') or 0) > 0
    assert await gateway.figure("chukan_links_pass_age_seconds") is not None


async def _positive(gateway: GatewayWorld, name: str, label: str) -> bool:
    return (await gateway.figure(name, label) or 0) > 0


async def test_what_a_hand_does_is_undone_within_a_pass_and_others_notice_nothing(gateway: GatewayWorld) -> None:
    a, b = gateway.towns["a"], gateway.towns["b"]
    rogue = key_text(public_key_of(new_private_key()))
    async with b.stream() as stream:
        assert await stream.echo()
        gateway.wg("set", gateway.interface, "peer", key_text(a.public), "remove")
        gateway.wg("set", gateway.interface, "peer", rogue, "allowed-ips", "10.255.7.7/32")
        await until(lambda: has(gateway, "a", "b"), 3)
        assert await stream.echo()
        # The rogue takes the address of a's link: both differ then.
        gateway.wg("set", gateway.interface, "peer", rogue, "allowed-ips", f"{a.v4}/32")
        await until(lambda: has(gateway, "a", "b"), 3)
        allowed = (await gateway.peers()).peers[a.public].allowed
        assert allowed == frozenset(link_plan.prefixes(a.link))
        assert await stream.echo(), "a session of another link was touched"
    await a.until_answered(5)
    async with gateway.steward() as steward:
        await until(lambda: _audited(steward, {"missing", "rogue", "stolen"}), 5)


async def _audited(steward: Any, kinds: set[str]) -> bool:
    rows = [row for row in await steward.history(limit=200) if row.act == "drift"]
    return kinds <= {row.after["kind"] for row in rows if row.after["repaired"]}


async def test_kill_minus_nine_ends_no_session_and_the_next_start_changes_nothing(gateway: GatewayWorld) -> None:
    pid = gateway.tunnel_pid()
    a = gateway.towns["a"]
    async with a.stream() as stream:
        assert await stream.echo()
        before = (await gateway.peers()).peers[a.public]
        gateway.kill(signal.SIGKILL)
        assert await stream.echo()
        gateway.start()
        await gateway.until_passed(2)
        assert await stream.echo()
    after = (await gateway.peers()).peers[a.public]
    assert gateway.tunnel_pid() == pid
    assert after.handshake_at == before.handshake_at
    assert await gateway.figure("chukan_links_drift_total", '"missing"') == 0
    assert await gateway.figure("chukan_links_back_end_starts_total") == 0


async def test_a_dead_tunnel_process_comes_back_with_all_sessions_while_the_cell_is_away(gateway: GatewayWorld) -> None:
    a, b = gateway.towns["a"], gateway.towns["b"]
    await until(lambda: _kept(gateway, a, b))
    await gateway.shut_door()
    try:
        pid = gateway.tunnel_pid()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        await asyncio.gather(a.until_answered(10), b.until_answered(10))
        assert time.monotonic() - began < 8
        assert gateway.tunnel_pid() != pid
        await until(lambda: _positive(gateway, "chukan_links_desired_age_seconds", ""))
        # A hand is found all the same.
        gateway.wg("set", gateway.interface, "peer", key_text(a.public), "remove")
        await until(lambda: has(gateway, "a", "b"), 4)
    finally:
        gateway.open_door()
    async with gateway.steward() as steward:
        await steward.drain(EAST, on=True, who="anna")
        await until(lambda: _draining(gateway, 1.0))
        await steward.drain(EAST, on=False, who="anna")
        await until(lambda: _draining(gateway, 0.0))


async def _kept(gateway: GatewayWorld, *towns: Town) -> bool:
    path = gateway.folder / "state" / "endpoints.json"
    with contextlib.suppress(OSError):
        return all(town.link in json.loads(path.read_bytes()) for town in towns)
    return False


async def _draining(gateway: GatewayWorld, value: float) -> bool:
    return await gateway.figure("chukan_links_draining") == value


async def test_a_drain_refuses_health_alone_also_while_the_controller_is_dead(gateway: GatewayWorld) -> None:
    a = gateway.towns["a"]
    async with gateway.steward() as steward, a.stream() as stream:
        assert await stream.echo()
        await steward.drain(EAST, on=True, who="anna")
        try:
            await until(lambda: _draining(gateway, 1.0))
            gateway.kill()
            with pytest.raises(ConnectionRefusedError):
                async with a.stream(HEALTH_PORT):
                    pass
            assert await stream.echo()
            assert await a.answered()
            gateway.start()
        finally:
            await steward.drain(EAST, on=False, who="anna")
        await until(lambda: a.answered(HEALTH_PORT))


async def test_in_report_mode_nothing_is_changed(gateway: GatewayWorld) -> None:
    a = gateway.towns["a"]
    gateway.kill(signal.SIGTERM)
    gateway.configure(mode="report")
    gateway.start()
    try:
        await gateway.until_passed(1)
        gateway.wg("set", gateway.interface, "peer", key_text(a.public), "remove")
        checked, _ = await asyncio.gather(asyncio.to_thread(gateway.tool, "check", "--json"), gateway.until_passed(2))
        assert await has(gateway, "b")
        assert (await gateway.figure("chukan_links_drift_total", '"missing"') or 0) > 0
        assert checked.returncode == 1
        differences = {row["link"]: row["differences"] for row in json.loads(checked.stdout)["links"]}
        assert differences == {a.link: ["missing"], gateway.towns["b"].link: []}
        assert await has(gateway, "b")
    finally:
        gateway.kill(signal.SIGTERM)
        gateway.configure()
        gateway.start()
    await until(lambda: has(gateway, "a", "b"))


async def test_a_device_key_and_a_pre_shared_key_give_way_without_a_break(gateway: GatewayWorld) -> None:
    b = gateway.towns["b"]
    private, psk = new_private_key(), new_private_key()
    async with gateway.steward() as steward:
        await steward.put_next_key(
            b.link, EAST, who="anna", public_key=public_key_of(private), psk=gateway.sealed(b, psk)
        )
        await until(lambda: _knows(gateway, public_key_of(private)))
        assert await b.answered(), "nothing changes until the device turns to its next key"
        await b.device.tunnels.set_interface(Interface(private_key=private, listen_port=0))
        await b.know(gateway.public(), psk=psk)
        await b.until_answered(10)
        b.private, b.psk = private, psk
        await until(lambda: has(gateway, "a", "b"))
        await until(lambda: _turned(steward, b))


@pytest.mark.full
async def test_a_pre_shared_key_alone_is_changed_whenever_the_device_turns_and_nothing_is_lost(
    gateway: GatewayWorld,
) -> None:
    b = gateway.towns["b"]
    psk = new_private_key()
    async with gateway.steward() as steward, b.stream() as stream:
        await steward.put_next_key(b.link, EAST, who="anna", psk=gateway.sealed(b, psk))
        await gateway.until_passed(2)
        (peer,) = (await b.device.tunnels.get()).peers.values()
        wanted = Wanted(link=b.link, public_key=peer.public_key, preshared_key=psk)
        await b.device.tunnels.apply([Put(wanted=wanted, psk=True)])
        b.psk = psk
        async with asyncio.timeout(300):
            while not await _turned(steward, b):
                assert await stream.echo(4.0)
                await pause()
        assert await stream.echo(4.0)


async def _knows(gateway: GatewayWorld, public: bytes) -> bool:
    return public in (await gateway.peers()).peers


async def _turned(steward: Any, town: Town) -> bool:
    peer = (await steward.show(town.link)).peers[EAST]
    return bool(peer.public_key == town.public and peer.next_public_key is None and peer.next_psk is None)


@pytest.mark.full
async def test_the_gateways_own_key_is_changed_make_before_break(gateway: GatewayWorld) -> None:
    a, b = gateway.towns["a"], gateway.towns["b"]
    gateway.kill(signal.SIGTERM)
    gateway.configure(tunnels=("g", "n"))
    gateway.tool("keys")
    gateway.start()
    try:
        async with a.stream() as stream:
            await until(lambda: _everywhere(gateway))
            assert await stream.echo()
            await b.know(gateway.public(gateway.next_interface), port=51821)
            await b.until_answered(10)
            assert await stream.echo(), "who has not turned yet is served as before"
        await a.know(gateway.public(gateway.next_interface), port=51821)
        await a.until_answered(10)
        gateway.kill(signal.SIGTERM)
        gateway.configure(tunnels=("n",))
        gateway.start()
        await until(lambda: _gone(gateway))
        await asyncio.gather(a.until_answered(10), b.until_answered(10))
    finally:
        gateway.kill(signal.SIGTERM)
        gateway.configure()
        gateway.start()
        await until(lambda: has(gateway, "a", "b"))
        for town in (a, b):
            await town.know(gateway.public())
        await asyncio.gather(a.until_answered(10), b.until_answered(10))


async def _everywhere(gateway: GatewayWorld) -> bool:
    with contextlib.suppress(Problem):
        return len((await gateway.peers(gateway.next_interface)).peers) == 2
    return False


async def _gone(gateway: GatewayWorld) -> bool:
    return gateway.interface not in gateway.spaces.run("gw", "ip", "-brief", "link")


@pytest.mark.full
async def test_a_device_of_one_tunnel_is_served_by_the_holder_alone(gateway: GatewayWorld) -> None:
    c = gateway.towns["c"]
    gateway.kill(signal.SIGTERM)
    gateway.configure(service=True)
    gateway.tool("keys")
    await gateway.enrol(c, mode="service")
    gateway.start()
    await c.up()
    await c.know(gateway.public(gateway.service_interface), port=51822)
    await c.until_answered(10)
    assert await gateway.towns["a"].answered()
    async with gateway.steward() as steward:
        await steward.drain(EAST, on=True, who="anna")
        try:
            await until(lambda: _served(gateway, 0))
            assert await gateway.figure("chukan_links_service_held") == 0
        finally:
            await steward.drain(EAST, on=False, who="anna")
        # Its place is known: the gateway calls the device, which need not notice that anything happened.
        await until(lambda: _served(gateway, 1))
        await c.until_answered(5)


async def _served(gateway: GatewayWorld, count: int) -> bool:
    with contextlib.suppress(Problem):
        return len((await gateway.peers(gateway.service_interface)).peers) == count
    return False


@pytest.mark.requirement("TEN-03")
async def test_revocation_cuts_a_live_connection_at_once_and_for_ever(gateway: GatewayWorld) -> None:
    a, b = gateway.towns["a"], gateway.towns["b"]
    async with gateway.steward() as steward, a.stream() as stream, b.stream() as other:
        assert await stream.echo()
        assert await other.echo()
        await steward.revoke(a.link, who="anna", reason="a test")
        began = time.monotonic()
        while await stream.echo(0.3):
            assert time.monotonic() - began < CUT_S, "a revoked link's connection went on"
        assert await other.echo()
        assert not await a.answered()
        await until(lambda: has(gateway, "b"))
