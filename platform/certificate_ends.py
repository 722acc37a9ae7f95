"""When certificates end: those of this exchange's files, and those that its peers show when they are called.

A certificate that ended silently takes a whole cell, or the network, away at one stroke, and its file lies on somebody
else's host. So the peers' ends are read where they matter: from the connection, as it is made for a call.

Invariant: a look is one handshake with its own deadline; a peer that is away keeps the end that it showed last.
"""

import asyncio
import ssl
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from cryptography import x509

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import cell_context
from chukan.settings import Settings
from chukan.tenants.credentials import UNREADABLE

EVERY_S: Final = 600.0
AGAIN_S: Final = 30.0
"""After a look at which somebody was away."""
HANDSHAKE_S: Final = 5.0
_HTTPS: Final = 443
_SSL_REQUEST: Final = struct.pack(">II", 8, 80877103)
"""What asks a PostgreSQL for TLS (message SSLRequest of its protocol)."""

_log = log.get("certificates")


class Peer(NamedTuple):
    """Somebody who is called: a name for people, and where."""

    name: str
    host: str
    port: int
    context: ssl.SSLContext
    postgresql: bool = False
    """Whether TLS begins inside PostgreSQL's protocol; it shows what it read at its last reload."""

    @classmethod
    def of(cls, name: str, url: str, context: ssl.SSLContext) -> "Peer":
        """Return the peer behind an https address."""
        parts = urlsplit(url)
        return cls(name, parts.hostname or "", parts.port or _HTTPS, context)


def peers_of(settings: Settings, network: ssl.SSLContext) -> list[Peer]:
    """Return whom an exchange calls: Patroni and PostgreSQL of every node, the network (``network`` is its context).

    Raises ``Problem`` certificate_unreadable.
    """
    found = [Peer.of("network", settings.network.url, network)]
    for cell in settings.cells.values():
        context = cell_context(cell)
        if context is not None:
            found += [Peer.of(f"patroni-{m.name}", m.rest, context) for m in cell.members]
            found += [Peer(f"postgresql-{m.name}", m.host, m.port, context, postgresql=True) for m in cell.members]
    return found


def authorities_of(settings: Settings) -> dict[str, float]:
    """Return when what certifies others ends, by whom it certifies. Raises ``Problem`` certificate_unreadable."""
    own = settings.exchange
    files = {"agencies": own.tls_ca_file, "network": settings.network.ca_file}
    files |= {f"cell-{name}": cell.tls_ca_file for name, cell in settings.cells.items() if cell.tls_ca_file is not None}
    ends = {name: file_end(path) for name, path in files.items()}
    ends["issuing"] = file_end(own.tls_certificate_file, above=True)
    return {name: end for name, end in ends.items() if end is not None}


class Told(Protocol):
    """Who is told the ends, in Unix seconds."""

    def peer_certificate(self, peer: str, ends_at: float) -> None:
        """Take the end of a peer's certificate."""
        ...


class CertificateEnds:
    """Looks at the peers while ``run`` runs."""

    def __init__(self, peers: Iterable[Peer], told: Told) -> None:
        self._peers, self._told = list(peers), told

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            away = not await self.look()
            await asyncio.sleep(AGAIN_S if away else EVERY_S)

    async def look(self) -> bool:
        """Look at every peer once; tell whether all of them showed a certificate."""
        found = await asyncio.gather(*(peer_end(peer) for peer in self._peers))
        for peer, ends_at in zip(self._peers, found, strict=True):
            if ends_at is not None:
                self._told.peer_certificate(peer.name, ends_at)
        return None not in found


async def peer_end(peer: Peer) -> float | None:
    """Return when the certificate ends that a peer shows, in Unix seconds; None when it shows none in time."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            writer = await _connect(peer)
    except (OSError, TimeoutError, EOFError):
        _log.info("a peer shows no certificate", peer=peer.name)
        return None
    shown: Mapping[str, Any] = writer.get_extra_info("peercert") or {}
    writer.close()
    with suppress(KeyError, ValueError):
        return float(ssl.cert_time_to_seconds(shown["notAfter"]))
    return None


async def _connect(peer: Peer) -> asyncio.StreamWriter:
    """Return a connection whose TLS stands. ``OSError``, ``EOFError``."""
    if not peer.postgresql:
        return (await asyncio.open_connection(peer.host, peer.port, ssl=peer.context))[1]
    reader, writer = await asyncio.open_connection(peer.host, peer.port)
    try:
        writer.write(_SSL_REQUEST)
        await reader.readuntil(b"S")  # whoever speaks no TLS says N and ends the connection, or the deadline comes
        await writer.start_tls(peer.context, server_hostname=peer.host)
    except BaseException:
        writer.close()  # also when the deadline comes
        raise
    return writer


def file_end(path: Path, *, above: bool = False) -> float | None:
    """Return when the certificates in a file end, the earliest, in Unix seconds; None where there are none.

    With ``above`` those above the first alone: the issuing ones of a chain. Raises ``Problem`` certificate_unreadable.
    """
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, *UNREADABLE):
        raise Problem("certificate_unreadable", expected=str(path)) from None
    return min((each.not_valid_after_utc.timestamp() for each in found[int(above) :]), default=None)
