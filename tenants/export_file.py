r"""The file of an export (機関データの引渡し): sealed to the recipient named in the order, readable by nobody else.

Layout: ``chukan-export-1\n`` ‖ header length u32 ‖ header (JSON: order, agency, encapsulation) ‖ chunks. A fresh
32-byte key is HPKE-sealed to the recipient (RFC 9180 base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM);
each chunk of 64 KiB is AES-256-GCM under it with nonce = chunk number (11 bytes) ‖ 01 for the last one else 00, and AAD
= SHA-256 of everything before the chunks. So a chunk that is lost, added, moved or cut off shows.

Inside are lines of JSON, ``{"table": …, "row": …}``, and at the end one ``{"manifest": …}`` with the count and SHA-256
of each table's rows.

Invariant: clear content is never written to a file by the writer; the reader gives out nothing of a chunk that does not
open, and says so when the end is missing.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, NamedTuple, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from chukan import private_file
from chukan.errors import Problem
from chukan.settings import Environment
from chukan.tenants.directory import AgencyCode, Instant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from chukan.chance import Chance

CHUNK_BYTES: Final = 64 * 1024

_MAGIC: Final = b"chukan-export-1\n"
_INFO: Final = b"chukan-export-v1"
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_COUNTER_BYTES: Final = 11
_CHUNKS_MAX: Final = 2**32
"""256 TiB; far below what one AES-GCM key may seal."""
_LENGTH: Final = struct.Struct(">I")
_HEADER_BYTES_MAX: Final = 4096
_LINE_BYTES_MAX: Final = 64 * 1024 * 1024


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What stands in the clear before the sealed content."""

    order: uuid.UUID
    agency: AgencyCode
    made_at: Instant
    recipient: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    encapsulation: Annotated[bytes, msgspec.Meta(min_length=1, max_length=256)]
    environment: Environment = "production"
    """Where the data is from: production's is refused wherever a sandbox would take it."""


class TableSum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a table's rows add up to; ``sha256`` is that of the rows, a newline after each."""

    rows: int
    unreadable: int
    """Rows that did not open under the agency's keys; they stand in the export with their id only."""
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last line of the content."""

    order: uuid.UUID
    agency: AgencyCode
    made_at: Instant
    tables: dict[str, TableSum]
    environment: Environment = "production"


class Written(NamedTuple):
    """A finished file: its size and SHA-256, which tell nothing of the content but its size."""

    size: int
    sha256: str


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    table: str = ""
    row: msgspec.Raw = msgspec.Raw()
    manifest: Manifest | None = None


class ExportWriter:
    """Writes an export beside its place and puts it there when it is complete.

    Use as a context manager: leaving it without ``finish`` removes what was written.
    """

    def __init__(
        self,
        path: Path,
        *,
        order: uuid.UUID,
        agency: str,
        recipient: bytes,
        made_at: Instant,
        chance: Chance,
        environment: Environment = "production",
    ) -> None:
        """Name the place and draw the key. Raises ``Problem`` file_exists when something stands there."""
        if path.exists():
            raise Problem("file_exists", expected=str(path))
        key = chance.token(_KEY_BYTES)
        self._header = Header(
            order=order,
            agency=agency,
            made_at=made_at,
            recipient=recipient,
            encapsulation=_SUITE.encrypt(key, X25519PublicKey.from_public_bytes(recipient), _INFO),
            environment=environment,
        )
        self._path, self._aside = path, path.with_name(f".{path.name}.new")
        self._cipher = AESGCM(key)
        self._pending = bytearray()
        self._chunks = 0
        self._digest = hashlib.sha256()
        self._size = 0
        self._sums: dict[str, tuple[int, int, hashlib._Hash]] = {}
        self._file: BinaryIO | None = None
        self._bound = b""

    def __enter__(self) -> Self:
        """Open the file aside, readable by this user only, and write its head. Raises ``Problem`` file_unwritable."""
        try:
            self._aside.unlink(missing_ok=True)
            descriptor = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            raise Problem("file_unwritable", expected=str(self._path)) from None
        self._file = os.fdopen(descriptor, "wb")
        head = msgspec.json.encode(self._header)
        before = _MAGIC + _LENGTH.pack(len(head)) + head
        self._bound = hashlib.sha256(before).digest()
        self._write(before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._aside.unlink(missing_ok=True)

    def table(self, name: str) -> None:
        """Announce a table, so that one without rows stands in the manifest too."""
        self._sums.setdefault(name, (0, 0, hashlib.sha256()))

    def row(self, table: str, row: bytes, *, readable: bool = True) -> None:
        """Add a row, one JSON object in one line."""
        self.table(table)
        rows, unreadable, digest = self._sums[table]
        digest.update(row + b"\n")
        self._sums[table] = (rows + 1, unreadable + (not readable), digest)
        self._add(msgspec.json.encode({"table": table, "row": msgspec.Raw(row)}) + b"\n")

    def finish(self) -> tuple[Manifest, Written]:
        """Write the manifest and the last chunk, make it durable and put the file in its place."""
        if self._file is None:
            raise ValueError("the export is not open")
        sums = {
            name: TableSum(rows=rows, unreadable=unreadable, sha256=digest.hexdigest())
            for name, (rows, unreadable, digest) in self._sums.items()
        }
        header = self._header
        manifest = Manifest(
            order=header.order,
            agency=header.agency,
            made_at=header.made_at,
            tables=sums,
            environment=header.environment,
        )
        self._add(msgspec.json.encode({"manifest": manifest}) + b"\n")
        self._chunk(bytes(self._pending), last=True)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            # A link, unlike a rename, refuses to take the place of a file that came there meanwhile.
            os.link(self._aside, self._path)
            private_file.sync_folder(self._path.parent)
        except FileExistsError:
            raise Problem("file_exists", expected=str(self._path)) from None
        except OSError:
            raise Problem("file_unwritable", expected=str(self._path)) from None
        return manifest, Written(self._size, self._digest.hexdigest())

    def withdraw(self) -> None:
        """Remove the finished file again."""
        self._path.unlink(missing_ok=True)

    def _add(self, content: bytes) -> None:
        self._pending += content
        while len(self._pending) > CHUNK_BYTES:
            self._chunk(bytes(self._pending[:CHUNK_BYTES]), last=False)
            del self._pending[:CHUNK_BYTES]

    def _chunk(self, content: bytes, *, last: bool) -> None:
        self._write(self._cipher.encrypt(_nonce(self._chunks, last=last), content, self._bound))
        self._chunks += 1

    def _write(self, content: bytes) -> None:
        if self._file is None:
            raise ValueError("the export is not open")
        try:
            self._file.write(content)
        except OSError:
            raise Problem("file_unwritable", expected=str(self._path)) from None
        self._digest.update(content)
        self._size += len(content)


def read_export(
    path: Path, private: X25519PrivateKey, environment: Environment | None = None
) -> Iterator[tuple[str, bytes] | Manifest]:
    """Yield (table, row) for each row, and at last the manifest, once it was found to fit what was read.

    Raises:
        Problem: other_environment, before anything is opened, when the data is to go into another environment than the
            one that it is from (``environment``; None for the agency's own eyes).
        Problem: export_unreadable (no export, not for this key, altered, or cut off). Rows given out before that stood
            in chunks that were whole.
    """
    sums: dict[str, tuple[int, hashlib._Hash]] = {}
    manifest: Manifest | None = None
    try:
        with path.open("rb") as file:
            for line in _lines(_chunks(file, private, environment)):
                if manifest is not None:
                    raise Problem("export_unreadable", expected=str(path))
                if line.manifest is not None:
                    manifest = line.manifest
                    continue
                row = bytes(line.row)
                rows, digest = sums.get(line.table, (0, hashlib.sha256()))
                digest.update(row + b"\n")
                sums[line.table] = (rows + 1, digest)
                yield line.table, row
    except (OSError, InvalidTag, msgspec.MsgspecError, ValueError):
        raise Problem("export_unreadable", expected=str(path)) from None
    if manifest is None or not _fits(manifest, sums):
        raise Problem("export_unreadable", expected=str(path))
    yield manifest


def _fits(manifest: Manifest, sums: dict[str, tuple[int, hashlib._Hash]]) -> bool:
    empty = (0, hashlib.sha256())
    found = {name: sums.get(name, empty) for name in {*manifest.tables, *sums}}
    return set(found) == set(manifest.tables) and all(
        (found[name][0], found[name][1].hexdigest()) == (told.rows, told.sha256)
        for name, told in manifest.tables.items()
    )


def _chunks(file: BinaryIO, private: X25519PrivateKey, environment: Environment | None = None) -> Iterator[bytes]:
    head = file.read(len(_MAGIC) + _LENGTH.size)
    if not head.startswith(_MAGIC) or len(head) != len(_MAGIC) + _LENGTH.size:
        raise ValueError("no export")
    (length,) = _LENGTH.unpack(head[len(_MAGIC) :])
    if length > _HEADER_BYTES_MAX:
        raise ValueError("no export")
    packed = file.read(length)
    header = msgspec.json.decode(packed, type=Header)
    if environment not in {None, header.environment}:
        raise Problem("other_environment", expected=environment)
    cipher = AESGCM(_SUITE.decrypt(header.encapsulation, private, _INFO))
    bound = hashlib.sha256(head + packed).digest()
    number, chunk = 0, file.read(CHUNK_BYTES + _TAG_BYTES)
    while True:
        following = file.read(CHUNK_BYTES + _TAG_BYTES)
        yield cipher.decrypt(_nonce(number, last=not following), chunk, bound)
        if not following:
            return
        number, chunk = number + 1, following


def _lines(chunks: Iterator[bytes]) -> Iterator[_Line]:
    decoder = msgspec.json.Decoder(_Line)
    pending = b""
    for chunk in chunks:
        *whole, pending = (pending + chunk).split(b"\n")
        if len(pending) > _LINE_BYTES_MAX:
            raise ValueError("a line has a bounded length")
        yield from map(decoder.decode, whole)
    if pending:
        raise ValueError("the last line is not whole")


def _nonce(number: int, *, last: bool) -> bytes:
    if number >= _CHUNKS_MAX:
        raise ValueError("an export has a bounded number of chunks")
    return number.to_bytes(_COUNTER_BYTES, "big") + bytes([last])
