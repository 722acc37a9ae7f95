"""What a client of a drill did and was told, on disk before its request leaves and again before it uses the answer.

One file a client, one JSON object a line, appended and flushed to the disk. The first line says who it is. A journal is
what the checkers believe; so it is written by the client alone, and nothing ever changes a line of it.

Invariant: no person, number, content or key material: ids, outcomes, salted marks, instants. Instants are monotonic
seconds since the drill began, so that two lines of two journals can be put in order.
"""

import asyncio
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

Act = Literal["query", "register", "look", "list", "search"]
WRITES: Final = frozenset({"query", "register"})
"""Acts whose acknowledgement is a promise, and by which an outage is measured."""


class Client(msgspec.Struct, frozen=True):
    """Who keeps a journal: an agency's system, its home cell, and the group of agencies that it stands for."""

    name: str
    agency: str
    cell: str
    group: str


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query line as it was told."""

    id: uuid.UUID
    state: str
    outcome: str | None = None
    marks: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """``sending`` before a request leaves; then what became of it.

    ``told``: an answer of 2xx. ``refused``: one of 4xx, of which nothing came. ``in_doubt``: anything else; it may have
    had its effect. ``settled``: the same request asked for again by its key, when the drill was over.
    """

    event: Literal["sending", "told", "refused", "in_doubt", "settled"]
    at: float
    n: int
    act: Act
    exchange: str = ""
    key: str = ""
    subject: str = ""
    version: int = 0
    """``register``: which version was sent."""
    marks: dict[str, str] = {}
    """``register``: of the items sent; ``search``: of the items found."""
    status: int = 0
    code: str = ""
    batch: uuid.UUID | None = None
    lines: list[Line] = []
    after: str = ""
    """``list`` and ``look``: what was asked for."""
    next: bool = False
    """``list``: there was another page, so that what lies beyond the last line is not told."""
    leader: str = ""
    timeline: int = 0
    """Which primary acknowledged, as the reply's header said; 0 where it said nothing."""
    durability: str = ""
    retry_after_s: int = 0
    """When to come back, as the reply said; 0 where it said nothing."""


class Journal:
    """Appends lines of one client; on disk when ``write`` returns."""

    def __init__(self, path: Path, client: Client) -> None:
        """Begin a new file. Raises ``OSError``."""
        self.client = client
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._put(msgspec.json.encode(client))

    async def write(self, entry: Entry) -> None:
        """Append one entry; the loop goes on meanwhile. Raises ``OSError``: a client that cannot write must stop."""
        await asyncio.to_thread(self._put, msgspec.json.encode(entry))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _put(self, line: bytes) -> None:
        # One call a line: lines of requests that run at the same time do not mix.
        if os.write(self._descriptor, line + b"\n") != len(line) + 1:
            raise OSError("a journal line was cut off")
        os.fsync(self._descriptor)


class Account(msgspec.Struct, frozen=True):
    """One client's journal as it was read back."""

    client: Client
    entries: tuple[Entry, ...]

    def of(self, *events: str) -> Iterable[Entry]:
        """Yield the entries of some events."""
        return (entry for entry in self.entries if entry.event in events)

    def sent(self) -> dict[int, Entry]:
        """Return each request as it was sent, by its number."""
        return {entry.n: entry for entry in self.of("sending")}


def read(path: Path) -> Account:
    """Return a journal. A last line that a crash cut off is left out: nobody acted on it. Raises ``OSError``."""
    first, *lines = path.read_bytes().split(b"\n")
    return Account(
        msgspec.json.decode(first, type=Client),
        tuple(msgspec.json.decode(line, type=Entry) for line in lines[:-1]),
    )


def read_all(folder: Path) -> list[Account]:
    """Return every journal of a drill, in the order of the clients' names."""
    return [read(path) for path in sorted(folder.glob("*.jsonl"))]
