"""Every call × every kind of caller, function, agency, session and affair: let in or refused as the rights say.

The engine, the gate, the sessions and the handlers are the real ones on a real TLS socket; only what lies behind them
is a memory. The route table is compared with rights written down by hand (``tests/support/rights_table``); what must
come of a cell follows from that table and from the three sets named below, never from the engine's own code. Each
handler is wrapped, so that it is seen whether a refused call came as far as its handler.
"""

import asyncio
import dataclasses
import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.platform.exchange.officer_services import OfficerServices
from chukan.platform.exchange.officer_sessions import Acting
from chukan.platform.http.api import AgencyApi
from chukan.platform.http.calls import Call, Reply, Route
from chukan.platform.http.listener import Listener
from chukan.platform.http.routes import ROUTES
from chukan.platform.wire.officers import SignedOut
from chukan.tenants.directory import FUNCTIONS, OFFICER_FUNCTIONS, AgencyRow, ClientRow, Directory, Snapshot
from chukan.tenants.officer_accounts import ACCOUNT_FUNCTIONS, AFFAIR_FUNCTIONS, Account, Grant, rights
from chukan.tests.support.fake_addresses import AnyAddress
from chukan.tests.support.rights_table import NEEDS, OFFICERS_ONLY, Needs

OWN, SECOND, OTHER, CLOSED, NOWHERE = (
    "1310100000000001", "1310100000000002", "2710000000000003", "1310100000000009", "9" * 16,
)  # fmt: skip
MINE, THEIRS = "JM01000000121000", "JM99000000121000"
TODAY = dt.date(2026, 11, 23)
DAY = dt.timedelta(days=1)
ID = "0199d8d4-0000-7000-8000-000000000001"
SESSION = "the session of the test"
REFUSALS = frozenset(
    {
        "wrong_agency",
        "agency_closed",
        "officer_required",
        "function_not_granted",
        "session_required",
        "session_ended",
        "affair_not_granted",
    }
)
"""Codes by which a caller is told that it has no right."""
STREAMS = {"followEvents"}
"""Answers without end: who is let in is told by the wrapper."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One caller of one call."""

    kind: str = "system"
    functions: tuple[str, ...] = ()
    agency: str = OWN
    session: str | None = None
    grants: tuple[Grant, ...] = ()
    accounts: bool = False
    affair: str = MINE
    """Of the lines that are sent, and of the queries that the path names."""


# ---------------------------------------------------------------- what must come of a cell


def by_certificate(needs: Needs, cell: Cell) -> str | None:
    """The refusal of a caller without a session; None where it is let in."""
    if not set(needs.card) & set(cell.functions) - (OFFICERS_ONLY if cell.kind == "system" else set()):
        last = needs.card[-1]
        return "officer_required" if last in OFFICERS_ONLY and cell.kind == "system" else "function_not_granted"
    if cell.kind == "officer" and cell.accounts and "cards" not in needs.marks:
        return "session_required"
    if "act" in needs.marks and cell.kind == "system":
        return "officer_required"
    return "session_required" if "session" in needs.marks else None


def by_account(needs: Needs, cell: Cell) -> str | None:
    """The refusal of an officer in a session; None where he is let in."""
    if cell.session != SESSION:
        return "session_ended"
    today = [grant for grant in cell.grants if grant.first <= TODAY <= (grant.last or TODAY)]
    granted = [grant for grant in today if grant.function in needs.account]
    if not granted:
        return "function_not_granted"
    if any(grant.affair is None for grant in granted):
        return None
    if not needs.marks & {"held", "looked", "part", "whole"}:
        return "affair_not_granted"
    if needs.marks & {"held", "looked"} and cell.affair not in {grant.affair for grant in granted}:
        return "affair_not_granted"
    return None


def expected(needs: Needs, cell: Cell) -> str | None:
    """The refusal that the rights model says for a cell; None where the caller is let in."""
    if cell.agency not in {OWN, CLOSED}:
        return "wrong_agency"
    if cell.agency == CLOSED:
        return "agency_closed"
    if "sign" in needs.marks:
        return None
    return by_certificate(needs, cell) if cell.session is None else by_account(needs, cell)


# ---------------------------------------------------------------- the served world


@dataclass
class Officers:
    """SessionService whose one session has the rights that its account's grants say today; no account is served."""

    cell: Cell = field(default_factory=Cell)

    async def has_accounts(self, agency: AgencyRow) -> bool:
        return self.cell.accounts

    async def resume(self, agency: AgencyRow, client: ClientRow, session: str, *, touch: bool = True) -> Acting:
        if session != SESSION:
            raise Problem("session_ended")
        account = Account(officer="k-tanaka", name="a name", first=TODAY - 99 * DAY, grants=list(self.cell.grants))
        until = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
        return Acting("k-tanaka", b"digest", until, rights(account, TODAY), None)

    async def affairs(self, agency: AgencyRow, reference: uuid.UUID) -> frozenset[str]:
        return frozenset({self.cell.affair})

    def __getattr__(self, name: str) -> Any:
        return self.nothing

    async def nothing(self, *given: Any, **named: Any) -> Any:
        raise Problem("not_found")


@dataclass
class Stand:
    """The real agency API with handlers that say that they were reached."""

    served: Any
    port: int
    officers: Officers
    reached: list[str]
    client: aiohttp.ClientSession

    async def ask(self, route: Route, cell: Cell) -> str | None:
        """Make the call as this caller, and return the code of a refusal; None: let in, whatever came of it then."""
        self.officers.cell = cell
        self.served.exchange.directory = directory(cell)
        self.reached.clear()
        before = len(self.served.exchange.calls)
        url = f"https://localhost:{self.port}/v1/agencies/{cell.agency}{path_of(route)}"
        headers = {"Idempotency-Key": str(SystemChance(SystemClock()).uuid7())} | kind_of(route)
        headers |= {} if cell.session is None else {"Chukan-Session": cell.session}
        request = self.client.request(route.method, url, data=body_of(route, cell), headers=headers)
        async with asyncio.timeout(10), request as answer:
            said = await answer.read()
        code = msgspec.json.decode(said)["code"] if answer.status >= 400 else None
        assert answer.status < 500 or code == "not_in_service", (route.name, cell, code)
        refused = code if code in REFUSALS else None
        if refused is None:
            assert self.reached == [route.name], (route.name, cell, code)
        else:
            assert len(self.served.exchange.calls) == before, (route.name, cell)
        return refused


def directory(cell: Cell) -> Directory:
    """The common data in which the one client is the caller of the cell."""
    bodies = {OWN: "131016", SECOND: "131016", OTHER: "271004", CLOSED: "131016"}
    agencies = [
        AgencyRow(
            number=number,
            code=code,
            body=body,
            name="an agency",
            cell="east",
            generation=1,
            state="closed" if code == CLOSED else "open",
        )
        for number, (code, body) in enumerate(bodies.items(), 1)
    ]
    given = {"id": "tax", "body": "131016", "kind": cell.kind, "name": "a client"}
    given |= {"agencies": [OWN, CLOSED], "functions": cell.functions}
    made_at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    client = msgspec.convert(given, ClientRow)
    return Directory(Snapshot(number=7, made_at=made_at, agencies=agencies, clients=[client], stopped=[], law_number=1))


def path_of(route: Route) -> str:
    """The path with ids that nobody has, and the parameters that the call cannot do without."""
    path = route.path.replace("{part}", "1").replace("{link}", "131016-1")
    path = re.sub(r"{\w+}", ID, path)
    named = route.params is not None and "name" in route.params.__struct_fields__
    sized = path.endswith("/consistency")
    return path + ("?name=N1" if named else "?from=1" if sized else "")


def kind_of(route: Route) -> dict[str, str]:
    """The header that says what a body is."""
    if route.body is None and not route.streams:
        return {}
    return {"Content-Type": (*route.streams, "application/json")[0]}


def body_of(route: Route, cell: Cell) -> bytes | None:
    """The first example of the call's body, with lines of the cell's affair."""
    if route.body is None:
        return b"" if route.streams else None
    return msgspec.json.encode(route.examples[0].value).replace(MINE.encode(), cell.affair.encode())


@pytest.fixture
async def stand(serve: Any, server_tls: Any, contexts: Any) -> AsyncIterator[Stand]:
    officers, reached = Officers(), []
    served = await serve(officers=OfficerServices(officers, officers, officers.affairs))  # type: ignore[arg-type]
    served.exchange.desk.affected = officers.nothing

    def seen(route: Route) -> Route:
        async def handler(call: Call) -> Reply:
            reached.append(route.name)
            return Reply(SignedOut(officer="nobody")) if route.name in STREAMS else await route.handler(call)

        return dataclasses.replace(route, handler=handler)

    routes = tuple(seen(route) for route in ROUTES)
    api = AgencyApi(served.services, routes, AnyAddress(), SystemChance(SystemClock()))
    listener = Listener(api.application(), "localhost", 0, server_tls, connections_max=10)
    port = await listener.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=contexts("tax"), limit=1)) as client:
        yield Stand(served, port, officers, reached, client)
    await listener.close(0.2)


async def judge(stand: Stand, cells: "list[Cell]") -> dict[str | None, int]:
    """Make every call as each of these callers, and count what came of it."""
    counts: dict[str | None, int] = {}
    for route in ROUTES:
        for cell in cells:
            code = await stand.ask(route, cell)
            assert code == expected(NEEDS[route.name], cell), (route.name, cell)
            counts[code] = counts.get(code, 0) + 1
    return counts


# ---------------------------------------------------------------- the table and the model


@pytest.mark.requirement("AUT-02")
def test_every_call_stands_in_the_table_of_rights_and_as_it_says() -> None:
    assert sorted(NEEDS) == sorted(route.name for route in ROUTES)
    for route in ROUTES:
        needs = NEEDS[route.name]
        assert route.right.functions == needs.card, route.name
        assert route.right.in_session == needs.account, route.name
        assert route.signing_in == ("sign" in needs.marks), route.name
        assert route.bootstraps == ("cards" in needs.marks), route.name
        assert route.by_affair == bool(needs.marks & {"held", "looked", "part", "whole"}), route.name


@pytest.mark.requirement("AUT-02")
def test_no_call_is_without_a_right_and_no_function_without_a_call() -> None:
    assert all(needs.card and needs.account for needs in NEEDS.values())
    assert {function for needs in NEEDS.values() for function in needs.card} == FUNCTIONS
    assert {function for needs in NEEDS.values() for function in needs.account} == ACCOUNT_FUNCTIONS
    assert AFFAIR_FUNCTIONS < ACCOUNT_FUNCTIONS
    assert OFFICER_FUNCTIONS == OFFICERS_ONLY < FUNCTIONS


def test_no_two_calls_share_a_name_or_a_path() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    assert len({(route.method, re.sub(r"{\w+}", "{}", route.path)) for route in ROUTES}) == len(ROUTES)


# ---------------------------------------------------------------- the matrix


def subsets() -> Iterator[tuple[str, ...]]:
    """No function, each alone, each left out alone, all."""
    every = tuple(sorted(FUNCTIONS))
    yield ()
    for function in every:
        yield (function,)
        yield tuple(each for each in every if each != function)
    yield every


@pytest.mark.requirement("AUT-02", "TEN-01", "CON-01")
@pytest.mark.parametrize("kind", ["system", "officer"])
async def test_a_certificate_may_do_what_its_functions_say(stand: Stand, kind: str) -> None:
    counts = await judge(stand, [Cell(kind, functions) for functions in subsets()])
    assert {None, "function_not_granted"} <= counts.keys()
    assert ("officer_required" in counts) == (kind == "system")


@pytest.mark.requirement("AUT-01", "AUT-02")
async def test_beside_accounts_a_card_alone_may_do_nothing_but_sign_in(stand: Stand) -> None:
    every = tuple(sorted(FUNCTIONS))
    counts = await judge(stand, [Cell(kind, every, accounts=True) for kind in ("system", "officer")])
    assert counts["session_required"] > len(ROUTES) / 2


@pytest.mark.requirement("TEN-01")
async def test_nobody_may_anything_at_another_agency(stand: Stand) -> None:
    every = tuple(sorted(FUNCTIONS))
    granted = tuple(Grant(function=function, first=TODAY) for function in sorted(ACCOUNT_FUNCTIONS))
    cells = [
        Cell(kind, every, agency, session, granted)
        for kind in ("system", "officer")
        for agency in (SECOND, OTHER, CLOSED, NOWHERE)
        for session in (None, SESSION)
    ]
    counts = await judge(stand, cells)
    assert counts.keys() == {"wrong_agency", "agency_closed"}


@pytest.mark.requirement("AUT-02")
@pytest.mark.parametrize("function", sorted(ACCOUNT_FUNCTIONS))
async def test_a_session_may_do_what_its_account_says_today(stand: Stand, function: str) -> None:
    # The certificate has every function, and none of them counts.
    every = tuple(sorted(FUNCTIONS))
    dates = [(TODAY, None), (TODAY, TODAY), (TODAY - DAY, TODAY - DAY), (TODAY + DAY, None)]
    cells = [
        Cell("officer", every, session=SESSION, grants=(Grant(function=function, first=first, last=last),))
        for first, last in dates
    ]
    if function in AFFAIR_FUNCTIONS:
        own = Grant(function=function, affair=MINE, first=TODAY)
        gone = Grant(function=function, affair=THEIRS, first=TODAY - DAY, last=TODAY - DAY)
        cells += [
            Cell("officer", every, session=SESSION, grants=(own, gone), affair=affair) for affair in (MINE, THEIRS)
        ]
    counts = await judge(stand, cells)
    assert {None, "function_not_granted"} <= counts.keys()
    assert ("affair_not_granted" in counts) == (function in AFFAIR_FUNCTIONS)


@pytest.mark.requirement("AUT-04")
async def test_a_session_that_is_none_may_do_nothing(stand: Stand) -> None:
    every = tuple(sorted(FUNCTIONS))
    granted = tuple(Grant(function=function, first=TODAY) for function in sorted(ACCOUNT_FUNCTIONS))
    cells = [Cell(kind, every, OWN, "another", granted) for kind in ("system", "officer")]
    cells += [Cell("system", (), OWN, SESSION), Cell("officer", every, OWN, "")]
    counts = await judge(stand, cells)
    # Signing in asks for no session, and takes none.
    assert counts == {None: 12, "session_ended": 3 * (len(ROUTES) - 3), "function_not_granted": len(ROUTES) - 3}


def test_what_must_come_is_not_always_the_same() -> None:
    """The oracle itself tells callers apart; otherwise the matrix would show nothing."""
    needs = NEEDS["postQueries"]
    grant = Grant(function="queries", affair=MINE, first=TODAY)
    cell = Cell("officer", session=SESSION, grants=(grant,))
    assert expected(needs, cell) is None
    assert expected(needs, dataclasses.replace(cell, affair=THEIRS)) == "affair_not_granted"
    assert expected(needs, dataclasses.replace(cell, agency=OTHER)) == "wrong_agency"
    assert expected(needs, dataclasses.replace(cell, session="another")) == "session_ended"
    assert expected(needs, dataclasses.replace(cell, grants=())) == "function_not_granted"
    assert expected(NEEDS["resendQuery"], Cell("system", ("queries",))) == "officer_required"
