"""A device of one tunnel before two centres: whoever is killed, frozen, cut off or drained, one centre serves it.

Two controllers, their wireguard-go, their packet filters and one database are real; the device runs nothing of ours.
"""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chukan.tenants.bodies import bodies
from chukan.tests.support.gateway_pair import LEASE_S, SERVICE_PORT, Centre, GatewayPair, Watch
from chukan.tests.support.gateway_world import until
from chukan.tests.support.link_spaces import spaces

SLACK_S = 6.0
"""For asking, reading and calling, on a machine that has other work."""
BODIES = (each.code for each in bodies())


@pytest.fixture(scope="module")
def laid(embedded_server: Any, make_cell: Callable[..., Any]) -> Iterator[GatewayPair]:
    folder = Path(tempfile.mkdtemp(prefix="ckl-"))
    with spaces() as made:
        pair = GatewayPair(made, folder, make_cell(embedded_server, []), BODIES)
        try:
            asyncio.run(pair.begin())
            yield pair
        finally:
            asyncio.run(pair.end())
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def pair(laid: GatewayPair) -> AsyncIterator[GatewayPair]:
    """The pair at rest: both controllers run, both exchanges answer, the device is served."""
    for centre in laid.centres.values():
        if centre.process is None:
            centre.start()
    async with laid.centres["east"].exchange(), laid.centres["west"].exchange():
        await laid.until_served(30.0)
        yield laid


async def held_for(seconds: float, watch: Watch, name: str) -> None:
    """See one centre serve for a while, and no other; a busy machine may miss an answer now and then."""
    begun = len(watch.answers) + 1
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    answers = [found for _, found in watch.answers[begun:]]
    assert set(answers) - {""} == {name}
    assert answers.count(name) > 0.8 * len(answers)


def never_both(watch: Watch) -> None:
    """Show that at no look two kernels had the port open."""
    assert watch.opened
    assert all(len(found) <= 1 for _, found in watch.opened), "two gateways could pass traffic of the same links"


@pytest.mark.requirement("TEN-03")
async def test_a_frozen_holder_is_shut_by_its_kernel_before_the_other_takes_the_devices(pair: GatewayPair) -> None:
    east, west = await pair.lead("east")
    before = pair.routes()
    try:
        async with Watch(pair).running() as watch:
            east.signal(signal.SIGSTOP)
            began = time.monotonic()
            await pair.until_served(LEASE_S + SLACK_S, "west")
            took_s = time.monotonic() - began
            assert await east.peers() == 1, "a frozen process takes no peer away"
            # Even a device that goes there by itself is not served, though its peer is in place.
            pair.call(pair.twin, east)
            for _ in range(3):
                assert await pair.served_by(pair.twin) == ""
            assert not await east.is_open()
    finally:
        east.signal(signal.SIGCONT)
    assert took_s > 1.0, "the other waits for the lease's end"
    assert watch.servers() == ["east", "west"], "the device was pulled to and fro"
    never_both(watch)
    async with Watch(pair).running() as after:
        await until(lambda: has_peers(east, 0), 5.0)
        await held_for(2.0, after, "west")
    assert set(after.servers()) == {"west"}
    never_both(after)
    assert pair.endpoint() == f"{west.outer}:{SERVICE_PORT}"
    assert pair.routes() == before
    # The twin is a good device: where the port is open it is served.
    pair.call(pair.twin, west)
    await until(lambda: serves(pair, west))
    pair.silence(pair.twin)
    pair.silence(pair.device)
    pair.call(pair.device, west)


async def serves(pair: GatewayPair, centre: Centre) -> bool:
    return await pair.served_by(pair.twin) == centre.name


async def has_peers(centre: Centre, count: int) -> bool:
    return await centre.peers() == count


async def test_a_drained_holder_hands_over_at_once_and_takes_nothing_back(pair: GatewayPair) -> None:
    west, east = await pair.lead("west")
    async with Watch(pair).running() as watch:
        began = time.monotonic()
        await pair.drain("west", on=True)
        await pair.until_served(SLACK_S, "east")
        assert time.monotonic() - began < LEASE_S, "handed over, not waited for"
        await pair.drain("west", on=False)
        await held_for(4.0, watch, "east")
    assert watch.servers() == ["west", "east"]
    never_both(watch)
    assert (await east.peers(), await west.peers()) == (1, 0)


@pytest.mark.full
async def test_a_gateway_that_is_lost_whole_is_taken_over_and_its_return_changes_nothing(pair: GatewayPair) -> None:
    east, west = await pair.lead("east")
    before = pair.routes()
    async with Watch(pair).running() as watch:
        await east.kill_whole()
        began = time.monotonic()
        await pair.until_served(LEASE_S + SLACK_S, "west")
        assert time.monotonic() - began < LEASE_S + SLACK_S
        assert pair.endpoint() == f"{west.outer}:{SERVICE_PORT}", "the gateway calls the device, not the device it"
        east.start()
        await held_for(LEASE_S, watch, "west")
    assert watch.servers() == ["east", "west"]
    assert watch.outage_s() < LEASE_S + SLACK_S
    never_both(watch)
    assert await east.peers() == 0
    assert pair.routes() == before


@pytest.mark.full
async def test_a_holder_that_is_cut_off_drops_its_peers_before_the_other_has_them(pair: GatewayPair) -> None:
    east, west = await pair.lead("east")
    async with Watch(pair).running() as watch:
        await east.shut_door()
        try:
            await pair.until_served(LEASE_S + SLACK_S, "west")
            assert await east.peers() == 0
        finally:
            east.open_door()
        await held_for(LEASE_S, watch, "west")
    assert watch.servers() == ["east", "west"]
    assert all(min(found.values()) == 0 for _, found in watch.peers), "both had the peers"
    never_both(watch)
    assert (await east.peers(), await west.peers()) == (0, 1)
