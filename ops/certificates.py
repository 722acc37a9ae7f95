"""Certificates for mutual TLS 1.3: an offline root, an issuing authority below it, and what they certify.

For installations without an authority of their own, for the demo and for tests. All keys are P-256. The root signs
issuing authorities only and its key is meant to be carried away after that; the issuing authority signs two profiles:

- *client*: a registered system or officer, SAN URI ``urn:chukan:client:<id>``, usage client authentication;
- *peer*: an exchange or the network, SAN URI ``urn:chukan:peer:<name>`` with DNS names and addresses, usage both.

A certificate says who somebody is and nothing more: the rights stand in the directory, so that they can change without
a new certificate. Files of certificates hold the chain below the root; the trusted file holds the root alone.

A sandbox's root says that it is one (SAN URI ``urn:chukan:environment:sandbox``); a root that says nothing is
production's. What leads to the root of another environment is nobody's certificate here.

Invariants: a private key is written once, with mode 0600, and never printed; a key and its certificate appear together
(a folder renamed into place) or not at all; nothing is ever overwritten; no certificate outlives its issuer.
"""

import datetime as dt
import ipaddress
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.tls import CLIENT_URN, PEER_URN, URN
from chukan.settings import Environment

ROOT_DAYS: Final = 3653
ISSUING_DAYS: Final = 1826
LEAF_DAYS: Final = 397
"""Lifetimes: ten years, five years, thirteen months (a yearly renewal with a month to spare)."""

CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"
TRUSTED_FILE: Final = "ca.pem"
NAME_FORM: Final = "[0-9A-Za-z][0-9A-Za-z._-]{0,63}"

_NAME: Final = re.compile(NAME_FORM)
_AS_NAME: Final = "DNS:"
"""Before an address: certify it as a name, for peers that compare names only (pgBackRest does)."""
_SANDBOX_URN: Final = f"{URN}environment:sandbox"
_LABEL_MAX: Final = 48
_BACKDATED: Final = dt.timedelta(minutes=5)  # a reader's clock may be behind ours
_ONLY_CLIENT: Final = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Issued(NamedTuple):
    """Where a key and its certificate lie; the certificate's file holds the chain up to, without, the root."""

    certificate: Path
    key: Path


class Identity(NamedTuple):
    """A key and its certificate in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Described(NamedTuple):
    """What a reader wants to know of a certificate."""

    name: str
    """Its SAN URI where it has one, else its common name."""
    usage: str
    issuer: str
    not_before: dt.datetime
    not_after: dt.datetime


class Authority:
    """A folder with ``ca.pem`` (the root's certificate), ``root/`` and ``issuing/`` (key and certificate each).

    ``root/key.pem`` is needed by nothing but ``create`` and the next issuing authority: keep it offline.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Open an existing authority. Raises ``Problem`` certificate_unreadable."""
        self.folder = folder
        self.trusted = folder / TRUSTED_FILE
        self._clock = clock
        self._issuing = read_identity(Issued(*_pair(folder / "issuing")))
        read_certificates(self.trusted)

    @classmethod
    def create(cls, folder: Path, name: str, clock: Clock, environment: Environment = "production") -> "Authority":
        """Make a root and an issuing authority. Raises ``Problem`` certificate_exists, certificate_name_invalid."""
        if not name.strip() or len(name) > _LABEL_MAX or not name.isprintable():
            raise Problem("certificate_name_invalid", limit=_LABEL_MAX, expected="a printable name")
        if folder.exists() and any(folder.iterdir()):
            raise Problem("certificate_exists", expected=str(folder))
        root = _make_root(f"{name} root", clock, environment)
        issuing = _make_issuing(f"{name} issuing", root, clock)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".pki-", dir=folder.parent))
        try:
            aside.chmod(0o755)
            _write(aside / TRUSTED_FILE, _pem(root.certificate), 0o644)
            for part, identity in (("root", root), ("issuing", issuing)):
                (aside / part).mkdir(mode=0o700)
                _write_pair(aside / part, identity, ())
            _rename_whole(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return cls(folder, clock)

    def issue_client(self, client: str, into: Path | None = None, *, days: int = LEAF_DAYS) -> Issued:
        """Certify a registered system or officer; its files go into a folder of their own (``clients/<id>`` here).

        Raises ``Problem`` certificate_name_invalid, certificate_exists.
        """
        names = [x509.UniformResourceIdentifier(CLIENT_URN + _checked(client))]
        return self._issue(client, names, _ONLY_CLIENT, into or self.folder / "clients" / client, days)

    def certify_client(self, client: str, public: ec.EllipticCurvePublicKey, *, days: int = LEAF_DAYS) -> bytes:
        """Return the certificate (PEM, with the chain) of a system whose private key is elsewhere and stays there.

        Raises ``Problem`` certificate_name_invalid.
        """
        names = [x509.UniformResourceIdentifier(CLIENT_URN + _checked(client))]
        certificate = self._certify(client, public, names, _ONLY_CLIENT, days)
        return b"".join(map(_pem, (certificate, self._issuing.certificate)))

    def issue_peer(
        self,
        peer: str,
        into: Path | None = None,
        *,
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        days: int = LEAF_DAYS,
    ) -> Issued:
        """Certify an exchange or the network under its host names and addresses; ``peers/<name>`` here by default.

        Raises ``Problem`` certificate_name_invalid, certificate_exists.
        """
        names = [x509.UniformResourceIdentifier(PEER_URN + _checked(peer)), *map(_host, hosts)]
        return self._issue(peer, names, _BOTH, into or self.folder / "peers" / peer, days)

    def _issue(
        self,
        name: str,
        names: Iterable[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        into: Path,
        days: int,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        identity = Identity(self._certify(name, key.public_key(), names, usages, days), key)
        into.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=into.parent))  # mode 0700
        try:
            _write_pair(aside, identity, (self._issuing.certificate,))
            _rename_whole(aside, into)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Issued(*_pair(into))

    def _certify(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        names: Iterable[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        days: int,
    ) -> x509.Certificate:
        builder = (
            _builder(name, self._issuing.certificate, public, self._clock, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(self._issuing.key, hashes.SHA256())


def require_environment(trusted: Path, environment: Environment) -> None:
    """Refuse a file of trusted roots in which any is of another environment.

    Raises ``Problem`` other_environment, naming the environment that is expected; certificate_unreadable.
    """
    if any(_environment_of(root) != environment for root in read_certificates(trusted)):
        raise Problem("other_environment", expected=environment)


def _environment_of(root: x509.Certificate) -> Environment:
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "production"
    return "sandbox" if _SANDBOX_URN in names.get_values_for_type(x509.UniformResourceIdentifier) else "production"


def _make_root(name: str, clock: Clock, environment: Environment) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(name, None, key.public_key(), clock, ROOT_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    if environment == "sandbox":
        stamp = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_SANDBOX_URN)])
        builder = builder.add_extension(stamp, critical=False)
    return Identity(builder.sign(key, hashes.SHA256()), key)


def _make_issuing(name: str, root: Identity, clock: Clock) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(name, root.certificate, key.public_key(), clock, ISSUING_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return Identity(builder.sign(root.key, hashes.SHA256()), key)


def _builder(
    name: str,
    issuer: x509.Certificate | None,
    public: ec.EllipticCurvePublicKey,
    clock: Clock,
    days: int,
) -> x509.CertificateBuilder:
    """Return what every certificate has; ``issuer`` None makes it self-issued."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = clock.now().replace(microsecond=0)
    until = now + dt.timedelta(days=days)
    if issuer is not None:
        until = min(until, issuer.not_valid_after_utc)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    authority = (
        identifier if issuer is None else issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise Problem("certificate_name_invalid", expected=NAME_FORM)
    return name


def _host(host: str) -> x509.GeneralName:
    if host.startswith(_AS_NAME):
        return x509.DNSName(host.removeprefix(_AS_NAME))
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise Problem("certificate_name_invalid", expected="an ASCII host name or an IP address") from None


# ---------------------------------------------------------------- files


def _pair(folder: Path) -> tuple[Path, Path]:
    return folder / CERTIFICATE_FILE, folder / KEY_FILE


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_pair(folder: Path, identity: Identity, chain: Sequence[x509.Certificate]) -> None:
    certificate, key = _pair(folder)
    secret = identity.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, secret, 0o600)
    _write(certificate, b"".join(_pem(each) for each in (identity.certificate, *chain)), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename_whole(aside: Path, target: Path) -> None:
    """Put a finished folder in its place; the system refuses it where a folder with anything in it stands."""
    try:
        aside.rename(target)
    except OSError:
        if target.exists():
            raise Problem("certificate_exists", expected=str(target)) from None
        raise
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- reading


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file. Raises ``Problem`` certificate_unreadable, naming the file."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        raise Problem("certificate_unreadable", expected=str(path)) from None


def read_identity(issued: Issued) -> Identity:
    """Return a certificate and the key that belongs to it. Raises ``Problem`` certificate_unreadable."""
    certificate = read_certificates(issued.certificate)[0]
    try:
        key = serialization.load_pem_private_key(issued.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise Problem("certificate_unreadable", expected=str(issued.key)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise Problem("certificate_unreadable", expected=str(issued.key))
    return Identity(certificate, key)


def describe(certificate: x509.Certificate) -> Described:
    """Return the name, usage, issuer and validity of a certificate."""
    return Described(
        name=_uri(certificate) or _common_name(certificate.subject),
        usage=_usage(certificate),
        issuer=_common_name(certificate.issuer),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _uri(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def _usage(certificate: x509.Certificate) -> str:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return "authority"
    return "peer" if ExtendedKeyUsageOID.SERVER_AUTH in usages else "client"


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
