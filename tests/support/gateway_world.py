"""A centre's gateway as a real process over real tunnels and a real database, and devices of municipalities before it.

The gateway's controller is ``chukan gateway run`` in a namespace of its own; devices are wireguard-go processes that
the test sets, as the stock tools would. The exchange's host behind the gateway repeats what it is told.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from chukan.clock import SystemClock
from chukan.ops.namespaces import sockets_in
from chukan.replication.plain_toml import Value, to_toml
from chukan.replication.primary import Cells
from chukan.tenants import link_plan
from chukan.tenants.links import GatewayPart, LinkSteward, Requested, RequestedPeer
from chukan.tests.support.link_spaces import Spaces
from chukan.tests.support.link_world import AGENCY_PORT, CENTRE, HEALTH_PORT, OTHER_PORT, SHARED, repeat
from chukan.vpn.gateway import key_files
from chukan.vpn.gateway.config import load
from chukan.vpn.model import Actual, Interface, Put, Remove, Wanted
from chukan.vpn.netdev import NetDev, Route
from chukan.vpn.psk_sealing import seal_psk
from chukan.vpn.wireguard.keys import from_base64, new_private_key, public_key_of, to_base64
from chukan.vpn.wireguard.uapi import Uapi
from chukan.vpn.wireguard.userspace import SOCKETS, Userspace

CELL = "here"
EAST = "east"
OUTER, INNER, EXCHANGE = "192.0.2.1", "198.51.100.1", "198.51.100.2"
PORT, NEXT_PORT, SERVICE_PORT = 51820, 51821, 51822
METRICS_PORT = 9586
KEEPALIVE_S = 25
WAIT_S = 15.0


class Town:
    """A municipality: one device with one tunnel, its keys, and its link once it is approved."""

    def __init__(self, world: "GatewayWorld", name: str, number: int, body: str) -> None:
        self.world = world
        self.name = name
        self.body = body
        self.link = f"{body}-1"
        self.outer = f"192.0.2.{10 + number}"
        self.private = new_private_key()
        self.psk = hashlib.sha256(f"psk {name}".encode()).digest()
        self.interface = world.spaces.interface(name)
        log = world.folder / f"{name}.log"
        self.device = Userspace(self.interface, netns=world.spaces.name(name), log=log)

    @property
    def public(self) -> bytes:
        return public_key_of(self.private)

    @property
    def v4(self) -> str:
        return link_plan.inner_v4(self.link)

    async def up(self) -> None:
        """Bring the device up: interface, address, route; it knows no gateway yet."""
        await self.device.ensure()
        await self.device.tunnels.set_interface(Interface(private_key=self.private, listen_port=0))
        async with NetDev(self.world.spaces.name(self.name)) as netdev:
            await netdev.ensure_address(self.interface, f"{self.v4}/32")
            await netdev.ensure_up(self.interface, 1380)
            await netdev.ensure_route(Route(destination="10.255.0.0/16", device=self.interface, source=self.v4))

    async def know(self, gateway: bytes, *, port: int = PORT, psk: bytes | None = None) -> None:
        """Give the device its gateway, in place of any other."""
        peers = (await self.device.tunnels.get()).peers
        wanted = Wanted(
            link=self.link,
            public_key=gateway,
            preshared_key=self.psk if psk is None else psk,
            allowed=frozenset({"10.255.0.0/16"}),
            endpoint=f"{OUTER}:{port}",
            keepalive_s=KEEPALIVE_S,
        )
        put = Put(wanted=wanted, new=True, psk=True, allowed=True, endpoint=True, keepalive=True)
        await self.device.tunnels.apply([*(Remove(key) for key in peers if key != gateway), put])

    @contextlib.asynccontextmanager
    async def stream(self, port: int = AGENCY_PORT, address: str = CENTRE) -> AsyncIterator["Stream"]:
        """Open a connection through the tunnel. ``OSError`` or ``TimeoutError``."""
        connecting = self.world.spaces.socket(self.name)
        try:
            async with asyncio.timeout(3):
                await asyncio.get_running_loop().sock_connect(connecting, (address, port))
                reader, writer = await asyncio.open_connection(sock=connecting)
        except BaseException:
            connecting.close()
            raise
        try:
            yield Stream(reader, writer)
        finally:
            writer.transport.abort()

    async def answered(self, port: int = AGENCY_PORT, address: str = CENTRE) -> bool:
        """Tell whether a new connection is answered."""
        try:
            async with self.stream(port, address) as stream:
                return await stream.echo(2.0)
        except (OSError, TimeoutError):
            return False

    async def until_answered(self, within_s: float = WAIT_S, address: str = CENTRE) -> None:
        """Wait until a new connection is answered. ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            while not await self.answered(address=address):
                await pause()


class Stream:
    """One TCP connection through a tunnel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._count = 0

    async def echo(self, timeout_s: float = 3.0) -> bool:
        """Say something; tell whether just that comes back in time. ``OSError`` when the connection is broken."""
        self._count += 1
        said = f"hello {self._count}\n".encode()
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(said)
                await self._writer.drain()
                return await self._reader.readline() == said
        except TimeoutError:
            return False


class GatewayWorld:
    """All of it; what belongs to an event loop is made anew in each test."""

    def __init__(self, spaces: Spaces, folder: Path, cell: Any, bodies: Iterator[str]) -> None:
        self.spaces = spaces
        self.folder = folder
        self.cell = cell
        self.interface = spaces.interface("g")
        self.next_interface = spaces.interface("n")
        self.service_interface = spaces.interface("s")
        self.door = folder / "door"
        """Where the gateway looks for the database: a link that a test may take away."""
        self.config = folder / "gateway.toml"
        self.process: subprocess.Popen[bytes] | None = None
        self.towns = {name: Town(self, name, number, next(bodies)) for number, name in enumerate("abc", start=1)}

    # ------------------------------------------------------------ ground

    def lay(self) -> None:
        """Make namespaces, cables, addresses, keys and configuration."""
        made = self.spaces
        made.make("wan", "gw", "ex", *self.towns)
        made.do("wan", "link add wan type bridge", "link set wan up")
        made.wire("wan", "to-gw", "gw", "outer")
        made.do("gw", f"addr add {OUTER}/24 dev outer")
        for town in self.towns.values():
            made.wire("wan", f"to-{town.name}", town.name, "uplink")
            made.do(town.name, f"addr add {town.outer}/24 dev uplink")
        made.do("wan", *(f"link set to-{name} master wan" for name in ("gw", *self.towns)))
        made.wire("gw", "inner", "ex", "uplink")
        made.do("gw", f"addr add {INNER}/24 dev inner")
        made.do(
            "ex",
            f"addr add {EXCHANGE}/24 dev uplink",
            *(f"addr add {address}/32 dev lo" for address in (CENTRE, SHARED)),
            f"route add 10.64.0.0/10 via {INNER}",
        )
        self.open_door()
        self.configure()
        self.keys = key_files.make(load(self.config, {}))

    def configure(self, *, tunnels: tuple[str, ...] = ("g",), mode: str = "repair", service: bool = False) -> None:
        """Write the gateway's configuration; ``tunnels`` are g and n, the present key and the next."""
        rows: dict[str, Mapping[str, Value]] = {
            "g": self._tunnel(self.interface, PORT),
            "n": self._tunnel(self.next_interface, NEXT_PORT),
        }
        top: Mapping[str, Value] = {
            "centre": EAST,
            "links_cell": CELL,
            "mode": mode,
            "state_directory": self.folder / "state",
            "sealing_key_file": self.folder / "sealing.key",
        }
        cell: Mapping[str, Value] = {
            "host": str(self.door),
            "port": self.cell.settings.port,
            "database": self.cell.settings.database,
            "links_password_file": Path(self.cell.settings.broker_password_file).parent / "chukan_links",
        }
        services: Mapping[str, Value] = {
            "addresses": [CENTRE, SHARED],
            "agency_port": AGENCY_PORT,
            "health_port": HEALTH_PORT,
            "next_hop": EXCHANGE,
        }
        served = {"lease_s": 10, **self._tunnel(self.service_interface, SERVICE_PORT)}
        text = to_toml(
            [
                ("", top),
                *(("[tunnels]", rows[name]) for name in tunnels),
                *([("service_tunnel", served)] if service else []),
                ("network", {"outer": "outer", "inner": "inner"}),
                ("services", services),
                ("timing", {"every_s": 1.0, "read_s": 2.0}),
                (f"cells.{CELL}", cell),
            ]
        )
        self.config.write_text(text, encoding="utf-8")

    def _tunnel(self, interface: str, port: int) -> Mapping[str, Value]:
        return {"interface": interface, "listen_port": port, "private_key_file": self.folder / f"{interface}.key"}

    def open_door(self) -> None:
        """Let the gateway find the database."""
        self.door.symlink_to(self.cell.server.socket_dir)

    async def shut_door(self) -> None:
        """Take the database away from the gateway: no new connection, and the present ones end."""
        self.door.unlink()
        admin = await self.cell.admin()
        await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE usename = 'chukan_links' AND datname = current_database()"
        )
        await admin.close()

    # ------------------------------------------------------------ the gateway

    @property
    def tunnels(self) -> Uapi:
        return Uapi(SOCKETS / f"{self.interface}.sock")

    def public(self, interface: str | None = None) -> bytes:
        """Return the public half of one of the gateway's keys."""
        return public_key_of(key_files.read(self.folder / f"{interface or self.interface}.key"))

    async def peers(self, interface: str | None = None) -> Actual:
        """Return what an interface of the gateway has."""
        return await Uapi(SOCKETS / f"{interface or self.interface}.sock").get()

    def start(self) -> None:
        """Start the controller."""
        assert self.process is None
        words = [sys.executable, "-m", "chukan.ops.cli", "gateway", "run", "--config", str(self.config)]
        within = ["/usr/sbin/ip", "netns", "exec", self.spaces.name("gw")]
        with (self.folder / "controller.log").open("ab") as log:
            self.process = subprocess.Popen([*within, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, number: int = signal.SIGKILL) -> int | None:
        """End the controller alone; return its status."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.send_signal(number)
        return process.wait(WAIT_S)

    def tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``chukan gateway`` in the gateway's namespace."""
        argv = [sys.executable, "-m", "chukan.ops.cli", "gateway", *words, "--config", str(self.config)]
        within = ["/usr/sbin/ip", "netns", "exec", self.spaces.name("gw")]
        return subprocess.run([*within, *argv], check=False, capture_output=True, text=True, timeout=60)

    def wg(self, *words: str) -> str:
        """Run the stock ``wg`` at the gateway."""
        return self.spaces.run("gw", "wg", *words)

    def tunnel_pid(self, interface: str | None = None) -> int:
        """Return the id of the process behind an interface of the gateway."""
        device = Userspace(interface or self.interface, netns=self.spaces.name("gw"), log=self.folder / "gw.log")
        assert device.adopt()
        pid = device.pid
        device.close()
        assert pid is not None
        return pid

    async def metrics(self) -> str:
        """Return what the controller tells Prometheus; empty while it is not there."""
        connector = aiohttp.TCPConnector(socket_factory=sockets_in(self.spaces.name("gw")))
        timeout = aiohttp.ClientTimeout(total=3)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{METRICS_PORT}/metrics") as response,
            ):
                return await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return ""

    async def figure(self, name: str, *labels: str) -> float | None:
        """Return one figure of the controller: of the first line with the name and all these words in its labels."""
        for line in (await self.metrics()).splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in labels):
                return float(line.rpartition(" ")[2])
        return None

    async def until_passed(self, more: int = 1) -> None:
        """Wait until the controller has done so many more passes. ``TimeoutError``."""
        before = await self.figure("chukan_links_passes_total", "done") or 0.0
        await until(lambda: self._passed(before + more))

    async def _passed(self, wanted: float) -> bool:
        return (await self.figure("chukan_links_passes_total", "done") or 0.0) >= wanted

    # ------------------------------------------------------------ people

    @contextlib.asynccontextmanager
    async def steward(self) -> AsyncIterator[LinkSteward]:
        """Lend whoever decides on links."""
        async with Cells({CELL: self.cell.settings}) as cells:
            yield LinkSteward(cells, CELL)

    async def register(self) -> None:
        """Make the gateway known."""
        async with self.steward() as steward:
            part = GatewayPart(
                endpoint=f"{OUTER}:{PORT}",
                public_key=from_base64(self.keys.public_key),
                sealing_key=from_base64(self.keys.sealing_key),
            )
            await steward.gateway(EAST, part, "anna")

    def sealed(self, town: Town, psk: bytes) -> bytes:
        """Return a pre-shared key as the database has it."""
        return seal_psk(from_base64(self.keys.sealing_key), psk, link=town.link, to=EAST)

    async def enrol(self, town: Town, *, mode: Any = "pair") -> None:
        """Lead a town's link from its invitation to its approval."""
        async with self.steward() as steward:
            invitation = new_private_key()
            until_ = SystemClock().now() + dt.timedelta(days=7)
            town.link = await steward.invite(town.body, mode, "wireguard", invitation, until_, "anna")
            requested = Requested(
                invitation_key=invitation,
                device_key=new_private_key(),
                device_sealing_key=new_private_key(),
                digest=new_private_key(),
                peers={EAST: RequestedPeer(public_key=town.public)},
            )
            await steward.request(town.link, requested, "anna")
            await steward.approve(town.link, {EAST: self.sealed(town, town.psk)}, second="berta")

    async def end(self) -> None:
        """Take the tunnels down; namespaces go with ``spaces``."""
        self.kill()
        for interface in (self.interface, self.next_interface, self.service_interface):
            device = Userspace(interface, netns=self.spaces.name("gw"), log=self.folder / "gw.log")
            if device.adopt():
                await device.stop()
        for town in self.towns.values():
            if town.device.adopt():
                await town.device.stop()


@contextlib.asynccontextmanager
async def exchange(world: GatewayWorld) -> AsyncIterator[None]:
    """Let the exchange's host answer, at two ports that may be reached and one that may not."""
    servers = []
    for port in (AGENCY_PORT, HEALTH_PORT, OTHER_PORT):
        listening = world.spaces.socket("ex")
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("0.0.0.0", port))  # noqa: S104 - inside a namespace
        servers.append(await asyncio.start_server(repeat, sock=listening))
    try:
        yield
    finally:
        for server in servers:
            server.close()


async def pause() -> None:
    """Wait for a twentieth of a second: what is looked at is another process."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await asyncio.Event().wait()


async def until(good: Callable[[], Any], within_s: float = WAIT_S) -> None:
    """Wait until something that is looked at again and again is so. ``TimeoutError``."""
    async with asyncio.timeout(within_s):
        while not await good():
            await pause()


def key_text(public: bytes) -> str:
    """Return a key as ``wg`` shows it."""
    return to_base64(public)
