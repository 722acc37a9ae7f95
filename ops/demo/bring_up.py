"""Brings the demo up: keys and certificates, two cells, the network, two exchanges, the national counterparts.

The order is that of dependence. Everything may be repeated on what an earlier start left, also on what an interrupted
one left half done. ``Running`` is what stands afterwards; ``stop`` takes it down in the reverse order, and returns with
nothing left running.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.ops.demo import cast
from chukan.ops.demo.config import SigningKey, exchange_tables, write_settings
from chukan.ops.demo.databases import Databases, keep_common_data, make_keys
from chukan.ops.demo.neighbours import (
    COUNTERPARTS,
    NETWORK,
    REGISTRY,
    Neighbourhood,
    counterparts_tables,
    network_tables,
)
from chukan.ops.demo.place import HOST, Place, choose_ports
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.supervisor import Supervisor, guarded, in_thread
from chukan.platform.law import Law

EXCHANGES: Final = {"exchange-east": "east", "exchange-west": "west"}
"""Peer names of the exchanges, each with its centre."""
READY_TIMEOUT_S: Final = 60.0
PORTS: Final = (
    *(f"{name} {part}" for part in ("agency", "network", "health") for name in EXCHANGES),
    NETWORK, "network-admin", *COUNTERPARTS, "counterparts-admin",
)  # fmt: skip
_PROBE_TIMEOUT_S: Final = 2.0
_OK: Final = 200
_RENEW_BEFORE: Final = dt.timedelta(days=1)
_AUTHORITY: Final = "Chukan demo"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens, by port name."""

    ports: Mapping[str, int]

    def agency_url(self, exchange: str) -> str:
        """Return the agency API of an exchange."""
        return f"https://{HOST}:{self.ports[f'{exchange} agency']}"

    def health_url(self, exchange: str) -> str:
        """Return the health endpoint of an exchange."""
        return f"http://{HOST}:{self.ports[f'{exchange} health']}"

    @property
    def network_admin_url(self) -> str:
        """The simulated network's steering wheel."""
        return f"http://{HOST}:{self.ports['network-admin']}"

    @property
    def counterparts_admin_url(self) -> str:
        """The same of the national counterparts."""
        return f"http://{HOST}:{self.ports['counterparts-admin']}"

    def home_url(self, agency: str) -> str:
        """Return the agency API of the exchange in an agency's home centre."""
        home = cast.home(agency)
        return self.agency_url(next(name for name, centre in EXCHANGES.items() if centre == home))


class Credentials:
    """The demo's certificates and signing keys, made at the first start; a certificate about to end is replaced."""

    def __init__(self, place: Place, clock: SystemClock) -> None:
        """Make what is missing."""
        exists = (place.pki / "ca.pem").exists()
        self.authority = Authority(place.pki, clock) if exists else Authority.create(place.pki, _AUTHORITY, clock)
        self._clock = clock
        peers = [*EXCHANGES, NETWORK, REGISTRY, *COUNTERPARTS]
        self.peers = {name: self._keep("peers", name, self.authority.issue_peer) for name in peers}
        self.clients = {
            client.id: self._keep("clients", client.id, self.authority.issue_client) for client in cast.clients()
        }
        self.signing = {name: SigningKey(place.signing, name) for name in (*peers, "directory")}

    def _keep(self, folder: str, name: str, issue: Callable[[str], Issued]) -> Issued:
        home = self.authority.folder / folder / name
        kept = Issued(home / "certificate.pem", home / "key.pem")
        if not kept.certificate.exists():
            return issue(name)
        if read_certificates(kept.certificate)[0].not_valid_after_utc - self._clock.now() < _RENEW_BEFORE:
            # Nothing is overwritten: the old pair stays, under the instant at which it was put aside.
            home.rename(home.with_name(f"{name}.{self._clock.now():%Y%m%dT%H%M%S}"))
            return issue(name)
        return kept


class Running:
    """The demo's servers and processes."""

    def __init__(self, place: Place, screen: Screen, population: Population, law: Law) -> None:
        """Prepare only."""
        self.place, self.population, self.law = place, population, law
        self._screen = screen
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self.databases = Databases(place, self._chance)
        self.supervisor = Supervisor(place.log)
        self.credentials: Credentials
        self.addresses: Addresses
        self.around: Neighbourhood

    async def start(self) -> None:
        """Bring everything up. Raises ``Problem`` with the log to read; call ``stop`` in any case."""
        screen = self._screen
        with screen.step("keys and certificates"):
            self.place.make()
            self.credentials = await in_thread(lambda: Credentials(self.place, self._clock))
            self.addresses = Addresses(self.choose_ports())
            self.around = self._neighbourhood()
        with screen.step("two PostgreSQL servers, one per cell"):
            await self.databases.start()
            await self.databases.prepare()
        with screen.step(f"{len(cast.agencies())} agencies, their keys in both centres' key stores"):
            signed, snapshot = keep_common_data(
                self.place, self.credentials.signing["directory"], self._clock, self.law.number
            )
            await in_thread(lambda: make_keys(self.place, snapshot, self._chance))
            await self.databases.populate(signed, snapshot)
        with screen.step("the information-provision network (sandbox)"):
            await self._start_network()
        with screen.step("two exchanges, east and west"):
            await self._start_exchanges()
        with screen.step("two national counterparts (sandbox)"):
            await self._start_counterparts()

    async def watch(self) -> None:
        """Start a process that ended by itself again; a server that did so ends this. Raises ``Problem``."""
        await guarded(self.supervisor.watch(self._restarted), self.databases.watch())

    def _restarted(self, name: str) -> None:
        self._screen.say(f"  ! {name} has ended by itself; it is started again (log: {self.place.log / name}.log)")

    def choose_ports(self) -> Mapping[str, int]:
        """Return a free port for everything that listens."""
        return choose_ports(PORTS)

    async def stop(self) -> None:
        """Take everything down; nothing is left running."""
        await self.supervisor.stop()
        await self.databases.stop()

    def _neighbourhood(self) -> Neighbourhood:
        ports = self.addresses.ports
        knows = (cast.PROVIDER_KNOWS, cast.INQUIRER_KNOWS)
        return Neighbourhood(
            state=self.place.network,
            trusted=self.credentials.authority.trusted,
            ports=ports,
            signing=self.credentials.signing,
            certificates=self.credentials.peers,
            exchanges={name: ports[f"{name} network"] for name in EXCHANGES},
            people={body: self.population.began_in(body) for body in knows},
            seed=self.population.seed,
        )

    async def _start_network(self) -> None:
        path = self.place.config / "network.toml"
        write_settings(path, network_tables(self.around))
        ready = _answers(f"{self.addresses.network_admin_url}/admin/state")
        await self._start("network", ["sandbox", "network", "--config", str(path)], ready)

    async def _start_exchanges(self) -> None:
        for name, centre in EXCHANGES.items():
            path = self.place.config / f"{name}.toml"
            ports = {part: self.addresses.ports[f"{name} {part}"] for part in ("agency", "network", "health")}
            tables = exchange_tables(
                name=name,
                centre=centre,
                ports=ports,
                sockets=self.databases.sockets(),
                passwords=self.databases.passwords,
                certificate=self.credentials.peers[name],
                trusted=self.credentials.authority.trusted,
                signing=self.credentials.signing[name],
                directory=self.credentials.signing["directory"],
                network_url=self.around.network_url,
                network_verify=self.credentials.signing[NETWORK].public_file,
                keystores=self.place.keystores,
            )
            write_settings(path, tables)
            ready = _listens(f"{self.addresses.health_url(name)}/readyz", ports["agency"], ports["network"])
            await self._start(name, ["exchange", "--config", str(path)], ready)

    async def _start_counterparts(self) -> None:
        path = self.place.config / "counterparts.toml"
        write_settings(path, counterparts_tables(self.around))
        ready = _answers(f"{self.addresses.counterparts_admin_url}/admin/state")
        await self._start("counterparts", ["sandbox", "counterparts", "--config", str(path)], ready)

    async def _start(self, name: str, words: list[str], ready: Callable[[], Awaitable[bool]]) -> None:
        await self.supervisor.start(name, "chukan.ops.cli", words, ready, READY_TIMEOUT_S)


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    """Return the question whether a URL answers with 200."""

    async def ready() -> bool:
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                return response.status == _OK
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    return ready


def _listens(url: str, *ports: int) -> Callable[[], Awaitable[bool]]:
    """Return the question whether a URL answers with 200 and somebody listens on all ports."""
    answers = _answers(url)

    async def ready() -> bool:
        return await answers() and all([await _is_open(port) for port in ports])

    return ready


async def _is_open(port: int) -> bool:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(HOST, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the demo remembers between starts (``state.json``)."""

    people: int
    seed: int
    runs: int = 0
    registered: bool = False


def read_memory(place: Place) -> Memory | None:
    """Return what an earlier start remembered, None where there was none."""
    if not place.state.exists():
        return None
    return msgspec.json.decode(place.state.read_bytes(), type=Memory)


def write_memory(place: Place, memory: Memory) -> None:
    """Remember, at once and whole."""
    aside = place.state.with_name(f".{place.state.name}.new")
    aside.write_bytes(msgspec.json.encode(memory))
    aside.rename(place.state)
