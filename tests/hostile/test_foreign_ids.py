"""Another agency's ids, cursors and keys open nothing, at any entry point, and tell nothing (TEN-01)."""

import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from chukan.platform.http.routes import ROUTES
from chukan.tenants import directory
from chukan.tests.support.nation import ASKS, GIVES, GIVES_WEST, TAX

from .conftest import FUNCTIONS, Api, digests

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.requirement("TEN-01", "CON-01")]
OFFICER_ACTS = {"resendQuery", "correctRecord"}
"""Of functions that systems have too."""
OFFICER_FUNCTIONS = {"reviews.prepare", "reviews.approve", "order"}
# A route of a later stage refuses before it looks at an id (tests/http shows that).
WITH_ID = [route for route in ROUTES if "{" in route.path and "not_in_service" not in route.problems]
KEY = "one-key-of-both"
LOAD = {"kind": TAX, "layout": 202506, "mode": "full", "expected": 1, "period": "2026"}


@dataclass
class Mine:
    """What two agencies really have: a batch and its line, a load with a key, and a held review."""

    batch: str
    line: str
    load: str
    review: str
    addressee: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mine(api: Api) -> Mine:
    """ASKS asked a line that GIVES holds for review; both have a load. Another agency's officers and system exist."""
    world = api.world
    for name, functions, kind in (
        ("officer-west", [*sorted(OFFICER_FUNCTIONS), "queries", "records"], "officer"),
        ("all", FUNCTIONS, "system"),
    ):
        row = directory.ClientRow(
            id=name, body=GIVES_WEST[4:10], kind=kind, name=name, agencies=[GIVES_WEST], functions=functions
        )
        world.snapshot = directory.add_client(world.snapshot, world.clock.now(), row)
    await world.publish()
    addressee = await world.person(ASKS, GIVES, review=True)
    body = {"lines": [msgspec.to_builtins(world.line(addressee, GIVES))]}
    status, _, batch = await api.send("POST", "/queries", body, headers={"Idempotency-Key": KEY})
    assert status == 202
    review = await world.until_some(world.west.reviews.list, world.agency(GIVES))
    load = (await api.send("POST", "/loads", LOAD, agency=GIVES, headers={"Idempotency-Key": f"{KEY}-load"}))[2]
    return Mine(batch["batch"], batch["lines"][0]["id"], load["id"], str(review.id), addressee)


def stranger(route: Any) -> str:
    """A client of the other agency that may use a route at its own."""
    acts = OFFICER_FUNCTIONS.issuperset(route.right.functions) or route.name in OFFICER_ACTS
    return "officer-west" if acts else "all"


def filled(route: Any, mine: Mine) -> list[str]:
    """The route's path with every id that somebody else really has."""
    ids = {"{query}": [mine.batch, mine.line], "{load}": [mine.load], "{review}": [mine.review, mine.line]}
    name = next(part for part in route.path.split("/") if part.startswith("{"))
    known = ids.get(name, [mine.batch, mine.line, mine.load, mine.review])
    return [route.path.replace(name, one).replace("{part}", "1") for one in known]


def body_of(route: Any) -> Any:
    if route.streams:
        return b"addressee,effective_from\r\n"
    return msgspec.to_builtins(route.examples[0].value) if route.examples else None


@pytest.mark.parametrize("route", WITH_ID, ids=lambda route: route.name)
async def test_an_id_of_another_agency_is_not_found(api: Api, mine: Mine, route: Any) -> None:
    before = await digests(api.world)
    headers = {"Content-Type": route.streams[-1]} if route.streams else {}
    for path in filled(route, mine):
        status, _, document = await api.send(
            route.method, path, body_of(route), agency=GIVES_WEST, by=stranger(route), headers=headers
        )
        assert (status, document["code"]) == (404, "not_found")
        nobodys = path.replace(path.split("/")[2], str(uuid.uuid4()))
        other = await api.send(
            route.method, nobodys, body_of(route), agency=GIVES_WEST, by=stranger(route), headers=headers
        )
        # What exists elsewhere and what exists nowhere are answered alike.
        assert other[0::2] == (status, document)
    assert await digests(api.world) == before


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_the_path_of_another_agency_is_closed(api: Api, mine: Mine, route: Any) -> None:
    path = filled(route, mine)[0] if "{" in route.path else route.path
    for agency in (ASKS, GIVES, "9999999999999999"):
        status, _, document = await api.send(route.method, path, body_of(route), agency=agency, by=stranger(route))
        assert (status, document["code"]) == (403, "wrong_agency")


async def test_a_cursor_of_another_agency_shows_nothing_of_it(api: Api, mine: Mine) -> None:
    await api.world.register(GIVES, mine.addressee, period="2025")
    exported = (await api.send("POST", "/copies/export", {"kind": TAX, "limit": 1}, agency=GIVES))[2]
    assert exported["next"] is not None
    body = {"kind": TAX, "after": exported["next"]}
    status, _, page = await api.send("POST", "/copies/export", body, agency=GIVES_WEST, by="all")
    assert (status, page.get("copies", [])) in ((200, []), (422, []), (400, []))
    for path in (f"/queries?after={mine.line}", f"/records?after={exported['next']}", f"/records?after={mine.line}"):
        status, _, page = await api.send("GET", path, agency=GIVES_WEST, by="all")
        assert status in {200, 400, 422}
        assert page.get("lines", page.get("records", [])) == []
    lines = (await api.send("GET", "/queries?after=00000000-0000-0000-0000-000000000000", agency=GIVES_WEST, by="all"))[
        2
    ]
    assert lines["lines"] == []


async def test_a_person_of_another_agency_is_nobody_here(api: Api, mine: Mine) -> None:
    keys = {"keys": [{"addressee": mine.addressee}]}
    lines = {"lines": [{"addressee": mine.addressee}]}
    who = {"agency": GIVES_WEST, "by": "all"}
    assert (await api.send("POST", "/copies/search", keys, **who))[2] == {"copies": []}
    assert (await api.send("POST", "/codes/search", lines, **who))[2] == {"lines": [{"line": 0, "status": "none"}]}
    assert (await api.send("POST", "/records/search", {"addressee": mine.addressee}, **who))[2] == {"records": []}
    assert (await api.send("POST", "/copies/delete", keys, **who))[2] == {"lines": [{"line": 0, "status": "unchanged"}]}
    assert len((await api.send("POST", "/copies/search", keys, agency=GIVES))[2]["copies"]) > 0


async def test_a_key_of_another_agency_is_a_key_of_nobody(api: Api, mine: Mine) -> None:
    headers = {"Idempotency-Key": KEY}
    body = {"lines": [msgspec.to_builtins(api.world.line("A9", GIVES))]}
    status, _, batch = await api.send("POST", "/queries", body, agency=GIVES_WEST, by="all", headers=headers)
    assert (status, batch["lines"][0]["state"]) in ((200, "no_code"), (200, "not_permitted"))
    assert batch["batch"] != mine.batch
    headers = {"Idempotency-Key": f"{KEY}-load"}
    status, _, load = await api.send("POST", "/loads", LOAD, agency=GIVES_WEST, by="all", headers=headers)
    assert (status, load.get("code"), load.get("state")) == (201, None, "open")
    assert load["id"] != mine.load


async def test_a_query_in_another_s_name_has_no_field_to_say_so(api: Api, mine: Mine) -> None:
    line = msgspec.to_builtins(api.world.line(mine.addressee, GIVES))
    for name, value in (("inquirer", ASKS), ("agency", ASKS), ("code", "AAAA"), ("permit", mine.review)):
        status, _, document = await api.send(
            "POST", "/queries", {"lines": [line | {name: value}]}, agency=GIVES_WEST, by="all"
        )
        assert (status, document["code"]) == (422, "unknown_field")
