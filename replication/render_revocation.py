"""The revocation lists (失効リスト, RFC 5280) of a site: where they lie, and who is told to honour them.

Every authority of the site (one for each centre and the witness) signs two lists, its issuing authority's and its
root's; they lie below ``pki/lists`` of every place under the place's own name. PostgreSQL and etcd cannot put lists
together themselves: for them ``chukan pki join`` makes one file each of all the site's lists.

Invariant: pure; a place is told of files in its own tree only. A site without ``[revocation]`` has none of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chukan.replication.plain_toml import Value
from chukan.replication.site import Site

JOINED_PEM: Final = "joined.pem"
"""For PostgreSQL and libpq: every list of the site's authorities, one after the other."""
JOINED_DER: Final = "joined.crl"
"""For etcd, which reads serial numbers of one list: those of all of them."""
JOINED_SERIALS: Final = "joined.serials"
"""For Patroni's REST API as ``patroni_rest`` starts it: the same serial numbers as a text."""
_ROOT: Final = "-root"
_Table = tuple[str, Mapping[str, Value]]


def folder(site: Site, place: str) -> Path:
    """Return where the lists of a centre or of the witness lie."""
    return site.directory(place) / "pki" / "lists"


def authorities(site: Site) -> list[str]:
    """Return the names under which the site's own authorities hand out lists."""
    return [name + kind for name in (*site.centres, site.witness.name) for kind in ("", _ROOT)]


def server(site: Site, place: str) -> dict[str, Any]:
    """Return PostgreSQL's parameters; it reads the file again when it is told to reload."""
    return {} if site.revocation is None else {"ssl_crl_file": str(folder(site, place) / JOINED_PEM)}


def client(site: Site, place: str) -> dict[str, Any]:
    """Return what libpq is told, which reads the file for each connection: a standby's, a rewind's, Patroni's own."""
    return {} if site.revocation is None else {"sslcrl": str(folder(site, place) / JOINED_PEM)}


def etcd(site: Site, place: str) -> dict[str, str]:
    """Return etcd's options; it reads the file at each handshake."""
    if site.revocation is None:
        return {}
    joined = str(folder(site, place) / JOINED_DER)
    return {"client-crl-file": joined, "peer-crl-file": joined}


def rest(site: Site, place: str) -> dict[str, str]:
    """Return what Patroni's REST API is told (``patroni_rest``); it looks at the file for each connection."""
    return {} if site.revocation is None else {"revoked_serials": str(folder(site, place) / JOINED_SERIALS)}


def tables(site: Site, centre: str) -> list[_Table]:
    """Return ``[exchange.crl_files]``: the site's own lists, and those of the authorities outside it."""
    if site.revocation is None:
        return []
    names = [*authorities(site), *site.revocation.outside]
    return [("exchange.crl_files", {name: folder(site, centre) / f"{name}.pem" for name in names})]
