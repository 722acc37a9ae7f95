"""What the network can tell and push again after an exchange lost its memory (照合・再配信): jobs for ``Store``.

A message that was accepted is kept for a while with its exact bytes, sealed as it was, so that an exchange whose cell
was restored to an earlier moment can ask what was exchanged since, and have it pushed again. A repeat does no harm: the
receiver knows a message by its id. A notice whose line has ended is not pushed again: nothing is to be answered. Of a
code only its own is kept, for the message bore the acquisition number: it is acquired once more.

Invariant: a party learns of its own agencies only, and of no counterpart's ids.
"""

import datetime as dt
import sqlite3
import uuid
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from chukan.clock import Clock
from chukan.ops.sandbox.admin import from_microseconds, to_microseconds
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import Register
from chukan.platform.wire.network import (
    InventoryEntry,
    InventoryReply,
    InventoryRequest,
    RedeliveryReply,
    RedeliveryRequest,
)

PUSHED_KEEP: Final = dt.timedelta(days=7)
"""For how long an accepted message can be pushed again."""
PAGE_ROWS: Final = 500
"""Rows of a page; each gives two entries where an agency asked itself."""
SWEEP_MAX: Final = 1000
_encode: Final = msgspec.json.encode

_LINES: Final = (
    "SELECT e.position, e.inquirer, e.provider, e.request, e.reference, e.outcome, e.decided_at, e.notified_at, "
    "(SELECT p.id FROM pushed p WHERE p.position = e.position AND p.channel = 'answers' ORDER BY p.n DESC LIMIT 1), "
    "(SELECT p.id FROM pushed p WHERE p.position = e.position AND p.channel = 'notices' ORDER BY p.n DESC LIMIT 1) "
    "FROM exchanges e WHERE e.position > :after AND :agency IN (e.inquirer, e.provider) AND :since <= "
    "max(e.decided_at, coalesce(e.notified_at, 0), coalesce(e.closed_at, 0), coalesce(e.delivered_at, 0)) "
    "ORDER BY e.position LIMIT :rows"
)
_CODES: Final = (
    "SELECT t.id, t.at FROM told t WHERE t.at >= :since AND t.agency = :agency "
    "AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.id = t.id) ORDER BY t.at, t.id LIMIT :rows OFFSET :after"
)


class Redelivery:
    """Answers inventories and queues what is to be pushed again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def inventories(
        self, connection: sqlite3.Connection, route: str, requests: Sequence[InventoryRequest]
    ) -> list[bytes]:
        """Return an ``InventoryReply``'s bytes for each request, in their order."""
        register = Register(connection)
        return [_encode(self._inventory(connection, register, route, request)) for request in requests]

    def _inventory(
        self, connection: sqlite3.Connection, register: Register, route: str, request: InventoryRequest
    ) -> InventoryReply:
        if not register.is_at(request.agency, route):
            return InventoryReply(id=request.id, outcome="bad_request", reason="not_your_agency")
        # One number says where to go on: even ones are positions of lines, odd ones count codes, which come after them.
        entries: list[InventoryEntry] = []
        following: int | None = None
        if request.after % 2 == 0:
            entries, last = _lines(connection, request, request.after // 2)
            following = 1 if last is None else 2 * last
        else:
            after = request.after // 2
            entries = _codes(connection, request, after)
            following = 2 * (after + PAGE_ROWS) + 1 if len(entries) == PAGE_ROWS else None
        return InventoryReply(id=request.id, outcome="answered", entries=entries, next=following)

    def redeliver(
        self, connection: sqlite3.Connection, route: str, requests: Sequence[RedeliveryRequest]
    ) -> list[bytes]:
        """Queue messages that were accepted before; a ``RedeliveryReply``'s bytes for each request, in their order."""
        register = Register(connection)
        now = to_microseconds(self._clock.now())
        replies = []
        for request in requests:
            known = register.is_at(request.agency, route)
            status = _again(connection, route, request, now) if known else "unknown"
            replies.append(_encode(RedeliveryReply(id=request.id, status=status)))
        return replies

    def sweep(self, connection: sqlite3.Connection) -> int:
        """Forget what was kept long enough; returns how many messages."""
        over = to_microseconds(self._clock.now() - PUSHED_KEEP)
        connection.execute("DELETE FROM told WHERE id IN (SELECT id FROM told WHERE at < ? LIMIT ?)", (over, SWEEP_MAX))
        return connection.execute(
            "DELETE FROM pushed WHERE n IN "
            "(SELECT n FROM (SELECT n, at FROM pushed ORDER BY n LIMIT ?) oldest WHERE at < ?)",
            (SWEEP_MAX, over),
        ).rowcount


def _lines(
    connection: sqlite3.Connection, request: InventoryRequest, after: int
) -> tuple[list[InventoryEntry], int | None]:
    """Return one page of an agency's lines, and the last position where there may be more."""
    values = {
        "after": after,
        "agency": request.agency,
        "since": to_microseconds(request.since),
        "rows": PAGE_ROWS,
    }
    rows = connection.execute(_LINES, values).fetchall()
    entries = []
    for _, inquirer, provider, asked, reference, outcome, decided_at, notified_at, answer, notice in rows:
        if inquirer == request.agency:
            entries.append(
                InventoryEntry(
                    what="request",
                    at=from_microseconds(decided_at),
                    request=uuid.UUID(bytes=asked),
                    final=outcome,
                    push=None if answer is None else uuid.UUID(bytes=answer),
                )
            )
        if provider == request.agency and notified_at is not None:
            entries.append(
                InventoryEntry(
                    what="notice",
                    at=from_microseconds(notified_at),
                    permit=uuid.UUID(bytes=reference),
                    final=outcome,
                    push=None if notice is None else uuid.UUID(bytes=notice),
                )
            )
    return entries, rows[-1][0] if len(rows) == PAGE_ROWS else None


def _codes(connection: sqlite3.Connection, request: InventoryRequest, after: int) -> list[InventoryEntry]:
    """Return one page of the codes that an agency was brought."""
    values = {
        "agency": request.agency,
        "since": to_microseconds(request.since),
        "after": after,
        "rows": PAGE_ROWS,
    }
    rows = connection.execute(_CODES, values).fetchall()
    return [InventoryEntry(what="code", at=from_microseconds(at), push=uuid.UUID(bytes=one)) for one, at in rows]


def _again(
    connection: sqlite3.Connection, route: str, request: RedeliveryRequest, now: int
) -> Literal["queued", "closed", "reopened", "unknown"]:
    row = connection.execute(
        "SELECT p.channel, p.body, p.until, p.position, e.outcome FROM pushed p JOIN exchanges e "
        "ON e.position = p.position AND ? = CASE p.channel WHEN 'notices' THEN e.provider ELSE e.inquirer END "
        "WHERE p.route = ? AND p.id = ? ORDER BY p.n DESC LIMIT 1",
        (request.agency, route, request.id.bytes),
    ).fetchone()
    if row is None:
        return _reopen(connection, request)
    channel, body, until, position, outcome = row
    if until < now or (channel == "notices" and outcome is not None):
        return "closed"
    waits = connection.execute("SELECT 1 FROM outbox WHERE route = ? AND id = ?", (route, request.id.bytes)).fetchone()
    if waits is None:
        put_out(connection, Push(route, channel, request.id, body, until, position))
    return "queued"


def _reopen(connection: sqlite3.Connection, request: RedeliveryRequest) -> Literal["reopened", "unknown"]:
    """Let a code be acquired once more: its message is not kept, for it bore the number (SYM-06)."""
    row = connection.execute(
        "SELECT code, digest FROM told WHERE id = ? AND agency = ?", (request.id.bytes, request.agency)
    ).fetchone()
    if row is None:
        return "unknown"
    code, digest = row
    connection.execute("INSERT INTO untold (agency, code) VALUES (?, ?) ON CONFLICT DO NOTHING", (request.agency, code))
    connection.execute(
        "INSERT INTO reopened (digest, agency) VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, request.agency)
    )
    return "reopened"
