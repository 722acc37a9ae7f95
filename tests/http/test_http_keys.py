"""Idempotency-Key: demanded of every POST that does something, of a form, and not older than the keys are kept."""

import datetime as dt
from typing import Any

import pytest

from chukan.chance import SeededChance, make_uuid7
from chukan.clock import SystemClock
from chukan.platform.http.routes import ROUTES

CITY = "1310100000000001"
SEARCHES = {"searchCopies", "exportCopies", "compareLoad", "searchCodes", "searchRecords", "askHolders"}
SEARCHES |= {"codeHistory", "findAffected", "residentRecords"}
MARKS = {"readNotice"}
"""A mark that is made twice is one mark."""
SIGNING_IN = {"challengeOfficer", "loginOfficer", "enrolOfficer", "logoutOfficer", "changePassword"}
"""Each attempt is one of its own."""


def test_every_post_but_searches_demands_a_key() -> None:
    posts = {route.name for route in ROUTES if route.method == "POST"}
    assert {route.name for route in ROUTES if route.key} == posts - SEARCHES - SIGNING_IN - MARKS


async def _post(served: Any, line: Any, headers: Any) -> tuple[int, str]:
    async with (
        served.client() as client,
        client.post(served.url("/queries"), json={"lines": [line()]}, headers=headers) as answer,
    ):
        return answer.status, (await answer.json()).get("code", "")


def _key(age: dt.timedelta) -> str:
    return str(make_uuid7(SystemClock().now() - age, SeededChance(1, SystemClock()).token(10)))


async def test_without_a_key_nothing_is_done(served: Any, line: Any) -> None:
    assert await _post(served, line, {}) == (400, "idempotency_key_missing")
    assert await _post(served, line, {"Idempotency-Key": ""}) == (400, "idempotency_key_missing")
    assert served.exchange.calls == []


@pytest.mark.parametrize("bad", ["short", "x" * 65, "with space", "日本語の鍵です", '"short"'])
async def test_a_key_has_a_form(served: Any, line: Any, bad: str) -> None:
    assert await _post(served, line, {"Idempotency-Key": bad}) == (422, "invalid_field")
    assert served.exchange.calls == []


@pytest.mark.parametrize(
    "good", ["x" * 8, "!" * 64, "2026/11/23#1", "1747b96d-9d7d-4c0b-9ab1-de7f18e8527c", '"in-quotes"']
)
async def test_a_key_need_not_be_a_uuid(served: Any, line: Any, good: str) -> None:
    assert (await _post(served, line, {"Idempotency-Key": good}))[0] == 202
    assert served.exchange.calls[0][3] == good.strip('"')


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (dt.timedelta(days=7, minutes=1), 422),
        (dt.timedelta(days=6, hours=23), 202),
        (dt.timedelta(minutes=-4), 202),
        (dt.timedelta(minutes=-6), 422),
        (dt.timedelta(days=-400), 422),
    ],
)
async def test_a_key_whose_time_is_not_kept_is_refused(served: Any, line: Any, age: dt.timedelta, status: int) -> None:
    assert await _post(served, line, {"Idempotency-Key": _key(age)}) == (
        status,
        "idempotency_key_too_old" if status == 422 else "",
    )
