"""One search over many places: files and what is compressed in them, and whatever else comes as a stream of bytes.

Invariant: what was found is told by place, line of the value and form, never by the value; a place whose own name holds
a value is told by the folder that was asked for. What could not be read is told too: it is no proof of anything.
"""

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeAlias

from chukan.ops.leaks.needles import PIECE, Needle, Needles

HITS_MAX: Final = 1_000
UNREAD_MAX: Final = 1_000
_HEAD: Final = 8

Opener: TypeAlias = Callable[[BinaryIO], BinaryIO]


def _gzip(file: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value] # reads as any other


def _xz(file: BinaryIO) -> BinaryIO:
    return lzma.LZMAFile(file)  # type: ignore[return-value]


def _bz2(file: BinaryIO) -> BinaryIO:
    return bz2.BZ2File(file)  # type: ignore[return-value]


_OPENERS: Final[tuple[tuple[bytes, Opener], ...]] = ((b"\x1f\x8b\x08", _gzip), (b"\xfd7zXZ\0", _xz), (b"BZh", _bz2))
_CLOSED: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
"""Compressed forms that this search does not open."""
_DAMAGED: Final = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


class Hit(NamedTuple):
    """A value was found: where, the line of the value, in which form, how often."""

    sort: str
    place: str
    line: int
    form: str
    times: int


class Unread(NamedTuple):
    """Something that should have been searched and was not, and why."""

    sort: str
    place: str
    why: str


class Searched(NamedTuple):
    """How much of a sort of place was searched."""

    places: int
    read: int


class Search:
    """Searches places one after another, and remembers what was found, what was read and what was not."""

    def __init__(self, needles: Needles, *, past: frozenset[tuple[int, int]] = frozenset()) -> None:
        """``past`` are files (device, inode) that hold values by their office: the file of values itself."""
        self.needles = needles
        self.hits: list[Hit] = []
        self.findings: list[Unread] = []
        self.unread: list[Unread] = []
        self.more = 0
        self._past = past
        self._done: set[str] = set()
        self._places: Counter[str] = Counter()
        self._read: Counter[str] = Counter()

    @property
    def searched(self) -> dict[str, Searched]:
        """How many places of each sort were searched, and how many bytes of them."""
        return {sort: Searched(count, self._read[sort]) for sort, count in sorted(self._places.items())}

    @property
    def clean(self) -> bool:
        """Whether nothing was found, and nothing was left out."""
        return not (self.hits or self.findings or self.unread)

    def bytes_in(self, sort: str, place: str, content: bytes, *, root: str = "(its name holds a value)") -> None:
        """Search what is short enough to be held."""
        stream = self.needles.stream()
        stream.feed(content)
        self.enter(sort, place, stream.found, stream.read, root=root)

    def enter(self, sort: str, place: str, found: Counter[Needle], read: int, *, root: str = "") -> None:
        """Enter what was found in one place."""
        self._places[sort] += 1
        self._read[sort] += read
        for needle, count in found.items():
            self._hit(Hit(sort, self._shown(place, root), needle.line, needle.form, count))

    def leave_out(self, sort: str, place: str, why: str, *, root: str = "") -> None:
        """Enter what could not be searched."""
        if len(self.unread) < UNREAD_MAX:
            self.unread.append(Unread(sort, self._shown(place, root), why))

    def folder(self, sort: str, folder: Path) -> None:
        """Search every file below a folder, or one file, the names too. Links are not followed."""
        root = str(folder)
        if root in self._done:  # two cells of one server, a folder that was named as well
            return
        self._done.add(root)
        if not folder.exists():
            self.leave_out(sort, root, "does not exist", root="(a folder)")
            return
        for path in self._files(sort, folder):
            names = self.needles.within(os.fsencode(path)[len(os.fsencode(root)) :])
            for needle, count in names.items():
                self._hit(Hit(sort, f"{root}: the name of a file", needle.line, needle.form, count))
            self._file(sort, path, root)

    def _files(self, sort: str, folder: Path) -> Iterator[str]:
        if not folder.is_dir():
            yield str(folder)
            return

        def refused(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                self.leave_out(sort, str(error.filename), "not allowed to read", root=str(folder))

        for parent, _, names in os.walk(folder, onerror=refused):
            for name in names:
                yield os.path.join(parent, name)  # noqa: PTH118 - millions of them

    def _file(self, sort: str, path: str, root: str) -> None:
        try:
            # A pipe that somebody holds must not hold us.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # the server recycles WAL, programs delete temporary files
        except OSError:
            if not stat.S_ISREG(_mode(path)):
                return
            self.leave_out(sort, path, "not allowed to read", root=root)
            return
        with os.fdopen(descriptor, "rb") as file:
            known = os.fstat(file.fileno())
            if not stat.S_ISREG(known.st_mode) or (known.st_dev, known.st_ino) in self._past:
                return
            try:
                self._content(sort, path, root, file)
            except OSError:
                self.leave_out(sort, path, "could not be read to its end", root=root)

    def _content(self, sort: str, path: str, root: str, file: BinaryIO) -> None:
        head = file.read(_HEAD)
        file.seek(0)
        self._stream(sort, path, root, file)
        for magic, opener in _OPENERS:
            if head.startswith(magic):
                file.seek(0)
                try:
                    self._stream(sort, f"{path} (opened)", root, opener(file))
                except _DAMAGED:
                    self.leave_out(sort, path, "compressed and damaged", root=root)
        for magic, name in _CLOSED.items():
            if head.startswith(magic):
                self.leave_out(sort, path, f"compressed by {name}: search what it unpacks to", root=root)

    def _stream(self, sort: str, place: str, root: str, file: BinaryIO) -> None:
        stream = self.needles.stream()
        while piece := file.read(PIECE):
            stream.feed(piece)
        self.enter(sort, place, stream.found, stream.read, root=root)

    def _hit(self, hit: Hit) -> None:
        if len(self.hits) < HITS_MAX:
            self.hits.append(hit)
        else:
            self.more += 1

    def _shown(self, place: str, root: str) -> str:
        if self.needles.within(os.fsencode(place)):
            return f"{root}: a file whose name holds a value"
        return place


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
