"""Calls of the agency API about officers (職員): signing in, and accounts. A part of ``AgencyClient``."""

import uuid
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.officers import (
    ChallengeAsk,
    Enrol,
    Enrolled,
    OfficerChange,
    OfficerChangePost,
    OfficerChanges,
    OfficerEntry,
    Officers,
    PasskeyChallenge,
    PasswordChange,
    SessionView,
    SignedIn,
    SignedOut,
    SignIn,
)

T = TypeVar("T")


class OfficerCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def sign_in(self, officer: str, password: str, *, passkey: dict[str, Any] | None = None) -> SignedIn:
        """Begin a session; without an authenticator's answer, the certificate of this connection is the card."""
        return await self._told("/login", SignIn(officer=officer, password=password, passkey=passkey), SignedIn)

    async def sign_out(self) -> SignedOut:
        """End the session of this connection."""
        return await self._told("/logout", None, SignedOut)

    async def challenge(self, ask: ChallengeAsk) -> PasskeyChallenge:
        """Something for an authenticator to sign."""
        return await self._told("/challenge", ask, PasskeyChallenge)

    async def enrol(self, body: Enrol) -> Enrolled:
        """Set the own factors, once."""
        return await self._told("/enrol", body, Enrolled)

    async def change_password(self, password: str, new: str) -> SignedOut:
        """Change the own password; every session of the officer ends."""
        return await self._told("/password", PasswordChange(password=password, new=new), SignedOut)

    async def who_am_i(self) -> SessionView:
        """Who is signed in, and may do what today."""
        return await self._transport.call(Request("GET", "/officers/me"), SessionView)

    async def officers(self) -> Officers:
        """All accounts."""
        return await self._transport.call(Request("GET", "/officers"), Officers)

    async def officer_changes(self) -> OfficerChanges:
        """Changes that wait for another administrator, and those decided last."""
        return await self._transport.call(Request("GET", "/officers/changes"), OfficerChanges)

    async def propose_officers(
        self, entries: Sequence[OfficerEntry], *, reason: str = "", key: str | None = None
    ) -> OfficerChange:
        """Propose a change of accounts, at most 1,000 entries."""
        body = OfficerChangePost(entries=list(entries), reason=reason)
        headers = {} if key is None else {"Idempotency-Key": key}
        request = Request("POST", "/officers/changes", msgspec.json.encode(body), headers)
        return await self._transport.call(request, OfficerChange)

    async def approve_officers(self, change: uuid.UUID) -> OfficerChange:
        """Carry out what another administrator proposed."""
        return await self._told(f"/changes/{change}/approve", None, OfficerChange)

    async def reject_officers(self, change: uuid.UUID) -> OfficerChange:
        """Close a proposal without effect."""
        return await self._told(f"/changes/{change}/reject", None, OfficerChange)

    async def _told(self, path: str, body: msgspec.Struct | None, kind: type[T]) -> T:
        content = None if body is None else msgspec.json.encode(body)
        return await self._transport.call(Request("POST", f"/officers{path}", content), kind)
