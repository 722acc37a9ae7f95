"""The network's part in requests to acquire (符号取得の依頼, 施行令26条3項): passes them on, once a refusal.

A job for ``Store``. Whoever was told that a provider has no code of a person may ask it to acquire one. The network
gives out the provider's answer key for exactly that, and passes the sealed facts on unopened; it keeps that it did, and
no fact. A request that comes again for the same refusal has no second effect, whatever it carries.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.ops.sandbox.acquisition import CODE_KEEP
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import RecordFacts, Register
from chukan.platform.wire.network_asks import (
    AcquisitionAsk,
    AcquisitionAskReply,
    AcquisitionNotice,
    ProviderKeyReply,
    ProviderKeyRequest,
)

_encode: Final = msgspec.json.encode
_facts: Final = msgspec.json.Decoder(RecordFacts)


class _Refused(NamedTuple):
    """A line that ended because its provider has no code of the person."""

    provider: str
    facts: RecordFacts


class AcquisitionAsks:
    """Answers for provider's keys and passes requests on."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance

    def keys(self, connection: sqlite3.Connection, route: str, requests: Sequence[ProviderKeyRequest]) -> list[bytes]:
        """Return a ``ProviderKeyReply``'s bytes for each request, in their order."""
        register = Register(connection)
        replies = []
        for request in requests:
            line = _line(connection, register, route, request)
            row = None
            if isinstance(line, _Refused):
                row = connection.execute(
                    "SELECT id, public FROM answer_keys WHERE agency = ? ORDER BY at DESC, id LIMIT 1", (line.provider,)
                ).fetchone()
            if row is None:
                reason = line if isinstance(line, str) else "unknown_answer_key"
                replies.append(_encode(ProviderKeyReply(id=request.id, outcome="bad_request", reason=reason)))
            else:
                replies.append(_encode(ProviderKeyReply(id=request.id, outcome="answered", key=row[0], public=row[1])))
        return replies

    def ask(self, connection: sqlite3.Connection, route: str, asks: Sequence[AcquisitionAsk]) -> list[bytes]:
        """Pass each request on to its provider; an ``AcquisitionAskReply``'s bytes for each."""
        register = Register(connection)
        return [_encode(self._ask(connection, register, route, each)) for each in asks]

    def _ask(
        self, connection: sqlite3.Connection, register: Register, route: str, ask: AcquisitionAsk
    ) -> AcquisitionAskReply:
        line = _line(connection, register, route, ask)
        if isinstance(line, str):
            return AcquisitionAskReply(id=ask.id, status="refused", reason=line)
        provider = register.agency(line.provider)
        if provider is None or register.answer_key(line.provider, ask.key) is None:
            return AcquisitionAskReply(id=ask.id, status="refused", reason="unknown_answer_key")
        now = self._clock.now()
        fresh = connection.execute(
            "INSERT INTO acquisition_asks (inquirer, request, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
            (ask.inquirer, ask.request.bytes, to_microseconds(now)),
        ).fetchall()
        if fresh:
            notice = AcquisitionNotice(
                id=self._chance.uuid7(),
                provider=line.provider,
                inquirer=ask.inquirer,
                affair=line.facts.affair,
                kind=line.facts.kind,
                asked_at=ask.asked_at,
                key=ask.key,
                sealed=ask.sealed,
            )
            until = to_microseconds(now + CODE_KEEP)
            put_out(connection, Push(provider.route, "acquisition-requests", notice.id, _encode(notice), until))
        return AcquisitionAskReply(id=ask.id, status="accepted")


def _line(
    connection: sqlite3.Connection, register: Register, route: str, asked: ProviderKeyRequest | AcquisitionAsk
) -> _Refused | str:
    """The line behind a request, or the reason why it is none that may be followed by one."""
    if not register.is_at(asked.inquirer, route):
        return "not_your_agency"
    row = connection.execute(
        "SELECT provider, facts FROM exchanges WHERE request = ? AND inquirer = ? AND outcome = 'no_code'",
        (asked.request.bytes, asked.inquirer),
    ).fetchone()
    return "unknown_request" if row is None else _Refused(row[0], _facts.decode(row[1]))
