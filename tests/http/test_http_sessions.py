"""Calls in a session: the account's rights and affairs judge, a card alone does not, and every call is entered."""

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.platform.exchange.officer_services import OfficerServices
from chukan.platform.exchange.officer_sessions import Acting
from chukan.platform.http.routes import ROUTES
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_accounts import ACCOUNT_FUNCTIONS, EVERY_AFFAIR, Affairs
from chukan.tenants.operations import Operation

CITY, SCHOOLS = "1310100000000001", "1310100000000002"
AFFAIR, OTHER = "JM01000000121000", "JM99000000121000"
SESSION = "the session of the test"
ID = str(uuid.UUID(int=7))
KEY = str(SystemChance(SystemClock()).uuid7())


@dataclass
class Sessions:
    """SessionService in memory: one session with rights that the test sets."""

    rights: dict[str, Affairs] = field(default_factory=dict)
    accounts: bool = True
    calls: list[Any] = field(default_factory=list)

    async def has_accounts(self, agency: AgencyRow) -> bool:
        return self.accounts

    async def resume(self, agency: AgencyRow, client: ClientRow, session: str, *, touch: bool = True) -> Acting:
        if session != SESSION:
            raise Problem("session_ended")
        self.calls.append((agency.code, client.id, touch))
        until = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
        return Acting("k-tanaka", b"digest", until, self.rights, None)

    async def logout(self, agency: AgencyRow, acting: Acting) -> None:
        self.calls.append(("logout", acting.officer))


@dataclass
class Journal:
    """OperationLog in memory."""

    entries: list[Operation] = field(default_factory=list)
    fails: bool = False

    async def append(self, operation: Operation) -> None:
        if self.fails:
            raise Problem("unavailable", retry_after_s=1)
        self.entries.append(operation)

    def told(self) -> list[tuple[str, str, str, str | None]]:
        return [(each.actor, each.kind, each.outcome, each.code) for each in self.entries]


@dataclass
class Desk:
    """The served API with its sessions and its journal."""

    served: Any
    sessions: Sessions
    journal: Journal

    async def call(
        self,
        method: str,
        path: str,
        *,
        by: str = "tax",
        agency: str = CITY,
        session: str | None = SESSION,
        body: Any = None,
    ) -> tuple[int, Any]:
        headers = {"Idempotency-Key": KEY} | ({} if session is None else {"Chukan-Session": session})
        async with (
            self.served.client(by) as client,
            client.request(method, self.served.url(path, agency), json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json(content_type=None)


@pytest.fixture
async def desk(serve: Any) -> Desk:
    sessions, journal = Sessions(), Journal()

    async def affairs(agency: AgencyRow, reference: uuid.UUID) -> frozenset[str]:
        return frozenset({AFFAIR, OTHER})

    services = OfficerServices(sessions, None, affairs)  # type: ignore[arg-type]
    return Desk(await serve(officers=services, operations=journal), sessions, journal)


def only(*functions: str, affair: str | None = None) -> dict[str, Affairs]:
    return dict.fromkeys(functions, EVERY_AFFAIR if affair is None else Affairs(frozenset({affair})))


@pytest.mark.requirement("AUT-02")
async def test_a_session_is_judged_by_the_account_whatever_the_certificate_may(desk: Desk) -> None:
    desk.sessions.rights = only("queries")
    assert (await desk.call("GET", "/queries"))[0] == 200
    # The certificate has the function records; the officer has not.
    assert (await desk.call("GET", "/records"))[1]["code"] == "function_not_granted"
    # And the other way round: the certificate of the counter has nothing but queries.
    desk.sessions.rights = only("records")
    assert (await desk.call("GET", "/records", by="counter"))[0] == 200


@pytest.mark.requirement("AUT-02")
async def test_the_matrix_of_functions_and_calls(desk: Desk) -> None:
    assert {function for route in ROUTES for function in route.right.in_session} == ACCOUNT_FUNCTIONS
    for route in ROUTES:
        path = route.path
        for name in ("query", "load", "review", "record", "file", "change", "delegation", "notice", "half", "part"):
            path = path.replace(f"{{{name}}}", ID)
        if route.signing_in or "{" in path or route.produces:
            continue
        for function in sorted(ACCOUNT_FUNCTIONS - set(route.right.in_session)):
            desk.sessions.rights = only(function)
            status, problem = await desk.call(route.method, path, body={} if route.method == "POST" else None)
            assert (status, problem["code"]) == (403, "function_not_granted"), (route.name, function)
    assert desk.served.exchange.calls == []


@pytest.mark.requirement("AUT-01")
async def test_once_there_are_accounts_a_card_alone_does_nothing(desk: Desk) -> None:
    for method, path in (("GET", "/reviews"), ("POST", f"/reviews/{ID}/prepare")):
        status, problem = await desk.call(method, path, by="suzuki", session=None, body=None)
        assert (status, problem["code"]) == (401, "session_required")
    assert desk.served.exchange.calls == []
    desk.sessions.accounts = False
    assert (await desk.call("GET", "/reviews", by="suzuki", session=None))[0] == 200
    # Systems are what they were.
    assert (await desk.call("GET", "/queries", session=None))[0] == 200


@pytest.mark.requirement("AUT-04")
async def test_a_session_that_has_ended_lets_nobody_in(desk: Desk) -> None:
    desk.sessions.rights = only("queries", "records")
    for session in ("another", "", "x" * 200):
        status, problem = await desk.call("GET", "/queries", session=session)
        assert (status, problem["code"]) == (401, "session_ended")
    # Nor where the certificate is not the agency's, whatever the session says.
    assert (await desk.call("GET", "/queries", by="town"))[1]["code"] == "wrong_agency"
    assert (await desk.call("GET", "/queries", agency=SCHOOLS, by="counter"))[1]["code"] == "wrong_agency"
    assert desk.served.exchange.calls == []


@pytest.mark.requirement("AUT-02")
async def test_queries_are_held_to_the_officers_affairs(desk: Desk, line: Any) -> None:
    desk.sessions.rights = only("queries", affair=AFFAIR)
    body = {"lines": [line(affair=AFFAIR), line(affair=OTHER)]}
    status, problem = await desk.call("POST", "/queries", body=body)
    assert (status, problem["code"], problem["line"]) == (403, "affair_not_granted", 2)
    for method, path in (
        ("GET", f"/queries/{ID}"),
        ("POST", f"/queries/{ID}/collect"),
        ("POST", f"/queries/{ID}/cancel"),
    ):
        assert (await desk.call(method, path))[1]["code"] == "affair_not_granted"
    # What knows nothing of affairs is for those alone who have the right for every one.
    assert (await desk.call("GET", f"/query-files/{ID}"))[1]["code"] == "affair_not_granted"
    assert desk.served.exchange.calls == []
    status, _ = await desk.call("POST", "/queries", body={"lines": [line(affair=AFFAIR)]})
    assert status == 202
    assert desk.served.exchange.calls == [("accept", CITY, "k-tanaka", KEY, 1)]


@pytest.mark.requirement("AUT-03")
async def test_every_call_of_an_officer_is_entered_done_or_refused(desk: Desk) -> None:
    desk.sessions.rights = only("reviews.prepare", "queries")
    await desk.call("GET", "/reviews")
    await desk.call("GET", "/records")
    await desk.call("GET", f"/queries/{ID}")
    await desk.call("GET", "/queries", session=None)
    desk.sessions.accounts = False
    await desk.call("GET", "/reviews", by="suzuki", session=None)
    assert desk.journal.told() == [
        ("k-tanaka", "call.list_reviews", "done", None),
        ("k-tanaka", "call.list_records", "refused", "function_not_granted"),
        ("k-tanaka", "call.get_query", "refused", "not_found"),
        ("suzuki", "call.list_reviews", "done", None),
    ]
    assert {each.agency for each in desk.journal.entries} == {1}


@pytest.mark.requirement("AUT-03")
async def test_what_cannot_be_entered_is_not_acknowledged(desk: Desk) -> None:
    desk.sessions.rights = only("queries")
    desk.journal.fails = True
    status, problem = await desk.call("GET", "/queries")
    assert (status, problem["code"]) == (503, "unavailable")
    # A refusal is told all the same.
    assert (await desk.call("GET", "/records"))[1]["code"] == "function_not_granted"


async def test_who_is_signed_in_and_out(desk: Desk) -> None:
    desk.sessions.rights = only("queries", affair=AFFAIR)
    status, told = await desk.call("GET", "/officers/me")
    assert (status, told["officer"]) == (200, "k-tanaka")
    assert told["rights"] == [{"function": "queries", "affairs": [AFFAIR]}]
    assert (await desk.call("POST", "/officers/logout"))[1] == {"officer": "k-tanaka"}
    assert desk.sessions.calls[-1] == ("logout", "k-tanaka")


async def test_without_the_services_nobody_has_a_session(served: Any) -> None:
    async with served.client() as client:
        headers = {"Chukan-Session": SESSION}
        async with client.get(served.url("/queries"), headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "session_ended")
        body = {"officer": "k-tanaka", "password": "not this one at all"}
        async with client.post(served.url("/officers/login"), json=body) as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "not_in_service")
