"""The network's other half: receives answers, gives receipts, passes content on unread, and lets permits lapse.

Every method is a job for ``Store``. One final answer counts for a permit; ``under_review`` is interim, at most one, and
changes no record. The network's receipt instant decides lapse: an answer after ``expires_at`` reaches nobody and the
network's record says ``expired`` (命令85号41条3項). The destination is the permit's inquirer, never anything in the
answer.

Invariant: sealed content passes through unopened; once it is delivered it is kept for redelivery alone, and forgotten.
"""

import datetime as dt
import hashlib
import hmac
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.core import Surroundings
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import Register
from chukan.ops.sandbox.reissues import is_replaced
from chukan.platform.wire.network import Answer, AnswerDelivery, PermitReply, Receipt

ANSWER_KEEP: Final = dt.timedelta(days=7)
"""How long the network tries to deliver an answer; the inquirer may have closed its line long before."""
RECEIPT_KEEP: Final = dt.timedelta(days=14)
"""How long a repeated answer gets its first receipt."""
SWEEP_MAX: Final = 1000

_WITH_CONTENT: Final = frozenset({"provided", "provided_with_gaps"})
_reply: Final = msgspec.json.Decoder(PermitReply)
_encode: Final = msgspec.json.encode


class _Permit(NamedTuple):
    """The row of a permitted line, as far as an answer to it needs it."""

    position: int
    provider: str
    inquirer: str
    outcome: str | None
    expires_at: int
    reviewing: int
    reply: bytes
    withheld: int


class Answers:
    """Judges answers and passes them on."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._on = surroundings

    def receive(
        self, connection: sqlite3.Connection, route: str, answers: Sequence[tuple[Answer, bytes]]
    ) -> list[bytes]:
        """Take (answer, its exact bytes) pairs that came over a route; returns the receipts' bytes in order.

        A message id that was seen before gets its first receipt again, unless its bytes differ (``id_reused``).
        """
        register = Register(connection)
        now = self._on.clock.now()
        receipts = []
        for answer, raw in answers:
            digest = hashlib.sha256(raw).digest()
            kept = connection.execute(
                "SELECT digest, reply FROM receipts WHERE route = ? AND id = ?", (route, answer.id.bytes)
            ).fetchone()
            if kept is not None:
                receipts.append(kept[1] if kept[0] == digest else _encode(_refused(answer, now, "id_reused")))
                continue
            receipts.append(_encode(self._judge(connection, register, route, answer, now)))
            connection.execute(
                "INSERT INTO receipts (route, id, digest, reply, at) VALUES (?, ?, ?, ?, ?)",
                (route, answer.id.bytes, digest, receipts[-1], to_microseconds(now)),
            )
        return receipts

    def _judge(
        self, connection: sqlite3.Connection, register: Register, route: str, answer: Answer, now: dt.datetime
    ) -> Receipt:
        permit = _find(connection, answer)
        if permit is None:
            replaced = is_replaced(connection, answer.permit.bytes)
            return _refused(answer, now, "permit_replaced" if replaced else "unknown_permit")
        reason = self._reason_against(register, route, answer, permit)
        if reason is not None:
            return _refused(answer, now, reason)
        if to_microseconds(now) > permit.expires_at:
            _lapse(connection, permit.position)
            return Receipt(id=answer.id, status="lapsed", at=now, reason="permit_expired")
        inquirer = register.agency(permit.inquirer)
        if inquirer is None:
            return _refused(answer, now, "unknown_inquirer")
        self._pass_on(connection, inquirer.route, permit, answer, now)
        return Receipt(id=answer.id, status="accepted", at=now)

    def _reason_against(self, register: Register, route: str, answer: Answer, permit: _Permit) -> str | None:
        """Why an answer does not belong to its permit, or None; time is judged afterwards."""
        if permit.provider != answer.provider or not register.is_at(permit.provider, route):
            return "not_your_permit"
        if not hmac.compare_digest(answer.route.encode(), self._on.route_of(answer.permit).encode()):
            return "wrong_route"
        if (answer.sealed is not None) is not (answer.outcome in _WITH_CONTENT):
            return "content_mismatch"
        if permit.outcome not in {None, "expired"} or (answer.outcome == "under_review" and permit.reviewing):
            return "already_answered"
        return None

    def _pass_on(
        self, connection: sqlite3.Connection, route: str, permit: _Permit, answer: Answer, now: dt.datetime
    ) -> None:
        first = _reply.decode(permit.reply)
        if first.permit is None:
            raise ValueError("a permitted line without its permit")
        withheld = bool(permit.withheld) or answer.withheld
        delivery = AnswerDelivery(
            id=self._on.chance.uuid7(),
            request=first.id,
            inquirer=permit.inquirer,
            permit=first.permit,
            outcome=answer.outcome,
            answered_at=answer.answered_at,
            received_at=now,
            withheld=withheld,
            reason=answer.reason,
            sealed=answer.sealed,
        )
        interim = answer.outcome == "under_review"
        stamped = None if interim else permit.position
        until = to_microseconds(now + ANSWER_KEEP)
        put_out(connection, Push(route, "answers", delivery.id, _encode(delivery), until, stamped))
        if interim:
            connection.execute("UPDATE exchanges SET reviewing = 1 WHERE position = ?", (permit.position,))
            return
        provided_at = to_microseconds(answer.answered_at) if answer.outcome in _WITH_CONTENT else None
        connection.execute(
            "UPDATE exchanges SET outcome = ?, reason = ?, withheld = ?, provided_at = ?, closed_at = ? "
            "WHERE position = ?",
            (answer.outcome, answer.reason, withheld, provided_at, to_microseconds(now), permit.position),
        )

    def sweep(self, connection: sqlite3.Connection) -> int:
        """Let permits lapse whose validity passed without an answer, forget old receipts; returns the lapsed."""
        now = self._on.clock.now()
        late = connection.execute(
            "SELECT position FROM exchanges WHERE outcome IS NULL AND expires_at < ? LIMIT ?",
            (to_microseconds(now), SWEEP_MAX),
        ).fetchall()
        for (position,) in late:
            _lapse(connection, position)
        connection.execute(
            "DELETE FROM receipts WHERE (route, id) IN (SELECT route, id FROM receipts WHERE at < ? LIMIT ?)",
            (to_microseconds(now - RECEIPT_KEEP), SWEEP_MAX),
        )
        return len(late)


def _find(connection: sqlite3.Connection, answer: Answer) -> _Permit | None:
    row = connection.execute(
        "SELECT position, provider, inquirer, outcome, expires_at, reviewing, reply, withheld FROM exchanges "
        "WHERE reference = ? AND expires_at IS NOT NULL",
        (answer.permit.bytes,),
    ).fetchone()
    return None if row is None else _Permit(*row)


def _lapse(connection: sqlite3.Connection, position: int) -> None:
    connection.execute(
        "UPDATE exchanges SET outcome = 'expired', reason = 'permit_expired', closed_at = expires_at "
        "WHERE position = ? AND outcome IS NULL",
        (position,),
    )


def _refused(answer: Answer, now: dt.datetime, reason: str) -> Receipt:
    return Receipt(id=answer.id, status="refused", at=now, reason=reason)
