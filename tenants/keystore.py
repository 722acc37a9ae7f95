"""Key stores: where the agencies' keys rest, one store in each centre, never in a database or its backup (DESIGN §9).

An agency has a data key (versions), an index key and an answer key pair (versions), each wrapped by the agency's master
key of that centre. A version is written to every centre, read back, compared by digest, and only then marked as
confirmed, in every centre; until then it encrypts nothing. Losing one centre must never make a record unreadable.

``KeyStore`` is the port: an HSM holds the master keys and does the wrapping behind the same five calls.
``FileKeyStore`` keeps master keys in files. It is for the demo, and says so.

A store belongs to one environment and says so in a file, ``environment``; without one it is production's. A sandbox's
keys are wrapped under that word, so that neither environment can use a store, or a key file, of the other.

Invariant: no clear key is ever written to a file but the demo's master keys; no key, nor anything made of one, is
logged or put into an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chukan import log
from chukan.chance import Chance, SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.settings import Environment
from chukan.tenants.sealing import KEY_BYTES, VERSIONS_MAX, AgencyKeys, KeySet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Purpose = Literal["data", "index", "answer"]

_CENTRES_MIN: Final = 2
_NONCE_BYTES: Final = 12
_FILE_BYTES_MAX: Final = 1024 * 1024
_AGENCY_FILE: Final = re.compile(r"([0-9]{5})\.json")
_log = log.get("keystore")


class Name(NamedTuple):
    """Names one key of an agency."""

    purpose: Purpose
    version: int


class Held(NamedTuple):
    """A key as a store gives it back: the clear secret (32 bytes) and whether both centres confirmed it."""

    secret: bytes
    confirmed: bool

    def __repr__(self) -> str:
        return f"Held(confirmed={self.confirmed})"


class KeyStore(Protocol):
    """One centre's key store. Every call may raise ``OSError`` when the store cannot be reached."""

    def prepare(self) -> None:
        """Make the store, once, when a site is set up; harmless on one that exists."""
        ...

    def check(self) -> None:
        """Refuse a store of another environment; ``Problem`` other_environment."""
        ...

    def agencies(self) -> list[int]:
        """Return the numbers of the agencies that have keys here."""
        ...

    def read(self, agency: int) -> dict[Name, Held]:
        """Return the agency's keys, unwrapped; empty when it has none.

        Raises ``Problem`` agency_closed when they were destroyed, keys_unconfirmed when they do not unwrap,
        other_environment.
        """
        ...

    def write(self, agency: int, keys: Mapping[Name, Held]) -> None:
        """Replace the agency's keys, durably and all or nothing. Makes the agency's master key at the first time."""
        ...

    def destroy(self, agency: int) -> None:
        """Destroy the agency's keys and master key, and remember that it was done."""
        ...


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
            _write(self._stamp, self._environment.encode())
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
            _write(master_file, self._chance.token(KEY_BYTES))
        master = AESGCM(_read(master_file))
        entries = []
        for name, held in sorted(keys.items()):
            nonce = self._chance.token(_NONCE_BYTES)
            wrapped = nonce + master.encrypt(nonce, held.secret, self._aad(agency, name))
            entries.append(_Entry(name.purpose, name.version, wrapped, held.confirmed))
        _write(self._path(self._keys, agency, ".json"), msgspec.json.encode(_KeyFile(1, agency, entries)))

    def destroy(self, agency: int) -> None:
        """Leave a mark, then overwrite and remove the master key and the key file; safe to repeat."""
        self.check()
        _write(self._path(self._gone, agency, ""), b"")
        for path in (self._path(self._masters, agency, ".key"), self._path(self._keys, agency, ".json")):
            _erase(path)

    def _aad(self, agency: int, name: Name) -> bytes:
        """What a wrapped key is bound to; production's has no word of its own."""
        word = "" if self._environment == "production" else f"{self._environment} "
        return f"chukan {word}key {agency} {name.purpose} {name.version}".encode()

    @staticmethod
    def _path(folder: Path, agency: int, suffix: str) -> Path:
        return folder / f"{agency:05d}{suffix}"


class KeyStores:
    """The key stores of all centres as one: makes, confirms, loads, rotates and destroys the keys of agencies.

    ``degraded`` may be set while a centre is away: then versions that were confirmed before are loaded from the stores
    that can be reached. Nothing is made or rotated meanwhile.
    """

    def __init__(
        self,
        directories: Mapping[str, Path | KeyStore],
        *,
        chance: Chance | None = None,
        degraded: bool = False,
        environment: Environment = "production",
    ) -> None:
        """Take each centre's folder, or its store of another make; ``ValueError`` unless two or more, all different."""
        folders = {os.path.realpath(place) for place in directories.values() if isinstance(place, Path)}
        others = {id(place) for place in directories.values() if not isinstance(place, Path)}
        if len(folders) + len(others) < max(_CENTRES_MIN, len(directories)):
            raise ValueError("each of two or more centres has a key store of its own")
        self._chance = chance or SystemChance(SystemClock())
        self._stores: dict[str, KeyStore] = {
            centre: FileKeyStore(place, self._chance, environment) if isinstance(place, Path) else place
            for centre, place in directories.items()
        }
        self.degraded = degraded
        self._cache: dict[int, AgencyKeys] = {}

    def prepare(self) -> None:
        """Make the stores' folders when a site is set up. Nothing else makes them: a lost disk must not look empty."""
        for store in self._stores.values():
            store.prepare()

    def check(self) -> None:
        """Refuse stores of another environment, those that can be reached; ``Problem`` other_environment."""
        for store in self._stores.values():
            with contextlib.suppress(OSError):
                store.check()

    def agencies(self) -> list[int]:
        """Return the agencies that have keys in any store that can be reached."""
        found: set[int] = set()
        for store in self._stores.values():
            with contextlib.suppress(OSError):
                found.update(store.agencies())
        return sorted(found)

    def create(self, agency: int) -> None:
        """Make an agency's first keys in all centres and confirm them; finishes what a crash left; safe to repeat.

        Raises:
            Problem: keys_unconfirmed (a store is away, not prepared, or holds something else), agency_closed (the keys
                were destroyed).
        """
        self._add(agency, [Name("data", 1), Name("index", 1), Name("answer", 1)])

    def rotate(self, agency: int, purpose: Literal["data", "answer"] = "data") -> int:
        """Add a new version of a key and return its number; older versions stay for opening.

        Raises:
            Problem: keys_unconfirmed (also for an agency without keys), agency_closed.
            ValueError: the agency has as many versions as it may.
        """
        held = [name.version for name in self._confirmed(agency) if name.purpose == purpose]
        version = max(held) + 1
        if version > VERSIONS_MAX:
            raise ValueError("an agency holds a bounded number of key versions")
        self._add(agency, [Name(purpose, version)])
        if (cached := self._cache.get(agency)) is not None:
            cached.renew(self._key_set(agency))
        return version

    def load(self, agency: int) -> AgencyKeys:
        """Return an agency's keys, the same object at every call.

        Raises:
            Problem: keys_unconfirmed unless every centre holds and confirmed them (see ``degraded``); agency_closed.
        """
        cached = self._cache.get(agency)
        if cached is None:
            cached = AgencyKeys(self._key_set(agency), self._chance.token, lambda: self._key_set(agency))
            self._cache[agency] = cached
        return cached

    def forget(self, agency: int) -> None:
        """Drop an agency's keys from memory, as when it is closed; they are read again when they are needed again."""
        cached = self._cache.pop(agency, None)
        if cached is not None:
            cached.forget()

    def destroy(self, agency: int) -> None:
        """Destroy an agency's keys in all centres: its data can never be read again (crypto-erase).

        Every store that can be reached is cleared first; then, if one could not be, ``Problem`` keys_unconfirmed says
        so, and the call must be repeated when it is back.
        """
        self.forget(agency)
        missed = False
        for store in self._stores.values():
            try:
                store.destroy(agency)
            except OSError:
                missed = True
        if missed:
            raise Problem("keys_unconfirmed")

    def _add(self, agency: int, names: Iterable[Name]) -> None:
        """Bring all stores to hold and confirm the named keys: write, read back and compare, then mark."""
        held = self._read_all(agency)
        wanted = _settled(held)
        for name in names:
            wanted.setdefault(name, Held(self._chance.token(KEY_BYTES), confirmed=False))
        self._write_all(agency, wanted)
        back = self._read_all(agency)
        proof = _digest(wanted)
        if any(_digest(keys) != proof for keys in back.values()):
            raise Problem("keys_unconfirmed")
        self._write_all(agency, {name: Held(key.secret, confirmed=True) for name, key in wanted.items()})

    def _write_all(self, agency: int, keys: Mapping[Name, Held]) -> None:
        for store in self._stores.values():
            try:
                store.write(agency, keys)
            except OSError:
                raise Problem("keys_unconfirmed") from None

    def _read_all(self, agency: int) -> dict[str, dict[Name, Held]]:
        """Read every store; one that cannot be reached is passed over in ``degraded`` loads only."""
        read: dict[str, dict[Name, Held]] = {}
        for centre, store in self._stores.items():
            try:
                read[centre] = store.read(agency)
            except OSError:
                raise Problem("keys_unconfirmed") from None
        return read

    def _confirmed(self, agency: int) -> dict[Name, bytes]:
        """Return the keys that may be used: held alike by all stores, and marked by one at least."""
        read: list[dict[Name, Held]] = []
        for store in self._stores.values():
            try:
                read.append(store.read(agency))
            except OSError:
                if not self.degraded:
                    raise Problem("keys_unconfirmed") from None
        usable: dict[Name, bytes] = {}
        for name in {name for keys in read for name, key in keys.items() if key.confirmed}:
            copies = [keys[name].secret for keys in read if name in keys]
            if len(set(copies)) != 1 or (len(copies) < len(self._stores) and not self.degraded):
                raise Problem("keys_unconfirmed")
            usable[name] = copies[0]
        if not usable:
            raise Problem("keys_unconfirmed")
        return usable

    def _key_set(self, agency: int) -> KeySet:
        usable = self._confirmed(agency)
        try:
            return KeySet(
                agency=agency,
                data={name.version: secret for name, secret in usable.items() if name.purpose == "data"},
                index=usable[Name("index", 1)],
                answer={name.version: secret for name, secret in usable.items() if name.purpose == "answer"},
            )
        except (KeyError, ValueError):
            raise Problem("keys_unconfirmed") from None


def _settled(held: Mapping[str, Mapping[Name, Held]]) -> dict[Name, Held]:
    """Return the keys to go on with: those that any store marked as confirmed, which must then be alike everywhere.

    A key that nobody marked has never encrypted anything, so it is dropped, wherever a crash left it.
    """
    kept: dict[Name, Held] = {}
    for name in {name for keys in held.values() for name, key in keys.items() if key.confirmed}:
        copies = {keys[name].secret if name in keys else b"" for keys in held.values()}
        if len(copies) != 1:
            raise Problem("keys_unconfirmed")
        kept[name] = Held(copies.pop(), confirmed=True)
    return kept


def _digest(keys: Mapping[Name, Held]) -> bytes:
    """Return the digest by which two centres' keys are compared; kept nowhere."""
    digest = hashlib.sha256(b"chukan keys")
    for name, held in sorted(keys.items()):
        digest.update(f"{name.purpose} {name.version} {len(held.secret)} ".encode() + held.secret)
    return digest.digest()


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_FILE_BYTES_MAX + 1)
    if len(content) > _FILE_BYTES_MAX:
        raise ValueError("a key file has a bounded size")
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a file durably and all or nothing: a private file beside it, fsync, rename, fsync of the folder."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    _sync_folder(path.parent)


def _erase(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
