"""Signing keys (Ed25519, PEM) that the settings name: an exchange's, a centre's, the common data's, the network's.

A file that cannot be read, holds another sort of key or has a password is one and the same problem, which names the
file. Nothing of a key's content ever goes into it.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from chukan.errors import Problem

_UNREADABLE = (OSError, ValueError, TypeError, UnsupportedAlgorithm)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that signs. Raises ``Problem`` certificate_unreadable, naming the file."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except _UNREADABLE:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Problem("certificate_unreadable", expected=str(path))
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the key that signatures are held against. Raises ``Problem`` certificate_unreadable, naming the file."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except _UNREADABLE:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Problem("certificate_unreadable", expected=str(path))
    return key
