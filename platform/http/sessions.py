"""Officers at the agency API (職員): a call in a session is let in by the account's rights, and stands in the log.

The certificate of the connection still says which body and terminal calls; ``Chukan-Session`` says which officer sits
there. A call with a session is judged by that officer's rights of today alone, whatever the certificate may do. Once an
agency has accounts, an officer's certificate without a session may do nothing but sign in; a system's certificate is
what it was, and may do no officer's act.

Every call of an officer, refused or done, is entered in the agency's operations log before its reply leaves
(``entered``): officer, time, what kind of call, never a value. This module never looks at a body, but for the affairs
of a list (``require_affairs``).
"""

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.officer_changes import Administrator
from chukan.platform.exchange.officer_sessions import Acting
from chukan.platform.http import headers
from chukan.platform.http.auth import Gate
from chukan.platform.http.calls import Call, Route, Services
from chukan.platform.http.words import snake
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_accounts import EVERY_AFFAIR, NO_AFFAIR, Affairs
from chukan.tenants.operations import Operation, Outcome

SUBJECT: Final = "call"
_log = log.get("http.sessions")


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who was let in: for a call in a session, ``client`` is the officer and ``officer`` the session."""

    client: ClientRow
    agency: AgencyRow
    officer: Acting | None = None


async def admit(services: Services, gate: Gate, route: Route, request: web.Request, client: ClientRow) -> Admitted:
    """Let a registered client in, by its own rights or by those of the officer whose session it brings.

    Raises ``Problem``: as ``Gate.authorise``; session_ended, session_required.
    """
    directory, officers = services.exchange.directory, services.officers
    if route.signing_in:
        return Admitted(client, gate.home(request, client, directory))
    session = request.headers.get(headers.SESSION)
    if session is None:
        caller = gate.authorise(request, client, route.right, directory)
        by_card = client.kind == "officer" and officers is not None and not route.bootstraps
        if by_card and officers is not None and await officers.sessions.has_accounts(caller.agency):
            raise gate.turn_away(request, client, Problem("session_required"))
        return Admitted(caller.client, caller.agency)
    agency = gate.home(request, client, directory)
    if officers is None:
        raise gate.turn_away(request, client, Problem("session_ended"))
    try:
        acting = await officers.sessions.resume(agency, client, session)
    except Problem as problem:
        raise gate.turn_away(request, client, problem) from None
    officer = ClientRow(
        id=acting.officer, body=client.body, kind="officer", name=acting.officer, agencies=[agency.code], functions=[]
    )
    refused = _refusal(route, acting)
    if refused is not None:
        refusal = gate.turn_away(request, client, Problem(refused))
        await _enter(services, agency, acting.officer, route, "refused", refusal.code)
        raise refusal
    return Admitted(officer, agency, acting)


def _refusal(route: Route, acting: Acting) -> str | None:
    """Return why an officer may not make a call, None where he may."""
    granted = [acting.rights[function] for function in route.right.in_session if function in acting.rights]
    if not granted:
        return "function_not_granted"
    every = any(affairs.names is None for affairs in granted)
    return None if every or route.by_affair else "affair_not_granted"


async def look_again(call: Call) -> None:
    """Refuse a call that goes on (a stream) when its session has ended, or its right. Nobody was there because of it.

    Raises ``Problem``: session_ended, function_not_granted.
    """
    officers, session = call.services.officers, call.request.headers.get(headers.SESSION)
    if officers is None or session is None or call.terminal is None:
        raise Problem("session_ended")
    acting = await officers.sessions.resume(call.agency, call.terminal, session, touch=False)
    refused = _refusal(call.route, acting)
    if refused is not None:
        raise Problem(refused)


@asynccontextmanager
async def entered(call: Call) -> AsyncIterator[None]:
    """Enter the call in the agency's operations log, once it is known what came of it.

    What was done is acknowledged only when its entry is durable: otherwise the caller hears ``unavailable`` and asks
    again with the same key. A refusal is told whether or not its entry could be written.
    """
    if call.client.kind != "officer" or call.route.signing_in:
        yield
        return
    services, agency, actor = call.services, call.agency, call.client.id
    try:
        yield
    except Problem as problem:
        await _enter(services, agency, actor, call.route, "refused", problem.code)
        raise
    except Exception:  # whatever it was, it is told of and goes on its way
        await _enter(services, agency, actor, call.route, "failed", "internal")
        raise
    await _append(services, agency, actor, call.route, "done", None)


async def _enter(services: Services, agency: AgencyRow, actor: str, route: Route, outcome: Outcome, code: str) -> None:
    try:
        await _append(services, agency, actor, route, outcome, code)
    except Problem as problem:
        _log.error("refusal not entered", agency=agency.number, peer=actor, code=problem.code, route=route.template)


async def _append(
    services: Services, agency: AgencyRow, actor: str, route: Route, outcome: Outcome, code: str | None
) -> None:
    if services.operations is None:
        return
    entry = Operation(
        agency=agency.number,
        actor=actor,
        kind=f"call.{snake(route.name)}",
        subject_class=SUBJECT,
        outcome=outcome,
        at=services.clock.now(),
        code=code,
    )
    await services.operations.append(entry)


def affairs_of(call: Call) -> Affairs:
    """Return the affairs (事務) that the caller may make this call for: every one outside a session."""
    if call.officer is None:
        return EVERY_AFFAIR
    names: set[str] = set()
    for function in call.route.right.in_session:
        found = call.officer.rights.get(function, NO_AFFAIR).names
        if found is None:
            return EVERY_AFFAIR
        names |= found
    return Affairs(frozenset(names))


def require_affairs(call: Call, affairs: Iterable[str]) -> None:
    """Refuse a list with a line of an affair that is not the officer's. Raises ``Problem`` affair_not_granted."""
    allowed = affairs_of(call)
    for number, affair in enumerate(affairs):
        if not allowed.allows(affair):
            raise Problem("affair_not_granted", pointer=f"/lines/{number}/affair", line=number + 1)


async def require_affairs_of(call: Call, reference: uuid.UUID) -> None:
    """Refuse queries that were asked for an affair that is not the officer's. Raises ``Problem`` affair_not_granted."""
    allowed, officers = affairs_of(call), call.services.officers
    if allowed.names is None or officers is None:
        return
    if not all(allowed.allows(affair) for affair in await officers.affairs(call.agency, reference)):
        raise Problem("affair_not_granted")


def administrator(call: Call) -> Administrator:
    """Return who asks for a change of accounts."""
    card = None if call.officer is None else call.officer.card
    if call.officer is not None and not card and call.terminal is not None and call.terminal.kind == "officer":
        # Who sits at a connection made by an officer's card is taken for that officer, too.
        card = call.terminal.id
    return Administrator(id=call.client.id, account=call.officer is not None, card=card)
