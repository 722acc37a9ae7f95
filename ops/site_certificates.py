"""When a site's certificates end, as everybody shows them to an operator: etcd, Patroni, PostgreSQL, exchanges, backup.

An exchange watches those whom it calls; etcd is called by Patroni and by operators alone, so that this is where its
certificates are seen. Written as a text file for Prometheus (``chukan status --textfile``), beside drills and backups.
"""

import asyncio
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from chukan.errors import Problem
from chukan.platform import tls
from chukan.platform.certificate_ends import Peer, peer_end
from chukan.replication.site import Site, backup_hosts

METRIC: Final = "chukan_site_certificate_expiry_timestamp_seconds"


def peers(site: Site) -> list[Peer]:
    """Return everybody in a site who shows a certificate to an operator. Raises ``Problem`` certificate_unreadable."""
    folder = site.operator.directory
    context = tls.client_context(folder / "certificate.pem", folder / "key.pem", folder / "ca.pem")
    places = [(member.name, member.host, site.etcd.client_port) for member in site.etcd.members]
    places += [(f"patroni-{node.name}", node.host, node.rest_port) for _, node in site.nodes()]
    places += [(exchange.name, exchange.host, exchange.agency_port) for exchange in site.exchanges]
    found = [Peer(name, site.address(host), port, context) for name, host, port in places]
    found += [
        Peer(f"postgresql-{node.name}", site.address(node.host), node.port, context, postgresql=True)
        for _, node in site.nodes()
    ]
    if site.backup is not None:
        # pgBackRest's certificates bear an address as a name. Only their end is looked at: nothing is asked there.
        nameless = tls.client_context(folder / "certificate.pem", folder / "key.pem", folder / "ca.pem")
        nameless.check_hostname = False
        hosts = [(host, site.address(host)) for host in backup_hosts(site)]
        found += [Peer(f"pgbackrest-{host}", address, site.backup.port, nameless) for host, address in hosts]
    return found


async def ends(site: Site) -> dict[str, float]:
    """Return when the certificates end that are shown now (Unix seconds); who is away is left out."""
    asked = peers(site)
    found = await asyncio.gather(*map(peer_end, asked))
    return {peer.name: end for peer, end in zip(asked, found, strict=True) if end is not None}


def write(path: Path, found: dict[str, float]) -> None:
    """Replace the text file at once. Raises ``Problem`` file_unwritable."""
    registry = CollectorRegistry()
    gauge = Gauge(METRIC, "End of the certificate that a part of the site showed.", ["peer"], registry=registry)
    for peer, end in found.items():
        gauge.labels(peer).set(end)
    try:
        write_to_textfile(str(path), registry)
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
