"""A lab of two centres (2+1) whose municipalities stand behind their own devices, and ways to look at it.

Whoever asks here stands in a municipality's network namespace; whoever counts stands at a gateway or asks an exchange.
"""

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import aiohttp
import pytest

from chukan.ops.demo import cast
from chukan.ops.installation import Installation, open_installation
from chukan.ops.link_acts import steward
from chukan.ops.namespaces import sockets_in, standing
from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.transport import ClientError, Connection
from chukan.settings import load
from chukan.tenants.links import LinkSteward
from chukan.tests.centres.conftest import StandingLab
from chukan.vpn.device.folder import DeviceFolder

PEOPLE = 400
CALL_S = 3.0
EVERY_S = 0.02
OPERATOR = "operator-1"
IP = "/usr/sbin/ip"


class LinkedLab(StandingLab):
    """A lab that stands, with a link for some bodies; nobody has lodged anything."""

    def __init__(self, name: str, bodies: tuple[str, ...]) -> None:
        super().__init__(name, people=PEOPLE, bodies=bodies)

    async def _bring_up(self) -> None:
        begun = self._loop.time()
        await self.running.start()
        self.up_s = self._loop.time() - begun

    # ------------------------------------------------------------ the municipalities

    def town(self, body: str) -> str:
        assert self.running.links is not None
        return self.running.links.wires.town(body)

    def device(self, body: str) -> DeviceFolder:
        assert self.running.links is not None
        return DeviceFolder(self.running.links.folder(body))

    def link(self, body: str) -> str:
        return self.device(body).identity.link

    def client(self, body: str, *, of: str | None = None, urls: list[str] | None = None) -> AgencyClient:
        """Return a client that stands in one body and acts by the certificate of another (its own unless given)."""
        agency = cast.head(of or body)
        issued = self.running.credentials.clients[cast.system_of(agency)]
        connection = Connection(
            agency=agency,
            urls=urls or self.running.addresses.client_urls(agency),
            ca=self.running.credentials.authority.trusted,
            certificate=issued.certificate,
            key=issued.key,
            timeout_s=CALL_S,
            namespace=self.town(body),
        )
        return AgencyClient(connection)

    def inside(self, body: str, *words: str) -> str:
        """Run a program in a municipality, as root there; returns what it says."""
        done = subprocess.run(
            [IP, "netns", "exec", self.town(body), *words], check=True, capture_output=True, text=True, timeout=20
        )
        return done.stdout

    def connects(self, body: str, host: str, port: int, timeout_s: float = 1.0) -> str:
        """Return what became of a TCP connection from a municipality: open, refused, or silence."""
        with standing(self.town(body)), socket.socket() as probe:
            probe.settimeout(timeout_s)
            try:
                probe.connect((host, port))
            except ConnectionRefusedError:
                return "refused"
            except OSError:
                return "silence"
            return "open"

    async def led_to(self, body: str) -> str:
        """Return the centre to which the address that moves leads a municipality now; empty for none."""
        shared = self.running.site.services("east").addresses[1]
        connector = aiohttp.TCPConnector(socket_factory=sockets_in(self.town(body)), force_close=True)
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.get(f"http://{shared}:8445/readyz") as reply:
                    return str((await reply.json())["centre"])
        return ""

    async def until_led_to(self, body: str, centre: str, timeout_s: float) -> float:
        begun = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while await self.led_to(body) != centre:
                await look_again()
        return time.monotonic() - begun

    # ------------------------------------------------------------ who counts

    def dropped(self, centre: str) -> Counter[str]:
        """Return the named counters of a gateway's packet filter."""
        told = self.at_gateway(centre, "nft", "-j", "list", "counters", "table", "inet", "chukan")
        found = [each["counter"] for each in json.loads(told)["nftables"] if "counter" in each]
        return Counter({each["name"]: each["packets"] for each in found})

    def at_gateway(self, centre: str, *words: str) -> str:
        name = self.running.wires.name(f"gateway-{centre}")
        done = subprocess.run(
            [IP, "netns", "exec", name, *words], check=True, capture_output=True, text=True, timeout=20
        )
        return done.stdout

    async def refused(self, code: str) -> int:
        """Return how many callers the exchanges did not let in, for a reason."""
        total = 0.0
        async with aiohttp.ClientSession() as session:
            for exchange in ("exchange-east", "exchange-west"):
                async with session.get(f"{self.running.addresses.health_url(exchange)}/metrics") as reply:
                    head = f'chukan_access_refused_total{{code="{code}"}} '
                    lines = (await reply.text()).splitlines()
                    total += sum(float(line.removeprefix(head)) for line in lines if line.startswith(head))
        return int(total)

    # ------------------------------------------------------------ an operator's hand

    @asynccontextmanager
    async def steward(self) -> AsyncIterator[LinkSteward]:
        async with self.installation() as installation:
            yield steward(installation)

    @asynccontextmanager
    async def installation(self) -> AsyncIterator[Installation]:
        async with open_installation(load(self.place.operator, {})) as installation:
            yield installation


async def look_again(after_s: float = 0.1) -> None:
    """Come back after a while: what is looked at happens in other processes, and no event tells of it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(after_s):
            await asyncio.Event().wait()


class Asker:
    """Asks without a pause through one client, and notes what came of it, and when."""

    def __init__(self, client: AgencyClient) -> None:
        self._client = client
        self.good: list[float] = []
        self.failed: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()

    async def _ask(self) -> None:
        while True:
            try:
                await self._client.queries(limit=1)
                self.good.append(time.monotonic())
            except ClientError as error:
                self.failed[error.code] += 1
            self._news.set()
            await look_again(EVERY_S)

    async def more(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until so many more were answered."""
        goal = len(self.good) + count
        async with asyncio.timeout(timeout_s):
            while len(self.good) < goal:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def captured(lab: LinkedLab, body: str, file: Path) -> AsyncIterator[None]:
    """Write down every frame on a municipality's cable to the outside for a block."""
    arguments = [
        "-n",
        lab.running.wires.name("wan"),
        "-i",
        f"to-town-{body}",
        "--immediate-mode",
        "-U",
        "-Z",
        "root",
        "-w",
        str(file),
    ]
    command = [IP, "netns", "exec", arguments[1], "/usr/bin/tcpdump", *arguments[2:]]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(10):
            await process.stderr.readuntil(b"listening on")
        yield
        await look_again(0.3)  # what was sent last is written by then
    finally:
        process.terminate()
        await process.wait()


def frames(file: Path) -> list[bytes]:
    """Return the frames of a capture (pcap, little-endian, Ethernet)."""
    content = file.read_bytes()
    assert int.from_bytes(content[:4], "little") in {0xA1B2C3D4, 0xA1B23C4D}
    found, at = [], 24
    while at + 16 <= len(content):
        length = int.from_bytes(content[at + 8 : at + 12], "little")
        found.append(content[at + 16 : at + 16 + length])
        at += 16 + length
    return found


def until(holds: Callable[[], bool], timeout_s: float) -> None:
    """Wait for something that no event tells of."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail("it did not come to hold in time")
        threading.Event().wait(0.05)
