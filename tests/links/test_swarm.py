"""The synthetic devices against wireguard-go itself: both roles, traffic, cookies, and what either side refuses."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.ops.bench.ground import GATEWAY, Ground, command
from chukan.ops.bench.swarm import Device, Swarm, checksum, echo_request

PORT = 51820
INNER = "10.64.0.{}"
SERVICE = "10.255.0.1"
TIMEOUT_S = 20


@dataclass
class Gateway:
    """A wireguard-go in the gateway's namespace, set by the UAPI's own words."""

    ground: Ground
    interface: str
    private: X25519PrivateKey

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    async def say(self, words: str) -> str:
        """Send one command of https://www.wireguard.com/xplatform/ and return the answer."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(f"/var/run/wireguard/{self.interface}.sock")
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    await asyncio.to_thread(os.sched_yield)
            writer.write(words.encode() + b"\n\n")
            said = await reader.readuntil(b"\n\n")
            writer.close()
        assert b"errno=0\n" in said
        return said.decode()

    async def know(self, device: Device, psk: bytes, more: str = "") -> None:
        key = f"public_key={device.party.public.hex()}\npreshared_key={psk.hex()}"
        await self.say(f"set=1\n{key}\nallowed_ip={device.inner}/32{more}")


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


@pytest.fixture
async def gateway(ground: Ground, tmp_path: Path) -> AsyncIterator[Gateway]:
    name = f"ckn{os.getpid()}"
    with (tmp_path / "wireguard-go.log").open("wb") as log:
        program = command(ground.gateway, ["wireguard-go", "-f", name])
        process = await asyncio.create_subprocess_exec(*program, stdout=log, stderr=log)
    made = Gateway(ground, name, X25519PrivateKey.generate())
    try:
        await made.say(f"set=1\nprivate_key={made.private.private_bytes_raw().hex()}\nlisten_port={PORT}")
        up = [f"addr add {SERVICE}/32 dev lo", f"link set {name} up", f"route add 10.64.0.0/10 dev {name}"]
        ground.set(up)
        yield made
    finally:
        process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            await process.wait()


@pytest.fixture
async def swarm(ground: Ground) -> AsyncIterator[Swarm]:
    async with Swarm(ground.listener(PORT), (GATEWAY, PORT)) as made:
        yield made


def psk(number: int) -> bytes:
    return bytes([number + 1]) * 32


def place(swarm: Swarm, gateway: Gateway, count: int) -> list[Device]:
    return [
        swarm.add(
            Ground.address(number), INNER.format(number + 1), X25519PrivateKey.generate(), gateway.public, psk(number)
        )
        for number in range(count)
    ]


async def test_three_devices_open_sessions_and_are_answered_through_them(swarm: Swarm, gateway: Gateway) -> None:
    devices = place(swarm, gateway, 3)
    for device in devices:
        await gateway.know(device, psk(device.number))
    took = await swarm.connect(devices, per_s=100, within_s=TIMEOUT_S)
    assert len(took) == 3
    await swarm.until_echoed(devices, SERVICE, TIMEOUT_S)
    said = await gateway.say("get=1")
    for device in devices:
        assert f"endpoint={device.address}:{PORT}\n" in said
    assert said.count("last_handshake_time_sec=0\n") == 0
    assert swarm.refused == 0


async def test_a_gateway_that_knows_the_endpoints_opens_the_sessions_itself(swarm: Swarm, gateway: Gateway) -> None:
    devices = place(swarm, gateway, 3)
    for device in devices:
        more = f"\nendpoint={device.address}:{PORT}\npersistent_keepalive_interval=25"
        await gateway.know(device, psk(device.number), more)
    await swarm.until_connected(devices, TIMEOUT_S)
    assert swarm.initiations >= 3
    await swarm.until_echoed(devices, SERVICE, TIMEOUT_S)


async def test_a_wrong_preshared_key_opens_nothing(swarm: Swarm, gateway: Gateway) -> None:
    wrong, right = place(swarm, gateway, 2)
    await gateway.know(wrong, psk(7))
    await gateway.know(right, psk(right.number))
    swarm.initiate(wrong)
    await swarm.connect([right], per_s=100, within_s=TIMEOUT_S)
    # The gateway answers before it knows; the answer is refused here, and no session stands there.
    assert swarm.connected([wrong]) == 0
    assert swarm.refused == 1
    said = await gateway.say("get=1")
    assert said.count("last_handshake_time_sec=0\n") == 1


async def test_a_replayed_initiation_is_not_answered(swarm: Swarm, gateway: Gateway) -> None:
    replayed, other = place(swarm, gateway, 2)
    for device in (replayed, other):
        await gateway.know(device, psk(device.number))
    sent: list[bytes] = []
    honest = swarm._send
    swarm._send = lambda device, message: (sent.append(message), honest(device, message))[1]  # type: ignore[method-assign]
    await swarm.connect([replayed], per_s=100, within_s=TIMEOUT_S)
    await swarm.until_echoed([replayed], SERVICE, TIMEOUT_S)
    initiation, *_, packet = sent
    swarm._send = honest  # type: ignore[method-assign]
    heard, echoed = swarm.refused, replayed.echoed
    honest(replayed, initiation)
    honest(replayed, packet)
    # What the gateway takes after both is answered, so both were taken before.
    await swarm.connect([other], per_s=100, within_s=TIMEOUT_S)
    await swarm.until_echoed([other], SERVICE, TIMEOUT_S)
    assert (swarm.refused, replayed.echoed) == (heard, echoed)
    replayed.forget()
    await swarm.until_echoed([replayed], SERVICE, TIMEOUT_S)


async def test_a_stranger_is_not_answered(swarm: Swarm, gateway: Gateway) -> None:
    stranger, known = place(swarm, gateway, 2)
    await gateway.know(known, psk(known.number))
    swarm.initiate(stranger)
    await swarm.connect([known], per_s=100, within_s=TIMEOUT_S)
    assert swarm.connected([stranger]) == 0
    assert swarm.refused == 0


@pytest.mark.full
async def test_a_flood_is_asked_for_cookies_and_comes_through_with_them(swarm: Swarm, gateway: Gateway) -> None:
    devices = place(swarm, gateway, 250)
    for device in devices:
        await gateway.know(device, psk(device.number))
    # One initiation each is computed before the first is sent, so that they arrive together.
    ready = [device.initiation(1_000_000_000 * (device.number + 1), 0.0) for device in devices for _ in range(8)]
    for number, message in enumerate(ready):
        swarm._send(devices[number // 8], message)
    await swarm.connect(devices, per_s=100_000, within_s=60)
    assert swarm.cookies > 0


def test_the_checksum_is_the_rfcs() -> None:
    # RFC 1071, section 3: the sum of these bytes is ddf2.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(echo_request("10.64.0.1", SERVICE, 1)[:20]) == 0
