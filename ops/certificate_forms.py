"""What stands in a certificate: the forms of roots, issuing authorities, clients, peers (``certificates`` tells why).

Pure making of X.509 objects: no file, and no key but the one that it is given to sign with.
"""

import datetime as dt
import ipaddress
import re
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.tls import URN
from chukan.settings import Environment

ROOT_DAYS: Final = 3653
ISSUING_DAYS: Final = 1826
NAME_FORM: Final = "[0-9A-Za-z][0-9A-Za-z._-]{0,63}"
SANDBOX_URN: Final = f"{URN}environment:sandbox"

_NAME: Final = re.compile(NAME_FORM)
_AS_NAME: Final = "DNS:"
"""Before an address: certify it as a name, for peers that compare names only (pgBackRest does)."""
_BACKDATED: Final = dt.timedelta(minutes=5)  # a reader's clock may be behind ours


class Identity(NamedTuple):
    """A key and its certificate in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_root(name: str, clock: Clock, environment: Environment) -> Identity:
    """Return a new root; a sandbox's says that it is one."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        builder(name, None, key.public_key(), clock, ROOT_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
    )
    if environment == "sandbox":
        stamp = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SANDBOX_URN)])
        made = made.add_extension(stamp, critical=False)
    return Identity(made.sign(key, hashes.SHA256()), key)


def make_issuing(name: str, root: Identity, clock: Clock) -> Identity:
    """Return a new issuing authority below a root."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        builder(name, root.certificate, key.public_key(), clock, ISSUING_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
    )
    return Identity(made.sign(root.key, hashes.SHA256()), key)


def builder(
    name: str,
    issuer: x509.Certificate | None,
    public: ec.EllipticCurvePublicKey,
    clock: Clock,
    days: int,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    """Return what every certificate has; ``issuer`` None makes it self-issued, ``serial`` None a new number."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = clock.now().replace(microsecond=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    authority = (
        identifier if issuer is None else issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(end(issuer, clock, days))
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
    )


def end(issuer: x509.Certificate | None, clock: Clock, days: int) -> dt.datetime:
    """Return when what is certified now ends: after these days, or with its issuer."""
    until = clock.now().replace(microsecond=0) + dt.timedelta(days=days)
    return until if issuer is None else min(until, issuer.not_valid_after_utc)


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return what a key may be used for: an authority's signs certificates and lists, another one connections."""
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


def checked(name: str) -> str:
    """Return a name that may stand in a certificate. Raises ``Problem`` certificate_name_invalid."""
    if _NAME.fullmatch(name) is None:
        raise Problem("certificate_name_invalid", expected=NAME_FORM)
    return name


def host_name(host: str) -> x509.GeneralName:
    """Return a host's name or address as a certificate bears it. Raises ``Problem`` certificate_name_invalid."""
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


def host_text(name: x509.GeneralName) -> str:
    """Return a host in the form that ``host_name`` reads; an address that stands as a name keeps that."""
    if isinstance(name, x509.DNSName):
        try:
            ipaddress.ip_address(name.value)
        except ValueError:
            return name.value
        return f"{_AS_NAME}{name.value}"
    return str(name.value)
