"""The link between the centres of a real lab, with its delay: what two programs that talk through it see."""

import asyncio
import hashlib
import os
import shutil
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from chukan.clock import SystemClock, today_jst
from chukan.ops.centres.place import LabPlace
from chukan.ops.centres.running import CentresRunning
from chukan.ops.centres.wires import CENTRES
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.local.machine import state_folder
from chukan.ops.namespaces import enter
from chukan.platform.law import Law

DELAY_MS = 5.0
LONG_MS = 300.0
PORT = 9100
TRY_S = 1.0
DEADLINE_S = 30.0
LOAD_BYTES = 24 * 1024 * 1024
BLOCK = 256 * 1024
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def lab() -> AsyncIterator[CentresRunning]:
    """The sites, the link and the hand that breaks it; nobody lives there."""
    place = LabPlace(state_folder() / f"test-link-{os.getpid()}")
    population = Population(400, 11, today_jst(SystemClock()))
    running = CentresRunning(place, Screen(for_program=True), population, Law.load(), "2+1", delay_ms=DELAY_MS)
    try:
        await running.lay()
        for site in CENTRES:
            (running.site.directory(site) / "log").mkdir(parents=True)
        await running.lengthen(DELAY_MS)
        yield running
    finally:
        await running.stop()
        shutil.rmtree(place.lab, ignore_errors=True)


def at(lab: CentresRunning, site: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Return a socket that was made at a site, and stays there."""
    made: list[socket.socket] = []

    def there() -> None:
        enter(lab.wires.name(site))
        made.append(make())

    thread = threading.Thread(target=there)
    thread.start()
    thread.join(DEADLINE_S)
    made[0].settimeout(0)
    return made[0]


async def talk(lab: CentresRunning) -> tuple[Ends, Ends]:
    """Return both ends of a connection from the east to the west."""
    address = (lab.wires.address("west", 1), PORT)
    listening = at(lab, "west", lambda: socket.create_server(address))
    calling = asyncio.create_task(
        asyncio.to_thread(at, lab, "east", lambda: socket.create_connection(address, timeout=DEADLINE_S))
    )
    answered, _ = await asyncio.get_running_loop().sock_accept(listening)
    listening.close()
    return (
        await asyncio.open_connection(sock=await calling),
        await asyncio.open_connection(sock=answered),
    )


async def answers(lab: CentresRunning, a: str, b: str) -> bool:
    try:
        await asyncio.to_thread(lab.wires.round_trip_s, a, b, TRY_S)
    except TimeoutError:
        return False
    return True


async def comes_back(lab: CentresRunning) -> None:
    """Wait until the link carries again: a device that comes up tells its other end within a second or so."""
    async with asyncio.timeout(DEADLINE_S):
        while not await answers(lab, "east", "west"):
            continue


async def test_a_round_trip_takes_at_least_both_ways(lab: CentresRunning) -> None:
    assert await asyncio.to_thread(lab.wires.round_trip_s, "west", "east", TRY_S) >= 2 * DELAY_MS / 1000
    assert await lab.lengthen(40.0) >= 0.08
    assert await lab.lengthen(0.0) < 0.08
    # Nobody made the way to the witness longer.
    assert await answers(lab, "east", "witness")


async def test_bytes_come_whole_and_in_order_both_ways_at_once(lab: CentresRunning) -> None:
    east, west = await talk(lab)

    async def pour(writer: asyncio.StreamWriter) -> str:
        sent = hashlib.sha256()
        for _ in range(LOAD_BYTES // BLOCK):
            block = os.urandom(BLOCK)
            sent.update(block)
            writer.write(block)
            await writer.drain()
        writer.write_eof()
        return sent.hexdigest()

    async def drink(reader: asyncio.StreamReader) -> str:
        got = hashlib.sha256()
        while block := await reader.read(BLOCK):
            got.update(block)
        return got.hexdigest()

    async with asyncio.timeout(DEADLINE_S):
        there, back, arrived, returned = await asyncio.gather(
            pour(east[1]), pour(west[1]), drink(west[0]), drink(east[0])
        )
    assert (arrived, returned) == (there, back)
    for _, writer in (east, west):
        writer.close()


async def test_one_half_may_be_closed_while_the_other_goes_on(lab: CentresRunning) -> None:
    east, west = await talk(lab)
    async with asyncio.timeout(DEADLINE_S):
        east[1].write(b"asked")
        east[1].write_eof()
        assert await west[0].read() == b"asked"
        west[1].write(b"answered")
        west[1].close()
        assert await east[0].read() == b"answered"
    east[1].close()


async def test_a_reset_is_carried(lab: CentresRunning) -> None:
    east, west = await talk(lab)
    east[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    east[1].close()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ConnectionResetError):
            await west[0].read()
    west[1].close()


@pytest.mark.parametrize("site", CENTRES)
async def test_a_killed_direction_is_a_dead_link_until_it_is_healed(lab: CentresRunning, site: str) -> None:
    east, west = await talk(lab)
    await lab.stage.kill(f"delay-{site}")
    assert not await answers(lab, "east", "west")
    assert not await answers(lab, "west", "east")
    assert await answers(lab, "west", "witness")
    east[1].write(b"said while it was dead")
    assert await lab.stage.heal() == []
    async with asyncio.timeout(DEADLINE_S):
        assert await west[0].read(BLOCK) == b"said while it was dead"
    for _, writer in (east, west):
        writer.close()


async def test_a_cut_silences_it_and_leaves_the_witness(lab: CentresRunning) -> None:
    await lab.stage.cut("east", "west")
    assert not await answers(lab, "east", "west")
    assert await answers(lab, "east", "witness")
    assert await answers(lab, "west", "witness")
    await lab.stage.mend("east", "west")
    await comes_back(lab)


async def test_an_isolated_centre_is_cut_off_from_the_cable_too(lab: CentresRunning) -> None:
    await lab.stage.isolate("east")
    assert not await answers(lab, "west", "east")
    assert not await answers(lab, "witness", "east")
    # Mending something else does not let it back.
    lab.wires.mend()
    assert not await answers(lab, "west", "east")
    await lab.stage.rejoin("east")
    await comes_back(lab)


async def test_what_was_on_its_way_dies_with_the_centre_that_sent_it(lab: CentresRunning) -> None:
    east, west = await talk(lab)
    await lab.lengthen(LONG_MS)
    east[1].write(b"acknowledged by nobody")
    await lab.stage.lose_centre("east")
    assert "delay-east" not in lab.stage.pids()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3 * LONG_MS / 1000):
            await west[0].read(BLOCK)
    await lab.stage.return_centre("east")
    assert "delay-east" in lab.stage.pids()
    for _, writer in (east, west):
        writer.close()
