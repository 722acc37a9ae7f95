"""Pre-shared keys (事前共有鍵) of links on their way and at rest: sealed to the one who uses them, and to nobody else.

HPKE (RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM), one seal for each receiver: for a
gateway's sealing key in the database, for the device's in its grant file. What is sealed is bound to the link and the
receiver's name (``info``), so that a ciphertext moved to another link's row or another centre does not open.

Invariant: whoever holds the database or a grant file learns no pre-shared key. Nothing here keeps a key or puts one
into an exception; this module must never read or write files.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

SEALING_KEY_BYTES: Final = 32
DEVICE: Final = "device"
"""The receiver's name where the receiver is the link's device; a gateway's is its centre."""

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"chukan-link-psk-v1"
_PSK_BYTES_MAX: Final = 64


class PskSealError(Exception):
    """A sealed pre-shared key does not open here: altered, of another link or receiver. Never holds a value."""

    def __init__(self) -> None:
        super().__init__("a sealed pre-shared key does not belong here")


def seal_psk(public: bytes, psk: bytes, *, link: str, to: str) -> bytes:
    """Return a pre-shared key (at most 64 bytes) sealed to the X25519 key ``public`` of a receiver.

    Args:
        public: the receiver's sealing key, 32 bytes.
        psk: what is sealed.
        link: the link's name, ``131016-1``.
        to: the centre (拠点) whose gateway receives it, or ``DEVICE``.

    Raises:
        ValueError: a key of another length or of small order, a pre-shared key that is empty or too long.
    """
    if not 0 < len(psk) <= _PSK_BYTES_MAX:
        raise ValueError("a pre-shared key has 1 to 64 bytes")
    if len(public) != SEALING_KEY_BYTES:
        raise ValueError("a sealing key has 32 bytes")
    return _SUITE.encrypt(psk, X25519PublicKey.from_public_bytes(public), _info(link, to))


def open_psk(private: X25519PrivateKey, sealed: bytes, *, link: str, to: str) -> bytes:
    """Return what was sealed for this link and receiver. Raises ``PskSealError``."""
    try:
        return _SUITE.decrypt(sealed, private, _info(link, to))
    except (InvalidTag, ValueError):
        raise PskSealError from None


def _info(link: str, to: str) -> bytes:
    """Bind to link and receiver; lengths first, so that two pairs never read the same."""
    parts = [part.encode("utf-8") for part in (link, to)]
    return _INFO + b"".join(len(part).to_bytes(2, "big") + part for part in parts)
