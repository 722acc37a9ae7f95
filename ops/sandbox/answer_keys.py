"""The answer key (X25519) of a simulated agency: where it rests, and by which id the network knows it."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.chance import Chance

_KEY_BYTES: Final = 32


def key_id(public: bytes) -> str:
    """Return the id of an answer key: it names the key's own bytes, so it never changes its meaning."""
    return base64.b32encode(hashlib.sha256(public).digest()[:10]).decode("ascii").lower()


def keep_answer_key(path: Path, chance: Chance) -> X25519PrivateKey:
    """Return the agency's answer key, made at the first call and written once with mode 0600."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(chance.token(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    return X25519PrivateKey.from_private_bytes(path.read_bytes())
