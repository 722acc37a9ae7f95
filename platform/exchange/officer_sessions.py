"""Signing in (ログイン): two factors, lockout, and sessions of officers in their agency's own partition.

Two factors are a password and either a passkey or the card (client certificate) of the connection itself. An attempt is
counted before anything is compared, in a commit of its own, so that many attempts at once count each; whatever is wrong
is one refusal, ``login_refused``, that takes as long for an officer who does not exist. A session is a random token; it
serves at the client it was begun at, until it was idle too long, its time is over, the officer's last day has ended,
or the factors were set anew. It lies in the agency's home cell, so that both centres know it and neither remembers it.

Invariant: every attempt, sign-in and sign-out stands in the operations log, in the same commit as its effect where it
has one, refusals that follow each other closely as one with their number (``refused_bursts``); ``[officers]`` of
the settings says how long anything lasts. This module knows nothing of HTTP; a token, a password or a name is in no log
and no exception.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from chukan import log
from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.refused_bursts import RefusedBursts
from chukan.platform.wire.officers import (
    AffairRight,
    ChallengeAsk,
    Enrol,
    Enrolled,
    PasskeyChallenge,
    PasswordChange,
    SessionView,
    SignedIn,
    SignIn,
)
from chukan.settings import Officers
from chukan.tenants import officer_rows as rows
from chukan.tenants import operations
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_accounts import PASSKEYS_MAX, Account, Affairs, Passkey, rights
from chukan.tenants.officer_codes import HALVES, half_code
from chukan.tenants.officer_passkeys import CHALLENGE_BYTES, TIMEOUT_S, PasskeyRefusedError, Passkeys
from chukan.tenants.officer_passwords import Passwords, check_strength
from chukan.tenants.operations import Operation, Outcome
from chukan.tenants.partition import Partition
from chukan.tenants.sealing import AgencyKeys

SEEN_EVERY: Final = dt.timedelta(minutes=1)
"""How exactly it is remembered when an officer was last there: a write a minute, not one a call."""
TOKEN_BYTES: Final = 32
_DOUBLINGS_MAX: Final = 20
_log = log.get("exchange.officers")
Door = Callable[[AgencyRow], AbstractAsyncContextManager[Partition]]


@dataclass(frozen=True, slots=True)
class Acting:
    """An officer in a session, and what he may do today."""

    officer: str
    digest: bytes
    until: dt.datetime
    rights: Mapping[str, Affairs]
    card: str | None

    def view(self) -> SessionView:
        """Return what the officer is told of it."""
        return SessionView(officer=self.officer, until=self.until, rights=_told(self.rights))


def lock_s(failures: int, rules: Officers) -> int:
    """Return for how many seconds nobody may try after so many failures in a row: doubling, up to a limit."""
    if failures <= rules.failures_free:
        return 0
    return min(rules.lock_first_s << min(failures - rules.failures_free - 1, _DOUBLINGS_MAX), rules.lock_max_s)


class OfficerSessions:
    """Signs officers in and out, and knows them again. ``door`` opens an agency's own partition."""

    def __init__(
        self,
        context: Context,
        door: Door,
        passwords: Passwords,
        passkeys: Passkeys,
        rules: Officers,
        refused: RefusedBursts,
    ) -> None:
        self._refused = refused
        self._context = context
        self._door = door
        self._rules = rules
        self._passwords = passwords
        self._passkeys = passkeys
        self._have_accounts: set[int] = set()

    async def has_accounts(self, agency: AgencyRow) -> bool:
        """Tell whether the agency has accounts; then its officers act in sessions only. Once true, it stays so."""
        if agency.number not in self._have_accounts:
            async with self._door(agency) as partition:
                if await rows.any_account(partition):
                    self._have_accounts.add(agency.number)
        return agency.number in self._have_accounts

    # ---------------------------------------------------------------- factors

    async def challenge(self, agency: AgencyRow, ask: ChallengeAsk) -> PasskeyChallenge:
        """Give the authenticator something to sign; the same for an officer who does not exist.

        Raises ``Problem`` not_in_service where this installation takes no passkeys.
        """
        now, keys = self._now(), self._keys(agency)
        challenge = self._context.chance.token(CHALLENGE_BYTES)
        async with self._door(agency) as partition:
            row = await rows.account(partition, keys, ask.officer, lock=True)
            if row is not None:
                await rows.set_challenge(partition, ask.officer, challenge, now + dt.timedelta(seconds=TIMEOUT_S))
        if ask.purpose == "enrol":
            account = Account(officer=ask.officer, name="", first=now.date())
            return PasskeyChallenge(options=self._passkeys.invite(challenge, account, agency.code))
        known = row.account.passkeys if row is not None else []
        # Nobody's account, and one without a passkey, show a key as others do.
        shown = known or [Passkey(id=keys.digest("officer", b"no key\0" + ask.officer.encode()), public=b"", count=0)]
        return PasskeyChallenge(options=self._passkeys.ask(challenge, shown))

    async def enrol(self, agency: AgencyRow, client: ClientRow, ask: Enrol) -> Enrolled:
        """Set an officer's two factors, once, with both halves of the code.

        Raises ``Problem``: password_weak, enrolment_refused, officer_locked, busy.
        """
        check_strength(ask.password, ask.officer)
        row = await self._attempt(agency, client, ask.officer, "account.enrol")
        now, keys = self._now(), self._keys(agency)
        factor = None if row is None else self._first_factor(row, client, ask)
        if row is None or factor is None or not self._may_enrol(keys, row.account, ask, now):
            await self._enter_refused(agency, client, row, "account.enrol", "enrolment_refused")
            raise Problem("enrolment_refused")
        hashed = await self._passwords.hash(ask.password)
        passkeys = [] if isinstance(factor, str) else [factor]
        changed = msgspec.structs.replace(
            row.account, password=hashed, passkeys=passkeys, since=now, enrolment=None, enrol_until=None
        )
        await self._put_factors(agency, row, changed, "account.enrol", "enrolment_refused")
        _log.info("officer enrolled", agency=agency.number, peer=ask.officer)
        return Enrolled(officer=ask.officer, factor="passkey" if passkeys else "card")

    async def change_password(self, agency: AgencyRow, client: ClientRow, acting: Acting, ask: PasswordChange) -> None:
        """Change the own password; every session of the officer ends. Raises as ``login``, and password_weak."""
        check_strength(ask.new, acting.officer)
        row = await self._attempt(agency, client, acting.officer, "account.password")
        if row is None or not await self._passwords.matches(row.account.password, ask.password):
            await self._enter_refused(agency, client, row, "account.password", "login_refused")
            raise Problem("login_refused")
        changed = msgspec.structs.replace(row.account, password=await self._passwords.hash(ask.new), since=self._now())
        await self._put_factors(agency, row, changed, "account.password", "login_refused")

    async def _put_factors(
        self, agency: AgencyRow, row: rows.AccountRow, changed: Account, kind: str, refusal: str
    ) -> None:
        """Keep an account with new factors: no lock and no session of before stands. Refused where it has changed."""
        keys, officer = self._keys(agency), changed.officer
        async with self._door(agency) as partition:
            await self._unchanged(partition, keys, row, refusal)
            await rows.put_account(partition, keys, changed)
            await rows.set_lock(partition, officer, 0, None)
            await rows.end_sessions(partition, [officer])
            await self._enter(partition, agency, officer, kind, "done", subject="account")

    def _may_enrol(self, keys: AgencyKeys, account: Account, ask: Enrol, now: dt.datetime) -> bool:
        if account.enrolment is None or account.enrol_until is None or account.enrol_until <= now:
            return False
        if account.last is not None and account.last < to_jst(now).date():
            return False
        wanted = [half_code(keys, half, account.enrolment, ask.officer) for half in HALVES]
        given = (ask.code_proposer, ask.code_approver)
        # Both are compared, whatever the first comes to.
        return all([hmac.compare_digest(a, b) for a, b in zip(wanted, given, strict=True)])  # noqa: C419

    def _first_factor(self, row: rows.AccountRow, client: ClientRow, ask: Enrol) -> Passkey | str | None:
        """Return the new passkey, or the card's client id; None where there is neither."""
        if ask.passkey is None:
            return row.account.card if _is_card(row.account, client) else None
        challenge = self._due_challenge(row)
        if challenge is None or len(row.account.passkeys) >= PASSKEYS_MAX:
            return None
        try:
            return self._passkeys.register(ask.passkey, challenge)
        except PasskeyRefusedError:
            return None

    # ---------------------------------------------------------------- signing in and out

    async def login(self, agency: AgencyRow, client: ClientRow, ask: SignIn) -> SignedIn:
        """Begin a session. Raises ``Problem``: login_refused, officer_locked, busy."""
        row = await self._attempt(agency, client, ask.officer, "session.login")
        now, keys = self._now(), self._keys(agency)
        # The password is compared whatever else is wrong, so that the time it takes tells nothing.
        matches = await self._passwords.matches("" if row is None else row.account.password, ask.password)
        factor = None if row is None else self._second_factor(row, client, ask)
        may = row is not None and row.account.enrolled and row.account.in_force(to_jst(now).date())
        if row is None or row.account.since is None or factor is None or not matches or not may:
            await self._enter_refused(agency, client, row, "session.login", "login_refused")
            raise Problem("login_refused")
        token = self._context.chance.token(TOKEN_BYTES)
        body = rows.SessionBody(
            officer=ask.officer,
            client=client.id,
            factor="card" if isinstance(factor, str) else "passkey",
            started_at=now,
            until=now + dt.timedelta(seconds=self._rules.session_s),
            since=row.account.since,
        )
        async with self._door(agency) as partition:
            await self._unchanged(partition, keys, row, "login_refused")
            if isinstance(factor, Passkey):
                passkeys = [factor if known.id == factor.id else known for known in row.account.passkeys]
                await rows.put_account(partition, keys, msgspec.structs.replace(row.account, passkeys=passkeys))
            await rows.set_lock(partition, ask.officer, 0, None)
            await rows.begin_session(partition, keys, _digest(keys, token), body, now)
            await self._enter(partition, agency, ask.officer, "session.login", "done")
        _log.info("officer signed in", agency=agency.number, peer=ask.officer, stage=body.factor)
        told = _told(rights(row.account, to_jst(now).date()))
        text = base64.urlsafe_b64encode(token).decode().rstrip("=")
        idle_s = self._rules.idle_s
        return SignedIn(session=text, officer=ask.officer, until=body.until, idle_s=idle_s, rights=told)

    async def resume(self, agency: AgencyRow, client: ClientRow, session: str, *, touch: bool = True) -> Acting:
        """Return who acts in a session; ``touch``: and has just been there. Raises ``Problem`` session_ended."""
        now, keys = self._now(), self._keys(agency)
        digest = _digest(keys, _token(session))
        async with self._door(agency) as partition:
            found = await rows.session(partition, keys, digest)
            row = None if found is None else await rows.account(partition, keys, found.body.officer)
            if found is None or row is None or not self._stands(agency, client, found, row.account, now):
                raise Problem("session_ended")
            if touch and found.seen_at + SEEN_EVERY <= now:
                await rows.seen(partition, digest, now)
        today = rights(row.account, to_jst(now).date())
        return Acting(found.body.officer, digest, found.body.until, today, row.account.card)

    async def logout(self, agency: AgencyRow, acting: Acting) -> None:
        """End a session; a second time changes nothing."""
        async with self._door(agency) as partition:
            if await rows.end_session(partition, acting.digest):
                await self._enter(partition, agency, acting.officer, "session.logout", "done")

    def _stands(
        self, agency: AgencyRow, client: ClientRow, found: rows.SessionRow, account: Account, now: dt.datetime
    ) -> bool:
        body = found.body
        return (
            body.client == client.id
            and body.since == account.since
            and account.in_force(to_jst(now).date())
            and now < body.until
            and now < found.seen_at + dt.timedelta(seconds=self._rules.idle_s)
            # One that a restore brought back may have been ended in the history that it left behind.
            and body.started_at >= self._context.openings.opened_at(agency.cell)
        )

    def _second_factor(self, row: rows.AccountRow, client: ClientRow, ask: SignIn) -> Passkey | str | None:
        if ask.passkey is None:
            return row.account.card if _is_card(row.account, client) else None
        challenge = self._due_challenge(row)
        if challenge is None:
            return None
        try:
            return self._passkeys.verify(ask.passkey, challenge, row.account.passkeys)
        except PasskeyRefusedError:
            return None

    def _due_challenge(self, row: rows.AccountRow) -> bytes | None:
        if row.challenge is None or row.challenge_until is None or row.challenge_until <= self._now():
            return None
        return row.challenge

    # ---------------------------------------------------------------- attempts

    async def _attempt(self, agency: AgencyRow, client: ClientRow, officer: str, kind: str) -> rows.AccountRow | None:
        """Count an attempt before it is looked at, and return the account; its challenge is used up.

        Raises ``Problem`` officer_locked.
        """
        now, keys = self._now(), self._keys(agency)
        locked_until = None
        async with self._door(agency) as partition:
            row = await rows.account(partition, keys, officer, lock=True)
            if row is not None and row.locked_until is not None and row.locked_until > now:
                locked_until = row.locked_until
            elif row is not None:
                failures = row.failures + 1
                lock = lock_s(failures, self._rules)
                until = now + dt.timedelta(seconds=lock) if lock else None
                await rows.set_lock(partition, officer, failures, until)
        if locked_until is not None:
            await self._enter_refused(agency, client, row, kind, "officer_locked")
            raise Problem("officer_locked", retry_after_s=max(1, round((locked_until - now).total_seconds())))
        return row

    async def _unchanged(self, partition: Partition, keys: AgencyKeys, row: rows.AccountRow, code: str) -> None:
        """Lock the account, and refuse where it is another one than what was compared with."""
        present = await rows.account(partition, keys, row.account.officer, lock=True)
        if present is None or present.version != row.version:
            raise Problem(code)

    async def _enter_refused(
        self, agency: AgencyRow, client: ClientRow, row: rows.AccountRow | None, kind: str, code: str
    ) -> None:
        actor = client.id if row is None else row.account.officer
        _log.warning("officer refused", agency=agency.number, peer=actor, code=code, stage=kind)
        await self._refused.enter(self._operation(agency, actor, kind, "refused", code=code))

    async def _enter(
        self,
        partition: Partition,
        agency: AgencyRow,
        actor: str,
        kind: str,
        outcome: Outcome,
        *,
        subject: Literal["session", "account"] = "session",
    ) -> None:
        entry = self._operation(agency, actor, kind, outcome, subject=subject)
        await operations.append(partition, self._keys(agency), self._context.chance, entry)

    def _operation(
        self,
        agency: AgencyRow,
        actor: str,
        kind: str,
        outcome: Outcome,
        *,
        code: str | None = None,
        subject: Literal["session", "account"] = "session",
    ) -> Operation:
        return Operation(
            agency=agency.number,
            actor=actor,
            kind=kind,
            subject_class=subject,
            outcome=outcome,
            at=self._now(),
            code=code,
        )

    def _keys(self, agency: AgencyRow) -> AgencyKeys:
        return self._context.keys(agency.number)

    def _now(self) -> dt.datetime:
        return self._context.clock.now()


def _is_card(account: Account, client: ClientRow) -> bool:
    """Tell whether the certificate of this connection is the officer's own card; a system's never is."""
    return client.kind == "officer" and account.card == client.id


def _digest(keys: AgencyKeys, token: bytes) -> bytes:
    return keys.digest("officer", b"session\0" + token)


def _token(session: str) -> bytes:
    """Return a token from its text. Raises ``Problem`` session_ended for what is none."""
    try:
        token = base64.b64decode(session + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Problem("session_ended") from None
    if len(token) != TOKEN_BYTES:
        raise Problem("session_ended")
    return token


def _told(today: Mapping[str, Affairs]) -> list[AffairRight]:
    return [
        AffairRight(function=function, affairs=None if affairs.names is None else sorted(affairs.names))
        for function, affairs in sorted(today.items())
    ]
