"""``chukan exchange``: one exchange server as a process — its parts, its three listeners, and its orderly end.

The health listener comes first, so that everybody can see that the process is starting; the agency and the network
listener open when the exchange works. On SIGTERM (or SIGINT) the exchange goes out of service without losing anybody:
``/readyz`` says so for a while, in which everybody is still served; then nothing new is taken, who waits is answered,
who works finishes, and the leases are given back so that the other exchange goes on at once. Past the deadline the rest
is dropped: its effects are durable or absent, and every caller finds out by its own key.

This module puts things together and decides nothing.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast

import cyclopts
import uvloop

from chukan import log
from chukan import settings as site_settings
from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.certificates import read_certificates, require_environment
from chukan.ops.key_watch import KeyWatch
from chukan.platform import tls
from chukan.platform.admission import Admission, Limits
from chukan.platform.certificate_ends import CertificateEnds, authorities_of, peers_of
from chukan.platform.envelope import Opener, Signer
from chukan.platform.exchange.exchange import Exchange
from chukan.platform.exchange.fact_purge import FactPurge
from chukan.platform.exchange.forgetting import Forgetting
from chukan.platform.exchange.officer_services import OfficerServices, officer_services
from chukan.platform.http import openapi
from chukan.platform.http.api import AgencyApi
from chukan.platform.http.auth import AddressCheck, LinkAddresses, NoAddressCheck
from chukan.platform.http.calls import Services
from chukan.platform.http.desks.copies import PartitionCopies
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.evidence import PartitionEvidence
from chukan.platform.http.desks.loads import PartitionLoads
from chukan.platform.http.desks.operations import PartitionOperations
from chukan.platform.http.desks.records import PartitionRecords
from chukan.platform.http.desks.resident import PartitionResidents
from chukan.platform.http.drain import Drain
from chukan.platform.http.gauges import Gauges
from chukan.platform.http.health import Health, Sources
from chukan.platform.http.link_health import link_application
from chukan.platform.http.listener import Listener
from chukan.platform.http.network import network_app
from chukan.platform.http.ports import Desks
from chukan.platform.http.refusals import Refusals
from chukan.platform.http.routes import ROUTES
from chukan.platform.http.stalls import Stalls
from chukan.platform.law import Law
from chukan.platform.law.masters import LawInForce
from chukan.platform.metrics import Metrics
from chukan.platform.peer import NetworkPeer
from chukan.platform.revocation_watch import RevocationLists
from chukan.platform.textfiles import Textfiles
from chukan.replication.primary import Cells
from chukan.settings import Settings
from chukan.tenants.keystore import KeyStores
from chukan.tenants.pem_keys import read_private_key, read_public_key
from chukan.tenants.sets import CellSets

DRAIN_S: Final = 20.0
"""How long requests at work may take to finish after SIGTERM; DESIGN asks for no failed request in a drain."""
REFUSALS_S: Final = 5.0
EXIT_FAULT: Final = 70  # EX_SOFTWARE of sysexits.h

_log = log.get("ops.serve")

app = cyclopts.App(name="exchange", help="Serve as an exchange.")


class Ports(NamedTuple):
    """Where the three listeners really listen."""

    agency: int
    network: int
    health: int


@app.default
def exchange(*, config: Annotated[Path | None, cyclopts.Parameter(name=["--config", "-c"])] = None) -> int:
    """Serve until SIGTERM.

    Args:
        config: The settings file (TOML); CHUKAN_SETTINGS names it otherwise.
    """
    named = os.environ.get("CHUKAN_SETTINGS")
    settings = site_settings.load(config or (Path(named) if named else None), os.environ)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_told(settings))


async def _until_told(settings: Settings) -> int:
    """Serve until a signal comes; return the exit status."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return await run(settings, told)


async def run(
    settings: Settings, told: asyncio.Event, started: Callable[[Ports], None] = lambda _: None, drain_s: float = DRAIN_S
) -> int:
    """Serve until ``told`` is set; return the exit status: 0, or 70 where a part of the server broke.

    Raises ``Problem`` where it cannot start: settings, certificates, keys, common_data_stale, other_environment.
    """
    server = Server(settings, told)
    try:
        if await _or(told, server.start(started)):
            await told.wait()
    finally:
        await server.stop(drain_s)
    return EXIT_FAULT if server.broken else 0


async def _or(told: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do some work unless told to stop meanwhile; tell whether it was done."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.wait((working, waiting))


class Server:
    """All parts of one exchange process; ``told`` is set when one of its loops breaks."""

    def __init__(self, settings: Settings, told: asyncio.Event) -> None:
        """Read keys, certificates and law, and put the parts together; nothing is connected yet."""
        self.settings = settings
        self.broken = False
        self._told = told
        self._clock = SystemClock()
        self._chance = SystemChance(self._clock)
        self._metrics = Metrics()
        self._drain = Drain()
        self._law = Law.load(settings.data.law_directory)
        environment = settings.site.environment
        trusted = (settings.exchange.tls_ca_file, settings.network.ca_file)
        for root in trusted:
            require_environment(root, environment)
        roots = [root for file in trusted for root in read_certificates(file)]
        self._revoked = RevocationLists(settings.exchange.crl_files, roots, self._clock, self._metrics)
        self._address_check = _address_check(settings)
        # An exchange only uses keys. It goes on with those that were confirmed while the other centre was there, also
        # when it is started without it.
        self._keystores = KeyStores.of(settings, chance=self._chance, degraded=True)
        self._keystores.check()
        self._cells = Cells(settings.cells, environment, self._revoked.refuses_shown)
        self._make_network()
        self._make_exchange()
        self._make_listeners()
        self._loops: list[asyncio.Task[None]] = []
        self._listening = False

    def _make_network(self) -> None:
        mine, network = self.settings.exchange, self.settings.network
        self._network_key = read_public_key(network.verify_key_file)
        self._signer = Signer(mine.name, read_private_key(mine.signing_key_file), self._clock, self._chance)
        self._opener = Opener({network.name: self._network_key}, self._clock)
        context = tls.client_context(mine.tls_certificate_file, mine.tls_key_file, network.ca_file)
        self._certificate_ends = CertificateEnds(peers_of(self.settings, context), self._metrics)
        self._peer = NetworkPeer(network, self._signer, self._opener, context, name=network.name, revoked=self._revoked)

    def _make_exchange(self) -> None:
        self.exchange = Exchange(
            self.settings,
            cells=self._cells,
            peer=self._peer,
            keystores=self._keystores,
            law=self._law,
            network_key=self._network_key,
            directory_key=read_public_key(self.settings.exchange.directory_key_file),
            clock=self._clock,
            chance=self._chance,
            meter=self._metrics,
            revoked=self._revoked.revoked_by,
        )
        door, keys = CellDoor(self._cells), self._keystores.load
        # Written with a deadline of its own: the way out must not wait long for it.
        links = CellSets(self._cells.primary(self.settings.links_cell).broker, timeout_s=REFUSALS_S)
        self._refusals = Refusals(self.settings.exchange.name, links.enter_refusals, self._clock, self._chance)
        limits = Limits(in_flight_max=self.settings.exchange.in_flight_max).divided_by(self.settings.site.fraction)
        law = cast("Law", LawInForce(lambda: self.exchange.context.law))
        self._services = Services(
            exchange=self.exchange,
            desks=Desks(
                PartitionCopies(door, keys, law, self._clock, self._chance),
                PartitionLoads(door, keys, law, self._clock, self._chance, self._metrics),
                PartitionRecords(door, keys),
                PartitionEvidence(door, keys, self.exchange.confirm, self.exchange.origin),
                PartitionResidents(door, keys, self.exchange.confirm),
                PartitionOperations(door, keys, self.exchange.confirm, self.exchange.origin),
            ),
            law=law,
            calendar=lambda: self.exchange.context.calendar,
            admission=Admission(limits, self._clock, self._metrics),
            metrics=self._metrics,
            clock=self._clock,
            drain=self._drain,
            request_bytes_max=self.settings.exchange.request_bytes_max,
            durability=self._cells.told_durability,
            # Looked up at each call: health is made later, of what is made here.
            stalls=Stalls(self._commits, most=max(1, limits.in_flight_max // 4)),
            admit=self.exchange.openings.admit,
            refused=self._refusals.tell,
            officers=self._officers(),
            operations=self.exchange.journal,
        )

    def _officers(self) -> OfficerServices:
        return officer_services(self.exchange.context, self.exchange.door, self.exchange.refused_sign_ins)

    def _commits(self, cell: str) -> bool:
        return self.health.commits(cell)

    def _make_listeners(self) -> None:
        mine = self.settings.exchange
        documents = (("/", openapi.index(ROUTES)), ("/openapi.json", openapi.render(ROUTES)))
        api = AgencyApi(self._services, ROUTES, self._address_check, self._chance, documents)
        context = tls.server_context(mine.tls_certificate_file, mine.tls_key_file, mine.tls_ca_file)
        network = network_app(
            self.exchange.inbox,
            self._opener,
            self._signer,
            network=self.settings.network.name,
            acquisition_asks=self.exchange.acquisition_asks.take,
            corrections=self.exchange.corrections.take,
        )
        self.health = self._make_health()
        inside = tuple(mine.link_hosts)
        self._agency_side = Listener(
            api.application(),
            mine.agency_host,
            mine.agency_port,
            context,
            more_hosts=inside,
            revoked=self._revoked,
        )
        self._network_side = Listener(network, mine.network_host, mine.network_port, context, revoked=self._revoked)
        self._health_side = Listener(self.health.application(), mine.health_host, mine.health_port)
        self._inside: Listener | None = None
        self._metrics.certificate_expiry(
            read_certificates(mine.tls_certificate_file)[0].not_valid_after_utc.timestamp()
        )
        for name, ends_at in authorities_of(self.settings).items():
            self._metrics.authority(name, ends_at)
        for cell in self._cells.names:
            self._metrics.follow_common_data(cell, partial(self.exchange.common.cell_age_s, cell))

    def _make_health(self) -> Health:
        centre = self.settings.site.centre
        if centre not in self.settings.keystores:
            raise Problem("setting_missing", pointer=f"/keystores/{centre}")
        # Our own centre's store: the other centre's being away is no fault of this exchange.
        store = self._keystores.stores[centre]
        sources = Sources(
            canaries={name: CellSets(self._cells.primary(name).canary).canary for name in self._cells.names},
            keys=lambda: len(store.agencies()),
            common_age_s=self.exchange.common.age_s,
            snapshot=lambda: self.exchange.directory.number,
            listening=lambda: self._listening,
            network_ok=lambda: self.exchange.peer.answered,
            picture=self._cells.picture,
            opening=self._opening,
        )
        # With the process, so that whoever started it can tell its answers from those of another exchange.
        about: dict[str, str | int] = {
            "exchange": self.settings.exchange.name,
            "centre": centre,
            "pid": os.getpid(),
        }
        return Health(sources, self._clock, self._metrics, self._drain, about)

    def _opening(self, cell: str) -> tuple[int, bool] | None:
        openings = self.exchange.openings
        epoch = openings.epoch(cell)
        return None if epoch is None else (epoch, openings.closed(cell))

    # ---------------------------------------------------------------- life

    async def start(self, started: Callable[[Ports], None]) -> None:
        """Open the listeners, health first; ``started`` is told the ports once all three are open."""
        await self._cells.open()
        health = await self._health_side.start()
        _log.info("listening", stage="health", port=health)
        await self._listen_inside(health)
        self._spawn("health", self.health.run())
        await self.exchange.start()
        self._spawn("exchange", self.exchange.broken())
        gauges = Gauges(self.exchange.sets, lambda: self.exchange.directory, self._metrics, self._clock)
        self._spawn("gauges", gauges.run())
        self._spawn("certificates", self._certificate_ends.run())
        self._spawn("revocation", self._revoked.run())
        if (folder := self.settings.metrics.textfiles) is not None:
            self._spawn("textfiles", Textfiles(folder, self._metrics.registry).run())
        watch = KeyWatch(self._keystores, lambda: self.exchange.directory, self._metrics.key_token)
        self._spawn("keys", watch.run())
        self._spawn("refusals", self._refusals.run())
        self._spawn("forgetting", Forgetting(self.exchange.sets, self._clock).run())
        self._spawn("fact purge", FactPurge(self.exchange.sets, self._clock).run())
        network = await self._network_side.start()
        agency = await self._agency_side.start()
        _log.info("listening", stage="network", port=network)
        _log.info("listening", stage="agency", port=agency)
        self._listening = True
        started(Ports(agency, network, health))

    async def _listen_inside(self, port: int) -> None:
        """Tell health inside the links too, at the same port and less of it: everybody behind a link can ask.

        ``Problem`` setting_invalid where an address is not this host's, or taken.
        """
        hosts = self.settings.exchange.link_hosts
        if not hosts:
            return
        app = link_application(self.health, self.settings.site.centre)
        self._inside = Listener(app, hosts[0], port, more_hosts=hosts[1:])
        try:
            await self._inside.start()
        except OSError:
            expected = "addresses of this host, with a free port"
            raise Problem("setting_invalid", pointer="/exchange/link_hosts", expected=expected) from None

    async def stop(self, drain_s: float) -> None:
        """Go out of service: give notice, drain the listeners, stop the exchange, close what is open.

        Safe after a failed start, of which nobody needs notice.
        """
        notice_s = self.settings.exchange.drain_notice_s if self._listening else 0.0
        _log.info("going out of service", seconds=notice_s + drain_s)
        self._drain.begin()
        await asyncio.sleep(notice_s)
        self._drain.close()
        await asyncio.gather(self._agency_side.close(drain_s), self._network_side.close(drain_s))
        await self.exchange.stop()
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops)
        if self._listening:
            await self._refusals.write()
        if self._inside is not None:
            await self._inside.close(1.0)
        await self._health_side.close(1.0)
        await self._peer.close()
        await self._cells.close()
        self._keystores.close()
        _log.info("out of service")

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._loops.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        # A loop that should never end did: better no exchange here than half of one.
        self.broken = True
        _log.critical("a loop ended", stage=task.get_name(), exc_info=task.exception())
        self._told.set()


def _address_check(settings: Settings) -> AddressCheck:
    """Return the check of source addresses; only a sandbox may go without (the settings refuse it elsewhere)."""
    return LinkAddresses() if settings.site.address_check else NoAddressCheck()
