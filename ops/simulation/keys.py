"""Keys of the simulated world: the agencies' are real and made once; the network's signature is a keyed digest.

Sealing, digests, sealed answers and records go through the shipped code with real keys, so that a wrong row, agency or
permit fails as it does on a site. Only Ed25519 is stood in for, by HMAC under a key that both ends hold: it refuses
whatever was not signed just as strictly, for a twentieth of the time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import cache
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.tenants.keystore import KeyStores
from chukan.tenants.sealing import AgencyKeys, KeySet, SealError


class _Signer:
    """Stands for both halves of an Ed25519 key."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, message: bytes) -> bytes:
        """Return the stand-in's signature."""
        return hmac.digest(self._secret, message, hashlib.sha512)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise ``InvalidSignature`` unless this key signed exactly this."""
        if not hmac.compare_digest(signature, self.sign(message)):
            raise InvalidSignature

    def public_key(self) -> _Signer:
        """Return what verifies."""
        return self

    def public_bytes_raw(self) -> bytes:
        """Return what names the key."""
        return hashlib.sha256(self._secret).digest()


class NetworkKey:
    """A stand-in key pair under the types that the shipped code asks for."""

    def __init__(self, name: str) -> None:
        signer = _Signer(hashlib.sha256(b"simulated " + name.encode()).digest())
        self.private = cast("Ed25519PrivateKey", signer)
        self.public = cast("Ed25519PublicKey", signer)


class WatchedKeys(AgencyKeys):
    """An agency's keys that note every attempt to open what is not the agency's own."""

    foreign: list[str]

    def open(self, table: str, row: bytes, sealed: bytes) -> bytes:
        """Open, or note and raise as ever."""
        try:
            return super().open(table, row, sealed)
        except SealError:
            self.foreign.append(f"agency {self.agency} tried to open a value of {table} that is not its own")
            raise

    def answer_private(self, key_id: str) -> X25519PrivateKey:
        """Return the key, or note and raise as ever."""
        try:
            return super().answer_private(key_id)
        except SealError:
            self.foreign.append(f"agency {self.agency} was brought an answer that was sealed to another's key")
            raise


@cache
def _key_set(agency: int) -> KeySet:
    def secret(purpose: str) -> bytes:
        return hashlib.sha256(f"simulated {agency} {purpose}".encode()).digest()

    return KeySet(agency, {1: secret("data")}, secret("index"), {1: secret("answer")})


@cache
def _agency_keys(agency: int) -> WatchedKeys:
    keys = WatchedKeys(_key_set(agency), _token)
    keys.foreign = []
    return keys


def _token(n: int) -> bytes:
    return _source[0](n)


_source: list[Callable[[int], bytes]] = []
"""Where nonces come from: the source of the world that was made last; there is one at a time."""


class SimulatedKeyStores(KeyStores):
    """Gives the same keys in every world; their nonces come from the world's own source."""

    def __init__(self, token: Callable[[int], bytes]) -> None:
        _source[:] = [token]
        self.foreign: list[str] = []

    def load(self, agency: int) -> AgencyKeys:
        """Return an agency's keys."""
        keys = _agency_keys(agency)
        keys.foreign = self.foreign
        return keys
