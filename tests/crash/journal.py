"""What the clients of a crash test were told, on disk before they send their next request.

One JSON object a line, one line a reply. Two clients of one town may share a journal: they run in one event loop, and
a line is written whole. The journal holds ids, outcomes and digests; never a person or content.
"""

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from chukan.ops.sandbox.systems import OPEN_STATES
from chukan.platform.wire.agency import QueryLineView


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a reply said of one line; ``content`` is a digest of what was handed out."""

    line: int
    state: str
    outcome: str | None = None
    id: uuid.UUID | None = None
    content: str | None = None

    @property
    def final(self) -> bool:
        """Whether the line has its outcome."""
        return self.state not in OPEN_STATES


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A list or a file about to be sent (``sending``, with the number of its lines), or a reply to it.

    ``accepted`` is the reply to the list or file itself, ``told`` any later one that said something new, ``collected``
    one that handed out content. The reply to a file has the file's id for a batch and a ``count`` of lines; what was
    collected of a file has the ``count`` of all lines that it must hold.
    """

    event: Literal["sending", "accepted", "told", "collected"]
    key: str
    agency: str
    count: int = 0
    batch: uuid.UUID | None = None
    lines: list[Told] = []


class Journal:
    """Appends; on disk when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(entry) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> list[Entry]:
        """Return everything from the disk."""
        if not self._path.exists():
            return []
        return [msgspec.json.decode(line, type=Entry) for line in self._path.read_bytes().splitlines()]


def notes(lines: Iterable[QueryLineView]) -> list[Told]:
    """Return what a reply says of lines, without a word of content."""
    return [_note(view) for view in lines]


def _note(view: QueryLineView) -> Told:
    content = None if view.content is None else hashlib.sha256(msgspec.json.encode(view.content)).hexdigest()[:16]
    return Told(view.line, view.state, view.outcome, view.id, content)
