"""Permits that replace others (許可証の再発行): a provider that was restored serves none from before its opening.

It cannot know which of those were used, so it refuses them (``permit_before_restore``). The network does know, and
issues a new permit for a request that is still open: the old one is void from then on, also for an answer that is on
its way. The new permit ends when the old one did, for the inquirer counts on that.

Invariant: of all permits for one request at most one is valid, and none once the request was answered.
"""

import datetime as dt
import sqlite3
from typing import Final, NamedTuple

import msgspec

from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.core import Surroundings
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import Register
from chukan.platform.wire.network import InquirerPermit, Notice, PermitReply, ProviderPermit

REASON: Final = "permit_before_restore"
REISSUES_MAX: Final = 3
"""So often a request gets another permit; afterwards it lapses."""

_notice: Final = msgspec.json.Decoder(Notice)
_reply: Final = msgspec.json.Decoder(PermitReply)
_provider: Final = msgspec.json.Decoder(ProviderPermit)
_inquirer: Final = msgspec.json.Decoder(InquirerPermit)
_encode: Final = msgspec.json.encode


class _Open(NamedTuple):
    """A line that still waits for its answer, and the way to its provider."""

    position: int
    reply: bytes
    route: str


class Reissues:
    """Replaces permits; a job for ``Store``."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._on = surroundings

    def replace(self, connection: sqlite3.Connection, refused: bytes) -> bool:
        """Issue a permit in place of that of a refused notice (its exact bytes) and queue its notice, if it may be."""
        old = _provider.decode(_notice.decode(refused).permit.body)
        now = self._on.clock.now()
        line = _open_line(connection, old)
        if line is None or now >= old.expires_at:
            return False
        if Register(connection).stop_reason(old.kind, old.procedure) is not None:
            return False
        self._put(connection, line, old, now)
        return True

    def _put(self, connection: sqlite3.Connection, line: _Open, old: ProviderPermit, now: dt.datetime) -> None:
        permit = self._on.chance.uuid7()
        first = _reply.decode(line.reply)
        if first.permit is None:
            raise ValueError("a permitted line without its permit")
        mine = _inquirer.decode(first.permit.body)
        theirs = msgspec.structs.replace(
            old, permit=permit, issued_at=now, route=self._on.route_of(permit), replaces=old.permit
        )
        mine = msgspec.structs.replace(mine, permit=permit, issued_at=now, replaces=old.permit)
        (signed_theirs,), (signed_mine,) = self._on.sign([_encode(theirs)]), self._on.sign([_encode(mine)])
        reply = msgspec.structs.replace(first, reference=str(permit), permit=signed_mine)
        connection.execute(
            "UPDATE exchanges SET reference = ?, reply = ?, reviewing = 0, notified_at = NULL WHERE position = ?",
            (permit.bytes, _encode(reply), line.position),
        )
        connection.execute(
            "INSERT INTO replaced (permit, position, at) VALUES (?, ?, ?)",
            (old.permit.bytes, line.position, to_microseconds(now)),
        )
        notice = Notice(id=self._on.chance.uuid7(), permit=signed_theirs)
        until = to_microseconds(old.expires_at)
        put_out(connection, Push(line.route, "notices", notice.id, _encode(notice), until, line.position))


def is_replaced(connection: sqlite3.Connection, permit: bytes) -> bool:
    """Whether another permit has taken this one's place."""
    return connection.execute("SELECT 1 FROM replaced WHERE permit = ?", (permit,)).fetchone() is not None


def _open_line(connection: sqlite3.Connection, old: ProviderPermit) -> _Open | None:
    row = connection.execute(
        "SELECT e.position, e.reply, a.route, (SELECT count(*) FROM replaced r WHERE r.position = e.position) "
        "FROM exchanges e JOIN agencies a ON a.code = e.provider WHERE e.reference = ? AND e.outcome IS NULL",
        (old.permit.bytes,),
    ).fetchone()
    return None if row is None or row[3] >= REISSUES_MAX else _Open(*row[:3])
