"""What a gateway's controller is given: one TOML file (``gateway.toml``), overlaid by the environment as settings are.

```toml
centre = "east"
links_cell = "east"
state_directory = "/var/lib/chukan/gateway"
sealing_key_file = "/etc/chukan/gateway/sealing.key"
[[tunnels]]                    # a second one is the gateway's next key: make before break
interface = "chukan"
listen_port = 51820
private_key_file = "/etc/chukan/gateway/chukan.key"
[service_tunnel]               # for devices of one tunnel; the same private key at both centres
interface = "chukan-service"
listen_port = 51821
private_key_file = "/etc/chukan/gateway/chukan-service.key"
[network]
outer = "outer"
inner = "inner"
[services]
addresses = ["10.255.0.1", "10.255.255.1"]
agency_port = 8443
health_port = 8445
next_hop = "192.0.2.10"
[metrics]
host = "192.0.2.5"
[cells.east]                   # as in an exchange's settings, with links_password_file and no other login's
```

``[ipsec]`` stands in ``vpn.ipsec.settings``.

Invariant: no key stands here, only the names of private files (0600); an unknown key is refused with the nearest known.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from chukan import settings_tree, toml_reading
from chukan.errors import Problem
from chukan.settings import Cell, Environment, Port, check_cell
from chukan.vpn.ipsec import settings as ipsec_settings
from chukan.vpn.ipsec.settings import Ipsec

Mode = Literal["repair", "report"]
Backend = Literal["auto", "kernel", "userspace"]

Interface = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,15}$")]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]

TUNNELS_MAX: Final = 2
"""The gateway's key, and its next one."""
LEASE_MARGIN_S: Final = 5.0
"""The holder of the service lets go this long before its lease ends, so that clocks may differ by as much."""


class Tunnel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One WireGuard interface of the gateway: its name is unique on the machine, over all network namespaces."""

    interface: Interface
    listen_port: Port
    private_key_file: Path


class ServiceTunnel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interface for devices of one tunnel, which only the holder of the service gives peers."""

    interface: Interface
    listen_port: Port
    private_key_file: Path
    """The same key at both centres."""
    lease_s: Annotated[float, msgspec.Meta(ge=10, le=300)] = 20.0
    ready_url: str | None = None
    """Where this centre's exchange answers ``/readyz``: who cannot reach it neither takes the service nor keeps it."""
    owner: str | None = None
    """The name under which the service is held; the centre unless given."""


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway's host: its devices to the outside and to the exchanges of its centre."""

    outer: Interface
    inner: Interface | None = None
    """None where the exchange stands on the same host."""
    open_tcp: list[Port] = []
    """TCP ports of this host itself that may be reached from outside: none is best, its keepers come from inside."""
    open_to: list[str] = []
    """Addresses from which alone they may be reached; from everywhere where none is named."""
    backend: Backend = "auto"
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=1420)] = 1380


class Services(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the tunnels lead to; ``next_hop`` is the exchange's host where that is another one."""

    addresses: list[str]
    agency_port: Port
    health_port: Port
    next_hop: str | None = None


class MetricsPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where ``/metrics`` and ``/healthz`` are served."""

    host: str = "127.0.0.1"
    port: Port = 9586


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often, and how long at most."""

    every_s: Seconds = 30.0
    """A pass is made at least this often; NOTIFY, a dead back end and a validity's end make one at once."""
    read_s: Seconds = 10.0
    """Reading the desired state takes no longer, or the last known one is used."""
    pass_s: Seconds = 60.0
    """A pass takes no longer, or it is given up and begun anew."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. ``sandbox`` is the environment's stamp, as in an exchange's settings."""

    centre: str
    links_cell: str
    state_directory: Path
    sealing_key_file: Path
    tunnels: list[Tunnel]
    network: Network
    services: Services
    cells: dict[str, Cell]
    mode: Mode = "repair"
    sandbox: bool = False
    service_tunnel: ServiceTunnel | None = None
    ipsec: Ipsec | None = None
    metrics: MetricsPlace = MetricsPlace()
    timing: Timing = Timing()

    @property
    def environment(self) -> Environment:
        """The word of the stamp."""
        return "sandbox" if self.sandbox else "production"

    @property
    def interfaces(self) -> list[str]:
        """All interfaces that are this controller's."""
        service = [] if self.service_tunnel is None else [self.service_tunnel.interface]
        return [*(tunnel.interface for tunnel in self.tunnels), *service]


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read and check a gateway's configuration; relative paths are relative to the file.

    Raises ``Problem``: settings_unreadable, setting_unknown, setting_missing, setting_invalid.
    """
    raw = settings_tree.read(Config, path, environ)
    for name, members in raw.tree.get("cells", {}).items():
        # Each cell by itself first: msgspec does not say under which key of a table of tables it stumbled.
        toml_reading.convert(members, Cell, f"/cells/{name}")
    config = toml_reading.convert(raw.tree, Config, "")
    if not 1 <= len(config.tunnels) <= TUNNELS_MAX:
        raise Problem("setting_invalid", pointer="/tunnels", expected="one tunnel, or two while its key is changed")
    if config.links_cell not in config.cells:
        raise Problem("setting_invalid", pointer="/links_cell", expected="the name of a cell")
    names, ports = config.interfaces, _ports(config)
    if len(set(names)) != len(names) or len(set(ports)) != len(ports):
        raise Problem("setting_invalid", pointer="/tunnels", expected="interfaces and ports of their own")
    _check_addresses(config.services)
    _check_open(config.network)
    for name, cell in config.cells.items():
        check_cell(f"/cells/{name}", cell)
    if config.cells[config.links_cell].links_password_file is None:
        raise Problem("setting_missing", pointer=f"/cells/{config.links_cell}/links_password_file")
    if config.ipsec is not None:
        ipsec_settings.check(config.ipsec)
    return config


def _ports(config: Config) -> list[int]:
    service = [] if config.service_tunnel is None else [config.service_tunnel.listen_port]
    return [*(tunnel.listen_port for tunnel in config.tunnels), *service]


def _check_open(network: Network) -> None:
    for position, text in enumerate(network.open_to):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            pointer = f"/network/open_to/{position}"
            raise Problem("setting_invalid", pointer=pointer, expected="an IP address") from None


def _check_addresses(services: Services) -> None:
    given = [*services.addresses, *([] if services.next_hop is None else [services.next_hop])]
    try:
        found = [ipaddress.ip_address(text) for text in given]
    except ValueError:
        raise Problem("setting_invalid", pointer="/services", expected="IP addresses") from None
    if not services.addresses or len(set(found)) != len(found):
        raise Problem("setting_invalid", pointer="/services/addresses", expected="one address, each once")
