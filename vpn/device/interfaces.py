"""A device's interfaces and its service route: WireGuard's back ends and rtnetlink behind what the agent asks for.

One interface a centre, with a key and a port of its own; the centre's own address always goes through it. The shared
service address has one route of metric ``METRIC``, and to move the service is to replace that one route.

Invariant: ``ensure`` changes only what differs, so that a session is never ended by looking; only ``renew`` makes a
peer anew. Other routes and interfaces of the machine are never touched.
"""

from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

from chukan import log
from chukan.errors import Problem
from chukan.tenants.link_plan import SERVICE_RANGE, inner_v4
from chukan.vpn.device.folder import DeviceFolder, Tunnel
from chukan.vpn.device.pins import Pins
from chukan.vpn.device.settings import AgentSettings
from chukan.vpn.device.wgquick import METRIC
from chukan.vpn.enrolment import Grant
from chukan.vpn.model import Actual, Interface, Peer, Put, Remove, Wanted
from chukan.vpn.netdev import NetDev, Route
from chukan.vpn.plan import plan
from chukan.vpn.wireguard.choose import Device, choose

_ANY_PORT: Final = 0

_log = log.get("device.interfaces")


class Interfaces:
    """The ``Ways`` of an agent. Use as a context manager; leaving it lets everything stand."""

    def __init__(self, folder: DeviceFolder, grant: Grant, settings: AgentSettings) -> None:
        """Open nothing yet."""
        self._folder = folder
        self._grant = grant
        self._ports = settings.listen_ports
        self._source = inner_v4(grant.link)
        self._names = dict(folder.identity.interfaces)
        self._net = NetDev()
        self._pins = Pins(grant.service_address, self._source, self._names) if settings.keep_connections else None
        self._pinned = True
        self._devices: dict[str, Device] = {}
        self._given: dict[str, Tunnel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what stays."""
        self._net.close()
        for device in self._devices.values():
            device.close()

    async def ensure(self, tunnel: Tunnel) -> None:
        """Make the tunnel's interface be there and be as it shall be; what is right already is not touched."""
        device = await self._device(tunnel.centre)
        await device.ensure()
        name = self._names[tunnel.centre]
        await self._net.ensure_up(name, self._grant.mtu)
        await self._net.ensure_address(name, f"{self._source}/32")
        await self._net.ensure_route(Route(destination=f"{tunnel.address}/32", device=name, source=self._source))
        if self._given.get(tunnel.centre, tunnel) != tunnel:
            # Another one was put in its place meanwhile: a peer's endpoint is not compared, so it is made anew.
            await self.renew(tunnel)
            return
        actual = await device.tunnels.get()
        await self._set_key(device, tunnel, actual)
        steps = plan({tunnel.gateway_key: self._wanted(tunnel)}, actual.peers).steps
        if steps:
            await device.tunnels.apply(steps)
        self._given[tunnel.centre] = tunnel

    async def renew(self, tunnel: Tunnel) -> None:
        """Give the interface this tunnel's keys, and let it begin a session anew."""
        device = await self._device(tunnel.centre)
        actual = await device.tunnels.get()
        self._given.pop(tunnel.centre, None)
        await self._set_key(device, tunnel, actual)
        put = Put(wanted=self._wanted(tunnel), new=True, psk=True, allowed=True, endpoint=True, keepalive=True)
        await device.tunnels.apply([*map(Remove, actual.peers), put])
        self._given[tunnel.centre] = tunnel

    async def peer(self, centre: str) -> Peer | None:
        """Return the gateway's peer as the interface has it."""
        given = self._given.get(centre)
        if given is None:
            return None
        return (await self._devices[centre].tunnels.get()).peers.get(given.gateway_key)

    async def gone(self, centre: str) -> None:
        """Wait until the interface has gone away."""
        await (await self._device(centre)).gone()

    async def active(self) -> str | None:
        """Return the centre to which the service route leads; None where there is no such route."""
        centres = {name: centre for centre, name in self._names.items()}
        for route in await self._net.routes():
            if route.destination == f"{self._grant.service_address}/32" and route.metric == METRIC:
                return centres.get(route.device)
        return None

    async def point(self, centre: str, gone: Collection[str]) -> bool:
        """Let the service route lead through the centre's tunnel: one route, replaced in one step.

        What begins goes the new way before the route is moved, so that nothing that is open is led astray.
        """
        await self._pin(centre, gone)
        return await self._net.ensure_route(self._service_route(centre))

    async def _pin(self, centre: str, gone: Collection[str]) -> None:
        """Keep connections on their way; where this machine cannot, the route is moved all the same."""
        if self._pins is None:
            return
        try:
            await self._pins.ensure(centre, gone)
            self._pinned = True
        except Problem as problem:
            if self._pinned:
                _log.warning("open connections are not kept", code=problem.code, exc_info=problem)
            self._pinned = False

    async def remove(self) -> None:
        """Take the route and the interfaces away."""
        active = await self.active()
        if active is not None:
            await self._net.ensure_no_route(self._service_route(active))
        if self._pins is not None:
            await self._pins.remove()
        for centre in self._names:
            await (await self._device(centre)).stop()

    async def _device(self, centre: str) -> Device:
        if centre not in self._devices:
            name = self._names[centre]
            self._devices[centre] = await choose(name, netns=None, log=self._folder.path / f"{name}.log")
        return self._devices[centre]

    async def _set_key(self, device: Device, tunnel: Tunnel, actual: Actual) -> None:
        """Give the interface its key and port where they differ: to set a port is to bind it anew."""
        port = self._ports.get(tunnel.centre, _ANY_PORT) or actual.listen_port
        if actual.public_key != tunnel.public_key or actual.listen_port != port:
            private = self._folder.private(tunnel.centre, tunnel.public_key)
            await device.tunnels.set_interface(Interface(private_key=private, listen_port=port))

    def _service_route(self, centre: str) -> Route:
        return Route(
            destination=f"{self._grant.service_address}/32",
            device=self._names[centre],
            metric=METRIC,
            source=self._source,
        )

    def _wanted(self, tunnel: Tunnel) -> Wanted:
        return Wanted(
            link=self._grant.link,
            public_key=tunnel.gateway_key,
            preshared_key=tunnel.psk,
            allowed=frozenset({SERVICE_RANGE}),
            endpoint=tunnel.endpoint,
            keepalive_s=self._grant.keepalive_s,
        )
