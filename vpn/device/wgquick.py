"""A tunnel as wg-quick(8) reads it: for devices on which another tool than the agent brings the interface up.

``Table = off``, since the routes are few and said here: the centre's own address through its tunnel, the shared service
address through it with a metric, lower for the preferred centre. An MTU of 1380 passes FLET'S PPPoE too.

Invariant: a configuration holds the private key; whoever writes it to a file makes that file 0600.
"""

from typing import Final

from chukan.tenants.link_plan import SERVICE_RANGE, inner_v4
from chukan.vpn.device.folder import Tunnel
from chukan.vpn.enrolment import Grant
from chukan.vpn.wireguard.keys import to_base64

METRIC: Final = 100
"""Of the service route through the preferred centre; each further centre has as much more. The agent uses this one."""


def render(grant: Grant, tunnel: Tunnel, private: bytes, place: int) -> str:
    """Return the configuration of a tunnel; ``place`` is the centre's place in the order of preference, from 0."""
    source = inner_v4(grant.link)
    routes = [f"PostUp = ip route replace {tunnel.address}/32 dev %i src {source}"]
    if tunnel.address != grant.service_address:
        routes.append(
            f"PostUp = ip route replace {grant.service_address}/32 dev %i src {source} metric {METRIC * (place + 1)}"
        )
    lines = [
        f"# Chukan {grant.link} {tunnel.centre}",
        "[Interface]",
        f"PrivateKey = {to_base64(private)}",
        f"Address = {source}/32",
        "Table = off",
        f"MTU = {grant.mtu}",
        *routes,
        "",
        "[Peer]",
        f"PublicKey = {to_base64(tunnel.gateway_key)}",
        f"PresharedKey = {to_base64(tunnel.psk)}",
        f"Endpoint = {tunnel.endpoint}",
        f"AllowedIPs = {SERVICE_RANGE}",
        f"PersistentKeepalive = {grant.keepalive_s}",
    ]
    return "\n".join(lines) + "\n"
