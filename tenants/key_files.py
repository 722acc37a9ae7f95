"""A key store in files, one centre's. It is for the demo, and says so: master keys lie beside what they wrap.

A store belongs to one environment and says so in a file, ``environment``; without one it is production's. A sandbox's
keys are wrapped under that word, so that neither environment can use a store, or a key file, of the other.

Invariant: no clear key is ever written to a file but the demo's master keys; no key, nor anything made of one, is
logged or put into an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chukan import log, private_file
from chukan.chance import Chance
from chukan.errors import Problem
from chukan.settings import Environment
from chukan.tenants.key_port import Held, Name, Purpose
from chukan.tenants.sealing import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONCE_BYTES: Final = 12
_FILE_BYTES_MAX: Final = 1024 * 1024
_AGENCY_FILE: Final = re.compile(r"([0-9]{5})\.json")
_log = log.get("keystore")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    purpose: Purpose
    version: int
    wrapped: bytes
    confirmed: bool


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    agency: int
    keys: list[_Entry]


class FileKeyStore:
    """Keys in files, for the demo: ``keys/NNNNN.json`` wrapped by ``master/NNNNN.key``, modes 0600 in 0700."""

    _warned: bool = False

    def __init__(self, directory: Path, chance: Chance, environment: Environment = "production") -> None:
        self._keys = directory / "keys"
        self._masters = directory / "master"
        self._gone = directory / "destroyed"
        self._stamp = directory / "environment"
        self._environment = environment
        self._directory = directory
        self._chance = chance
        if not FileKeyStore._warned:
            FileKeyStore._warned = True
            _log.warning("master keys are kept in files: this key store is for the demo only, use an HSM")

    def prepare(self) -> None:
        """Make the folders, stamped before there is room for a key. ``Problem`` other_environment."""
        self.check()
        _private_folder(self._directory)
        if not self._keys.is_dir():
            private_file.write(self._stamp, self._environment.encode())
        for folder in (self._keys, self._masters, self._gone):
            _private_folder(folder)

    def check(self) -> None:
        """Refuse a store of another environment; one that is not there, or not prepared, belongs to nobody yet."""
        if self._stamp.exists():
            found = _read(self._stamp).decode("ascii", "replace")
        elif self._keys.is_dir():
            found = "production"
        else:
            return
        if found != self._environment:
            raise Problem("other_environment", expected=self._environment)

    def agencies(self) -> list[int]:
        """Return the agencies that have a key file, in order."""
        return sorted(int(found[1]) for path in self._keys.iterdir() if (found := _AGENCY_FILE.fullmatch(path.name)))

    def read(self, agency: int) -> dict[Name, Held]:
        """Return the keys of an agency, unwrapped with its master key."""
        # A folder that is not there is a store that cannot be reached, never an empty one.
        if not self._keys.is_dir():
            raise FileNotFoundError("the key store cannot be reached")
        self.check()
        if self._path(self._gone, agency, "").exists():
            raise Problem("agency_closed")
        path = self._path(self._keys, agency, ".json")
        if not path.exists():
            return {}
        try:
            master = AESGCM(_read(self._path(self._masters, agency, ".key")))
            file = msgspec.json.decode(_read(path), type=_KeyFile)
            if file.agency != agency:
                raise Problem("keys_unconfirmed")
            return {
                (name := Name(entry.purpose, entry.version)): Held(
                    master.decrypt(entry.wrapped[:_NONCE_BYTES], entry.wrapped[_NONCE_BYTES:], self._aad(agency, name)),
                    entry.confirmed,
                )
                for entry in file.keys
            }
        except (InvalidTag, ValueError, msgspec.MsgspecError):
            raise Problem("keys_unconfirmed") from None

    def write(self, agency: int, keys: Mapping[Name, Held]) -> None:
        """Wrap and store the keys of an agency; the master key file is written first and never changed."""
        self.check()
        if self._path(self._gone, agency, "").exists():
            raise Problem("agency_closed")
        master_file = self._path(self._masters, agency, ".key")
        if not master_file.exists():
            private_file.write(master_file, self._chance.token(KEY_BYTES))
        master = AESGCM(_read(master_file))
        entries = []
        for name, held in sorted(keys.items()):
            nonce = self._chance.token(_NONCE_BYTES)
            wrapped = nonce + master.encrypt(nonce, held.secret, self._aad(agency, name))
            entries.append(_Entry(name.purpose, name.version, wrapped, held.confirmed))
        private_file.write(self._path(self._keys, agency, ".json"), msgspec.json.encode(_KeyFile(1, agency, entries)))

    def destroy(self, agency: int) -> None:
        """Leave a mark, then overwrite and remove the master key and the key file; safe to repeat."""
        self.check()
        private_file.write(self._path(self._gone, agency, ""), b"")
        for path in (self._path(self._masters, agency, ".key"), self._path(self._keys, agency, ".json")):
            _erase(path)

    def _aad(self, agency: int, name: Name) -> bytes:
        """What a wrapped key is bound to; production's has no word of its own."""
        word = "" if self._environment == "production" else f"{self._environment} "
        return f"chukan {word}key {agency} {name.purpose} {name.version}".encode()

    @staticmethod
    def _path(folder: Path, agency: int, suffix: str) -> Path:
        return folder / f"{agency:05d}{suffix}"


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_FILE_BYTES_MAX + 1)
    if len(content) > _FILE_BYTES_MAX:
        raise ValueError("a key file has a bounded size")
    return content


def _erase(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    private_file.sync_folder(path.parent)
