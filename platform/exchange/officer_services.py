"""What the HTTP layer and a console may ask of the services for officers (職員): sessions, accounts, and affairs.

Every method works for one agency; every failure is a ``Problem``. What implements them stands beside this file.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from chukan.platform.exchange.context import Context
from chukan.platform.exchange.officer_changes import Administrator, Door, OfficerAccounts
from chukan.platform.exchange.officer_sessions import Acting, OfficerSessions
from chukan.platform.exchange.query_affairs import QueryAffairs
from chukan.platform.exchange.refused_bursts import RefusedBursts
from chukan.platform.wire.officers import (
    ChallengeAsk,
    Enrol,
    Enrolled,
    OfficerChange,
    OfficerChangePost,
    OfficerChanges,
    Officers,
    PasskeyChallenge,
    PasswordChange,
    SignedIn,
    SignIn,
)
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_passkeys import Passkeys
from chukan.tenants.officer_passwords import Passwords


class SessionService(Protocol):
    """Signing in and out of officers (職員), with two factors."""

    async def has_accounts(self, agency: AgencyRow) -> bool:
        """Whether the agency has accounts; then its officers act in sessions only."""
        ...

    async def resume(self, agency: AgencyRow, client: ClientRow, session: str, *, touch: bool = True) -> Acting:
        """Who acts in a session, and may do what today; ``touch``: and is there. Raises Problem ``session_ended``."""
        ...

    async def challenge(self, agency: AgencyRow, ask: ChallengeAsk) -> PasskeyChallenge:
        """Something for an authenticator to sign. Raises Problem ``not_in_service``."""
        ...

    async def login(self, agency: AgencyRow, client: ClientRow, ask: SignIn) -> SignedIn:
        """Begin a session. Raises Problem ``login_refused``, ``officer_locked``."""
        ...

    async def logout(self, agency: AgencyRow, acting: Acting) -> None:
        """End a session."""
        ...

    async def enrol(self, agency: AgencyRow, client: ClientRow, ask: Enrol) -> Enrolled:
        """Set the own factors. Raises Problem ``enrolment_refused``, ``password_weak``."""
        ...

    async def change_password(self, agency: AgencyRow, client: ClientRow, acting: Acting, ask: PasswordChange) -> None:
        """Change the own password. Raises Problem ``login_refused``, ``password_weak``."""
        ...


class AccountService(Protocol):
    """Officers' accounts, changed by two administrators."""

    async def list(self, agency: AgencyRow, by: Administrator) -> Officers:
        """All accounts. Raises Problem ``session_required``."""
        ...

    async def changes(self, agency: AgencyRow, by: Administrator) -> OfficerChanges:
        """What waits for a second administrator. Raises Problem ``session_required``."""
        ...

    async def propose(
        self, agency: AgencyRow, by: Administrator, body: OfficerChangePost, *, key: str, content: bytes
    ) -> OfficerChange:
        """Propose a change. Raises Problem ``administrators_needed``, ``idempotency_key_reused``."""
        ...

    async def approve(self, agency: AgencyRow, by: Administrator, wanted: uuid.UUID) -> OfficerChange:
        """Carry a change out. Raises Problem ``second_officer_required``, ``change_closed``."""
        ...

    async def reject(self, agency: AgencyRow, by: Administrator, wanted: uuid.UUID) -> OfficerChange:
        """Close a change without effect. Raises Problem ``change_closed``."""
        ...


@dataclass(frozen=True, slots=True)
class OfficerServices:
    """Both services for officers; a console uses the same ones."""

    sessions: SessionService
    accounts: AccountService
    affairs: Callable[[AgencyRow, uuid.UUID], Awaitable[frozenset[str]]]
    """The affairs (事務) of a batch of queries, or of one line. Raises Problem ``not_found``."""


def officer_services(context: Context, door: Door, refused: RefusedBursts) -> OfficerServices:
    """Return an exchange's services for officers.

    ``door`` opens an agency's own partition, ``refused`` enters refused sign-ins.
    """
    rules = context.settings.officers
    passkeys = Passkeys(rules.passkey_domain, tuple(rules.passkey_origins))
    sessions = OfficerSessions(context, door, Passwords(), passkeys, rules, refused)
    return OfficerServices(sessions, OfficerAccounts(context, door), QueryAffairs(context))
