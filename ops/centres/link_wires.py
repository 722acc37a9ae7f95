"""The links' side of the lab's network: a namespace for each centre's gateway, and one for each municipality.

A gateway has two legs. ``outer`` is a cable to the bridge, which is cut, isolated and lost together with its centre's.
``inner`` leads to its centre and bears no address of its own: whoever answers at the other end is the exchange's host.
Only a gateway forwards. The service addresses are on ``lo`` of both centres, and all inner addresses of links are
reached from there through the centre's own gateway: what left a tunnel goes back through it.

Invariant: a municipality has nothing but its cable to the bridge, on which the gateways' UDP ports are all that it
needs; every process in these namespaces dies with the lab (``wires.remove``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from chukan.errors import Problem
from chukan.ops.centres.wires import CENTRES, WAN, Namespaces
from chukan.replication.site import Site, gateways
from chukan.replication.site_links import INNER_NETWORKS, Gateway

OF_CENTRE: Final = "gateway"
"""The centre's device to its gateway."""
_TOWN_SUBNET: Final = 20
_TOWN_DEVICE: Final = "uplink"
_NEXT_HOP_V6: Final = "fe80::51"
"""On a cable between two the address of the link's scope says enough."""
_FORWARDING: Final = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


def gateway_name(centre: str) -> str:
    """Return the name of the gateway's namespace, without the lab's prefix."""
    return f"gateway-{centre}"


def town_name(body: str) -> str:
    """Return the same of a municipality's."""
    return f"town-{body}"


class LinkWires:
    """The namespaces of gateways and municipalities around those of a lab."""

    def __init__(self, wires: Namespaces, site: Site, bodies: Sequence[str]) -> None:
        """Name them; nothing is made. ``bodies`` are 6-digit codes, in the order of their addresses."""
        self._wires, self._site = wires, site
        self._towns: Mapping[str, str] = {
            body: f"198.18.{_TOWN_SUBNET}.{number}" for number, body in enumerate(bodies, start=1)
        }

    def town(self, body: str) -> str:
        """Return the whole name of a municipality's namespace."""
        return self._wires.name(town_name(body))

    def town_address(self, body: str) -> str:
        """Return the address of a municipality's device outside the tunnels."""
        return self._towns[body]

    def build(self) -> None:
        """Make them, once the sites' own namespaces are there. Raises ``Problem`` process_failed."""
        for row in gateways(self._site):
            self._gateway(row)
        for body, address in self._towns.items():
            self._wires.attach(town_name(body), _TOWN_DEVICE, address)

    def _gateway(self, row: Gateway) -> None:
        wires, site = self._wires, self._site
        centre = site.where(row.host)
        mine, host = site.address(row.host), site.address(f"{centre}-1")
        name = gateway_name(centre)
        wires.attach(name, row.outer, mine, of=centre)
        wires.batch(name, [f"link add {row.inner} type veth peer name {OF_CENTRE} netns {wires.name(centre)}"])
        wires.batch(
            name,
            [
                f"addr add {_NEXT_HOP_V6}/64 dev {row.inner} nodad",
                f"link set {row.inner} up",
                # Its centre's databases too: on the bridge, a cable that is cut would part a centre from itself.
                f"route add {host}/32 dev {row.inner} src {mine}",
            ],
        )
        back = [f"route add {network} via {_via(network, mine)} dev {OF_CENTRE}" for network in INNER_NETWORKS]
        addresses = [f"addr add {address}/32 dev lo" for address in site.services(centre).addresses]
        wires.batch(
            centre, [f"link set {OF_CENTRE} up", f"route add {mine}/32 dev {OF_CENTRE} src {host}", *addresses, *back]
        )
        if wires.cabled:
            other = site.other(centre)
            wires.batch(other, [f"route add {mine}/32 dev uplink src {site.address(f'{other}-1')}"])
        with wires.standing(name):
            for setting in _FORWARDING:
                Path("/proc/sys", setting).write_text("1", encoding="ascii")

    # ------------------------------------------------------------ broken and mended

    def lose(self, centre: str) -> None:
        """Kill everything on a centre's gateway, its tunnels too, and pull its cable; nothing where it has none."""
        self.end_tunnels(centre)
        self._cable(centre, "down")

    def bring_back(self, centre: str) -> None:
        """Plug the cable in again."""
        self._cable(centre, "up")

    def end_tunnels(self, centre: str) -> None:
        """Kill whatever runs on a centre's gateway: tunnels in user space are gone with their process."""
        self._wires.kill_all(gateway_name(centre))

    def end_devices(self) -> None:
        """Kill whatever runs in the municipalities."""
        for body in self._towns:
            self._wires.kill_all(town_name(body))

    def _cable(self, centre: str, state: str) -> None:
        if centre not in CENTRES:
            raise Problem("not_found", expected="a centre")
        self._wires.batch(WAN, [f"link set to-{gateway_name(centre)} {state}"])


def _via(network: str, address: str) -> str:
    return _NEXT_HOP_V6 if ":" in network else address
