"""One real gateway with 2,500 synthetic bodies: all configured, all back after a restart, changes, rotation.

Asserted are counts and correctness; times are printed (``-s``), the benchmark ``chukan bench links`` measures them.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.bench.country import LINKS, Member, country
from chukan.ops.bench.links_stand import CENTRE, FIRST, SERVICE, LinksStand
from chukan.ops.bench.swarm import Device
from chukan.ops.local.machine import state_folder
from chukan.tenants.link_plan import prefixes

pytestmark = pytest.mark.full

SESSIONS_S = 120.0
PASS_S = 90.0
CHURN = LINKS // 100
REKEY_S = 119.0
DONE = "chukan_links_passes_total/done"
REASON = "test at full scale"
CLOCK = SystemClock()


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[LinksStand]:
    databases = state_folder() / f"links-test-{os.getpid()}"
    databases.mkdir(parents=True)
    folder = Path(tempfile.mkdtemp(prefix="ckl-"))
    try:
        async with LinksStand(folder, databases, LINKS) as made:
            yield made
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(databases, ignore_errors=True)


class Timer:
    """Says how long a part took."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.begin()

    def begin(self) -> None:
        self._begun = CLOCK.monotonic()

    def say(self, what: str) -> None:
        with self._capsys.disabled():
            sys.stdout.write(f"\n  {what}: {CLOCK.monotonic() - self._begun:.2f} s")
        self.begin()


async def require_peers(stand: LinksStand, members: Iterable[Member]) -> None:
    """Require that the interface has exactly these peers, each with its own key and prefixes."""
    found = (await stand.tunnels.get()).peers
    wanted = {member.public: (member.psk, frozenset(prefixes(member.link))) for member in members}
    assert {key: (peer.preshared_key, peer.allowed) for key, peer in found.items()} == wanted


async def require_passage(stand: LinksStand, devices: list[Device]) -> None:
    """Require that each device hears the service address through its tunnel: peer, route and packet filter agree."""
    for device in devices:
        device.echoed = 0
    await stand.swarm.until_echoed(devices, SERVICE, SESSIONS_S)


@pytest.mark.requirement("TEN-03")
async def test_a_whole_country_at_one_gateway(stand: LinksStand, capsys: pytest.CaptureFixture[str]) -> None:
    timer = Timer(capsys)
    stand.start()
    await stand.until(lambda told: told.get(DONE, 0) >= 1, PASS_S)
    timer.say("controller started, full configuration")
    await require_peers(stand, stand.members)
    await _sessions(stand, timer)
    await _restart(stand, timer)
    await _churn(stand, timer)
    await _rotation(stand, timer)
    controller, tunnels = stand.resident_mib()
    with capsys.disabled():
        sys.stdout.write(f"\n  resident: controller {controller:.0f} MiB, wireguard-go {tunnels:.0f} MiB\n")


async def _sessions(stand: LinksStand, timer: Timer) -> None:
    """Every device opens a session, is let through, and is seen where it stands."""
    timer.begin()
    await stand.swarm.connect(stand.devices, per_s=1_000, within_s=SESSIONS_S)
    timer.say("sessions opened by the devices")
    await require_passage(stand, stand.devices)
    timer.say("an answer from the service for every device")
    told = await stand.until(lambda told: told["up"] == LINKS, PASS_S)
    assert sum(value for name, value in told.items() if name.startswith("chukan_links_drift_total")) == 0
    await stand.until_places(PASS_S)


async def _restart(stand: LinksStand, timer: Timer) -> None:
    """Controller and tunnels die; the gateway alone opens every session anew, for the devices begin nothing."""
    stand.end()
    for device in stand.devices:
        device.forget()
    before = stand.swarm.initiations
    timer.begin()
    stand.start()
    await stand.swarm.until_connected(stand.devices, SESSIONS_S)
    timer.say("all sessions back after a restart")
    assert stand.swarm.initiations - before >= LINKS
    await stand.until(lambda told: told.get(DONE, 0) >= 1, PASS_S)
    await require_peers(stand, stand.members)
    await require_passage(stand, stand.devices)


async def _churn(stand: LinksStand, timer: Timer) -> None:
    """One in a hundred is revoked, as many are new; the sessions of all others go on."""
    gone, staying = stand.members[:CHURN], stand.members[CHURN:]
    strangers = [member for member in country(LINKS + CHURN, SystemChance(CLOCK)) if member.number >= LINKS]
    others = stand.devices[CHURN:]
    before = (await stand.tunnels.get()).peers
    for member in gone:
        await stand.steward.revoke(member.link, who=FIRST, reason=REASON)
    for member in strangers:
        await stand.enrol(member)
    timer.begin()
    new = [stand.place(member) for member in strangers]
    await stand.swarm.connect(new, per_s=100, within_s=SESSIONS_S)
    timer.say(f"{CHURN} new devices connected after their approval")
    await require_peers(stand, [*staying, *strangers])
    await require_passage(stand, [*others, *new])
    after = (await stand.tunnels.get()).peers
    waits = [(after[one.public].handshake_at or 0.0) - (before[one.public].handshake_at or 0.0) for one in staying]
    # A session is made anew two minutes after its handshake, whatever happens; none was before its time.
    assert [wait for wait in waits if wait != 0.0 and wait < REKEY_S] == []
    for device in stand.devices[:CHURN]:
        device.forget()
        stand.swarm.initiate(device)
    await require_passage(stand, new)
    assert stand.swarm.connected(stand.devices[:CHURN]) == 0


async def _rotation(stand: LinksStand, timer: Timer) -> None:
    """One in a hundred changes its key and its pre-shared key; the old ones hold until the device has turned."""
    turning = stand.members[CHURN : 2 * CHURN]
    fresh = [
        msgspec.structs.replace(member, private=X25519PrivateKey.generate(), psk=SystemChance(CLOCK).token(32))
        for member in turning
    ]
    for member in fresh:
        sealed = stand.sealed(member, member.psk)
        await stand.steward.put_next_key(member.link, CENTRE, who=FIRST, public_key=member.public, psk=sealed)
    await require_passage(stand, stand.devices[CHURN : 2 * CHURN])
    timer.begin()
    turned = [stand.place(member) for member in fresh]
    await stand.swarm.connect(turned, per_s=100, within_s=SESSIONS_S)
    await require_passage(stand, turned)
    timer.say(f"{CHURN} devices connected with their next keys and let through")
    await stand.until_rotated({member.link for member in fresh}, PASS_S)
    found = (await stand.tunnels.get()).peers
    assert {member.public for member in turning} & found.keys() == set()
    assert {member.public: member.psk for member in fresh}.items() <= {
        k: p.preshared_key for k, p in found.items()
    }.items()
