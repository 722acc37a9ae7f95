"""An IPsec link from the database to the exchange, through ``chukan gateway run`` beside WireGuard's links.

The exchange stands on another host than the gateway, so charon's selectors are the whole service range here, and the
packet filter says what of it is reached.
"""

import asyncio
import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.tenants.bodies import bodies
from chukan.tenants.links import Requested, RequestedPeer
from chukan.tests.support.gateway_world import EAST, OUTER, GatewayWorld, Town, exchange, until
from chukan.tests.support.ipsec_world import session
from chukan.tests.support.link_spaces import spaces
from chukan.tests.support.link_world import OTHER_PORT
from chukan.vpn.ipsec.charon import Charon
from chukan.vpn.ipsec.model import Gateway
from chukan.vpn.ipsec.settings import Ipsec
from chukan.vpn.ipsec.sheet import swanctl_conf
from chukan.vpn.wireguard.keys import new_private_key

pytestmark = pytest.mark.requirement("TEN-03")

RANGE = "10.255.0.0/16"
BODIES = (each.code for each in reversed(bodies()))


class MixedWorld(GatewayWorld):
    """Town a has WireGuard, town c an appliance."""

    @property
    def settings(self) -> Ipsec:
        return Ipsec(directory=self.folder / "ipsec", address=OUTER, selectors=[RANGE])

    @property
    def appliance(self) -> Charon:
        settings = Ipsec(directory=self.folder / "appliance")
        return Charon(settings, Gateway(centre=EAST), netns=self.spaces.name("c"))

    def configure(self, **given: Any) -> None:
        super().configure(**given)
        table = f'\n[ipsec]\ndirectory = "{self.settings.directory}"\naddress = "{OUTER}"\nselectors = ["{RANGE}"]\n'
        self.config.write_text(self.config.read_text() + table)

    async def enrol_appliance(self, town: Town) -> None:
        async with self.steward() as steward:
            invitation = new_private_key()
            expires = SystemClock().now() + dt.timedelta(days=7)
            town.link = await steward.invite(town.body, "pair", "ipsec", invitation, expires, "anna")
            requested = Requested(
                invitation_key=invitation,
                device_key=new_private_key(),
                device_sealing_key=new_private_key(),
                digest=new_private_key(),
                peers={EAST: RequestedPeer(public_key=None, config={"auth": "psk"})},
            )
            await steward.request(town.link, requested, "anna")
            await steward.approve(town.link, {EAST: self.sealed(town, town.psk)}, second="berta")

    async def set_up(self, town: Town) -> None:
        """Do what the body's engineer does."""
        self.spaces.do("c", f"addr add {town.v4}/32 dev lo")
        await self.appliance.ensure()
        text = swanctl_conf(town.link, {EAST: OUTER}, {EAST: town.psk}, {EAST: [RANGE]})
        path = self.folder / "swanctl.conf"
        path.write_text(text.replace("_action = start", "_action = none"))
        self.swanctl("--load-all", "--file", str(path))

    def swanctl(self, *words: str) -> str:
        return self.spaces.run("c", "/usr/sbin/swanctl", *words, "--uri", f"unix://{self.appliance.socket}")

    async def connect(self) -> None:
        await asyncio.to_thread(self.swanctl, "--initiate", "--child", EAST, "--timeout", "5")

    async def end(self) -> None:
        await super().end()
        await self.appliance.stop()
        await Charon(self.settings, Gateway(centre=EAST)).stop()


@pytest.fixture(scope="module")
def world(embedded_server: Any, make_cell: Callable[..., Any]) -> Iterator[MixedWorld]:
    folder = Path(tempfile.mkdtemp(prefix="ckl-"))
    with spaces() as made:
        world = MixedWorld(made, folder, make_cell(embedded_server, []), BODIES)
        try:
            world.lay()
            made.do("gw", "addr add 10.255.254.1/32 dev lo")
            asyncio.run(_begin(world))
            yield world
        finally:
            asyncio.run(world.end())
            shutil.rmtree(folder, ignore_errors=True)


async def _begin(world: MixedWorld) -> None:
    await world.register()
    a, c = world.towns["a"], world.towns["c"]
    await world.enrol(a)
    await a.up()
    await a.know(world.public())
    a.device.close()
    await world.enrol_appliance(c)
    await world.set_up(c)
    world.start()
    async with exchange(world):
        await a.until_answered(30)
        await until(lambda: _loaded(world, c))
        await world.connect()


async def _loaded(world: MixedWorld, town: Town) -> bool:
    return any(name.startswith(f"{town.link}.") for name in _connections(world))


def _connections(world: MixedWorld) -> list[str]:
    return [name for each in session(world.settings.directory / "charon.vici").list_conns() for name in each]


async def test_an_ipsec_link_goes_from_the_database_to_the_exchange_and_back(world: MixedWorld) -> None:
    a, c = world.towns["a"], world.towns["c"]
    async with exchange(world), world.steward() as steward:
        await c.until_answered()
        assert not await c.answered(OTHER_PORT), "the packet filter stands behind it"
        await until(lambda: _is(world, 1, "chukan_link_up", c.link))
        async with a.stream() as other, c.stream() as stream:
            assert await other.echo()
            assert await stream.echo()

            # What a hand does is undone, told, and touches nobody.
            hand = session(world.settings.directory / "charon.vici")
            (name,) = _connections(world)
            hand.unload_conn({"name": name})
            hand.load_conn({"by-hand": {"version": "2", "remote": {"id": "x"}, "children": {"x": {}}}})
            await until(lambda: _same(_connections(world), [name]), 5)
            assert await stream.echo()
            await until(lambda: _audited(steward, {"missing", "rogue"}), 5)

            # A suspension cuts it as it cuts any other; the neighbour goes on.
            began = time.monotonic()
            await steward.suspend(c.link, who="anna", reason="drill")
            await until(lambda: _same(_connections(world), []), 5)
            assert time.monotonic() - began < 2
            assert not await stream.echo(1.0)
            assert await other.echo()
        await steward.resume(c.link, second="berta", reason="drill")
        await until(lambda: _loaded(world, c))
        await world.connect()
        await c.until_answered()
        checked = await asyncio.to_thread(world.tool, "check", "--json")
        assert checked.returncode == 0, checked.stdout


async def _is(world: MixedWorld, value: float, *names: str) -> bool:
    return await world.figure(*names) == value


async def _same(found: list[str], wanted: list[str]) -> bool:
    return found == wanted


async def _audited(steward: Any, kinds: set[str]) -> bool:
    rows = [row for row in await steward.history(limit=200) if row.act == "drift"]
    return kinds <= {row.after["kind"] for row in rows if row.after["repaired"]}
