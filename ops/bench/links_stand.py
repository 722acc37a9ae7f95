"""One real gateway with a whole country at it: a database, a controller in a namespace, synthetic devices in another.

Everything is what a site has (PostgreSQL, the controller as a process of its own, wireguard-go, the packet filter)
but the devices, which ``swarm`` plays. Used by the benchmark and by the test at full scale.

Invariant: it lies in a folder of its own; leaving the context ends the controller, wireguard-go and the server, takes
both namespaces away, and touches nothing else.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Self, cast

import aiohttp
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan import private_file
from chukan.chance import Chance, SystemChance
from chukan.clock import Clock, SystemClock
from chukan.errors import Problem
from chukan.ops.bench.country import PORT, Member, country
from chukan.ops.bench.ground import GATEWAY, Ground, command
from chukan.ops.bench.swarm import Device, Swarm
from chukan.ops.demo.config import keep_password
from chukan.ops.local.postgres import Server
from chukan.ops.local.processes import wait_gone
from chukan.ops.namespaces import sockets_in
from chukan.replication.primary import Cells, Connection
from chukan.settings import Cell
from chukan.tenants import migrate
from chukan.tenants.links import GatewayPart, LinkSteward, Requested, RequestedPeer
from chukan.vpn.gateway.state import Store
from chukan.vpn.psk_sealing import seal_psk
from chukan.vpn.wireguard.keys import to_base64
from chukan.vpn.wireguard.uapi import Uapi
from chukan.vpn.wireguard.userspace import SOCKETS

CENTRE: Final = "east"
CELL: Final = "east"
SERVICE: Final = "10.255.0.1"
FIRST: Final = "operator-1"
SECOND: Final = "operator-2"
_SHARED: Final = "10.255.255.1"
_AGENCY_PORT: Final = 8443
_HEALTH_PORT: Final = 8445
_METRICS_PORT: Final = 9586
_DATABASE: Final = "chukan"
_KEY_BYTES: Final = 32
_KILL_TIMEOUT_S: Final = 20
_POLL_S: Final = 0.2
_CHANGE_TIMEOUT_S: Final = 20.0
_ASK_S: Final = 0.005
"""A device that is to come back asks so often; no figure is finer than that."""
_CALM_S: Final = 0.5
"""Between two changes, so that each is one change to a gateway that has nothing else to do."""
_REASON: Final = "measured"
_ANSWER_TIMEOUT_S: Final = 5.0
_KIB: Final = 1024
_LOGINS: Final = {
    "broker": "chukan_broker", "app": "chukan_app", "steward": "chukan_steward", "links": "chukan_links",
}  # fmt: skip


class _OneConnection:
    """Cells that lend the steward's one connection again and again: thousands of acts would be thousands of logins."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def steward(self, _name: str) -> AsyncIterator[Connection]:
        """Lend it."""
        yield self._connection


class LinksStand:
    """The gateway and its country; an async context manager that lays everything and takes everything down."""

    steward: LinkSteward
    swarm: Swarm
    devices: list[Device]

    def __init__(self, folder: Path, databases: Path, count: int, clock: Clock | None = None) -> None:
        """Prepare only: ``folder`` is private, ``databases`` is where the server may live."""
        self.folder = folder
        self.clock = clock or SystemClock()
        self._chance: Chance = SystemChance(self.clock)
        self.ground = Ground()
        self.members: list[Member] = country(count, self._chance)
        self.key, self._sealing = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.interface = f"ckgw{os.getpid()}"
        self.tunnels = Uapi(SOCKETS / f"{self.interface}.sock")
        """The gateway's interface, for looking."""
        self._server = Server("links", databases / "links")
        self._controller: subprocess.Popen[bytes] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Bring up everything but the controller; every link is approved. Raises ``Problem``."""
        try:
            await self._lay()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._stack.aclose()

    async def _lay(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._stack.enter_context(self.ground)
        self._stack.callback(self.end)
        self.ground.set([f"addr replace {address}/32 dev lo" for address in (SERVICE, _SHARED)])
        self._stack.callback(self._server.kill)
        await asyncio.to_thread(self._server.init)
        await asyncio.to_thread(self._server.start)
        cell = await self._prepare()
        self._write_config(cell)
        cells = await self._stack.enter_async_context(Cells({CELL: cell}, "sandbox"))
        connection = await self._stack.enter_async_context(cells.steward(CELL))
        self.steward = LinkSteward(cast("Cells", _OneConnection(connection)), CELL)
        part = GatewayPart(
            endpoint=f"{GATEWAY}:{PORT}",
            public_key=self.key.public_key().public_bytes_raw(),
            sealing_key=self._sealing.public_key().public_bytes_raw(),
        )
        await self.steward.gateway(CENTRE, part, FIRST)
        for member in self.members:
            await self.enrol(member)
        self.swarm = await self._stack.enter_async_context(Swarm(self.ground.listener(PORT), (GATEWAY, PORT)))
        self.devices = [self.place(member) for member in self.members]

    @property
    def state(self) -> Path:
        """The controller's folder."""
        return self.folder / "state"

    def place(self, member: Member) -> Device:
        """Put a member's device at its address; a former one goes."""
        public = self.key.public_key().public_bytes_raw()
        return self.swarm.add(member.address, member.inner, member.private, public, member.psk)

    # ------------------------------------------------------------ database

    async def _prepare(self) -> Cell:
        """Make the server's database a cell, and return how to reach it."""
        files = {short: self.folder / f"{short}.password" for short in _LOGINS}
        passwords = {role: keep_password(files[short], self._chance) for short, role in _LOGINS.items()}
        admin = await self._server.admin("postgres")
        try:
            await admin.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            await admin.close()
        admin = await self._server.admin(_DATABASE)
        try:
            await migrate.prepare_cell(admin, _DATABASE, passwords, "sandbox")
        finally:
            await admin.close()
        return Cell(
            host=self._server.socket_dir,
            port=self._server.port,
            database=_DATABASE,
            broker_password_file=files["broker"],
            app_password_file=files["app"],
            steward_password_file=files["steward"],
        )

    async def postgresql(self) -> str:
        """Return the server's version."""
        admin = await self._server.admin("postgres")
        try:
            return str(await admin.fetchval("SELECT current_setting($1)", "server_version"))
        finally:
            await admin.close()

    async def enrol(self, member: Member) -> None:
        """Lead a link from its invitation to its approval, as its body and two operators would. Raises ``Problem``."""
        invitation, digest, device = (self._chance.token(_KEY_BYTES) for _ in range(3))
        expires_at = self.clock.now() + timedelta(days=7)
        link = await self.steward.invite(member.body, "pair", "wireguard", invitation, expires_at, FIRST)
        requested = Requested(
            invitation_key=invitation,
            device_key=device,
            device_sealing_key=member.sealing.public_key().public_bytes_raw(),
            digest=digest,
            peers={CENTRE: RequestedPeer(public_key=member.public)},
        )
        await self.steward.request(link, requested, FIRST)
        await self.steward.approve(link, {CENTRE: self.sealed(member, member.psk)}, second=SECOND)

    def sealed(self, member: Member, psk: bytes) -> bytes:
        """Return a pre-shared key as it rests for this gateway."""
        return seal_psk(self._sealing.public_key().public_bytes_raw(), psk, link=member.link, to=CENTRE)

    # ------------------------------------------------------------ controller

    def _write_config(self, cell: Cell) -> None:
        for name, key in (("gateway.key", self.key), ("sealing.key", self._sealing)):
            private_file.write(self.folder / name, f"{to_base64(key.private_bytes_raw())}\n".encode("ascii"))
        text = f"""
centre = "{CENTRE}"
links_cell = "{CELL}"
state_directory = "{self.state}"
sealing_key_file = "{self.folder / "sealing.key"}"
sandbox = true
[[tunnels]]
interface = "{self.interface}"
listen_port = {PORT}
private_key_file = "{self.folder / "gateway.key"}"
[network]
outer = "uplink"
[services]
addresses = ["{SERVICE}", "{_SHARED}"]
agency_port = {_AGENCY_PORT}
health_port = {_HEALTH_PORT}
[metrics]
port = {_METRICS_PORT}
[cells.{CELL}]
host = "{cell.host}"
port = {cell.port}
database = "{_DATABASE}"
links_password_file = "{self.folder / "links.password"}"
"""
        self.config.write_text(text, encoding="utf-8")

    @property
    def config(self) -> Path:
        """The controller's configuration."""
        return self.folder / "gateway.toml"

    def start(self) -> None:
        """Start the controller; it may not be ready yet. Raises ``Problem`` already_running."""
        if self._controller is not None:
            raise Problem("already_running")
        words = [sys.executable, "-m", "chukan.ops.cli", "gateway", "run", "--config", str(self.config)]
        with (self.folder / "controller.log").open("ab") as log:
            self._controller = subprocess.Popen(
                command(self.ground.gateway, words), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Kill the controller alone, as ``kill -9`` does; there may be none."""
        if self._controller is not None:
            self._controller.kill()
            self._controller.wait(_KILL_TIMEOUT_S)
            self._controller = None

    def end(self) -> None:
        """Kill controller and wireguard-go, as the loss of the host would."""
        self.kill()
        with suppress(Problem):
            self.ground.kill_all(self.ground.gateway)

    def kill_tunnels(self) -> None:
        """Kill wireguard-go alone."""
        pid = self.tunnels_pid()
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid, _KILL_TIMEOUT_S)

    def tunnels_pid(self) -> int:
        """Return the process of the interface. Raises ``Problem`` link_interface_away."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0].endswith(b"wireguard-go") and self.interface.encode() in words:
                    return int(path.parent.name)
        raise Problem("link_interface_away", expected=self.interface)

    def forget(self) -> None:
        """Take away what the controller kept on its disk."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(mode=0o700)

    def resident_mib(self) -> tuple[float, float]:
        """Return the resident memory of controller and wireguard-go, in MiB. Raises ``Problem``."""
        if self._controller is None:
            raise Problem("unavailable")
        return _resident_mib(self._controller.pid), _resident_mib(self.tunnels_pid())

    # ------------------------------------------------------------ looking

    async def metrics(self) -> dict[str, float] | None:
        """Return the controller's own figures (see ``own_figures``); None while it is away."""
        connector = aiohttp.TCPConnector(socket_factory=sockets_in(self.ground.gateway))
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            try:
                async with session.get(f"http://127.0.0.1:{_METRICS_PORT}/metrics") as response:
                    return own_figures(await response.text())
            except (aiohttp.ClientError, TimeoutError):
                return None

    async def until(self, good: Callable[[dict[str, float]], bool], within_s: float) -> dict[str, float]:
        """Wait until the controller's figures are as wanted, and return them. Raises ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            while True:
                told = await self.metrics()
                if told is not None and good(told):
                    return told
                await asyncio.sleep(_POLL_S)

    async def until_places(self, within_s: float) -> None:
        """Wait until the controller has on its disk where every device is. Raises ``TimeoutError``."""
        wanted = {member.link for member in self.members}
        async with asyncio.timeout(within_s):
            while wanted - Store(self.state, CENTRE).read_places().keys():  # noqa: ASYNC110 - another process cannot set an event of ours
                await asyncio.sleep(_POLL_S)

    async def until_rotated(self, links: Collection[str], within_s: float) -> None:
        """Wait until the next keys of all these links became their present ones. Raises ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            while any(  # noqa: ASYNC110 - another process cannot set an event of ours
                row.link in links and any(peer.next_psk or peer.next_public_key for peer in row.peers.values())
                for row in await self.steward.list()
            ):
                await asyncio.sleep(_POLL_S)

    async def returned(self, device: Device) -> float:
        """Suspend a link, and return how long it takes from putting it back until its device has a session again.

        Counted from before the act begins, so with its commit and with the handshake. Raises ``TimeoutError``.
        """
        member = self.members[device.number]
        await self.steward.suspend(member.link, who=FIRST, reason=_REASON)
        async with asyncio.timeout(_CHANGE_TIMEOUT_S):
            while member.public in (await self.tunnels.get()).peers:  # noqa: ASYNC110 - another process cannot set an event of ours
                await asyncio.sleep(_ASK_S)
        await asyncio.sleep(_CALM_S)
        device.forget()
        begun = self.clock.monotonic()
        act = asyncio.ensure_future(self.steward.resume(member.link, second=SECOND, reason=_REASON))
        async with asyncio.timeout(_CHANGE_TIMEOUT_S):
            while device.connected_at is None:
                self.swarm.initiate(device)
                await asyncio.sleep(_ASK_S)
        await act
        return device.connected_at - begun

    async def until_passed(self, within_s: float, *, more: int = 1) -> dict[str, float]:
        """Wait until the controller has done so many more passes than now. Raises ``TimeoutError``."""
        before = (await self.metrics() or {}).get("chukan_links_passes_total/done", 0.0)
        return await self.until(lambda told: told.get("chukan_links_passes_total/done", 0) >= before + more, within_s)


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / _KIB
    raise Problem("unavailable")


def own_figures(text: str) -> dict[str, float]:
    """Return what a controller's metrics say of the whole: ``name`` or ``name/word``, and ``up``, the links that are.

    Read line by line: a parser takes a second for the 20,000 series of a country, and this is asked while it works.
    """
    told = {"up": 0.0}
    for line in text.splitlines():
        if line.startswith("chukan_link_up{"):
            told["up"] += float(line.rpartition(" ")[2])
        elif line.startswith(("chukan_links_", "chukan_link_drops_total")):
            name, _, rest = line.partition("{")
            labels, _, value = rest.partition("} ")
            word = next((part.split('"')[1] for part in labels.split(",") if not part.startswith("centre=")), "")
            told[f"{name}/{word}" if word else name] = float(value)
    return told
