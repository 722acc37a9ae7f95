"""A key store in files, one centre's. It is for the demo, and says so: master keys lie beside what they wrap.

Invariant: no clear key is ever written to a file but the demo's master keys; no key, nor anything made of one, is
logged or put into an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chukan import log, private_file
from chukan.chance import Chance
from chukan.settings import Environment
from chukan.tenants.key_folder import KeyFolder, Unwrapped, WrapError, Wrapped, erase, read_bounded
from chukan.tenants.sealing import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = log.get("keystore")


class FileKeyStore(KeyFolder):
    """Keys in files, for the demo: ``keys/NNNNN.json`` wrapped by ``master/NNNNN.key``, modes 0600 in 0700."""

    _warned: bool = False

    def __init__(self, directory: Path, chance: Chance, environment: Environment = "production") -> None:
        super().__init__(directory, chance, environment)
        self._masters = directory / "master"
        if not FileKeyStore._warned:
            FileKeyStore._warned = True
            _log.warning("master keys are kept in files: this key store is for the demo only, use an HSM")

    def _prepare_masters(self) -> None:
        self._masters.mkdir(mode=0o700, exist_ok=True)
        self._masters.chmod(0o700)

    def _wrap(self, agency: int, keys: Sequence[Unwrapped]) -> list[bytes]:
        master_file = self._path(self._masters, agency, ".key")
        if not master_file.exists():
            private_file.write(master_file, self._chance.token(KEY_BYTES))
        master = AESGCM(read_bounded(master_file))
        return [master.encrypt(key.nonce, key.secret, key.aad) for key in keys]

    def _unwrap(self, agency: int, keys: Sequence[Wrapped]) -> list[bytes]:
        master = AESGCM(read_bounded(self._path(self._masters, agency, ".key")))
        try:
            return [master.decrypt(key.nonce, key.sealed, key.aad) for key in keys]
        except InvalidTag:
            raise WrapError from None

    def _destroy_master(self, agency: int) -> None:
        erase(self._path(self._masters, agency, ".key"))
