"""The links of the lab: a gateway at each centre, and a municipality behind its device for each body.

Everything goes the way that it goes on a real site. A gateway makes its own keys; a device makes its own, asks with an
invitation's code, is taken in by one operator and approved by another, and takes in what was granted to it. What an
earlier start left is gone on with; what one left half done is revoked, and begun anew.

Invariant: no key of a device leaves its folder, and nothing here puts a peer into a gateway: the controller does, from
the database alone.
"""

import asyncio
import datetime as dt
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from chukan import private_file
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import link_acts
from chukan.ops.centres.link_wires import LinkWires, gateway_name, town_name
from chukan.ops.centres.place import LabPlace
from chukan.ops.centres.processes import Command, Processes
from chukan.ops.centres.wires import CENTRES, WAN, Namespaces, Wires
from chukan.ops.demo import cast
from chukan.ops.demo.supervisor import together
from chukan.ops.installation import Installation, open_installation
from chukan.ops.local.machine import is_root
from chukan.ops.namespaces import sockets_in
from chukan.replication import render_gateway
from chukan.replication.plain_toml import to_toml
from chukan.replication.site import Site, gateways
from chukan.settings import load
from chukan.tenants import bodies as directory
from chukan.tenants.links import GatewayPart, LinkRow
from chukan.vpn.device import enrolling, status
from chukan.vpn.device.folder import DeviceFolder, create
from chukan.vpn.device.settings import FILE as AGENT_FILE
from chukan.vpn.gateway import config, key_files
from chukan.vpn.gateway.key_files import PublicHalves
from chukan.vpn.wireguard.keys import from_base64

NEEDS: Final[Mapping[str, str]] = {
    "/usr/bin/wireguard-go": "wireguard-go",
    "/usr/sbin/nft": "nft (Debian's nftables)",
}
_DEVICE: Final = "device-"
_OVERLAY: Final = "CHUKAN__"
_TOLD: Final = ("endpoint", "public_key", "sealing_key", "service_public_key")
_READY_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.1
_ANSWER_S: Final = 1.0
_OK: Final = 200
_INVITED_DAYS: Final = 1
_RENEW_BEFORE: Final = dt.timedelta(days=2)
_OPERATOR: Final = "lab-operator-1"
_SECOND: Final = "lab-operator-2"
_TIMING: Final = {"every_s": 2.0}
"""What somebody does to a gateway by hand is found while one still looks."""
_AGENT: Final = {"ready_every_s": 1.0, "start_jitter_s": 0.0}
"""A few devices need not be spread, and may ask often."""


class LabLinks:
    """Makes the links, and knows what runs for them."""

    def __init__(self, place: LabPlace, site: Site, wires: Wires, processes: Processes, bodies: Sequence[str]) -> None:
        """Prepare only. Raises ``Problem`` not_possible_here, runtime_missing."""
        if not isinstance(wires, Namespaces) or not is_root():
            raise Problem("not_possible_here", expected="network namespaces: run it as root")
        for file, name in NEEDS.items():
            if not Path(file).exists():
                raise Problem("runtime_missing", expected=name)
        self.bodies = tuple(bodies)
        self.wires = LinkWires(wires, site, self.bodies)
        self._place, self._site, self._namespaces, self._processes = place, site, wires, processes
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self._halves: dict[str, PublicHalves] = {}

    def title(self, body: str) -> str:
        """Return the name of a body."""
        found = directory.body(body)
        return body if found is None else found.name

    def folder(self, body: str) -> Path:
        """Return the folder of a body's device."""
        return self._place.towns / body

    def at_home(self) -> bool:
        """Tell whether every device's service route leads through its home, as the devices themselves write down."""
        now = self._clock.now()
        return all(_leads_home(self.folder(body), now) for body in self.bodies)

    # ------------------------------------------------------------ what runs

    def make(self) -> None:
        """Make what is missing of the gateways' keys; the service's is made at one centre and brought to the other."""
        first, second = (render_gateway.folder(self._site, centre) for centre in CENTRES)
        self._halves = {centre: key_files.make(config.load(self._config(centre), {})) for centre in CENTRES[:1]}
        if not (second / render_gateway.SERVICE_KEY).exists():
            second.mkdir(mode=0o700, exist_ok=True)
            private_file.write(second / render_gateway.SERVICE_KEY, (first / render_gateway.SERVICE_KEY).read_bytes())
        self._halves |= {centre: key_files.make(config.load(self._config(centre), {})) for centre in CENTRES[1:]}

    def _config(self, centre: str) -> Path:
        return self._site.directory(centre) / "config" / "gateway.toml"

    def write(self, site: Site, folders: Mapping[str, Path]) -> None:
        """Write the gateways' settings."""
        for row in gateways(site):
            centre = site.where(row.host)
            text = render_gateway.gateway(site, centre, _TIMING)
            (folders[centre] / "gateway.toml").write_text(text, encoding="utf-8")

    def commands(self) -> Iterator[Command]:
        """Yield what gateways and devices are started with."""
        for centre in CENTRES:
            log = self._site.directory(centre) / "log" / f"{gateway_name(centre)}.log"
            words = ["gateway", "run", "--config", str(self._config(centre))]
            yield self._command(gateway_name(centre), centre, gateway_name(centre), words, log)
        for body in self.bodies:
            log = self._place.log / f"{_DEVICE}{body}.log"
            words = ["device", "agent", "--folder", str(self.folder(body))]
            yield self._command(f"{_DEVICE}{body}", WAN, town_name(body), words, log)

    def _command(self, name: str, site: str, namespace: str, words: Sequence[str], log: Path) -> Command:
        argv = [sys.executable, "-m", "chukan.ops.cli", *words]
        # What overlays the exchanges' settings, as in a drill, is nothing for these.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_OVERLAY)}
        return Command(name, site, self._namespaces.name(namespace), None, argv, environment, log)

    def knows(self, name: str) -> bool:
        """Tell whether a process is one of these."""
        return name.startswith((_DEVICE, gateway_name("")))

    async def until_ready(self, name: str) -> None:
        """Wait until a gateway or a device works. Raises ``Problem`` process_failed, naming its log."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                if name.startswith(_DEVICE):
                    await self._until_through(name.removeprefix(_DEVICE))
                else:
                    await self._until_gateway(name)
        except TimeoutError:
            raise Problem("process_failed", expected=str(self._processes.log_of(name))) from None

    async def _until_gateway(self, name: str) -> None:
        # Nobody else can listen there: the gateway's host is a network of its own.
        row = next(row for row in gateways(self._site) if row.name == name)
        url = f"http://{self._site.address(row.host)}:{row.metrics_port}/healthz"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as session:
            while not await _answers(session, url):  # noqa: ASYNC110 - another process has no event of ours
                await asyncio.sleep(_LOOK_S)

    async def _until_through(self, body: str) -> None:
        """Wait until a municipality reaches an exchange through each of its tunnels, and at the address that moves."""
        connector = aiohttp.TCPConnector(socket_factory=sockets_in(self.wires.town(body)), force_close=True)
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            for address in self._addresses():
                while not await _answers(session, f"http://{address[0]}:{address[1]}/readyz"):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)

    def _addresses(self) -> list[tuple[str, int]]:
        told = [self._site.services(centre) for centre in CENTRES]
        return [(told[0].addresses[1], told[0].health_port), *((each.addresses[0], each.health_port) for each in told)]

    # ------------------------------------------------------------ enrolment

    async def start_gateways(self) -> None:
        """Enrol who is not, and start the gateways. Raises ``Problem``."""
        settings = load(self._place.operator, os.environ)
        async with open_installation(settings, clock=self._clock, chance=self._chance) as installation:
            await self._register(installation)
            known = {row.link: row for row in await link_acts.steward(installation).list()}
            for number, body in enumerate(self.bodies):
                await self._enrol(installation, body, number, known)
        await together([self._start(gateway_name(centre)) for centre in CENTRES])

    async def start_devices(self) -> None:
        """Start the devices, and wait until every municipality is through. Raises ``Problem``."""
        await together([self._start(f"{_DEVICE}{body}") for body in self.bodies])

    async def _start(self, name: str) -> None:
        await self._processes.start(name)
        await self.until_ready(name)

    async def _register(self, installation: Installation) -> None:
        """Make the gateways known, where they are not, or are other ones."""
        door = link_acts.steward(installation)
        known = await door.gateways()
        for centre, halves in self._halves.items():
            part = GatewayPart(
                endpoint=self._site.endpoint(centre),
                public_key=from_base64(halves.public_key),
                sealing_key=from_base64(halves.sealing_key),
                service_public_key=None
                if halves.service_public_key is None
                else from_base64(halves.service_public_key),
            )
            row = known.get(centre)
            if row is None or any(getattr(row, name) != getattr(part, name) for name in _TOLD):
                await door.gateway(centre, part, _OPERATOR)

    async def _enrol(self, installation: Installation, body: str, number: int, known: Mapping[str, LinkRow]) -> None:
        path = self.folder(body)
        if self._is_enrolled(path, known):
            return
        door = link_acts.steward(installation)
        for row in known.values():
            if row.body == body and row.state != "revoked":
                await door.revoke(row.link, who=_OPERATOR, reason="left half done by an earlier start")
        if path.exists():
            shutil.rmtree(path)
        invited = await link_acts.invite(
            installation, body, mode="pair", kind="wireguard", days=_INVITED_DAYS, who=_OPERATOR
        )
        folder = self._device(path, invited.link, body, number)
        request = enrolling.request(folder, invited.code, self._clock.now())
        await link_acts.enrol(installation, request, _OPERATOR)
        granted = await link_acts.approve(installation, invited.link, second=_SECOND, keep=lambda _: None)
        folder.keep(AGENT_FILE, to_toml([("", {"home": folder.centres[0], **_AGENT})]).encode())
        enrolling.accept(folder, granted.file, self._clock.now())

    def _device(self, path: Path, link: str, body: str, number: int) -> DeviceFolder:
        """Make a device's folder: the home of the body's agencies first."""
        home = next(agency.home_centre for agency in cast.agencies() if agency.body == body)
        centres = sorted(CENTRES, key=lambda centre: centre != home)
        public = self._site.operator.directory / "signing" / "directory.public.pem"
        prefix = self._namespaces.device(f"{number:02d}")
        return create(path, link=link, centres=centres, platform=public.read_bytes(), prefix=prefix)

    def _is_enrolled(self, path: Path, known: Mapping[str, LinkRow]) -> bool:
        with suppress(Problem, OSError):
            folder = DeviceFolder(path)
            folder.grant()
            row = known.get(folder.identity.link)
            ends = None if row is None else row.valid_until
            return (
                row is not None and row.state == "active" and (ends is None or ends - self._clock.now() > _RENEW_BEFORE)
            )
        return False


def _leads_home(folder: Path, now: dt.datetime) -> bool:
    with suppress(Problem, OSError, msgspec.MsgspecError):
        said = msgspec.json.decode((folder / status.FILE).read_bytes(), type=status.Status)
        return said.at_work(now) and said.active == DeviceFolder(folder).centres[0]
    return False


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with session.get(url) as reply:
            return reply.status == _OK
    return False
