"""Revocation lists (失効リスト, RFC 5280 CRL): which certificates are no longer anybody's, known without a restart.

A list is one file: the CRL and the issuing certificate that signed it, both PEM. What it says is taken only when the
issuing certificate leads to a trusted root, may sign lists, and did sign this one; when it is whole (no delta, no
part), within bounds, not older than what is in force, and not of the future. Whatever else lies in the file is refused
loudly, and the last good list goes on (see ``revocation_watch``).

Names a certificate by issuer and serial number. Serials are random (159 bits), so that a look-up is one hash.

This module only reads and judges bytes: no file, no clock of its own, no connection but the one that it is asked about.
"""

import asyncio
import datetime as dt
import ssl
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from chukan.errors import Problem
from chukan.tenants.credentials import UNREADABLE

BYTES_MAX: Final = 4 * 1024 * 1024
ENTRIES_MAX: Final = 100_000
"""Bounds of one list; the platform's own authorities certify some thousand systems and officers each."""
SKEW: Final = dt.timedelta(minutes=5)
"""How far an authority's clock may be ahead of ours."""


class Identity(NamedTuple):
    """Which certificate: its issuer's name (DER) and its serial number."""

    issuer: bytes
    serial: int


class RevocationList(NamedTuple):
    """What one verified list says."""

    issuer: bytes
    number: int
    this_update: dt.datetime
    next_update: dt.datetime
    serials: frozenset[int]
    dates: Mapping[int, dt.datetime]
    """Since when each of them is revoked."""


def parse(content: bytes, roots: Sequence[x509.Certificate], now: dt.datetime) -> RevocationList:
    """Return what a list says.

    One that is past its next update is returned too: what it revokes stays revoked. Raises ``Problem``
    revocation_list_invalid; ``expected`` says which of the conditions does not hold.
    """
    if len(content) > BYTES_MAX:
        raise _invalid(f"at most {BYTES_MAX} bytes")
    try:
        found = x509.load_pem_x509_crl(content)
        issuing = _issuing(x509.load_pem_x509_certificates(content), found, roots, now)
        signed = found.is_signature_valid(issuing.public_key())  # type: ignore[arg-type] # other keys: TypeError
        if not signed:
            raise _invalid("signed by its issuing certificate")
        return _read(found, now)
    except UNREADABLE:
        raise _invalid("a CRL and its issuing certificate, PEM, with a number") from None


def _issuing(
    candidates: Sequence[x509.Certificate],
    found: x509.CertificateRevocationList,
    roots: Sequence[x509.Certificate],
    now: dt.datetime,
) -> x509.Certificate:
    """Return the certificate that stands for the list's issuer, once it leads to a root and may sign lists."""
    for each in candidates:
        if each.subject == found.issuer and any(_leads_to(each, root) for root in roots):
            usage = each.extensions.get_extension_for_class(x509.KeyUsage).value
            basic = each.extensions.get_extension_for_class(x509.BasicConstraints).value
            if usage.crl_sign and basic.ca and each.not_valid_before_utc - SKEW <= now <= each.not_valid_after_utc:
                return each
    raise _invalid("an issuing certificate below a trusted root that may sign lists")


def _leads_to(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    if certificate == root:
        return True
    try:
        certificate.verify_directly_issued_by(root)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _read(found: x509.CertificateRevocationList, now: dt.datetime) -> RevocationList:
    # A critical extension changes what a list means: part of the certificates, other issuers, or a difference only.
    if any(extension.critical for extension in found.extensions):
        raise _invalid("a whole list of one issuer")
    if found.next_update_utc is None or found.last_update_utc > now + SKEW:
        raise _invalid("dated, with a next update, and not of the future")
    if len(found) > ENTRIES_MAX:
        raise _invalid(f"at most {ENTRIES_MAX} certificates")
    dates = {entry.serial_number: entry.revocation_date_utc for entry in found}
    return RevocationList(
        issuer=found.issuer.public_bytes(),
        number=found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
        this_update=found.last_update_utc,
        next_update=found.next_update_utc,
        serials=frozenset(dates),
        dates=MappingProxyType(dates),
    )


def _invalid(expected: str) -> Problem:
    return Problem("revocation_list_invalid", expected=expected)


def identity(transport: asyncio.BaseTransport | None) -> Identity | None:
    """Return which certificate the other end of a verified TLS connection showed; None for a plain or closed one."""
    connection = None if transport is None else transport.get_extra_info("ssl_object")
    if not isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
        return None
    shown = connection.getpeercert(binary_form=True)
    return None if shown is None else identity_of(shown)


def identity_of(shown: bytes) -> Identity:
    """Return which certificate this is (DER). Raises ``ValueError`` for anything else."""
    try:
        certificate = x509.load_der_x509_certificate(shown)
        return Identity(certificate.issuer.public_bytes(), certificate.serial_number)
    except UNREADABLE:
        raise ValueError("no certificate") from None
