"""The evidence file (証跡ファイル): all that is needed to check a log without the platform, one JSON object a line.

First the ``header``, then all ``checkpoint`` lines from the smallest, then the whole log in its order: a ``tile``
before its 16 ``leaf`` lines, and ``unplaced`` for records that have no leaf. Or, after header and one checkpoint,
``proof`` lines for single records. After the leaves of a page stand their messages (電文の証跡): those that were only
sent, then each ``list`` with its ``message`` lines; at most 1,024 leaves come before their messages. Binary values are
base64. Hashes and tiles stand in it beside the leaf data although they follow from it: where the signed root differs
they tell which leaf was changed.

Invariant: keys never stand in the file; whoever checks has them from elsewhere. This module only reads and writes the
form; ``evidence_check`` judges.
"""

import uuid
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Literal

import msgspec

from chukan.tenants.messages import KeptList, KeptMessage

FORM: Final = "chukan-evidence-1"
LINE_BYTES_MAX: Final = 1 << 20


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="header", kw_only=True):
    """What the file is: of which log (its origin), the whole log or single proofs, and whether with the records."""

    form: Literal["chukan-evidence-1"] = FORM
    origin: str
    of: Literal["log", "proofs"]
    records: bool


class CheckpointLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="checkpoint"):
    """A signed note as it is."""

    note: str


class TileLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tile", kw_only=True):
    """The 16 leaf hashes from position 16·n + 1 on, as the tree was kept with."""

    n: int
    hashes: bytes


class LeafLine(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="leaf",
    kw_only=True,
    omit_defaults=True,
):
    """A leaf at a position (from 1), with its record where that is part of the file and still kept."""

    position: int
    data: bytes
    hash: bytes
    salt: bytes | None = None
    record: bytes | None = None
    """The canonical bytes: commitment = SHA-256(0x02 ‖ salt ‖ record)."""
    unreadable: bool = False
    """There is a record, and it does not open, or is not the one that was committed to."""


class UnplacedLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="unplaced"):
    """A record that should have had its place for long."""

    id: uuid.UUID


class ProofLine(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="proof",
    kw_only=True,
    omit_defaults=True,
):
    """A leaf with its inclusion path in the file's checkpoint, and its record."""

    position: int
    data: bytes
    path: list[bytes]
    salt: bytes | None = None
    record: bytes | None = None


class ListLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="list"):
    """A list that the network signed, by digests; the messages after it stood in it."""

    list: KeptList


class MessageLine(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="message", kw_only=True
):
    """A message of one of the records before it: in the list before it, or in none (``place`` is not there)."""

    record: uuid.UUID
    message: KeptMessage


Line = Header | CheckpointLine | TileLine | LeafLine | UnplacedLine | ProofLine | ListLine | MessageLine
_decoder: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


class EvidenceFileError(Exception):
    """A line is none of the form. ``line`` is its number, from 1."""

    def __init__(self, line: int) -> None:
        super().__init__("not a line of an evidence file")
        self.line = line


def encode(lines: Iterable[Line]) -> Iterator[bytes]:
    """Yield each line with its end."""
    for line in lines:
        yield msgspec.json.encode(line) + b"\n"


def decode(file: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a file; ``EvidenceFileError`` at the first that is none, or has more than 1 MiB."""
    number = 0
    while raw := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(raw) > LINE_BYTES_MAX or not raw.endswith(b"\n"):
            raise EvidenceFileError(number)
        try:
            line = _decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise EvidenceFileError(number) from None
        if isinstance(line, Header) is not (number == 1):
            raise EvidenceFileError(number)
        yield line
    if number == 0:
        raise EvidenceFileError(1)
