"""Brings the lab up, and everything around it: what ``ops.demo`` does with two servers, here with two centres.

The order is that of dependence; everything may be repeated on what an earlier start left. ``stop`` returns with nothing
left running. What the demo's main job needs of an installation is the same: addresses, certificates, people, law.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from chukan.errors import Problem
from chukan.ops import site as site_files
from chukan.ops.centres import archives, databases, delay, reaper, runtime
from chukan.ops.centres.addresses import LabAddresses
from chukan.ops.centres.disks import Disk
from chukan.ops.centres.keeper import clean, wires_for
from chukan.ops.centres.layout import NETWORK_PORT, NUMBERS, lab_site, site_file
from chukan.ops.centres.picture import Painter
from chukan.ops.centres.pki import LabCredentials
from chukan.ops.centres.place import RECONCILED_FILE, RESTORE_FILE, LabPlace, make_tree
from chukan.ops.centres.processes import Command, Processes
from chukan.ops.centres.restore import CellRestore, LabRestorer
from chukan.ops.centres.stage import LabStage
from chukan.ops.centres.tunnels import LabLinks
from chukan.ops.centres.wires import CENTRES, WAN
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES, Running
from chukan.ops.demo.config import write_settings
from chukan.ops.demo.neighbours import COUNTERPARTS, NETWORK, Neighbourhood, counterparts_tables, network_tables
from chukan.ops.demo.place import choose_ports
from chukan.ops.demo.population import Population
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.supervisor import in_thread, together
from chukan.ops.local.machine import Identity, server_identity
from chukan.ops.pgbackrest import ENVIRONMENT
from chukan.ops.readiness import until_itself
from chukan.platform.law import Law
from chukan.replication import render
from chukan.replication.site import Topology
from chukan.replication.site_rules import check

LEADERS_TIMEOUT_S: Final = 90.0
SETTLED_TIMEOUT_S: Final = 90.0
_READY_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0
_ETCD_STOP_TIMEOUT_S: Final = 2.0
_ADMIN_FIRST: Final = 18600
_MS: Final = 1000.0
_ETCD: Final = Path("/usr/bin/etcd")
_LINK_TIMEOUT_S: Final = 10.0
_LINK_TRY_S: Final = 2.5
_DELAY: Final = Path(delay.__file__)
_LAST: Final = ("etcd-", "delay-", f"{archives.SERVER}-")
"""Whom those that end need until they have ended."""
_LIMITS: Final = {"permit_grace_s": 1.0, "drain_notice_s": 3.0}
"""No answer is half a minute on its way from a network on this machine, and no device here has a route to move."""


class CentresRunning(Running):
    """The lab's sites, their processes and their neighbours."""

    addresses: LabAddresses

    def __init__(
        self,
        place: LabPlace,
        screen: Screen,
        population: Population,
        law: Law,
        topology: Topology,
        *,
        delay_ms: float | None = None,
        backups: bool = False,
        bodies: Sequence[str] = (),
    ) -> None:
        """Prepare only. Raises ``Problem`` runtime_missing where PostgreSQL, etcd or Patroni are not installed.

        With ``delay_ms`` everything between the centres takes so many milliseconds each way. With ``backups`` the cells
        archive into a repository in each centre, where pgBackRest is installed. ``bodies`` have a link each, and their
        agencies reach the exchanges through it alone; nobody's address is checked where there are none.
        """
        super().__init__(place, screen, population, law)
        if not _ETCD.exists():
            raise Problem("runtime_missing", expected="etcd (Debian's etcd-server)")
        self.lab = place
        self.wires = wires_for(place.lab)
        backup_user = archives.user() if backups else None
        self.site = lab_site(
            place.lab, topology, self.wires, backup_user=backup_user, epochs=place.epochs(), links=bool(bodies)
        )
        for problem in check(self.site):
            raise problem
        self._patroni = runtime.find()
        self._identity: Identity | None = server_identity()
        data = {node.name: self._folder(node.host) / "data" / node.name for _, node in self.site.nodes()}
        self.processes = Processes(data)
        firsts = [cell.nodes[0] for cell in self.site.cells.values()]
        self._disks = {
            node.name: Disk(self._folder(node.host) / "disk" / f"{node.name}.img", data[node.name]) for node in firsts
        }
        self.stage = LabStage(self.site, self.wires, self.processes, self._until_ready, self._disks)
        if self.site.backup is not None:
            restore = CellRestore(self.stage, self.processes, self.wires, place.lab / RESTORE_FILE, self._raise_epoch)
            self.stage.restorer = LabRestorer(restore, self.stage, self.wires, place.lab / RECONCILED_FILE)
        self.links = LabLinks(place, self.site, self.wires, self.processes, bodies) if bodies else None
        if self.links is not None:
            self.stage.links, self.stage.devices_at_home = self.links.wires, self.links.at_home
        self._keeper: asyncio.subprocess.Process | None = None
        self._end_burials: Callable[[], None] = lambda: None
        self._delay_ms = delay_ms

    def _folder(self, host: str) -> Path:
        return self.site.directory(self.site.where(host))

    # ------------------------------------------------------------ up

    async def start(self) -> None:
        """Bring everything up. Raises ``Problem`` with the log to read; call ``stop`` in any case.

        Call it standing inside ``wires.inside()`` only after ``lay``: the namespaces are made there.
        """
        screen = self._screen
        await self.start_cells()
        with screen.step("the information-provision network and its counterparts (sandbox), outside"):
            await self._start_neighbours()
        with screen.step("two exchanges, east and west" + ("; a gateway at each" if self.links is not None else "")):
            gateways = [] if self.links is None else [self.links.start_gateways()]
            await together([*(self._start_ready(name) for name in EXCHANGES), *gateways])
        if self.links is not None:
            with screen.step(f"{len(self.links.bodies)} municipalities, each behind its own device"):
                await self.links.start_devices()
        await self.stage.finish_restore()
        with screen.step("every standby streams, synchronous as configured"):
            await self.stage.settled(SETTLED_TIMEOUT_S)

    async def start_cells(self) -> None:
        """Bring up the cells and the common data in them, without anybody who serves; as ``start``."""
        screen = self._screen
        with screen.step("trees, authorities and keys of east, west and the witness"):
            await in_thread(self._make)
        if self._delay_ms is not None:
            with screen.step(f"a link of {self._delay_ms:g} ms each way between east and west"):
                screen.say(f"    there and back: {await self.lengthen(self._delay_ms) * _MS:.1f} ms")
        with screen.step("three etcd; eight PostgreSQL under Patroni" if self._eight else "three etcd; six PostgreSQL"):
            await self._start_cells()
        with screen.step("two cells, prepared through their leaders"):
            await together([databases.prepare(self.site, cell, LEADERS_TIMEOUT_S) for cell in self.site.cells])
        with screen.step(f"{len(cast.agencies())} agencies, their keys in both centres' key stores"):
            self._snapshot = await self._keep_agencies()
        if self.site.backup is not None:
            with screen.step("a repository of backups in each centre"):
                await archives.make_stanzas(self.site, self.wires)

    @property
    def _eight(self) -> bool:
        return self.site.topology == "2+2"

    async def lay(self) -> None:
        """Take away what an earlier start left, make the namespaces, and start the keeper."""
        self._end_burials = reaper.begin()
        await in_thread(lambda: clean(self.lab.lab))
        self._keeper = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chukan.ops.centres.keeper", str(self.lab.lab),
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        await in_thread(lambda: self.wires.build(NUMBERS, cable=self._delay_ms is not None))
        if self.links is not None:
            await in_thread(self.links.wires.build)

    async def lengthen(self, delay_ms: float) -> float:
        """Make the link so long each way, in a lab with a delay; return the seconds there and back, or ``Problem``."""
        self._know_delays(delay_ms)
        names = [f"delay-{site}" for site in CENTRES]
        await self.processes.kill(names)
        await together([self.processes.start(name) for name in names])
        try:
            async with asyncio.timeout(_LINK_TIMEOUT_S):
                while True:
                    with suppress(TimeoutError):
                        # Twice: the first also pays for finding who has the address.
                        tries = [await asyncio.to_thread(self.wires.round_trip_s, *CENTRES, _LINK_TRY_S) for _ in "12"]
                        return min(tries)
        except TimeoutError:
            raise Problem("process_failed", expected=str(self.processes.log_of(names[0]))) from None

    def _make(self) -> None:
        self.lab.lab.mkdir(parents=True, exist_ok=True)
        self.place.make()
        for name in (*self.site.centres, self.site.witness.name):
            make_tree(self.site.directory(name), self._identity)
        self.credentials = LabCredentials(self.site, self.place, self._clock, self._chance)
        self.credentials.give(self._identity)
        self._write_configs()
        for disk in self._disks.values():
            disk.mount(self._identity)
        archives.give(self.site, self._identity)
        self._know()

    def _write_configs(self) -> None:
        self.lab.site.write_text(site_file(self.site), encoding="utf-8")
        folders = {name: self.site.directory(name) / "config" for name in (*self.site.centres, self.site.witness.name)}
        for path in site_files.write(self.site, folders):
            if self._identity is not None and (path.name.startswith("patroni-") or archives.is_config(path)):
                os.chown(path, self._identity.uid, self._identity.gid)
        for name in EXCHANGES:
            text = render.exchange(self.site, name, _LIMITS)
            (folders[EXCHANGES[name]] / f"{name}.toml").write_text(text, encoding="utf-8")
        if self.links is not None:
            self.links.write(self.site, folders)
            self.links.make()
        self.place.operator.write_text(render.operator(self.site), encoding="utf-8")

    def _raise_epoch(self, cell: str, epoch: int) -> None:
        """Say in the site file, and to everybody whose settings are made of it, that a cell was restored."""
        row = msgspec.structs.replace(self.site.cells[cell], restore_epoch=epoch)
        self.site = msgspec.structs.replace(self.site, cells={**self.site.cells, cell: row})
        self.stage.site = self.site
        self._write_configs()

    def _know(self) -> None:
        """Tell the processes what each of them is started with."""
        site = self.site
        if self._delay_ms is not None:
            # Known first, killed first: nothing that a dying centre still says gets out.
            self._know_delays(self._delay_ms)
        for member in site.etcd.members:
            argv = [str(_ETCD), *render.etcd(site, member.name)]
            self._know_one(member.name, site.where(member.host), argv, self._patroni.environment(), served=True)
        for _, node in site.nodes():
            here = site.where(node.host)
            config = site.directory(here) / "config" / f"patroni-{node.name}.yml"
            argv = [str(self._patroni.python), "-m", "chukan.replication.patroni_rest", str(config)]
            self._know_one(f"patroni-{node.name}", here, argv, self._patroni.environment(), served=True)
        for name, centre, argv in archives.servers(site):
            self._know_one(name, centre, argv, ENVIRONMENT, served=True)
        for name, centre in EXCHANGES.items():
            config = site.directory(centre) / "config" / f"{name}.toml"
            self._know_own(name, centre, ["exchange", "--config", str(config)])
        for name in (NETWORK, "counterparts"):
            self._know_own(name, WAN, ["sandbox", name, "--config", str(self.place.config / f"{name}.toml")])
        for command in self.links.commands() if self.links is not None else ():
            self.processes.know(command)

    def _know_delays(self, delay_ms: float) -> None:
        """What a centre sends is carried by a process of its own, which is lost with it."""
        for site, other in (CENTRES, CENTRES[::-1]):
            ends = (self.wires.cable_end(site), self.wires.cable_end(other))
            self.processes.know(
                Command(
                    name=f"delay-{site}",
                    site=site,
                    namespace=self.wires.name(WAN),
                    identity=None,
                    argv=[os.path.realpath(sys.executable), "-I", "-S", str(_DELAY), *ends, f"{delay_ms:g}"],
                    environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                    log=self.site.directory(site) / "log" / f"delay-{site}.log",
                )
            )

    def _know_one(self, name: str, here: str, argv: list[str], environment: Mapping[str, str], *, served: bool) -> None:
        log = self.place.log if here == WAN else self.site.directory(here) / "log"
        self.processes.know(
            Command(
                name=name,
                site=here,
                namespace=self.wires.name(here),
                identity=self._identity if served else None,
                argv=argv,
                environment=environment,
                log=log / f"{name}.log",
            )
        )

    def _know_own(self, name: str, here: str, words: list[str]) -> None:
        argv = [sys.executable, "-m", "chukan.ops.cli", *words]
        self._know_one(name, here, argv, dict(os.environ), served=False)

    async def _start_cells(self) -> None:
        first = [member.name for member in self.site.etcd.members]
        first += [name for name, _, _ in archives.servers(self.site)]
        await together([self.processes.start(name) for name in first])
        await self.stage.before_start()
        nodes = {node.name: self._folder(node.host) / "data" / node.name for _, node in self.site.nodes()}
        if not any((folder / "PG_VERSION").exists() for folder in nodes.values()):
            # The home's first node alone at first: whoever comes first is born the leader.
            born = [cell.nodes[0].name for cell in self.site.cells.values()]
            await together([self.processes.start(f"patroni-{name}") for name in born])
            await databases.leaders(self.site, LEADERS_TIMEOUT_S)
        await together([self.processes.start(f"patroni-{name}") for name in nodes])

    async def _start_neighbours(self) -> None:
        ports = choose_ports([NETWORK, "network-admin", *COUNTERPARTS, "counterparts-admin"], first=_ADMIN_FIRST)
        ports[NETWORK] = NETWORK_PORT
        self.addresses = LabAddresses.of(self.site, ports, self.stage.links)
        self.around = self._neighbourhood()
        write_settings(self._settings("network"), network_tables(self.around))
        write_settings(self._settings("counterparts"), counterparts_tables(self.around))
        await self._start_ready(NETWORK)
        await self._start_ready("counterparts")

    def _neighbourhood(self) -> Neighbourhood:
        site = self.site
        knows = (cast.PROVIDER_KNOWS, cast.INQUIRER_KNOWS)
        outside = next(iter(site.operator.addresses))
        exchanges = {row.name: row for row in site.exchanges}
        return Neighbourhood(
            state=self.place.network,
            trusted=self.credentials.authority.trusted,
            ports=self.addresses.ports,
            signing=self.credentials.signing,
            certificates=self.credentials.peers,
            exchanges={name: row.network_port for name, row in exchanges.items()},
            agencies={row.code: row.name for row in self._snapshot.agencies},
            people={body: self.population.began_in(body) for body in knows},
            seed=self.population.seed,
            host=outside,
            evidence={centre: self.place.signing / f"evidence-{centre}.public.pem" for centre in EXCHANGES.values()},
            exchange_hosts={name: site.address(row.host) for name, row in exchanges.items()},
        )

    async def _start_ready(self, name: str) -> None:
        await self.processes.start(name)
        await self._until_ready(name)

    async def _until_ready(self, name: str) -> None:
        """Wait until a process of our own answers, as itself. Raises ``Problem`` process_failed, naming its log."""
        if name.startswith("delay-"):
            return  # it has nobody to answer to; whoever sends through it sees
        if self.links is not None and self.links.knows(name):
            await self.links.until_ready(name)
            return
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                if name.startswith(archives.SERVER):
                    await archives.answers(self.site, name)
                else:
                    await until_itself(self._url(name), lambda: self.processes.pids().get(name))
        except TimeoutError:
            raise Problem("process_failed", expected=str(self.processes.log_of(name))) from None

    def _url(self, name: str) -> str:
        return {
            NETWORK: f"{self.addresses.network_admin_url}/admin/process",
            "counterparts": f"{self.addresses.counterparts_admin_url}/admin/process",
            **{each: f"{self.addresses.health_url(each)}/readyz" for each in EXCHANGES},
        }[name]

    # ------------------------------------------------------------ down

    async def watch(self) -> None:
        """Wait for ever: what ends by itself here is what the lab is for, and is started again."""
        await asyncio.Event().wait()

    async def _leading(self) -> set[str]:
        if not any(name.startswith("postgres-") for name in self.processes.pids()):
            return set()
        async with Painter(self.site) as painter:
            return {f"patroni-{name}" for name in (await painter.leaders()).values()}

    async def stop(self) -> None:
        """Take everything down, in the order of dependence; nothing is left running."""
        try:
            await self._take_down()
        finally:
            self._end_burials()

    async def _take_down(self) -> None:
        names = self.processes.names()
        leading = await self._leading()
        nodes = [name for name in names if name.startswith("patroni-")]
        for group in (
            [name for name in names if not name.startswith(("patroni-", *_LAST))],
            # The leaders last: one whose standbys are just going asks them in vain, and waits for each.
            [name for name in nodes if name not in leading],
            [name for name in nodes if name in leading],
        ):
            await self.processes.stop(group, _STOP_TIMEOUT_S)
        # What etcd acknowledged is on its disk: nothing is gained by waiting for its votes about who leads the rest.
        last = [name for name in names if name.startswith(_LAST)]
        await self.processes.stop(last, _ETCD_STOP_TIMEOUT_S)
        keeper = self._keeper
        if keeper is not None and keeper.stdin is not None:
            keeper.stdin.close()
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await keeper.wait()
