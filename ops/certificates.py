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
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops import certificate_forms as forms
from chukan.ops.certificate_forms import Identity
from chukan.ops.certificate_register import Begun, IssuedLine, Register, Usage
from chukan.platform.tls import CLIENT_URN, PEER_URN
from chukan.settings import Environment
from chukan.tenants.credentials import UNREADABLE

LEAF_DAYS: Final = 397
"""Lifetime of what is issued: thirteen months (a yearly renewal with a month to spare)."""

CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"
TRUSTED_FILE: Final = "ca.pem"
_LABEL_MAX: Final = 48
_USAGES: Final[Mapping[Usage, tuple[x509.ObjectIdentifier, ...]]] = {
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "peer": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}
_URNS: Final[Mapping[Usage, str]] = {"client": CLIENT_URN, "peer": PEER_URN}


class Issued(NamedTuple):
    """Where a key and its certificate lie; the certificate's file holds the chain up to, without, the root."""

    certificate: Path
    key: Path


class Subject(NamedTuple):
    """Who is certified: a name, what for, and a peer's host names and addresses (see ``certificate_forms``)."""

    name: str
    usage: Usage
    hosts: tuple[str, ...] = ()

    @property
    def urn(self) -> str:
        """The one URI that says who it is."""
        return _URNS[self.usage] + self.name

    def names(self) -> list[x509.GeneralName]:
        """Return what stands as alternative names. Raises ``Problem`` certificate_name_invalid."""
        forms.checked(self.name)
        return [x509.UniformResourceIdentifier(self.urn), *map(forms.host_name, self.hosts)]


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

    ``root/key.pem`` is needed by nothing but ``create`` and the next issuing authority: keep it offline. Everything
    that is issued stands in the register first (``certificate_register``).
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Open an existing authority. Raises ``Problem`` certificate_unreadable."""
        self.folder = folder
        self.trusted = folder / TRUSTED_FILE
        self.clock = clock
        self.issuing = read_identity(Issued(*_pair(folder / "issuing")))
        self.register = Register(folder)
        read_certificates(self.trusted)

    @classmethod
    def create(cls, folder: Path, name: str, clock: Clock, environment: Environment = "production") -> "Authority":
        """Make a root and an issuing authority. Raises ``Problem`` certificate_exists, certificate_name_invalid."""
        if not name.strip() or len(name) > _LABEL_MAX or not name.isprintable():
            raise Problem("certificate_name_invalid", limit=_LABEL_MAX, expected="a printable name")
        if folder.exists() and any(folder.iterdir()):
            raise Problem("certificate_exists", expected=str(folder))
        root = forms.make_root(f"{name} root", clock, environment)
        issuing = forms.make_issuing(f"{name} issuing", root, clock)
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
        return self.issue(Subject(client, "client"), into, days=days)

    def certify_client(self, client: str, public: ec.EllipticCurvePublicKey, *, days: int = LEAF_DAYS) -> bytes:
        """Return the certificate (PEM, with the chain) of a system whose private key is elsewhere and stays there.

        Raises ``Problem`` certificate_name_invalid.
        """
        certificate = self._certify(Subject(client, "client"), public, days, None)
        self._tell_issued(certificate)
        return b"".join(map(_pem, (certificate, self.issuing.certificate)))

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
        return self.issue(Subject(peer, "peer", tuple(hosts)), into, days=days)

    def issue(
        self, subject: Subject, into: Path | None = None, *, days: int = LEAF_DAYS, renews: str | None = None
    ) -> Issued:
        """Certify somebody with a new key; ``renews`` is the serial of the certificate that this one follows.

        Raises ``Problem`` certificate_name_invalid, certificate_exists, register_unreadable.
        """
        forms.checked(subject.name)
        into = into or self.folder / f"{subject.usage}s" / subject.name
        if into.exists() and not (into.is_dir() and not any(into.iterdir())):
            raise Problem("certificate_exists", expected=str(into))
        key = ec.generate_private_key(ec.SECP256R1())
        identity = Identity(self._certify(subject, key.public_key(), days, renews), key)
        into.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=into.parent))  # mode 0700
        try:
            _write_pair(aside, identity, (self.issuing.certificate,))
            _rename_whole(aside, into)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._tell_issued(identity.certificate)
        return Issued(*_pair(into))

    def _certify(
        self, subject: Subject, public: ec.EllipticCurvePublicKey, days: int, renews: str | None
    ) -> x509.Certificate:
        names, serial = subject.names(), x509.random_serial_number()
        issuer, clock = self.issuing.certificate, self.clock
        # On disk before there is anything to be known of: nothing is signed that the register does not know.
        begun = Begun(
            at=clock.now(),
            serial=f"{serial:x}",
            subject=subject.urn,
            usage=subject.usage,
            hosts=list(subject.hosts),
            until=forms.end(issuer, clock, days),
            renews=renews,
        )
        self.register.add(begun)
        return (
            forms.builder(subject.name, issuer, public, clock, days, serial)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(forms.key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[subject.usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.issuing.key, hashes.SHA256())
        )

    def _tell_issued(self, certificate: x509.Certificate) -> None:
        self.register.add(IssuedLine(at=self.clock.now(), serial=f"{certificate.serial_number:x}"))


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
    return "sandbox" if forms.SANDBOX_URN in names.get_values_for_type(x509.UniformResourceIdentifier) else "production"


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
    except (OSError, *UNREADABLE):
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
