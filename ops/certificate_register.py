"""The register of an authority (発行台帳): every certificate that it ever began to issue, and what became of it.

A file of JSON lines beside the authority's keys, only ever added to: *begun* before a certificate is signed, *issued*
once it lies where it belongs, *revoked* with a reason, and the number of each revocation list before that is signed.
It holds no key. A line counts when it is whole: what a crash left of the last one is cut off before the next.

Invariant: no certificate is signed that the register does not know, on disk. One that stays *begun* may exist or not
(a crash came between); it can be revoked like any other.
"""

import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from chukan import private_file
from chukan.errors import Problem

REGISTER_FILE: Final = "register.jsonl"
BYTES_MAX: Final = 256 * 1024 * 1024
_TAIL_BYTES: Final = 64 * 1024

Usage = Literal["client", "peer"]
State = Literal["begun", "valid", "expired", "revoked"]
Reason = Literal[
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
]
"""Of RFC 5280, 5.3.1: those that fit a system, an officer or a peer and cannot be taken back."""


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun", tag_field="event", omit_defaults=True):
    """A certificate is about to be signed."""

    at: dt.datetime
    serial: str
    """Hexadecimal, lower case."""
    subject: str
    usage: Usage
    hosts: list[str] = []
    until: dt.datetime
    renews: str | None = None
    """Serial of the one that it is to take the place of."""


class IssuedLine(msgspec.Struct, frozen=True, kw_only=True, tag="issued", tag_field="event"):
    """It lies where it belongs."""

    at: dt.datetime
    serial: str


class Revoked(msgspec.Struct, frozen=True, kw_only=True, tag="revoked", tag_field="event"):
    """It is good for nothing any more."""

    at: dt.datetime
    serial: str
    reason: Reason


class Listed(msgspec.Struct, frozen=True, kw_only=True, tag="list", tag_field="event"):
    """A revocation list of this number is about to be signed."""

    at: dt.datetime
    number: int


Line = Begun | IssuedLine | Revoked | Listed


@dataclass
class Entry:
    """What the register knows of one certificate."""

    begun: Begun
    issued: bool = False
    revoked: Revoked | None = None

    def state(self, now: dt.datetime) -> State:
        """Return what it is good for at an instant."""
        if self.revoked is not None:
            return "revoked"
        if self.begun.until < now:
            return "expired"
        return "valid" if self.issued else "begun"


@dataclass
class Book:
    """The register as read: entries by serial in the order of their beginning, and the last list's number."""

    entries: dict[str, Entry] = field(default_factory=dict)
    number: int = 0

    def take(self, line: Line) -> None:
        """Add a line. ``KeyError`` for a certificate that never began."""
        if isinstance(line, Begun):
            self.entries[line.serial] = Entry(line)
        elif isinstance(line, IssuedLine):
            self.entries[line.serial].issued = True
        elif isinstance(line, Revoked):
            self.entries[line.serial].revoked = line
        else:
            self.number = max(self.number, line.number)


class Register:
    """The register of the authority in a folder; one process at a time writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / REGISTER_FILE

    def read(self) -> Book:
        """Return what stands there; nothing where there is no register yet. Raises ``Problem`` register_unreadable."""
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError:
            raise self._unreadable() from None
        book = Book()
        decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
        # What comes after the last line's end is what a crash left of a line that nobody relied upon yet.
        for text in content[: content.rfind(b"\n") + 1].splitlines():
            try:
                book.take(decoder.decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
                raise self._unreadable() from None
        return book

    def add(self, *lines: Line) -> None:
        """Add lines; they are on disk when this returns. Raises ``Problem`` register_unreadable."""
        if not lines:
            return
        with self._locked() as descriptor:
            self._append(descriptor, lines)

    @contextmanager
    def listing(self, at: dt.datetime) -> Iterator[Book]:
        """Yield the book with the number of the next revocation list, which is then taken for ever.

        Nobody adds a line meanwhile, so that a list with a higher number never knows less. Raises ``Problem``
        register_unreadable.
        """
        with self._locked() as descriptor:
            book = self.read()
            line = Listed(at=at, number=book.number + 1)
            self._append(descriptor, (line,))
            book.take(line)
            yield book

    @contextmanager
    def _locked(self) -> Iterator[int]:
        new = not self.path.exists()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            raise self._unreadable() from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
            if new:
                private_file.sync_folder(self.path.parent)
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, lines: tuple[Line, ...]) -> None:
        end = self._whole(descriptor)
        content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if end + len(content) > BYTES_MAX:
            raise self._unreadable()
        os.ftruncate(descriptor, end)
        written = os.pwrite(descriptor, content, end)
        os.fsync(descriptor)
        if written != len(content):
            raise self._unreadable()

    def _whole(self, descriptor: int) -> int:
        """Return where the last whole line ends; a line is far shorter than what is looked through."""
        size = os.fstat(descriptor).st_size
        start = max(0, size - _TAIL_BYTES)
        found = os.pread(descriptor, _TAIL_BYTES, start).rfind(b"\n")
        if found < 0 < start:
            raise self._unreadable()
        return start + found + 1 if found >= 0 else 0

    def _unreadable(self) -> Problem:
        return Problem("register_unreadable", expected=str(self.path))
