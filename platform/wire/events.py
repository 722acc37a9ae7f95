"""Events of an agency's own lines, as ``GET /events`` writes them (text/event-stream).

A page of events is written as one ``line`` event each, and the last of them bears the id to go on from: a reader that
was cut off in the middle of a page gets the page again, and knows each event by its number.
"""

from __future__ import annotations

import uuid
from typing import Literal

import msgspec

from chukan.platform.wire.network import Instant, Message


class LineEvent(Message, frozen=True):
    """A line reached a state. ``n`` is the event's own number in its cell: the same event always has the same one."""

    n: int
    id: uuid.UUID
    """The line: an id of a query line, or of a provision."""
    side: Literal["inquirer", "provider"]
    state: str
    at: Instant
    """Begin of the transaction that wrote it."""
    before: str | None = None


class EventPage(msgspec.Struct, frozen=True):
    """Events that became visible together, and the cursor behind them; one without events is a heartbeat."""

    cursor: str
    events: list[LineEvent]
    reset: bool = False
    """The reader's cursor cannot be gone on from: what happened meanwhile is seen in the states of the lines."""


def render(page: EventPage) -> bytes:
    """Return a page in the form of server-sent events (HTML Standard, 9.2)."""
    if not page.events:
        word = b"event: reset\ndata: {}\n" if page.reset else b": \n"
        return word + b"id: " + page.cursor.encode() + b"\n\n"
    lines = [b"event: line\ndata: " + msgspec.json.encode(event) for event in page.events]
    return b"\n\n".join(lines) + b"\nid: " + page.cursor.encode() + b"\n\n"
