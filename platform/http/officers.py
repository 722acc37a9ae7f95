"""Officers (職員): signing in with two factors, and accounts that two administrators change together.

Signing in asks the certificate for no function: it may be the terminal's or the officer's card. While an agency has no
two administrators with factors, its officers by card (function ``order``) change accounts; afterwards administrators in
sessions do. Nothing that was sent, no password and no code, comes back in any reply or problem.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.exchange.officer_services import OfficerServices
from chukan.platform.exchange.officer_sessions import Acting
from chukan.platform.http import forbidden, sessions
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
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
from chukan.tenants.officer_accounts import ACCOUNT_FUNCTIONS

Handler = Callable[[Call], Awaitable[Reply]]
_ACCOUNTS: Final = Right(("order",), by_session=("administer",))
_ANYBODY: Final = Right(("order",), by_session=tuple(sorted(ACCOUNT_FUNCTIONS)))


async def challenge(call: Call) -> Reply:
    """Give an authenticator something to sign."""
    return Reply(await _services(call).sessions.challenge(call.agency, call.body_as(ChallengeAsk)))


async def login(call: Call) -> Reply:
    """Begin a session."""
    return Reply(await _services(call).sessions.login(call.agency, call.client, call.body_as(SignIn)))


async def enrol(call: Call) -> Reply:
    """Set the own factors."""
    return Reply(await _services(call).sessions.enrol(call.agency, call.client, call.body_as(Enrol)))


async def logout(call: Call) -> Reply:
    """End the session."""
    acting = _acting(call)
    await _services(call).sessions.logout(call.agency, acting)
    return Reply(SignedOut(officer=acting.officer))


async def password(call: Call) -> Reply:
    """Change the own password."""
    acting, body = _acting(call), call.body_as(PasswordChange)
    await _services(call).sessions.change_password(call.agency, call.client, acting, body)
    return Reply(SignedOut(officer=acting.officer))


async def me(call: Call) -> Reply:
    """Say who is signed in and may do what."""
    return Reply(_acting(call).view())


async def listing(call: Call) -> Reply:
    """List all accounts."""
    return Reply(await _services(call).accounts.list(call.agency, sessions.administrator(call)))


async def changes(call: Call) -> Reply:
    """List changes."""
    return Reply(await _services(call).accounts.changes(call.agency, sessions.administrator(call)))


async def propose(call: Call) -> Reply:
    """Propose a change."""
    body, key = call.body_as(OfficerChangePost), call.need_key()
    forbidden.refuse([("reason", body.reason)])
    for number, entry in enumerate(body.entries):
        forbidden.refuse([("name", entry.name), ("department", entry.department)], f"/entries/{number}", number + 1)
    by = sessions.administrator(call)
    proposed = _services(call).accounts.propose(call.agency, by, body, key=key.key, content=key.content)
    return Reply(await proposed)


async def approve(call: Call) -> Reply:
    """Carry a change out."""
    by = sessions.administrator(call)
    return Reply(await _services(call).accounts.approve(call.agency, by, call.id("change")))


async def reject(call: Call) -> Reply:
    """Close a change without effect."""
    by = sessions.administrator(call)
    return Reply(await _services(call).accounts.reject(call.agency, by, call.id("change")))


def _services(call: Call) -> OfficerServices:
    if call.services.officers is None:
        raise Problem("not_in_service")
    return call.services.officers


def _acting(call: Call) -> Acting:
    _services(call)
    if call.officer is None:
        raise Problem("session_required")
    return call.officer


_EXAMPLE: Final = "correct horse battery staple"
_FORBIDDEN: Final = ("individual_number_present", "resident_code_present")
_LINE: Final = ("not_found", "officer_exists", "administrators_needed", "too_many_lines")
_DECIDED: Final = (*_LINE, "change_closed")


def _sign_in(
    path: str, name: str, summary: str, handler: Handler, example: msgspec.Struct, reply: type, *problems: str
) -> Route:
    return Route(
        "POST",
        f"/officers/{path}",
        name,
        summary,
        _ANYBODY,
        handler,
        Priority.COUNTER,
        body=type(example),
        reply=reply,
        signing_in=True,
        examples=(Example("An officer.", example),),
        problems=("not_in_service", *problems),
    )


ROUTES: Final = (
    _sign_in(
        "challenge",
        "challengeOfficer",
        "パスキーの署名対象。Give a passkey something to sign.",
        challenge,
        ChallengeAsk(officer="k-tanaka"),
        PasskeyChallenge,
    ),
    _sign_in(
        "login",
        "loginOfficer",
        "ログイン(二要素)。Sign an officer in with two factors.",
        login,
        SignIn(officer="k-tanaka", password=_EXAMPLE),
        SignedIn,
        "login_refused",
        "officer_locked",
    ),
    _sign_in(
        "enrol",
        "enrolOfficer",
        "認証要素の登録。Set the own two factors, once.",
        enrol,
        Enrol(officer="k-tanaka", code_proposer="ABCDEFGH", code_approver="IJKLMNOP", password=_EXAMPLE),
        Enrolled,
        "enrolment_refused",
        "officer_locked",
        "password_weak",
    ),
    Route(
        "POST",
        "/officers/logout",
        "logoutOfficer",
        "ログアウト。End the session.",
        _ANYBODY,
        logout,
        Priority.COUNTER,
        by_affair=True,
        reply=SignedOut,
        problems=("officer_required", "not_in_service"),
    ),
    Route(
        "POST",
        "/officers/password",
        "changePassword",
        "パスワードの変更。Change the own password; every session of the officer ends.",
        _ANYBODY,
        password,
        Priority.COUNTER,
        by_affair=True,
        body=PasswordChange,
        reply=SignedOut,
        examples=(Example("A new one.", PasswordChange(password=_EXAMPLE, new=_EXAMPLE)),),
        problems=("officer_required", "not_in_service", "login_refused", "officer_locked", "password_weak"),
    ),
    Route(
        "GET",
        "/officers/me",
        "showSession",
        "ログイン中の職員と権限。Show who is signed in, and may do what today.",
        _ANYBODY,
        me,
        Priority.COUNTER,
        by_affair=True,
        reply=SessionView,
        problems=("officer_required", "not_in_service"),
    ),
    Route(
        "GET",
        "/officers",
        "listOfficers",
        "職員アカウントの一覧。List officers' accounts.",
        _ACCOUNTS,
        listing,
        Priority.COUNTER,
        reply=Officers,
        bootstraps=True,
        problems=("officer_required", "not_in_service"),
    ),
    Route(
        "GET",
        "/officers/changes",
        "listOfficerChanges",
        "アカウント変更の一覧。List changes of accounts.",
        _ACCOUNTS,
        changes,
        Priority.COUNTER,
        reply=OfficerChanges,
        bootstraps=True,
        problems=("officer_required", "not_in_service"),
    ),
    Route(
        "POST",
        "/officers/changes",
        "proposeOfficerChange",
        "アカウント変更の起案(人事異動)。Propose a change of accounts.",
        _ACCOUNTS,
        propose,
        Priority.COUNTER,
        body=OfficerChangePost,
        reply=OfficerChange,
        key=True,
        bootstraps=True,
        problems=("officer_required", "not_in_service", "idempotency_key_reused", *_LINE, *_FORBIDDEN),
        examples=(
            Example(
                "A transfer on 1 April.",
                OfficerChangePost(entries=[OfficerEntry(act="end", officer="k-tanaka")], reason="人事異動"),
            ),
        ),
    ),
    Route(
        "POST",
        "/officers/changes/{change}/approve",
        "approveOfficerChange",
        "アカウント変更の承認(別の管理者)。Carry out what another administrator proposed.",
        _ACCOUNTS,
        approve,
        Priority.COUNTER,
        reply=OfficerChange,
        key=True,
        bootstraps=True,
        problems=("officer_required", "not_in_service", "second_officer_required", *_DECIDED),
    ),
    Route(
        "POST",
        "/officers/changes/{change}/reject",
        "rejectOfficerChange",
        "アカウント変更の却下。Close a proposal without effect.",
        _ACCOUNTS,
        reject,
        Priority.COUNTER,
        reply=OfficerChange,
        key=True,
        bootstraps=True,
        problems=("officer_required", "not_in_service", "not_found", "change_closed"),
    ),
)
