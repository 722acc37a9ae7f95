"""Certificates after their issue: renewed, revoked, and listed as revoked (更新・失効・失効リスト).

*Renewed* is the same identity with a new key; the old certificate stays good until it is revoked or ends, so that both
work while files are changed. *Revoked* is for good. The list (RFC 5280 CRL) lies beside the authority's certificate,
with the issuing certificate that signed it, so that whoever knows the root alone can verify it.

Invariants: the register says that a certificate is revoked before a list does; a list with a higher number never knows
less than one with a lower number; the list's file is the old one or the new one, whatever happens meanwhile.
"""

import datetime as dt
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization

from chukan import private_file
from chukan.errors import Problem
from chukan.ops import certificate_forms as forms
from chukan.ops.certificate_register import Begun, Book, Entry, IssuedLine, Reason, Revoked
from chukan.ops.certificates import LEAF_DAYS, Authority, Issued, Subject, describe
from chukan.platform.tls import CLIENT_URN, PEER_URN

REVOCATION_FILE: Final = "crl.pem"
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
LIST_DAYS: Final = 7
LIST_DAYS_MAX: Final = 31
_KEPT: Final = dt.timedelta(days=LIST_DAYS_MAX + 1)
"""How long a list names a certificate that has ended: RFC 5280, 3.3 asks for one list beyond its validity."""


class Renewed(NamedTuple):
    """A renewed certificate: where it lies, its serial, and that of the one it follows."""

    issued: Issued
    serial: str
    renews: str


def renew(authority: Authority, old: Entry, into: Path | None = None, *, days: int = LEAF_DAYS) -> Renewed:
    """Certify the same identity with a new key; the old certificate goes on.

    ``renewed/<usage>s/<name>/<instant>`` in the authority's folder unless told. Raises ``Problem`` certificate_exists,
    certificate_revoked (a revoked one is not renewed, somebody new is issued one), register_unreadable.
    """
    begun = old.begun
    if old.revoked is not None:
        raise Problem("certificate_revoked")
    subject = Subject(_name(begun), begun.usage, tuple(begun.hosts))
    if into is None:
        instant = f"{authority.clock.now():%Y%m%dT%H%M%S%f}"
        into = authority.folder / "renewed" / f"{begun.usage}s" / subject.name / instant
    issued = authority.issue(subject, into, days=days, renews=begun.serial)
    serial = x509.load_pem_x509_certificates(issued.certificate.read_bytes())[0].serial_number
    return Renewed(issued, f"{serial:x}", begun.serial)


def _name(begun: Begun) -> str:
    return begun.subject.removeprefix(PEER_URN if begun.usage == "peer" else CLIENT_URN)


def revoke(authority: Authority, serials: Iterable[str], reason: Reason) -> list[Entry]:
    """Revoke certificates of the register, and return them as they stand then; one that is revoked already stays so.

    The list is not made here (``write_list``). Raises ``Problem`` certificate_unknown, register_unreadable.
    """
    book, now = authority.register.read(), authority.clock.now()
    wanted = list(dict.fromkeys(serials))
    if any(serial not in book.entries for serial in wanted):
        raise Problem("certificate_unknown")
    lines = [Revoked(at=now, serial=serial, reason=reason) for serial in wanted if book.entries[serial].revoked is None]
    authority.register.add(*lines)
    for line in lines:
        book.take(line)
    return [book.entries[serial] for serial in wanted]


def adopt(authority: Authority, certificate: x509.Certificate) -> Entry:
    """Return the register's entry of a certificate; one that this authority issued before it had a register gets one.

    Raises ``Problem`` certificate_unknown for one that this authority did not sign, or that names nobody of ours.
    """
    try:
        certificate.verify_directly_issued_by(authority.issuing.certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise Problem("certificate_unknown") from None
    serial = f"{certificate.serial_number:x}"
    if serial not in authority.register.read().entries:
        described, now = describe(certificate), authority.clock.now()
        if not described.name.startswith((CLIENT_URN, PEER_URN)):
            raise Problem("certificate_unknown")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        begun = Begun(
            at=now,
            serial=serial,
            subject=described.name,
            usage="peer" if described.name.startswith(PEER_URN) else "client",
            hosts=[forms.host_text(name) for name in names if not isinstance(name, x509.UniformResourceIdentifier)],
            until=certificate.not_valid_after_utc,
        )
        authority.register.add(begun, IssuedLine(at=now, serial=serial))
    return authority.register.read().entries[serial]


def named(authority: Authority, subject: str) -> list[Entry]:
    """Return the certificates of a subject (its URN) that are not revoked and have not ended, oldest first."""
    now = authority.clock.now()
    found = (each for each in authority.register.read().entries.values() if each.begun.subject == subject)
    return [each for each in found if each.state(now) in {"valid", "begun"}]


def write_list(authority: Authority, *, days: int = LIST_DAYS, copies: Iterable[Path] = ()) -> tuple[Path, int]:
    """Sign a new list, put it in place of the old one, and into further files; return its file and its number.

    Raises ``Problem`` register_unreadable, file_unwritable.
    """
    now = authority.clock.now().replace(microsecond=0)
    target = authority.folder / REVOCATION_FILE
    with authority.register.listing(now) as book:
        content = _sign(authority, book, now, days)
        for path in (target, *copies):
            replace(path, content)
    return target, book.number


def _sign(authority: Authority, book: Book, now: dt.datetime, days: int) -> bytes:
    issuer, key = authority.issuing
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(min(now + dt.timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.CRLNumber(book.number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    for entry in book.entries.values():
        if entry.revoked is not None and entry.begun.until > now - _KEPT:
            made = made.add_revoked_certificate(_listed(entry.revoked))
    encoding = serialization.Encoding.PEM
    return made.sign(key, hashes.SHA256()).public_bytes(encoding) + issuer.public_bytes(encoding)


def _listed(revoked: Revoked) -> x509.RevokedCertificate:
    made = x509.RevokedCertificateBuilder().serial_number(int(revoked.serial, 16)).revocation_date(revoked.at)
    if revoked.reason != "unspecified":  # RFC 5280, 5.3.1: then the extension should be absent
        made = made.add_extension(x509.CRLReason(x509.ReasonFlags(revoked.reason)), critical=False)
    return made.build()


def replace(target: Path, content: bytes) -> None:
    """Put a file in place of another, on disk, whole or not at all. Raises ``Problem`` file_unwritable."""
    aside = target.with_name(f".{target.name}.new")
    try:
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(target)
        private_file.sync_folder(target.parent)
    except OSError:
        raise Problem("file_unwritable", expected=str(target)) from None
