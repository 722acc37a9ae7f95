"""Mutual TLS 1.3 for every listener and every call, and who the other end is (相互認証).

Both sides show a certificate and both check the other's; nothing older than TLS 1.3 is spoken, so there is no choice of
cipher to get wrong. The other end's identity is the one SAN URI ``urn:chukan:…`` of its certificate, never its common
name, address or anything in a header.

Invariant: a context made here never accepts a connection without a certificate that leads to ``ca``. What a certificate
may do is not decided here.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from chukan.errors import Problem

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from aiohttp import web

URN: Final = "urn:chukan:"
CLIENT_URN: Final = "urn:chukan:client:"
PEER_URN: Final = "urn:chukan:peer:"


def server_context(certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """Return a context for a listener; clients must show a certificate under ``ca``.

    The files are PEM; ``certificate`` holds the chain below the root. Raises ``Problem`` certificate_unreadable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _load(context, certificate, key, ca)


def client_context(certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """Return a context for calls; the server must show a certificate under ``ca`` for the name that was called.

    Raises ``Problem`` certificate_unreadable.
    """
    # This protocol demands a certificate and checks the host name from the start.
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key, ca)


def _load(context: ssl.SSLContext, certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        # An empty password makes a key file that has one fail, instead of asking for it at the terminal.
        context.load_cert_chain(certificate, key, password="")
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError, ValueError):
        raise Problem("certificate_unreadable", expected="PEM files: a chain, its key, and the root") from None
    return context


def peer_urn(request: web.Request) -> str | None:
    """Return the URN of the client's certificate, e.g. ``urn:chukan:client:kokuho``; None where there is none."""
    return transport_urn(request.transport)


def transport_urn(transport: asyncio.BaseTransport | None) -> str | None:
    """Return the URN of the certificate at the other end of a verified TLS connection.

    None for a closed or plain connection, and where the certificate has no such URI, or more than one: an identity that
    has to be guessed is none.
    """
    if transport is None:
        return None
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    names = certificate.get("subjectAltName", ())
    urns = [value for kind, value in names if kind == "URI" and value.startswith(URN)]
    return urns[0] if len(urns) == 1 else None
