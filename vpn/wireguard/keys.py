"""WireGuard's keys as bytes: the public half of a private one, and the base64 of wg(8) and the kernel's library.

Invariant: nothing here logs, raises or formats a key.
"""

import base64

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.vpn.model import KEY_BYTES


def public_key_of(private_key: bytes) -> bytes:
    """Return the public half of a private key of 32 bytes (``ValueError`` for another length)."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def new_private_key() -> bytes:
    """Return a private key of the system's randomness; who uses it clamps it (RFC 7748, section 5)."""
    return X25519PrivateKey.generate().private_bytes_raw()


def to_base64(key: bytes) -> str:
    """Return a key as wg(8) writes it. ``ValueError`` for another length than 32."""
    if len(key) != KEY_BYTES:
        raise ValueError("a WireGuard key has 32 bytes")
    return base64.b64encode(key).decode("ascii")


def from_base64(text: str | bytes) -> bytes:
    """Return the key that wg(8) writes so. ``ValueError`` for anything else; the text is not quoted."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("no base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError("a WireGuard key has 32 bytes")
    return key
