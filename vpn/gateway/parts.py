"""Puts a gateway's controller together from its configuration, runs it, and lets it go.

This module decides nothing. It takes keys from their files, finds out which WireGuard the machine has, and gives every
part what it needs; its ``run`` ends when it is cancelled, and leaves tunnels, filter and routes as they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Self

import aiohttp

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants.links import DesiredPeer, LinkController
from chukan.vpn.firewall import Ruleset
from chukan.vpn.gateway import key_files
from chukan.vpn.gateway.config import Config, Tunnel
from chukan.vpn.gateway.controller import Controller
from chukan.vpn.gateway.kinds import Kind
from chukan.vpn.gateway.lasting import lasting
from chukan.vpn.gateway.learning import Learner
from chukan.vpn.gateway.metrics import Snapshot
from chukan.vpn.gateway.opening import PskOpener
from chukan.vpn.gateway.routes import Routes
from chukan.vpn.gateway.server import Figures, application, serving
from chukan.vpn.gateway.state import Store
from chukan.vpn.gateway.takeover import Lease, Takeover
from chukan.vpn.gateway.telling import Teller
from chukan.vpn.gateway.tenant_filter import TenantFilter
from chukan.vpn.gateway.wireguard import Device, WireGuardKind
from chukan.vpn.ipsec import kind as ipsec_kind
from chukan.vpn.ipsec.settings import INTERFACE as IPSEC_INTERFACE
from chukan.vpn.model import Interface
from chukan.vpn.netdev import NetDev
from chukan.vpn.nft import Firewall
from chukan.vpn.wireguard import choose
from chukan.vpn.wireguard.choose import KernelDevice
from chukan.vpn.wireguard.userspace import Userspace

READY_TIMEOUT_S: Final = 2.0
CUT_TIMEOUT_S: Final = 4.0
MISSES: Final = 2
"""So often in a row the exchange does not say that it is ready before the service is let go: once may be a restart."""
HTTP_OK: Final = 200

_log = log.get("vpn.gateway.parts")


class Gateway:
    """One centre's gateway, in this process; ``async with`` opens the cells."""

    def __init__(self, config: Config, clock: Clock, backend: choose.Kind) -> None:
        """Put everything together; nothing is touched yet. Raises ``Problem`` for keys that cannot be used."""
        self._config = config
        self._clock = clock
        self._backend = backend
        self._netdev = NetDev()
        self._routes = Routes(self._netdev)
        self._store = Store(config.state_directory, config.centre)
        self._cells = Cells(config.cells, config.environment)
        self.links = LinkController(self._cells, config.links_cell)
        self._lease = None if config.service_tunnel is None else Lease(config.service_tunnel.lease_s)
        self._misses = 0
        self._http: aiohttp.ClientSession | None = None
        self._kinds = list(self._make_kinds())
        self.filter = TenantFilter(Firewall(), ruleset(config))
        self.controller = Controller(
            config.centre,
            config.mode,
            config.timing,
            kinds=self._kinds,
            tenants=self.filter,
            store=self._store,
            open_psk=PskOpener(key_files.read_sealing(config.sealing_key_file), config.centre),
            clock=clock,
        )
        timing = config.timing
        self.learner = Learner(
            self.links, config.centre, self.controller.learnt, clock, every_s=timing.every_s, read_s=timing.read_s
        )
        self.controller.attach(self.learner, Teller(self.links, config.centre, self._store, self.learner.ask))

    async def __aenter__(self) -> Self:
        await self._cells.open()
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READY_TIMEOUT_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.controller.close()
        if self._http is not None:
            await self._http.close()
        await self._cells.close()
        self._netdev.close()

    async def run(self, started: Callable[[int], None] = lambda _port: None) -> None:
        """Keep the links until cancelled; ``started`` is told the port of the metrics. Raises ``Problem``."""
        config = self._config
        if config.mode == "repair":
            await self._retire()
        app = application(Figures(self._snapshot, self._clock), self.controller.healthy)
        try:
            async with serving(app, config.metrics.host, config.metrics.port) as port, asyncio.TaskGroup() as group:
                group.create_task(self.controller.run(), name="links controller")
                if self._lease is not None and config.mode == "repair":
                    group.create_task(lasting(self._takeover(self._lease).run, "takeover"))
                started(port)
        except OSError:
            raise Problem("gateway_port_taken", expected=f"{config.metrics.host}, {config.metrics.port}") from None

    def _snapshot(self) -> Snapshot:
        return self.controller.snapshot(service_held=None if self._lease is None else self._holds())

    # ------------------------------------------------------------ kinds

    def _make_kinds(self) -> Iterator[Kind]:
        config = self._config
        devices = [self._device(tunnel, common=number == 0) for number, tunnel in enumerate(config.tunnels)]
        lead = self._routes.leader(*(device.name for device in devices)) if len(devices) > 1 else None
        yield WireGuardKind("wireguard", devices, _in_pairs, lead=lead)
        self._service: WireGuardKind | None = None
        if config.service_tunnel is not None:
            tunnel = Tunnel(
                interface=config.service_tunnel.interface,
                listen_port=config.service_tunnel.listen_port,
                private_key_file=config.service_tunnel.private_key_file,
            )
            device = self._device(tunnel, common=False)
            lead = self._routes.leader(device.name)
            self._service = WireGuardKind("service", [device], _alone, gate=self._holds, lead=lead, apart=True)
            yield self._service
        if config.ipsec is not None:
            lead = self._routes.leader(IPSEC_INTERFACE)
            yield ipsec_kind.make(config.ipsec, config.centre, config.services.addresses, lead=lead)

    def _device(self, tunnel: Tunnel, *, common: bool) -> Device:
        interface = Interface(private_key=key_files.read(tunnel.private_key_file), listen_port=tunnel.listen_port)
        prepare = partial(self._prepare, tunnel.interface, common=common)
        return Device(tunnel.interface, self._back_end(tunnel.interface), interface, prepare)

    def _back_end(self, interface: str) -> choose.Device:
        if self._backend == "kernel":
            return KernelDevice(interface, netns=None)
        return Userspace(interface, netns=None, log=_log_file(self._config, interface))

    async def _prepare(self, interface: str, *, common: bool) -> None:
        """Bring an interface up with its size; the first one also with what all need: forwarding and routes."""
        config = self._config
        await self._netdev.ensure_up(interface, config.network.mtu)
        if not common:
            return
        await self._netdev.ensure_forwarding()
        await self._routes.common(interface)
        if config.services.next_hop is not None and config.network.inner is not None:
            await self._routes.services(config.services.addresses, config.network.inner, config.services.next_hop)

    async def _retire(self) -> None:
        """Take away interfaces that were this controller's and are not in its configuration any more."""
        config = self._config
        _log_file(config, "any").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = await asyncio.to_thread(self._store.read_interfaces)
        for name in kept - set(config.interfaces):
            if await self._netdev.link(name) is None:
                continue
            device = self._back_end(name)
            await device.ensure()
            await device.stop()
            _log.warning("an interface that is no longer configured was taken away", stage=name)
        await asyncio.to_thread(self._store.write_interfaces, config.interfaces)

    # ------------------------------------------------------------ the service

    def _holds(self) -> bool:
        return self._lease is not None and self._lease.holds(self._clock.monotonic())

    def _takeover(self, lease: Lease) -> Takeover:
        config = self._config
        owner = (config.service_tunnel.owner if config.service_tunnel is not None else None) or config.centre
        ask = partial(self.links.hold_service, config.centre, owner)
        leave = partial(self.links.leave_service, owner)
        return Takeover(
            lease,
            ask,
            leave,
            fit=self._fit,
            drained=self.controller.draining,
            renewed=self._service_renewed,
            changed=self._service_changed,
            clock=self._clock,
        )

    async def _fit(self) -> bool:
        """Tell whether this centre can serve: it is not drained, and its exchange says that it is ready."""
        if self.controller.draining():
            return False
        self._misses = 0 if await self._ready() else self._misses + 1
        return self._misses < MISSES

    async def _ready(self) -> bool:
        url = None if self._config.service_tunnel is None else self._config.service_tunnel.ready_url
        if url is None or self._http is None:
            return True
        try:
            async with self._http.get(url) as response:
                return response.status == HTTP_OK
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _service_renewed(self) -> None:
        """Have the kernel keep the service's port open as long as the lease is known to last."""
        if not await _in_time(self.filter.hold(self._left_s)):
            _log.error("the port of the service was not kept open: it shuts by itself")

    def _left_s(self) -> float:
        return 0.0 if self._lease is None else self._lease.left_s(self._clock.monotonic())

    async def _service_changed(self, held: bool) -> bool:  # noqa: FBT001 - the answer to one question
        """Shut the service's port and take its peers away at once, or have them given.

        Returns whether it is as it shall be: either of the two alone silences the tunnel.
        """
        done = True
        if not held and self._service is not None:
            done = any(await asyncio.gather(_in_time(self.filter.let_go()), _in_time(self._service.cut_all())))
        self.learner.ask()
        self.controller.wake()
        return done


def ruleset(config: Config) -> Ruleset:
    """Return all of the packet filter that does not change from day to day."""
    leased = [] if config.service_tunnel is None else [config.service_tunnel.listen_port]
    ports = [*(tunnel.listen_port for tunnel in config.tunnels), *leased]
    services = config.services
    tunnels = [*config.interfaces, *([] if config.ipsec is None else [IPSEC_INTERFACE])]
    return Ruleset(
        tunnels=frozenset(tunnels),
        outer=config.network.outer,
        inner=config.network.inner,
        listen_ports=frozenset(ports),
        leased=frozenset(leased),
        ipsec=config.ipsec is not None,
        services=frozenset(
            (address, port) for address in services.addresses for port in (services.agency_port, services.health_port)
        ),
        health_ports=frozenset({services.health_port}),
        open_tcp=frozenset(config.network.open_tcp),
        open_to=frozenset(config.network.open_to),
    )


async def backend(config: Config) -> choose.Kind:
    """Return which WireGuard is used: as configured, or what the machine has. Raises ``Problem``."""
    if config.network.backend != "auto":
        return config.network.backend
    return await choose.probe()


async def _in_time(work: Awaitable[None]) -> bool:
    """Do what must not wait; tell whether it was done."""
    try:
        async with asyncio.timeout(CUT_TIMEOUT_S):
            await work
    except (Problem, TimeoutError) as error:
        _log.error("a change of the service was not made in time", exc_info=error)
        return False
    return True


def _in_pairs(peer: DesiredPeer) -> bool:
    return peer.kind == "wireguard" and peer.mode == "pair"


def _alone(peer: DesiredPeer) -> bool:
    return peer.kind == "wireguard" and peer.mode == "service"


def _log_file(config: Config, interface: str) -> Path:
    return config.state_directory / f"{interface}.log"
