"""The network as a process that is killed without warning: what it acknowledged is there afterwards, once."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest

from chukan.clock import ManualClock, SystemClock
from chukan.errors import Problem
from chukan.ops.sandbox.admin import NetworkRecords
from chukan.ops.sandbox.config import NetworkConfig, read
from chukan.ops.sandbox.endpoints import pause
from chukan.platform.wire.network import AcquisitionRequest, PermitReply

from .conftest import ASKS, PERSON, STRANGER, Exchange, Pair, World

PROVIDER = "1419900000002200"
ACCOUNT = {
    "provider": PROVIDER,
    "affair": "JM01000000121000",
    "procedure": "JT01010000000001",
    "kind": "TM00000000000089",
    "items": ["TKX0890000000001"],
}


def _toml(config: NetworkConfig) -> str:
    """Write a configuration as the demo would."""
    tables = [
        f'state_directory = "{config.state_directory}"',
        f"port = {config.port}",
        f"admin_port = {config.admin_port}",
        f'signing_key_file = "{config.signing_key_file}"',
        "[tls]",
        f'certificate_file = "{config.tls.certificate_file}"',
        f'key_file = "{config.tls.key_file}"',
        f'ca_file = "{config.tls.ca_file}"',
    ]
    for name, peer in config.peers.items():
        tables += [f"[peers.{name}]", f'verify_key_file = "{peer.verify_key_file}"']
        tables += [] if peer.route is None else [f'route = "{peer.route}"']
    for name, route in config.routes.items():
        tables += [f"[routes.{name}]", f"endpoints = {msgspec.json.encode(route.endpoints).decode()}"]
    for code, route_name in ((ASKS, "platform"), (PROVIDER, "nation")):
        tables += [f"[agencies.{code}]", 'name = "機関"', f'route = "{route_name}"']
    return "\n".join(tables) + "\n"


class Process:
    """``chukan sandbox network`` on a configuration file."""

    def __init__(self, world: World, path: Path) -> None:
        self._world = world
        self._path = path
        path.write_text(_toml(world.config), encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chukan.ops.cli", "sandbox", "network", "--config", str(self._path),
            env={**os.environ, "CHUKAN_LOG_LEVEL": "error"},
        )  # fmt: skip
        async with asyncio.timeout(30):
            while not await self._serves():
                await pause(0.05, asyncio.Event())

    async def _serves(self) -> bool:
        try:
            await self.get("/admin/state")
        except aiohttp.ClientError:
            return False
        return True

    async def get(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self._world.config.admin_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200
            return await response.read()

    async def records(self) -> NetworkRecords:
        return msgspec.json.decode(await self.get("/admin/records"), type=NetworkRecords)

    async def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(20):
            return await self._process.wait()


@pytest.fixture
async def process(tmp_path: Path):
    world = World(tmp_path, ManualClock(SystemClock().now()))
    # The process has the machine's clock; what these exchanges sign must not be stale for it.
    world.clock = SystemClock()  # type: ignore[assignment]
    made = Process(world, tmp_path / "network.toml")
    await made.start()
    yield world, made
    for exchange in world.exchanges.values():
        await exchange.close()
    if world.registry is not None:
        await world.registry.close()
    await made.end(signal.SIGKILL)


async def _ready(world: World) -> Pair:
    east, nation = await world.exchange("east"), await world.exchange("nation")
    asks, gives = await world.acquire(ASKS, PERSON, east), await world.acquire(PROVIDER, PERSON, nation)
    await world.announce(ASKS, east)
    return Pair(world, east, nation, asks.code or b"", gives.code or b"")


async def _ask_until_it_is_gone(
    pair: Pair, bodies: list[bytes], said: list[tuple[bytes, PermitReply]], some: asyncio.Event
) -> None:
    for body in bodies:
        try:
            (reply,) = await pair.east.peer.permit_requests([body])
        except Problem:
            return
        said.append((body, reply))
        if len(said) >= 10:
            some.set()


@pytest.mark.requirement("TXR-03", "TST-03")
async def test_a_killed_network_has_lost_nothing_that_it_said_and_says_it_again(process) -> None:
    world, network = process
    pair = await _ready(world)
    bodies = [msgspec.json.encode(world.request(pair.asks_code, **ACCOUNT)) for _ in range(300)]
    said: list[tuple[bytes, PermitReply]] = []
    some = asyncio.Event()
    asking = asyncio.create_task(_ask_until_it_is_gone(pair, bodies, said, some))
    async with asyncio.timeout(30):
        await some.wait()
    await network.end(signal.SIGKILL)
    await asking
    await network.start()

    assert 10 <= len(said) < 300
    for body, reply in said:
        (again,) = await pair.east.peer.permit_requests([body])
        assert again == reply
    rest = [body for body in bodies if body not in {known for known, _ in said}]
    for start in range(0, len(rest), 100):
        said += zip(rest[start:], await pair.east.peer.permit_requests(rest[start : start + 100]), strict=False)
    records = (await network.records()).records

    # Every request was decided once, also the one whose reply the kill took away.
    assert len(records) == 300
    assert {str(record.reference) for record in records} == {reply.reference for _, reply in said}
    await pair.nation.inbox.until(lambda: len(_permits(pair.nation)) == 300, 30)
    assert _permits(pair.nation) == {record.reference for record in records}


def _permits(exchange: Exchange) -> set[object]:
    return {exchange.verifier.verify_provider(one.permit).permit for one in exchange.inbox.notices_}


@pytest.mark.requirement("SYM-02", "SYM-05", "TXR-03")
async def test_codes_and_open_numbers_outlive_a_kill(process) -> None:
    world, network = process
    pair = await _ready(world)
    request = msgspec.json.encode(AcquisitionRequest(id=world.chance.uuid7(), agency=ASKS))
    (before,) = await pair.east.peer.acquisitions([request])
    await network.end(signal.SIGKILL)
    await network.start()
    (after,) = await pair.east.peer.acquisitions([request])
    repeated = await world.acquire(ASKS, PERSON, pair.east)
    (reply,) = await pair.east.peer.permit_requests([msgspec.json.encode(world.request(pair.asks_code, **ACCOUNT))])
    stranger = await world.acquire(ASKS, STRANGER, pair.east)

    assert after.number == before.number
    assert repeated.status == "already_acquired"
    assert reply.outcome == "permitted"
    assert stranger.code != pair.asks_code


async def test_it_ends_by_itself_when_told(process) -> None:
    _, network = process

    assert await network.end(signal.SIGTERM) == 0
    await network.start()


def test_a_configuration_is_read_with_paths_relative_to_it_and_misspelt_keys_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path, ManualClock(SystemClock().now()))
    path = tmp_path / "network.toml"
    text = _toml(world.config).replace(f'"{world.config.state_directory}"', '"here"')
    path.write_text(text, encoding="utf-8")
    config = read(path, NetworkConfig)
    path.write_text(text.replace("port = ", "prot = ", 1), encoding="utf-8")

    assert config.state_directory == tmp_path / "here"
    assert config.peers == world.config.peers
    with pytest.raises(Problem, match="setting_invalid") as raised:
        read(path, NetworkConfig)
    assert raised.value.pointer == "/prot"
