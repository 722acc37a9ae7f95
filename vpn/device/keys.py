"""The keys of a device (回線装置の鍵): made on it, read from its private files, never printed.

A device has a WireGuard key for each centre, an Ed25519 key that signs what it asks for, an X25519 key to which
pre-shared keys are sealed, and the P-256 key of the body's business system, for which it asks a certificate.

Invariant: whatever is returned here as bytes of a private key goes into a file of mode 0600, or into an interface.
"""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from chukan.tenants.credentials import UNREADABLE

_NAME_DIGITS: Final = 12


def new_wireguard() -> bytes:
    """Return a new WireGuard private key, 32 bytes."""
    return X25519PrivateKey.generate().private_bytes_raw()


def name_of(public: bytes) -> str:
    """Return the name under which a WireGuard key lies in the folder: the beginning of its public half's SHA-256."""
    return hashlib.sha256(public).hexdigest()[:_NAME_DIGITS]


def new_signing() -> bytes:
    """Return a new Ed25519 key, PEM."""
    return _pem(Ed25519PrivateKey.generate())


def new_sealing() -> bytes:
    """Return a new X25519 key, PEM."""
    return _pem(X25519PrivateKey.generate())


def new_system() -> bytes:
    """Return a new P-256 key for a business system, PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def signing(pem: bytes) -> Ed25519PrivateKey:
    """Return the key of a PEM file; ``ValueError`` for anything else."""
    key = _load(pem)
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError("not an Ed25519 key")


def sealing(pem: bytes) -> X25519PrivateKey:
    """Return the key of a PEM file; ``ValueError`` for anything else."""
    key = _load(pem)
    if isinstance(key, X25519PrivateKey):
        return key
    raise ValueError("not an X25519 key")


def system(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the key of a PEM file; ``ValueError`` for anything else."""
    key = _load(pem)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    raise ValueError("not an elliptic-curve key")


def certificate_request(key: ec.EllipticCurvePrivateKey, name: str, uri: str) -> str:
    """Return a certificate request (PKCS#10, PEM) for a system by its name and its SAN URI."""
    builder = x509.CertificateSigningRequestBuilder(
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        extensions=[x509.Extension(x509.SubjectAlternativeName.oid, critical=False, value=_uris(uri))],
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")


def certifies(chain: str, key: ec.EllipticCurvePrivateKey) -> bool:
    """Tell whether the first certificate of a PEM chain is for this key."""
    try:
        return x509.load_pem_x509_certificates(chain.encode())[0].public_key() == key.public_key()
    except (*UNREADABLE, IndexError):
        return False


def _uris(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _load(pem: bytes) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("a key with a password") from None


def _pem(key: Ed25519PrivateKey | X25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
