"""The links of a site: the gateway of each centre (拠点のVPNゲートウェイ), and the addresses that its tunnels lead to.

The optional table ``[links]`` of ``site.toml``. A gateway stands on a host of its own, between the outside, from which
municipalities' devices come, and the exchanges of its centre, which bind the service addresses on ``lo``. The inner
addresses of the links themselves follow from the bodies' codes (``tenants.link_plan``) and stand in no file.

Invariant: pure; no key stands here, neither private nor public: a gateway makes its own.
"""

from typing import Annotated, Final, NamedTuple

import msgspec

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,31}$")]
Interface = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,15}$")]
"""Linux takes no longer name; the socket of a tunnel in user space bears it, so that it is unique on a machine."""

SERVICE_NETWORK: Final = "10.255.0.0/16"
"""What devices send through their tunnels: every service address lies in it."""
INNER_NETWORKS: Final = ("10.64.0.0/10", "fd6b:7573::/32")
"""Where all inner addresses of links lie; one route each leads back to them."""
SHARED: Final = "10.255.255.1"


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway of the centre in which its host stands; ports are UDP but for ``metrics_port``."""

    name: Name
    host: Name
    address: str
    """The centre's own service address: devices always reach it by this centre's tunnel alone."""
    endpoint: str = ""
    """``address:port`` as devices reach the gateway; the host's address and ``listen_port`` unless given."""
    listen_port: Port = 51820
    service_port: Port = 51821
    """Where devices of one tunnel (mode ``service``) come, at whichever centre holds their service."""
    interface: Interface = "chukan"
    service_interface: Interface = "chukan-service"
    outer: Interface = "outer"
    """The device to the outside."""
    inner: Interface = "inner"
    """The device to the centre's exchanges."""
    metrics_port: Port = 9586


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole table."""

    cell: Name = ""
    """The cell that holds what is wanted; the first by name unless given."""
    shared: str = SHARED
    """The service address that a device moves between its two tunnels."""
    gateways: list[Gateway]


class Services(NamedTuple):
    """What the tunnels of one centre lead to: its own address first, then the shared one; TCP ports."""

    addresses: tuple[str, str]
    agency_port: int
    health_port: int
