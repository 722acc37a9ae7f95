"""``GET /notices``, receipts and ``GET /calendar``; what is closed is refused with the time of reopening."""

import datetime as dt
import tomllib
import uuid
from typing import Any

import msgspec
import pytest

from chukan.clock import SystemClock
from chukan.platform.http import hours
from chukan.platform.http.routes import ROUTES
from chukan.platform.law.calendar import Calendar, CalendarFile

CITY = "1310100000000001"
NOTICE = uuid.UUID("01995d2e-7c00-7000-8000-000000000001")


async def get(served: Any, path: str, name: str = "tax") -> tuple[int, Any]:
    async with served.client(name) as client, client.get(served.url(path)) as answer:
        return answer.status, await answer.json(content_type=None)


@pytest.mark.requirement("OPS-03")
async def test_notices_are_listed_page_by_page(served: Any) -> None:
    assert await get(served, "/notices") == (200, {"notices": []})
    assert (await get(served, f"/notices?after={NOTICE}&limit=100"))[0] == 200
    assert served.exchange.notices.calls == [("notices", CITY, None, 50), ("notices", CITY, NOTICE, 100)]
    for words in ("?limit=0", "?limit=101", "?after=x", "?since=x"):
        assert (await get(served, f"/notices{words}"))[0] == 422


@pytest.mark.requirement("OPS-03")
async def test_a_receipt_names_the_agency_and_the_system(served: Any) -> None:
    served.exchange.notices.known = NOTICE
    async with served.client() as client:
        async with client.post(served.url(f"/notices/{NOTICE}/read")) as answer:
            assert (answer.status, await answer.json()) == (200, {"id": str(NOTICE), "read": True})
        async with client.post(served.url(f"/notices/{uuid.uuid4()}/read")) as answer:
            assert answer.status == 404
    assert served.exchange.notices.calls[0] == ("read notice", CITY, "tax", NOTICE)


@pytest.mark.requirement("OPS-01")
async def test_the_calendar_is_told(served: Any) -> None:
    status, reply = await get(served, "/calendar")
    assert (status, reply["version"]) == (200, 0)


def closed(outside: str) -> Calendar:
    """A calendar by which everything is closed, and reopens in an hour."""
    now = SystemClock().now()
    until = (now + dt.timedelta(hours=1)).isoformat()
    since = (now - dt.timedelta(hours=1)).isoformat()
    text = "".join(
        f"[[function]]\nname = '{name}'\noutside = '{outside}'\n"
        "hours = [{days = ['mon','tue','wed','thu','fri','sat','sun'], open = '00:00', close = '24:00'}]\n"
        for name in ("online", "batch")
    )
    text += f"[[closed]]\nfunctions = ['online', 'batch']\nfrom = {since}\nuntil = {until}\nreason = '定期保守'\n"
    return Calendar(msgspec.convert(tomllib.loads(text), CalendarFile))


CALLS = {
    "/queries": "queues",
    "/query-files?name=a.csv": "queues",
    "/holders": "refuses",
    "/codes": "refuses",
    "/code-files?name=a.csv": "refuses",
    "/loads": "refuses",
    "/queries/{}/collect": "open",
    "/copies/search": "open",
    "/holds": "open",
}


@pytest.mark.requirement("OPS-01")
@pytest.mark.parametrize("outside", ["refuse", "queue"])
@pytest.mark.parametrize("path", CALLS)
async def test_what_is_closed_is_refused_until_it_reopens(
    serve: Any, headers: dict[str, str], outside: str, path: str
) -> None:
    served = await serve(calendar=lambda: closed(outside))
    refused = CALLS[path] == "refuses" or (CALLS[path] == "queues" and outside == "refuse")
    url = served.url(path.format(NOTICE))
    async with served.client() as client, client.post(url, data=b"{}", headers=headers) as answer:
        document = await answer.json(content_type=None)
    assert (document.get("code") == "outside_hours") is refused
    if refused:
        assert answer.status == 503
        assert 3500 < int(answer.headers["Retry-After"]) <= 3600


@pytest.mark.requirement("OPS-01")
@pytest.mark.parametrize("path", ["/queries", "/query-files?name=a.csv"])
async def test_nothing_waits_for_an_opening_that_the_calendar_does_not_have(
    serve: Any, headers: dict[str, str], path: str
) -> None:
    hours = "outside = 'queue'\nhours = [{days = ['holiday'], open = '09:00', close = '17:00'}]\n"
    text = "".join(f"[[function]]\nname = '{name}'\n{hours}" for name in ("online", "batch"))
    never = Calendar(msgspec.convert(tomllib.loads(text), CalendarFile))
    served = await serve(calendar=lambda: never)
    async with served.client() as client, client.post(served.url(path), data=b"{}", headers=headers) as answer:
        document = await answer.json(content_type=None)
    assert (answer.status, document["code"], document["expected"]) == (503, "outside_hours", "no opening is known")


def test_every_name_of_a_closed_function_is_a_route() -> None:
    names = {route.name for route in ROUTES}
    assert set(hours._FUNCTIONS) <= names
    assert set(hours._FUNCTIONS) >= hours._QUEUED
