"""Revocation lists (失効リスト) for servers that cannot put lists together: PostgreSQL, etcd, Patroni's REST API.

*PostgreSQL* (and libpq) checks every certificate of a chain, the root's own too, and refuses **everybody** whose chain
lacks one good list, or has one past its next update. So a root signs a list as well, rarely, since it lies offline; and
lists are joined only when they are complete, and all of today. *etcd* reads one list, and of that the serial numbers
alone (neither issuer nor signature nor dates): it is given the serial numbers of all lists under one throwaway key, and
*Patroni's REST API* (``patroni_rest``) the same as a text.

Invariants: what is joined was verified here, list by list, against the trusted roots; no list that is older than the
one joined before takes its place; each file is the old one or the new one, whatever happens meanwhile.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.certificate_life import replace
from chukan.ops.certificates import Authority, Issued, read_identity
from chukan.platform import revocation
from chukan.platform.revocation import RevocationList
from chukan.replication import revoked_serials
from chukan.replication.render_revocation import JOINED_DER, JOINED_PEM, JOINED_SERIALS
from chukan.tenants.credentials import UNREADABLE

ROOT_LIST_FILE: Final = "root-crl.pem"
ROOT_LIST_DAYS: Final = 366
ROOT_LIST_DAYS_MAX: Final = 731
FILES_MAX: Final = 64
_PEM: Final = serialization.Encoding.PEM
_END: Final = b"-----END X509 CRL-----\n"


class Joined(NamedTuple):
    """What was joined: the files, when the first of its lists is due, and how many certificates are revoked."""

    pem: Path
    der: Path
    due: dt.datetime
    revoked: int


def write_root_list(authority: Authority, *, days: int = ROOT_LIST_DAYS, copies: Iterable[Path] = ()) -> Path:
    """Have the root sign an empty list of its own (an issuing authority ends when its root is trusted no more).

    ``root/`` must lie in the authority's folder for it. Raises ``Problem`` certificate_unreadable, file_unwritable,
    revocation_list_invalid where an older list of the root lies there and cannot be read.
    """
    folder, now = authority.folder, authority.clock.now().replace(microsecond=0)
    root = read_identity(Issued(folder / "root" / "certificate.pem", folder / "root" / "key.pem"))
    target = folder / ROOT_LIST_FILE
    last = _parsed(target.read_bytes(), [root.certificate], authority.clock).number if target.exists() else 0
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now)
        .next_update(min(now + dt.timedelta(days=days), root.certificate.not_valid_after_utc))
        .add_extension(x509.CRLNumber(last + 1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(root.key, hashes.SHA256())
    )
    for path in (target, *copies):
        replace(path, made.public_bytes(_PEM) + root.certificate.public_bytes(_PEM))
    return target


def join(files: Sequence[Path], roots: Sequence[x509.Certificate], into: Path, clock: Clock) -> Joined:
    """Join the lists of all authorities below the trusted roots, in ``into``, for PostgreSQL and for etcd.

    Raises ``Problem`` revocation_list_invalid (``expected`` says which condition does not hold), file_unwritable.
    """
    if len(files) > FILES_MAX:
        raise _invalid(f"at most {FILES_MAX} files")
    contents = [_read(file) for file in files]
    lists = [_parsed(content, roots, clock) for content in contents]
    _complete(lists, {_above(*pair) for pair in zip(contents, lists, strict=True)}, roots, clock)
    texts = [x509.load_pem_x509_crl(content).public_bytes(_PEM) for content in contents]
    _not_older(into / JOINED_PEM, lists)
    serials = frozenset().union(*(each.serials for each in lists))
    due = min(each.next_update for each in lists)
    replace(into / JOINED_PEM, b"".join(texts))
    # Before etcd's, which tells by itself that it is new: nothing that was joined is older than it.
    replace(into / JOINED_SERIALS, revoked_serials.write(serials))
    replace(into / JOINED_DER, _union(serials, clock.now().replace(microsecond=0), due))
    return Joined(into / JOINED_PEM, into / JOINED_DER, due, len(serials))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(revocation.BYTES_MAX + 1)
    except OSError:
        raise _invalid("readable files") from None


def _parsed(content: bytes, roots: Sequence[x509.Certificate], clock: Clock) -> RevocationList:
    return revocation.parse(content, roots, clock.now())


def _above(content: bytes, found: RevocationList) -> bytes:
    """Return the root above the authority that signed a list; nothing for a root's own list."""
    certificates = x509.load_pem_x509_certificates(content)
    signer = next(each for each in certificates if each.subject.public_bytes() == found.issuer)
    return b"" if signer.issuer == signer.subject else signer.issuer.public_bytes()


def _complete(
    lists: Sequence[RevocationList], above: set[bytes], roots: Sequence[x509.Certificate], clock: Clock
) -> None:
    """Refuse what would shut somebody out of PostgreSQL who is not revoked."""
    issuers = [each.issuer for each in lists]
    if len(set(issuers)) != len(issuers):
        raise _invalid("one list of each authority")
    names = {root.subject.public_bytes() for root in roots}
    if not names <= set(issuers):
        raise _invalid("a list of each trusted root (chukan pki root-crl)")
    if not names <= above:
        raise _invalid("a list of an issuing authority below each trusted root")
    if any(each.next_update <= clock.now() for each in lists):
        raise _invalid("no list past its next update")


def _not_older(file: Path, lists: Sequence[RevocationList]) -> None:
    if not file.exists():
        return
    try:
        before = [x509.load_pem_x509_crl(part + _END) for part in _read(file).split(_END) if part.strip()]
    except UNREADABLE:
        return  # what was damaged there is not what anybody goes on with
    numbers = {each.issuer: each.number for each in lists}
    for each in before:
        number = each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        if numbers.get(each.issuer.public_bytes(), number) < number:
            raise _invalid("no list older than the one joined before")


def _union(serials: frozenset[int], now: dt.datetime, due: dt.datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "serial numbers of joined lists, for etcd alone")])
    made = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now).next_update(due)
    made = made.add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    for serial in sorted(serials):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        made = made.add_revoked_certificate(entry)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _invalid(expected: str) -> Problem:
    return Problem("revocation_list_invalid", expected=expected)
