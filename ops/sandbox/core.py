"""The network's core (コアシステム): decides about requests for permits (提供の求め).

It is a job for ``Store``: it decides inside the transaction that also keeps the decision, so that a repeat of a message
gets the first reply, byte for byte, and a message cannot be decided twice (TXR-03).

Deny by default: a permit leaves only when no stop stands, the matching list in force says yes, the assessments of both
agencies are published (28条), and both have a linkage code for the person. The core translates the inquirer's code into
the provider's; neither side ever sees the other's (番号法施行令26条1項). The core's record names a person by the
management code only, and holds no content (REC-06).
"""

import datetime as dt
import hashlib
import hmac
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from chukan.chance import Chance
from chukan.clock import Clock, today_jst
from chukan.ops.sandbox import delegations
from chukan.ops.sandbox.admin import to_microseconds
from chukan.ops.sandbox.outbox import Push, put_out
from chukan.ops.sandbox.register import PIA_UNPUBLISHED, Known, RecordFacts, Register
from chukan.platform.law import Decision, Verdict
from chukan.platform.wire.network import (
    InquirerPermit,
    Notice,
    PermitReply,
    PermitRequest,
    ProviderPermit,
    SignedPermit,
)

SignPermits = Callable[[Sequence[bytes]], list[SignedPermit]]
_encode: Final = msgspec.json.encode
_TOLD: Final = frozenset({"consent_missing", "provider_limited", "affair_not_published", "affair_not_notified"})
"""Reasons beside the list's that an inquirer is told as they are: it can do something about them."""


class ListCheck(Protocol):
    """What the core asks the law's data (``chukan.platform.law.Law``)."""

    def decide(
        self,
        *,
        inquirer: str,
        provider: str,
        affair: str,
        procedure: str,
        kind: str,
        day: dt.date,
        consent: bool = False,
    ) -> Decision:
        """Judge by the list in force on a day (JST)."""
        ...

    def own_refusal(self, affair: str, *, on_behalf_of: str | None, withheld: bool) -> str | None:
        """Why a person's own query (自己情報提供) may not be asked like this, or None."""
        ...

    def allowed_items(self, procedure: str, kind: str, day: dt.date) -> frozenset[str]:
        """The items that a procedure may receive of a kind on a day."""
        ...


class Surroundings(NamedTuple):
    """What the core stands on; ``sign`` signs 1…1,000 permit bodies as one list."""

    law: ListCheck
    clock: Clock
    chance: Chance
    sign: SignPermits
    route_key: bytes
    permit_valid: dt.timedelta
    permit_valid_by_procedure: Mapping[str, dt.timedelta] = MappingProxyType({})

    def route_of(self, permit: uuid.UUID) -> str:
        """Return the opaque route that an answer to this permit must bear (PRV-08)."""
        return "nws-" + hmac.digest(self.route_key, permit.bytes, hashlib.sha256)[:12].hex()

    def expiry_of(self, request: PermitRequest, now: dt.datetime) -> dt.datetime:
        """Return until when a permit for this request, given now, is valid."""
        return now + self.permit_valid_by_procedure.get(request.procedure, self.permit_valid)


class _Call(NamedTuple):
    """One call's own view: its transaction, the register, and the one instant at which it decides."""

    connection: sqlite3.Connection
    register: Register
    now: dt.datetime
    today: dt.date


class _Faces(NamedTuple):
    """The two faces of a permit (bytes) and the way to the provider."""

    inquirer: bytes
    provider: bytes
    route: str


class _Decided(NamedTuple):
    """One new line: its reply is complete but for the signed permit."""

    request: PermitRequest
    digest: bytes
    reply: PermitReply
    management: bytes | None
    faces: _Faces | None


class _Grounds(NamedTuple):
    """What a permit is made from, once nothing speaks against it."""

    provider: Known
    answer_key: bytes
    management: bytes
    provider_code: bytes


class _Refusal(Exception):  # noqa: N818 - it carries an outcome, it is not an error
    """The core's no to one line."""

    def __init__(self, outcome: Literal["no_code", "not_permitted", "stopped", "bad_request"], reason: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.reason = reason


class Core:
    """Decides; knows of no HTTP and no peer but by the route that a message came over."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._on = surroundings

    def permit_requests(
        self, connection: sqlite3.Connection, route: str, requests: Sequence[tuple[PermitRequest, bytes]]
    ) -> list[bytes]:
        """Decide about (request, its exact bytes) pairs; returns the replies' bytes in order.

        A message id that was seen before gets its first reply again, unless its bytes differ (``id_reused``).
        """
        call = _Call(connection, Register(connection), self._on.clock.now(), today_jst(self._on.clock))
        replies: dict[int, bytes] = {}
        decided: dict[tuple[str, bytes], _Decided] = {}
        keys: list[tuple[str, bytes]] = []
        for index, (request, raw) in enumerate(requests):
            digest = hashlib.sha256(raw).digest()
            key = (request.inquirer, request.id.bytes)
            keys.append(key)
            if not call.register.is_at(request.inquirer, route):
                replies[index] = self._not_kept(request, call.now, "not_your_agency")
                continue
            kept = (decided[key].digest, None) if key in decided else _kept_reply(connection, key)
            if kept is None:
                decided[key] = self._decide(call, request, digest)
            elif kept[0] != digest:
                replies[index] = self._not_kept(request, call.now, "id_reused")
            elif kept[1] is not None:
                replies[index] = kept[1]
        fresh = self._keep(call, decided)
        return [replies[index] if index in replies else fresh[key] for index, key in enumerate(keys)]

    def _not_kept(self, request: PermitRequest, now: dt.datetime, reason: str) -> bytes:
        """A reply that is not kept: nothing may be remembered under an id that is not the sender's, or used."""
        reference = str(self._on.chance.uuid7())
        return _encode(
            PermitReply(id=request.id, outcome="bad_request", reference=reference, decided_at=now, reason=reason)
        )

    def _decide(self, call: _Call, request: PermitRequest, digest: bytes) -> _Decided:
        reference = self._on.chance.uuid7()
        try:
            grounds = self._check(call, request)
        except _Refusal as refusal:
            reply = PermitReply(
                id=request.id,
                outcome=refusal.outcome,
                reference=str(reference),
                decided_at=call.now,
                reason=refusal.reason,
            )
            return _Decided(request, digest, reply, _management(call, request), None)
        reply = PermitReply(id=request.id, outcome="permitted", reference=str(reference), decided_at=call.now)
        return _Decided(request, digest, reply, grounds.management, self._permit(call, request, reference, grounds))

    def _check(self, call: _Call, request: PermitRequest) -> _Grounds:
        """Return the grounds of a permit, or raise the first reason against it: stop, list, PIA, key, codes."""
        inquirer, provider = call.register.agency(request.inquirer), call.register.agency(request.provider)
        if inquirer is None or provider is None:
            raise _Refusal("bad_request", "unknown_agency")
        stopped = call.register.stop_reason(request.kind, request.procedure)
        if stopped is not None:
            raise _Refusal("stopped", stopped)
        self._check_delegations(call, request)
        self._check_list(call, request)
        delegators = [call.register.agency(code) for code in (request.on_behalf_of, request.provider_for) if code]
        if not all(agency is not None and agency.pia for agency in (inquirer, provider, *delegators)):
            raise _Refusal("not_permitted", PIA_UNPUBLISHED)
        answer_key = call.register.answer_key(request.inquirer, request.answer_key)
        if answer_key is None:
            raise _Refusal("bad_request", "unknown_answer_key")
        management = _management(call, request)
        if management is None:
            raise _Refusal("bad_request", "unknown_code")
        code = _code_of(call, management, request.provider)
        if code is None:
            raise _Refusal("no_code", "provider_has_no_code")
        return _Grounds(provider, answer_key, management, code)

    def _check_delegations(self, call: _Call, request: PermitRequest) -> None:
        """Refuse a request that rests on a delegation of which a half is not registered (INQ-08)."""
        resting: list[tuple[Literal["inquirer", "provider"], str | None, str]] = [
            ("inquirer", request.on_behalf_of, request.inquirer),
            ("provider", request.provider_for, request.provider),
        ]
        for side, delegator, delegate in resting:
            if delegator is None:
                continue
            if not delegations.stands(call.connection, side, delegator, delegate, request.affair, call.today):
                raise _Refusal("not_permitted", "delegation_missing")

    def _check_list(self, call: _Call, request: PermitRequest) -> None:
        decision = self._on.law.decide(
            inquirer=request.on_behalf_of or request.inquirer,
            provider=request.provider_for or request.provider,
            affair=request.affair,
            procedure=request.procedure,
            kind=request.kind,
            day=call.today,
            consent=request.consent,
        )
        if decision.verdict is not Verdict.YES:
            unknown = decision.verdict is Verdict.UNKNOWN
            kept = decision.reason if decision.reason in _TOLD else "not_on_list"
            raise _Refusal("not_permitted", "list_unknown" if unknown else kept)
        own = self._on.law.own_refusal(request.affair, on_behalf_of=request.on_behalf_of, withheld=request.withheld)
        if own is not None:
            raise _Refusal("not_permitted", own)
        if not self._on.law.allowed_items(request.procedure, request.kind, call.today).issuperset(request.items):
            raise _Refusal("not_permitted", "item_not_allowed")

    def _permit(self, call: _Call, request: PermitRequest, permit: uuid.UUID, grounds: _Grounds) -> _Faces:
        expires_at = self._on.expiry_of(request, call.now)
        inquirer_face = InquirerPermit(
            permit=permit,
            request=request.id,
            inquirer=request.inquirer,
            provider=request.provider,
            affair=request.affair,
            procedure=request.procedure,
            kind=request.kind,
            items=request.items,
            issued_at=call.now,
            expires_at=expires_at,
            withheld=request.withheld,
        )
        provider_face = ProviderPermit(
            permit=permit,
            code=grounds.provider_code,
            inquirer=request.inquirer,
            provider=request.provider,
            department=request.department,
            affair=request.affair,
            procedure=request.procedure,
            kind=request.kind,
            items=request.items,
            condition=request.condition,
            asked_at=request.asked_at,
            issued_at=call.now,
            expires_at=expires_at,
            answer_key=request.answer_key,
            answer_key_public=grounds.answer_key,
            route=self._on.route_of(permit),
            withheld=request.withheld,
            consent=request.consent,
            on_behalf_of=request.on_behalf_of,
            provider_for=request.provider_for,
        )
        return _Faces(_encode(inquirer_face), _encode(provider_face), grounds.provider.route)

    def _keep(self, call: _Call, decided: dict[tuple[str, bytes], _Decided]) -> dict[tuple[str, bytes], bytes]:
        """Sign, and insert the decisions with their records and notices; returns the replies' bytes."""
        permitted = [(key, one.faces) for key, one in decided.items() if one.faces is not None]
        inquirer_faces = self._sign([faces.inquirer for _, faces in permitted])
        provider_faces = self._sign([faces.provider for _, faces in permitted])
        signed = {
            key: pair
            for (key, _), pair in zip(permitted, zip(inquirer_faces, provider_faces, strict=True), strict=True)
        }
        replies = {}
        for key, one in decided.items():
            if one.faces is None:
                replies[key] = _encode(one.reply)
                _insert(call, one, replies[key], None)
                continue
            inquirer_face, provider_face = signed[key]
            replies[key] = _encode(msgspec.structs.replace(one.reply, permit=inquirer_face))
            until = to_microseconds(self._on.expiry_of(one.request, call.now))
            position = _insert(call, one, replies[key], until)
            notice = Notice(id=self._on.chance.uuid7(), permit=provider_face)
            put_out(call.connection, Push(one.faces.route, "notices", notice.id, _encode(notice), until, position))
        return replies

    def _sign(self, bodies: list[bytes]) -> list[SignedPermit]:
        return self._on.sign(bodies) if bodies else []


def _kept_reply(connection: sqlite3.Connection, key: tuple[str, bytes]) -> tuple[bytes, bytes | None] | None:
    row = connection.execute(
        "SELECT digest, reply FROM exchanges WHERE request = ? AND inquirer = ?", (key[1], key[0])
    ).fetchone()
    return None if row is None else (row[0], row[1])


def _management(call: _Call, request: PermitRequest) -> bytes | None:
    """The management code of the person whom the inquirer knows by its code; None for a code never given to it."""
    row = call.connection.execute(
        "SELECT management FROM codes WHERE agency = ? AND code = ?", (request.inquirer, request.code)
    ).fetchone()
    return None if row is None else row[0]


def _code_of(call: _Call, management: bytes, agency: str) -> bytes | None:
    row = call.connection.execute(
        "SELECT code FROM codes WHERE management = ? AND agency = ?", (management, agency)
    ).fetchone()
    return None if row is None else row[0]


def _insert(call: _Call, one: _Decided, reply: bytes, expires_at: int | None) -> int:
    """Insert the row of a decision; a refused line is closed at once, and is a record as well (REC-01)."""
    request = one.request
    facts = RecordFacts(
        department=request.department,
        affair=request.affair,
        procedure=request.procedure,
        kind=request.kind,
        items=request.items,
        asked_at=request.asked_at,
    )
    at = to_microseconds(call.now)
    closed = expires_at is None
    cursor = call.connection.execute(
        "INSERT INTO exchanges (inquirer, request, digest, reference, provider, facts, management, reply, decided_at, "
        "expires_at, outcome, reason, withheld, closed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request.inquirer,
            request.id.bytes,
            one.digest,
            uuid.UUID(one.reply.reference).bytes,
            request.provider,
            _encode(facts),
            one.management,
            reply,
            at,
            expires_at,
            one.reply.outcome if closed else None,
            one.reply.reason,
            request.withheld,
            at if closed else None,
        ),
    )
    if cursor.lastrowid is None:
        raise ValueError("the row of a decision has no position")
    return cursor.lastrowid
