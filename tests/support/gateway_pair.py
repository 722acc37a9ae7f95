"""Two centres' gateways as real processes with one database between them, and a device of one tunnel before both.

Each centre has a namespace for its gateway (``chukan gateway run``, its own wireguard-go) and one for its exchange's
host, which says by HTTP whose it is, at the address that both centres have. The device has one peer and one route, set
by the stock tools, and nothing of ours runs beside it. Its twin has the same keys in another place: who would serve
both of two centres' devices at a time is found by it.
"""

import asyncio
import contextlib
import datetime as dt
import itertools
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.namespaces import sockets_in
from chukan.replication.plain_toml import Value, to_toml
from chukan.replication.primary import Cells
from chukan.tenants.links import GatewayPart, LinkSteward, Requested, RequestedPeer
from chukan.tests.support.gateway_world import CELL, Town, pause
from chukan.tests.support.link_spaces import Spaces
from chukan.tests.support.link_world import AGENCY_PORT, HEALTH_PORT, SHARED
from chukan.vpn.gateway import key_files
from chukan.vpn.gateway.config import load
from chukan.vpn.psk_sealing import seal_psk
from chukan.vpn.wireguard.keys import from_base64, new_private_key, public_key_of, to_base64
from chukan.vpn.wireguard.uapi import Uapi
from chukan.vpn.wireguard.userspace import SOCKETS, Userspace

LEASE_S: Final = 10.0
"""The shortest that a configuration may have."""
PORT, SERVICE_PORT = 51820, 51822
GATEWAY, EXCHANGE = "198.51.100.1", "198.51.100.2"
CENTRES: Final = {"east": ("192.0.2.1", "10.255.0.1"), "west": ("192.0.2.2", "10.255.0.2")}
"""Where each gateway is outside, and its centre's own service address."""
ASK_S: Final = 0.7
LETTERS: Final = {"east": "gs", "west": "ht"}


class Centre:
    """One centre: namespaces ``<name>-gw`` and ``<name>-ex``, and the controller's process."""

    def __init__(self, pair: "GatewayPair", name: str) -> None:
        self.pair = pair
        self.name = name
        self.outer, self.address = CENTRES[name]
        self.folder = pair.folder / name
        self.interface, self.service = (pair.spaces.interface(letter) for letter in LETTERS[name])
        self.door = self.folder / "door"
        self.config = self.folder / "gateway.toml"
        self.process: subprocess.Popen[bytes] | None = None

    def lay(self) -> None:
        """Make namespaces, cables, addresses, keys and configuration."""
        made, gateway, host = self.pair.spaces, f"{self.name}-gw", f"{self.name}-ex"
        made.make(gateway, host)
        made.wire("wan", f"to-{self.name}", gateway, "outer")
        made.do("wan", f"link set to-{self.name} master wan")
        made.wire(gateway, "inner", host, "uplink")
        made.do(gateway, f"addr add {self.outer}/24 dev outer", f"addr add {GATEWAY}/24 dev inner")
        made.do(
            host,
            f"addr add {EXCHANGE}/24 dev uplink",
            *(f"addr add {address}/32 dev lo" for address in (self.address, SHARED)),
            f"route add 10.64.0.0/10 via {GATEWAY}",
        )
        self.folder.mkdir()
        self.open_door()
        self.config.write_text(to_toml(self._settings()), encoding="utf-8")
        self.keys = key_files.make(load(self.config, {}))

    def _settings(self) -> list[tuple[str, Mapping[str, Value]]]:
        cell = self.pair.cell
        return [
            (
                "",
                {
                    "centre": self.name,
                    "links_cell": CELL,
                    "state_directory": self.folder / "state",
                    "sealing_key_file": self.folder / "sealing.key",
                },
            ),
            ("[tunnels]", self._tunnel(self.interface, PORT)),
            (
                "service_tunnel",
                {
                    **self._tunnel(self.service, SERVICE_PORT),
                    "lease_s": LEASE_S,
                    "ready_url": f"http://{EXCHANGE}:{HEALTH_PORT}/readyz",
                },
            ),
            ("network", {"outer": "outer", "inner": "inner"}),
            (
                "services",
                {
                    "addresses": [self.address, SHARED],
                    "agency_port": AGENCY_PORT,
                    "health_port": HEALTH_PORT,
                    "next_hop": EXCHANGE,
                },
            ),
            ("timing", {"every_s": 1.0, "read_s": 2.0}),
            (
                f"cells.{CELL}",
                {
                    "host": str(self.door),
                    "port": cell.settings.port,
                    "database": cell.settings.database,
                    "links_password_file": Path(cell.settings.broker_password_file).parent / "chukan_links",
                },
            ),
        ]

    def _tunnel(self, interface: str, port: int) -> Mapping[str, Value]:
        return {"interface": interface, "listen_port": port, "private_key_file": self.folder / f"{interface}.key"}

    # ------------------------------------------------------------ the gateway

    def start(self) -> None:
        """Start the controller."""
        assert self.process is None
        words = [sys.executable, "-m", "chukan.ops.cli", "gateway", "run", "--config", str(self.config)]
        within = ["/usr/sbin/ip", "netns", "exec", self.pair.spaces.name(f"{self.name}-gw")]
        with (self.folder / "controller.log").open("ab") as log:
            self.process = subprocess.Popen([*within, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        """Send the controller alone a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def kill_whole(self) -> None:
        """End controller and tunnels at once, as a host that loses its power."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
        for interface in (self.interface, self.service):
            device = Userspace(interface, netns=self.pair.spaces.name(f"{self.name}-gw"), log=self.folder / "wg.log")
            if device.adopt():
                await device.stop()
        if process is not None:
            await asyncio.to_thread(process.wait, 15)

    def open_door(self) -> None:
        """Let the gateway find the database."""
        self.door.symlink_to(self.pair.cell.server.socket_dir)

    async def shut_door(self) -> None:
        """Take the database away from this gateway: no new connection, and the present ones end (the others' too)."""
        self.door.unlink()
        admin = await self.pair.cell.admin()
        await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE usename = 'chukan_links' AND datname = current_database()"
        )
        await admin.close()

    async def peers(self) -> int:
        """Return how many peers its interface of the service has."""
        with contextlib.suppress(Problem):
            return len((await Uapi(SOCKETS / f"{self.service}.sock").get()).peers)
        return 0

    async def is_open(self) -> bool:
        """Tell whether the kernel lets the service's port be open."""
        words = ("nft", "list", "set", "inet", "chukan", "held")
        try:
            told = await asyncio.to_thread(self.pair.spaces.run, f"{self.name}-gw", *words)
        except subprocess.CalledProcessError:
            return False
        return str(SERVICE_PORT) in told

    @contextlib.asynccontextmanager
    async def exchange(self) -> AsyncIterator[None]:
        """Let the exchange's host say whose it is, at the agency port and the health port."""

        async def told(_request: web.Request) -> web.Response:
            return web.Response(text=self.name)

        app = web.Application()
        app.router.add_get("/{path:.*}", told)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            for port in (AGENCY_PORT, HEALTH_PORT):
                listening = self.pair.spaces.socket(f"{self.name}-ex")
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(("0.0.0.0", port))  # noqa: S104 - inside a namespace
                await web.SockSite(runner, listening).start()
            yield
        finally:
            await runner.cleanup()


class GatewayPair:
    """All of it; what belongs to an event loop is made anew in each test."""

    def __init__(self, spaces: Spaces, folder: Path, cell: Any, bodies: Iterator[str]) -> None:
        self.spaces = spaces
        self.folder = folder
        self.cell = cell
        self.centres = {name: Centre(self, name) for name in CENTRES}
        self.device = Town(self, "c", 1, next(bodies))  # type: ignore[arg-type]  # it has what a town needs of a world
        self.twin = Town(self, "d", 2, self.device.body)  # type: ignore[arg-type]

    async def begin(self) -> None:
        """Make everything, enrol the device, start both controllers, and wait until one serves it."""
        self.spaces.make("wan", "c", "d")
        self.spaces.do("wan", "link add wan type bridge", "link set wan up")
        for town in (self.device, self.twin):
            self.spaces.wire("wan", f"to-{town.name}", town.name, "uplink")
            self.spaces.do(town.name, f"addr add {town.outer}/24 dev uplink")
            self.spaces.do("wan", f"link set to-{town.name} master wan")
        for centre in self.centres.values():
            centre.lay()
        east, west = self.centres.values()
        shutil.copyfile(east.folder / f"{east.service}.key", west.folder / f"{west.service}.key")
        self.public = public_key_of(key_files.read(east.folder / f"{east.service}.key"))
        await self._enrol()
        self.twin.link, self.twin.private, self.twin.psk = self.device.link, self.device.private, self.device.psk
        await self.device.up()
        await self.device.know(self.public, port=SERVICE_PORT)
        await self.twin.up()
        for town in (self.device, self.twin):
            town.device.close()
        # A device that nobody has seen yet is called by nobody: it comes by itself first, to the centre that it knows.
        east.start()
        async with east.exchange():
            await self.until_served(30.0, "east")
        west.start()

    async def _enrol(self) -> None:
        town, invitation = self.device, new_private_key()
        async with self.steward() as steward:
            for centre in self.centres.values():
                part = GatewayPart(
                    endpoint=f"{centre.outer}:{PORT}",
                    public_key=from_base64(centre.keys.public_key),
                    sealing_key=from_base64(centre.keys.sealing_key),
                )
                await steward.gateway(centre.name, part, "anna")
            until_ = SystemClock().now() + dt.timedelta(days=7)
            town.link = await steward.invite(town.body, "service", "wireguard", invitation, until_, "anna")
            requested = Requested(
                invitation_key=invitation,
                device_key=new_private_key(),
                device_sealing_key=new_private_key(),
                digest=new_private_key(),
                peers={name: RequestedPeer(public_key=town.public) for name in self.centres},
            )
            await steward.request(town.link, requested, "anna")
            sealed = {
                centre.name: seal_psk(from_base64(centre.keys.sealing_key), town.psk, link=town.link, to=centre.name)
                for centre in self.centres.values()
            }
            await steward.approve(town.link, sealed, second="berta")

    async def end(self) -> None:
        """Take everything down; namespaces go with ``spaces``."""
        for centre in self.centres.values():
            if centre.process is not None:
                centre.signal(signal.SIGCONT)
            await centre.kill_whole()
        for town in (self.device, self.twin):
            if town.device.adopt():
                await town.device.stop()

    @contextlib.asynccontextmanager
    async def steward(self) -> AsyncIterator[LinkSteward]:
        """Lend whoever decides on links."""
        async with Cells({CELL: self.cell.settings}) as cells:
            yield LinkSteward(cells, CELL)

    async def drain(self, name: str, *, on: bool) -> None:
        """Drain a centre, or let it serve again."""
        async with self.steward() as steward:
            await steward.drain(name, on=on, who="anna")

    # ------------------------------------------------------------ the device

    async def served_by(self, town: Town | None = None) -> str:
        """Return which centre answers a new connection to the address that both have; empty for none."""
        namespace = self.spaces.name((town or self.device).name)
        connector = aiohttp.TCPConnector(socket_factory=sockets_in(namespace), force_close=True)
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.get(f"http://{SHARED}:{AGENCY_PORT}/") as reply:
                    return await reply.text()
        return ""

    async def until_served(self, within_s: float, by: str | None = None) -> str:
        """Wait until a centre (that one) answers, and return it. ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            while not (found := await self.served_by()) or found != (by or found):
                await pause()
        return found

    async def lead(self, name: str) -> tuple[Centre, Centre]:
        """Have a centre serve, by draining the other, and return both: it first."""
        first = self.centres[name]
        (second,) = (each for each in self.centres.values() if each is not first)
        await self.drain(second.name, on=True)
        await self.until_served(20.0, name)
        await self.drain(second.name, on=False)
        return first, second

    def endpoint(self) -> str:
        """Return where the device believes its one peer to be, as the stock tool says it."""
        return self.spaces.run("c", "wg", "show", self.device.interface, "endpoints").split()[-1]

    def call(self, town: Town, centre: Centre) -> None:
        """Point a device at a centre by the stock tool, whoever serves."""
        psk = to_base64(town.psk)
        words = ["set", town.interface, "peer", to_base64(self.public), "preshared-key", "/dev/stdin"]
        words += ["endpoint", f"{centre.outer}:{SERVICE_PORT}", "allowed-ips", "10.255.0.0/16"]
        self.spaces.run(town.name, "wg", *words, "persistent-keepalive", "25", text=psk)

    def silence(self, town: Town) -> None:
        """Take a device's one peer away."""
        self.spaces.run(town.name, "wg", "set", town.interface, "peer", to_base64(self.public), "remove")

    def routes(self) -> str:
        """Return the device's routes."""
        return self.spaces.run("c", "ip", "route")


class Watch:
    """Asks and looks without a pause, and notes what it saw and when: for what may never have been so."""

    def __init__(self, pair: GatewayPair) -> None:
        self._pair = pair
        self.answers: list[tuple[float, str]] = []
        self.peers: list[tuple[float, dict[str, int]]] = []
        self.opened: list[tuple[float, frozenset[str]]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Watch"]:
        """Watch for a block, which begins when everything was seen once. ``TimeoutError``."""
        tasks = [asyncio.create_task(each()) for each in (self._ask, self._count, self._look)]
        try:
            async with asyncio.timeout(15.0):
                while not (self.servers() and self.peers and self.opened):
                    await pause()
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _ask(self) -> None:
        while True:
            self.answers.append((time.monotonic(), await self._pair.served_by()))
            await pause()

    async def _count(self) -> None:
        while True:
            # One after the other is no moment: what was so before and after the look at the other was so beside it.
            looks = [{name: await centre.peers() for name, centre in self._pair.centres.items()} for _ in range(2)]
            self.peers.append((time.monotonic(), {name: min(look[name] for look in looks) for name in CENTRES}))
            await pause()

    async def _look(self) -> None:
        while True:
            looks = [{name for name, centre in self._pair.centres.items() if await centre.is_open()} for _ in range(2)]
            self.opened.append((time.monotonic(), frozenset(looks[0] & looks[1])))
            await pause()

    def servers(self) -> list[str]:
        """Return who answered, in order, each once in a row; who did not answer is left out."""
        found: list[str] = []
        for _, name in self.answers:
            if name and found[-1:] != [name]:
                found.append(name)
        return found

    def outage_s(self) -> float:
        """Return the longest time between two good answers."""
        good = [at for at, name in self.answers if name]
        return max((after - before for before, after in itertools.pairwise(good)), default=0.0)
