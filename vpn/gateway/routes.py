"""The gateway's routes: one for all links of each family, and one for each link that is elsewhere than the others.

Elsewhere are links of one tunnel, behind the service's interface, and links that already came over to the gateway's
next key. Their routes are read back from the kernel, never remembered: a controller that is started again finds them.

Invariant: only routes to addresses of links, through this gateway's own interfaces, are ever taken away.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from chukan.tenants.link_plan import V4_RANGE, V6_RANGE
from chukan.vpn.netdev import NetDev, Route, canonical_route

CHANGES_MAX: Final = 500
"""Routes that one pass changes; the next one goes on."""


class Routes:
    """The routes of one gateway's host."""

    def __init__(self, netdev: NetDev) -> None:
        self._netdev = netdev

    async def common(self, interface: str) -> None:
        """Lead all links to an interface. Raises ``Problem``."""
        for network in (V4_RANGE, V6_RANGE):
            await self._netdev.ensure_route(Route(destination=str(network), device=interface))

    async def services(self, addresses: list[str], device: str, next_hop: str) -> None:
        """Lead the service addresses to the exchange's host. Raises ``Problem``."""
        for address in addresses:
            network = ipaddress.ip_network(address)
            await self._netdev.ensure_route(Route(destination=str(network), device=device, via=next_hop))

    def leader(self, *interfaces: str) -> Callable[[Mapping[str, str]], Awaitable[None]]:
        """Return what makes the routes of single links through these interfaces, and takes the others through them."""

        async def lead(ways: Mapping[str, str]) -> None:
            wanted = {canonical_route(Route(destination=prefix, device=device)) for prefix, device in ways.items()}
            has = {
                route
                for route in await self._netdev.routes()
                if route.device in interfaces and _single(route.destination)
            }
            kept = {(route.destination, route.device) for route in wanted}
            left = [route for route in has if (route.destination, route.device) not in kept]
            add, remove = sorted(wanted - has, key=repr)[:CHANGES_MAX], sorted(left, key=repr)[:CHANGES_MAX]
            await self._netdev.change_routes(add, remove)

        return lead


def _single(destination: str) -> bool:
    network = ipaddress.ip_network(destination)
    if isinstance(network, ipaddress.IPv4Network):
        return network != V4_RANGE and network.subnet_of(V4_RANGE)
    return network != V6_RANGE and network.subnet_of(V6_RANGE)
