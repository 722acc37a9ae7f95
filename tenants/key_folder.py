"""A key store whose wrapped keys lie in a folder of one centre; what wraps them (master keys, 親鍵) is a subclass's.

``keys/NNNNN.json`` holds an agency's wrapped keys, ``destroyed/NNNNN`` remembers that they were destroyed,
``retired/NNNNN`` below which version its data keys were, and ``masters`` tells what kind of master keys wrapped them,
so that a folder of an HSM is never gone on with in files.

A store belongs to one environment and says so in a file, ``environment``; without one it is production's. A sandbox's
keys are wrapped under that word, so that neither environment can use a store, or a key file, of the other.

Invariant: no clear key is ever written here; no key, nor anything made of one, is logged or put into an error.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from chukan import private_file
from chukan.chance import Chance
from chukan.errors import Problem
from chukan.settings import Environment
from chukan.tenants.key_port import Held, Name, Purpose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NONCE_BYTES: Final = 12
_FILE_BYTES_MAX: Final = 1024 * 1024
_OLD: Final = ".old"
"""The second name of a key file that is being replaced: its content is overwritten before the name goes."""
_AGENCY_FILE: Final = re.compile(r"([0-9]{5})\.json")
_HOLD_S: Final = 5.0
_HOLD_AGAIN_S: Final = 0.02


class WrapError(Exception):
    """A wrapped key does not unwrap: it was altered, moved, or wrapped by another master key."""


class Unwrapped(NamedTuple):
    """One key to wrap: a fresh nonce (12 bytes), what it is bound to, and the clear key."""

    nonce: bytes
    aad: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "Unwrapped()"


class Wrapped(NamedTuple):
    """One key to unwrap: nonce, what it is bound to, AES-256-GCM ciphertext with its tag."""

    nonce: bytes
    aad: bytes
    sealed: bytes


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    purpose: Purpose
    version: int
    wrapped: bytes
    confirmed: bool


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    agency: int
    keys: list[_Entry]


class KeyFolder(ABC):
    """Wrapped keys in a folder, modes 0600 in 0700."""

    kind: str = "files"
    """What the master keys are kept in, as the folder is stamped; a folder without a stamp has them in files."""

    def __init__(self, directory: Path, chance: Chance, environment: Environment) -> None:
        self._keys = directory / "keys"
        self._gone = directory / "destroyed"
        self._retired = directory / "retired"
        self._stamp = directory / "environment"
        self._kind = directory / "masters"
        self._environment = environment
        self._directory = directory
        self._chance = chance

    # ---------------------------------------------------------------- master keys

    @abstractmethod
    def _prepare_masters(self) -> None:
        """Make room for master keys."""

    @abstractmethod
    def _wrap(self, agency: int, keys: Sequence[Unwrapped]) -> list[bytes]:
        """Return the keys' ciphertexts with their tags; makes the agency's master key at the first time."""

    @abstractmethod
    def _unwrap(self, agency: int, keys: Sequence[Wrapped]) -> list[bytes]:
        """Return the clear keys; ``WrapError`` when one does not unwrap."""

    @abstractmethod
    def _destroy_master(self, agency: int) -> None:
        """Destroy the agency's master key; harmless when it is gone."""

    # ---------------------------------------------------------------- the port

    def prepare(self) -> None:
        """Make the folders, stamped before there is room for a key. ``Problem`` as ``check``."""
        self.check()
        _private_folder(self._directory)
        if not self._keys.is_dir():
            private_file.write(self._stamp, self._environment.encode())
            private_file.write(self._kind, self.kind.encode())
        for folder in (self._keys, self._gone):
            _private_folder(folder)
        self._prepare_masters()

    def check(self) -> None:
        """Refuse a store of another environment or make; one that is not there, or not prepared, is nobody's yet."""
        if self._stamp.exists():
            found = read_bounded(self._stamp).decode("ascii", "replace")
        elif self._keys.is_dir():
            found = "production"
        else:
            return
        if found != self._environment:
            raise Problem("other_environment", expected=self._environment)
        kind = read_bounded(self._kind).decode("ascii", "replace") if self._kind.exists() else "files"
        if kind != self.kind:
            raise Problem("key_store_mismatch", expected=f"master keys in {self.kind}")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from writing to this store meanwhile; ``OSError`` when one does not let go in time."""
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            pause, deadline = threading.Event(), time.monotonic() + _HOLD_S  # the system tells nobody of a lock let go
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    pause.wait(_HOLD_AGAIN_S)
            yield
        finally:
            os.close(descriptor)

    def agencies(self) -> list[int]:
        """Return the agencies that have a key file, in order."""
        return sorted(int(found[1]) for path in self._keys.iterdir() if (found := _AGENCY_FILE.fullmatch(path.name)))

    def mark(self, agency: int) -> bytes:
        """Return what changes whenever the agency's keys are written or destroyed; it costs no unwrapping."""
        if self._path(self._gone, agency, "").exists():
            return b"destroyed"
        found = self._path(self._keys, agency, ".json").stat()
        return b"%d %d %d" % (found.st_mtime_ns, found.st_ino, found.st_size)

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
            file = _read(path)
            if file.agency != agency:
                raise Problem("keys_unconfirmed")
            below = self.retired(agency)
            kept = [entry for entry in file.keys if not _is_retired(entry, below)]
            names = [Name(entry.purpose, entry.version) for entry in kept]
            secrets = self._unwrap(
                agency,
                [
                    Wrapped(entry.wrapped[:NONCE_BYTES], self._aad(agency, name), entry.wrapped[NONCE_BYTES:])
                    for name, entry in zip(names, kept, strict=True)
                ],
            )
        except (WrapError, ValueError, msgspec.MsgspecError):
            raise Problem("keys_unconfirmed") from None
        held = zip(names, secrets, kept, strict=True)
        return {name: Held(secret, entry.confirmed) for name, secret, entry in held}

    def write(self, agency: int, keys: Mapping[Name, Held]) -> None:
        """Wrap and store the keys of an agency; the master key is made first and never changed."""
        self.check()
        if self._path(self._gone, agency, "").exists():
            raise Problem("agency_closed")
        held = sorted(keys.items())
        clear = [Unwrapped(self._chance.token(NONCE_BYTES), self._aad(agency, name), key.secret) for name, key in held]
        entries = [
            _Entry(name.purpose, name.version, each.nonce + sealed, key.confirmed)
            for (name, key), each, sealed in zip(held, clear, self._wrap(agency, clear), strict=True)
        ]
        self._replace(agency, _KeyFile(1, agency, entries))

    def retire(self, agency: int, below: int) -> None:
        """Leave a mark, then write the wrapped keys anew without the old ones, and overwrite what they lay in.

        Needs no master key; safe to repeat, and a repeat overwrites what an interrupted call left.
        """
        if not self._keys.is_dir():
            raise FileNotFoundError("the key store cannot be reached")
        self.check()
        _private_folder(self._retired)
        below = max(below, self.retired(agency))
        private_file.write(self._path(self._retired, agency, ""), b"%d" % below)
        try:
            file = _read(self._path(self._keys, agency, ".json"))
        except (ValueError, msgspec.MsgspecError):
            raise Problem("keys_unconfirmed") from None
        self._replace(agency, _KeyFile(1, agency, [entry for entry in file.keys if not _is_retired(entry, below)]))

    def owes(self, agency: int, below: int) -> bool:
        """Tell whether data keys of versions below may still lie here: no mark, an entry, or an old file's content."""
        if not self._keys.is_dir():
            raise FileNotFoundError("the key store cannot be reached")
        path = self._path(self._keys, agency, ".json")
        if self._path(self._gone, agency, "").exists() or not path.exists():
            return False
        if self.retired(agency) < below or self._path(self._keys, agency, _OLD).exists():
            return True
        try:
            return any(_is_retired(entry, below) for entry in _read(path).keys)
        except (ValueError, msgspec.MsgspecError):
            return True

    def _replace(self, agency: int, file: _KeyFile) -> None:
        """Put a key file in the place of the old one, and overwrite the old one's content (whoever reads reads again).

        The old file keeps a second name meanwhile, so that a crash leaves nothing that nobody could find any more.
        """
        path, old = self._path(self._keys, agency, ".json"), self._path(self._keys, agency, _OLD)
        if old.exists() and path.exists() and old.samefile(path):
            old.unlink()  # interrupted before the new file was there
        erase(old)
        # At first there is nothing to wipe: what is confirmed now is what was written a moment ago.
        wipes = path.exists() and any(entry.version > 1 for entry in (*file.keys, *_entries(path)))
        if wipes:
            old.hardlink_to(path)
            private_file.sync_folder(self._keys)
        private_file.write(path, msgspec.json.encode(file))
        if wipes:
            erase(old)

    def retired(self, agency: int) -> int:
        """Return the mark; ``Problem`` keys_unconfirmed for one that is no number."""
        path = self._path(self._retired, agency, "")
        if not path.exists():
            return 0
        content = read_bounded(path)
        if not content.isdigit():
            raise Problem("keys_unconfirmed")
        return int(content)

    def destroy(self, agency: int) -> None:
        """Leave a mark, then destroy the wrapped keys and the master key; safe to repeat."""
        self.check()
        private_file.write(self._path(self._gone, agency, ""), b"")
        # What is wrapped goes first: it is at hand also while a token is away.
        erase(self._path(self._keys, agency, ".json"))
        erase(self._path(self._keys, agency, _OLD))
        self._destroy_master(agency)

    def _aad(self, agency: int, name: Name) -> bytes:
        """What a wrapped key is bound to; production's has no word of its own."""
        word = "" if self._environment == "production" else f"{self._environment} "
        return f"chukan {word}key {agency} {name.purpose} {name.version}".encode()

    @staticmethod
    def _path(folder: Path, agency: int, suffix: str) -> Path:
        return folder / f"{agency:05d}{suffix}"


def _read(path: Path) -> _KeyFile:
    """Return a key file; ``ValueError`` or ``MsgspecError`` for anything else."""
    try:
        return msgspec.json.decode(read_bounded(path), type=_KeyFile)
    except msgspec.MsgspecError:
        # It may have been replaced, and then overwritten, while it was read: by now the name leads to the new one.
        return msgspec.json.decode(read_bounded(path), type=_KeyFile)


def _entries(path: Path) -> list[_Entry]:
    """Return what a key file holds that is about to be replaced; nothing of one that cannot be read."""
    try:
        return _read(path).keys
    except (ValueError, msgspec.MsgspecError):
        return []


def _is_retired(entry: _Entry, below: int) -> bool:
    return entry.purpose == "data" and entry.version < below


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def read_bounded(path: Path) -> bytes:
    """Return a small file's content; ``ValueError`` when it is none."""
    with path.open("rb") as file:
        content = file.read(_FILE_BYTES_MAX + 1)
    if len(content) > _FILE_BYTES_MAX:
        raise ValueError("a key file has a bounded size")
    return content


def erase(path: Path) -> None:
    """Overwrite and remove a file, durably; harmless when it is gone."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    private_file.sync_folder(path.parent)
