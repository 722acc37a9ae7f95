"""Every call × another agency's path: refused, and nothing is called (TEN-01)."""

import re
from typing import Any

import msgspec
import pytest

from chukan.platform.http.calls import Route
from chukan.platform.http.routes import ROUTES

CITY, SCHOOLS, TOWN = "1310100000000001", "1310100000000002", "2710000000000003"
_NAME = re.compile(r"{\w+}")
_OFFICERS = {"resendQuery": "sato", "correctRecord": "sato", "confirmLink": "tanaka"}
_OFFICERS |= dict.fromkeys(("relinkCode", "mergeCodes", "listCodeChanges", "codeHistory"), "suzuki")
"""Calls whose functions systems may have too, but which are an officer's acts."""


def _path(route: Route) -> str:
    path = route.path.replace("{part}", "1").replace("{link}", "131016-1")
    path = _NAME.sub("0199d8d4-0000-7000-8000-000000000001", path)
    needed = [name for name in route.params.__struct_fields__ if name == "name"] if route.params else []
    sized = "?from=1" if path.endswith("/consistency") else ""
    return path + sized + "?name=N1" * len(needed)


def _kind(route: Route) -> dict[str, str]:
    return {
        "Content-Type": "application/json" if route.body else f"{(route.streams or ('text/plain',))[0]}; charset=utf-8"
    }


def _body(route: Route) -> bytes | None:
    return msgspec.json.encode(route.examples[0].value) if route.body is not None else None


@pytest.mark.requirement("TEN-01", "CON-02")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
@pytest.mark.parametrize(
    ("name", "agency"),
    [("town", CITY), ("tax", TOWN), ("counter", SCHOOLS), ("suzuki", TOWN), ("tanaka", SCHOOLS), ("eager", SCHOOLS)],
)
async def test_no_call_reaches_another_agency(served: Any, headers: Any, route: Route, name: str, agency: str) -> None:
    async with (
        served.client(name) as client,
        client.request(
            route.method, served.url(_path(route), agency), data=_body(route), headers=headers | _kind(route)
        ) as answer,
    ):
        assert (answer.status, (await answer.json())["code"]) == (403, "wrong_agency")
    assert served.exchange.calls == []


@pytest.mark.requirement("CON-02")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_every_call_acts_for_the_agency_of_its_path(served: Any, headers: Any, route: Route) -> None:
    name = {"reviews": {"prepareReview": "suzuki", "listReviews": "suzuki"}.get(route.name, "tanaka")}.get(
        route.path.split("/")[1], "tanaka" if route.right.functions == ("order",) else "tax"
    )
    name = _OFFICERS.get(route.name, name)
    async with (
        served.client(name) as client,
        client.request(
            route.method, served.url(_path(route)), data=_body(route), headers=headers | _kind(route)
        ) as answer,
    ):
        document = {} if answer.content_type == (route.produces or ("",))[0] else await answer.json()
    # An id that nobody has is not found by the service, which was asked for this agency.
    assert answer.status in {200, 201, 202} or document["code"] in {"not_found", "not_in_service"}
    if served.exchange.calls:
        assert {call[1] for call in served.exchange.calls} == {CITY}
    else:
        assert document["code"] in {"not_found", "not_in_service"}


def test_no_path_holds_anything_but_ids_of_our_own() -> None:
    names = {name for route in ROUTES for name in re.findall(r"{(\w+)}", route.template)}
    assert names == {
        "agency",
        "change",
        "delegation",
        "file",
        "link",
        "load",
        "notice",
        "operation",
        "part",
        "query",
        "record",
        "request",
        "review",
    }
