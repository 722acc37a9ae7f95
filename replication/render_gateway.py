"""From a site to what the gateway of a centre is started with: ``gateway.toml`` (``chukan.vpn.gateway.config``).

The same site gives the same text. A gateway knows the cell that holds the links and no other, logs in there as its own
role, and leads to the exchange of its own centre alone.

Invariant: pure. Keys are files in the centre's own tree; no key of one gateway lies in the other centre, but for the
service key, which both need to serve devices of one tunnel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chukan.replication import render
from chukan.replication.plain_toml import Value, to_toml
from chukan.replication.site import Site

SEALING_KEY: Final = "sealing.key"
TUNNEL_KEY: Final = "tunnel.key"
SERVICE_KEY: Final = "service.key"
PASSWORD: Final = "links"  # noqa: S105 - the short name of a password file


def folder(site: Site, centre: str) -> Path:
    """Return where a centre's gateway keeps its keys and what it saw last."""
    return site.directory(centre) / "gateway"


def gateway(site: Site, centre: str, timing: Mapping[str, Value] | None = None) -> str:
    """Return the settings of a centre's gateway as TOML, with ``timing`` where given; ``KeyError`` for none there."""
    mine, services, home = site.gateway(centre), site.services(centre), folder(site, centre)
    exchange = next(row for row in site.exchanges if site.where(row.host) == centre)
    ready = f"http://{services.addresses[0]}:{services.health_port}/readyz"
    top: Mapping[str, Value] = {
        "centre": centre,
        "links_cell": site.links_cell,
        "state_directory": home,
        "sealing_key_file": home / SEALING_KEY,
        "sandbox": site.sandbox,
    }
    tunnel: Mapping[str, Value] = {
        "interface": mine.interface,
        "listen_port": mine.listen_port,
        "private_key_file": home / TUNNEL_KEY,
    }
    service: Mapping[str, Value] = {
        "interface": mine.service_interface,
        "listen_port": mine.service_port,
        "private_key_file": home / SERVICE_KEY,
        "ready_url": ready,
    }
    # Whoever looks at the site looks at its gateways too, and nobody else from outside.
    watchers = site.operator.addresses
    watched: Mapping[str, Value] = {"open_tcp": [mine.metrics_port], "open_to": watchers} if watchers else {}
    network: Mapping[str, Value] = {"outer": mine.outer, "inner": mine.inner, **watched}
    leads: Mapping[str, Value] = {
        "addresses": services.addresses,
        "agency_port": services.agency_port,
        "health_port": services.health_port,
        "next_hop": site.address(exchange.host),
    }
    return to_toml(
        [
            ("", top),
            ("[tunnels]", tunnel),
            ("service_tunnel", service),
            ("network", network),
            ("services", leads),
            ("metrics", {"host": site.address(mine.host), "port": mine.metrics_port}),
            *([("timing", timing)] if timing else []),
            *render.cells(
                site,
                render.identity(*site.certificate(mine.name, centre)),
                site.directory(centre) / "passwords",
                PASSWORD,
                only=site.links_cell,
            ),
        ]
    )
