"""The parts of the exchanges' and the operator's settings that follow from a site's links.

Invariant: pure; a site without links has none of them.
"""

from collections.abc import Mapping

from chukan.replication.plain_toml import Value
from chukan.replication.site import Site, gateways

Table = tuple[str, Mapping[str, Value]]


def site_keys(site: Site) -> Mapping[str, Value]:
    """Return what ``[site]`` says of links."""
    return {"links_cell": site.links.cell} if site.links is not None and site.links.cell else {}


def link_hosts(site: Site, centre: str) -> Mapping[str, Value]:
    """Return what ``[exchange]`` says: the addresses inside the tunnels at which this centre's exchange listens."""
    return {} if site.links is None else {"link_hosts": site.services(centre).addresses}


def tables(site: Site) -> list[Table]:
    """Return the table ``[links]``: what grants tell devices."""
    if site.links is None:
        return []
    first = site.services(next(iter(site.centres)))
    told: Mapping[str, Value] = {
        "service_address": site.links.shared,
        "service_port": first.agency_port,
        "health_port": first.health_port,
        # Both centres have the same one: a device of one tunnel knows one port.
        "service_tunnel_port": gateways(site)[0].service_port,
    }
    return [("links", told), ("links.addresses", {site.where(row.host): row.address for row in gateways(site)})]
