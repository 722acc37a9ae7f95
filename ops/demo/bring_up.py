"""Brings the demo up: keys and certificates, two cells, the network, two exchanges, the national counterparts.

The order is that of dependence. Everything may be repeated on what an earlier start left, also on what an interrupted
one left half done. ``Running`` is what stands afterwards; ``stop`` takes it down in the reverse order, and returns with
nothing left running.

A process is ready when it says so itself: what answers names its process id, for on a port that was lost to another
program, another demo's exchange may answer just as well.
"""

import datetime as dt
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.ops.demo import cast
from chukan.ops.demo.agencies import foreign_stops, keep_agencies
from chukan.ops.demo.config import SigningKey, exchange_tables, write_settings
from chukan.ops.demo.databases import Databases
from chukan.ops.demo.model import Model
from chukan.ops.demo.neighbours import (
    COUNTERPARTS,
    NETWORK,
    REGISTRY,
    Neighbourhood,
    counterparts_tables,
    network_tables,
    network_url,
)
from chukan.ops.demo.place import FIRST_PORT, HOST, Place, choose_ports, is_free
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.supervisor import Ready, Supervisor, guarded, in_thread, together
from chukan.ops.installation import open_installation
from chukan.ops.readiness import answers_itself
from chukan.platform.law import Law
from chukan.replication.plain_toml import Tables
from chukan.settings import load
from chukan.tenants.directory import Snapshot

EXCHANGES: Final = {"exchange-east": "east", "exchange-west": "west"}
"""Peer names of the exchanges, each with its centre."""
READY_TIMEOUT_S: Final = 60.0
PORTS: Final = (
    *(f"{name} {part}" for part in ("agency", "network", "health") for name in EXCHANGES),
    NETWORK, "network-admin", *COUNTERPARTS, "counterparts-admin",
)  # fmt: skip
PORT_TRIES_MAX: Final = 4
_PORTS_APART: Final = 8192
"""Ports that were lost are chosen again somewhere in so many, where another demo that lost its own hardly looks."""
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

    def client_urls(self, agency: str) -> list[str]:
        """Return where an agency's systems and officers ask, in the order in which they try."""
        home = self.home_url(agency)
        return [home, *(url for url in map(self.agency_url, EXCHANGES) if url != home)]

    def namespace(self, agency: str) -> str:  # noqa: ARG002 - in a lab with links each body has its own
        """Return the network namespace in which they stand; none where they stand on this machine as it is."""
        return ""

    def published(self) -> list[tuple[str, str, str]]:
        """Return name, agency API and health endpoint of whatever clients may ask, in the order to try."""
        return [(name, self.agency_url(name), self.health_url(name)) for name in EXCHANGES]


class Credentials:
    """The demo's certificates and signing keys, made at the first start; a certificate about to end is replaced."""

    def __init__(self, place: Place, clock: SystemClock) -> None:
        """Make what is missing."""
        exists = (place.pki / "ca.pem").exists()
        self.authority = (
            Authority(place.pki, clock) if exists else Authority.create(place.pki, _AUTHORITY, clock, "sandbox")
        )
        self._clock = clock
        peers = [*EXCHANGES, NETWORK, REGISTRY, *COUNTERPARTS]
        self.peers = {name: self._keep("peers", name, self.authority.issue_peer) for name in peers}
        self.clients = {
            client.id: self._keep("clients", client.id, self.authority.issue_client) for client in cast.clients()
        }
        self.signing = {name: SigningKey(place.signing, name) for name in (*peers, "directory")}
        self.evidence = {centre: SigningKey(place.signing, f"evidence-{centre}") for centre in EXCHANGES.values()}

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

    def __init__(
        self, place: Place, screen: Screen, population: Population, law: Law, model: Model | None = None
    ) -> None:
        """Prepare only; ``model`` holds the numbers of a planned test environment."""
        self._model = model
        self.place, self.population, self.law = place, population, law
        self._screen = screen
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self.databases = Databases(place, self._chance)
        self.supervisor = Supervisor(place.log)
        self.credentials: Credentials
        self.addresses: Addresses
        self.around: Neighbourhood
        self._snapshot: Snapshot
        self._ports_lost = 0

    async def start(self) -> None:
        """Bring everything up. Raises ``Problem`` with the log to read; call ``stop`` in any case."""
        screen = self._screen
        with screen.step("keys and certificates"):
            self.place.make()
            self.credentials = await in_thread(lambda: Credentials(self.place, self._clock))
        with screen.step("two PostgreSQL servers, one per cell"):
            await self.databases.start()
            await self.databases.prepare()
        self._take_ports()
        with screen.step(f"{len(cast.agencies())} agencies, their keys in both centres' key stores"):
            self._snapshot = await self._keep_agencies()
        for stop in foreign_stops(self._snapshot):
            screen.say(f"  ! stopped by an operator: kind {stop.kind or 'all'}, procedure {stop.procedure or 'all'}")
        await self._start_processes()

    async def watch(self) -> None:
        """Start a process that ended by itself again; a server that did so ends this. Raises ``Problem``."""
        await guarded(self.supervisor.watch(self._restarted), self.databases.watch())

    def _restarted(self, name: str) -> None:
        self._screen.say(f"  ! {name} has ended by itself; it is started again (log: {self.place.log / name}.log)")

    def choose_ports(self) -> Mapping[str, int]:
        """Return a free port for everything that listens; from elsewhere when some were lost before."""
        away = 0 if self._ports_lost == 0 else int.from_bytes(self._chance.token(4)) % _PORTS_APART
        return choose_ports(PORTS, first=FIRST_PORT + away)

    async def stop(self) -> None:
        """Take everything down; nothing is left running."""
        await self.supervisor.stop()
        await self.databases.stop()

    def _take_ports(self) -> None:
        """Choose ports, and tell an operator's commands."""
        self.addresses = Addresses(self.choose_ports())
        key = {"directory_signing_key_file": self.credentials.signing["directory"].private_file}
        tables = self._exchange_tables(next(iter(EXCHANGES)), "broker", "app", "steward")
        write_settings(self.place.operator, [*tables, ("operator", key)])

    async def _keep_agencies(self) -> Snapshot:
        settings = load(self.place.operator, os.environ)
        async with open_installation(settings, clock=self._clock, chance=self._chance) as installation:
            return await keep_agencies(installation)

    async def _start_processes(self) -> None:
        """Start the processes; all of them anew, on other ports, where another program took one meanwhile."""
        for _ in range(PORT_TRIES_MAX):
            try:
                await self._start_each()
            except Problem:
                await self.supervisor.stop()
                taken = [str(port) for port in self.addresses.ports.values() if not is_free(port)]
                if not taken:
                    raise
                self._screen.say(f"  ! another program (a second demo?) took port {', '.join(taken)}; trying others")
                self._ports_lost += 1
                self._take_ports()
            else:
                return
        raise Problem("process_failed", limit=PORT_TRIES_MAX, expected="TCP ports that no other program takes")

    async def _start_each(self) -> None:
        self.around = self._neighbourhood()
        addresses = self.addresses
        with self._screen.step("the information-provision network (sandbox)"):
            write_settings(self._settings("network"), network_tables(self.around))
            await self._start("network", ["sandbox", "network"], f"{addresses.network_admin_url}/admin/process")
        with self._screen.step("two exchanges, east and west"):
            for name in EXCHANGES:
                write_settings(self._settings(name), self._exchange_tables(name, "broker", "app"))
            await together(
                [self._start(name, ["exchange"], f"{addresses.health_url(name)}/readyz") for name in EXCHANGES]
            )
        with self._screen.step("two national counterparts (sandbox)"):
            write_settings(self._settings("counterparts"), counterparts_tables(self.around))
            url = f"{addresses.counterparts_admin_url}/admin/process"
            await self._start("counterparts", ["sandbox", "counterparts"], url)

    def _settings(self, name: str) -> Path:
        return self.place.config / f"{name}.toml"

    async def _start(self, name: str, words: list[str], url: str) -> None:
        arguments = [*words, "--config", str(self._settings(name))]
        await self.supervisor.start(name, "chukan.ops.cli", arguments, self._ready(name, url), READY_TIMEOUT_S)

    def _ready(self, name: str, url: str) -> Ready:
        """Return the question whether a URL answers with 200, and who answers is the process of this name."""

        async def ready() -> bool:
            return await answers_itself(url, lambda: self.supervisor.pids().get(name))

        return ready

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
            agencies={row.code: row.name for row in self._snapshot.agencies},
            people={body: self.population.began_in(body) for body in knows},
            seed=self.population.seed,
            law_directory=self._law_directory,
            evidence={centre: key.public_file for centre, key in self.credentials.evidence.items()},
        )

    def _exchange_tables(self, name: str, *logins: str) -> Tables:
        ports = self.addresses.ports
        passwords = self.databases.passwords
        return exchange_tables(
            name=name,
            centre=EXCHANGES[name],
            ports={part: ports[f"{name} {part}"] for part in ("agency", "network", "health")},
            sockets=self.databases.sockets(),
            passwords={cell: {login: files[login] for login in logins} for cell, files in passwords.items()},
            certificate=self.credentials.peers[name],
            trusted=self.credentials.authority.trusted,
            signing=self.credentials.signing[name],
            directory=self.credentials.signing["directory"],
            network_url=network_url(ports),
            network_verify=self.credentials.signing[NETWORK].public_file,
            keystores=self.place.keystores,
            model=self._model,
            law_directory=self._law_directory,
            evidence=self.credentials.evidence,
        )

    @property
    def _law_directory(self) -> Path | None:
        return None if self._model is None else self.place.law


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
