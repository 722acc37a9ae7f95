"""``GET /statistics``: the period that is asked for, its bounds, and who may ask."""

import datetime as dt
from typing import Any

import msgspec
import pytest

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.http import openapi
from chukan.platform.http.params import StatisticsParams
from chukan.platform.http.routes import ROUTES
from chukan.platform.http.statistics import period
from chukan.platform.wire.statistics import Statistics

pytestmark = pytest.mark.requirement("SYS-01")

CITY = "1310100000000001"


async def get(served: Any, words: str, name: str = "tax") -> tuple[int, Any]:
    async with served.client(name) as client, client.get(served.url(f"/statistics{words}")) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_period_of_months_is_counted(served: Any) -> None:
    status, reply = await get(served, "?from=2026-04&to=2026-06")
    assert status == 200
    assert served.exchange.calls == [("statistics", CITY, dt.date(2026, 4, 1), dt.date(2026, 6, 1))]
    assert msgspec.convert(reply, Statistics).first == reply["from"] == "2026-04"
    assert reply["to"] == "2026-06"
    assert reply["lines"] == [
        {
            "month": "2026-04", "fiscal_year": 2026, "side": "inquirer", "outcome": "provided", "records": 0,
            "amendments": 1,
        }
    ], "a zero is written out"  # fmt: skip


async def test_a_fiscal_year_is_counted(served: Any) -> None:
    assert (await get(served, "?fiscal_year=2025"))[0] == 200
    assert served.exchange.calls == [("statistics", CITY, dt.date(2025, 4, 1), dt.date(2026, 3, 1))]


@pytest.mark.parametrize(
    ("now", "first"),
    [
        (dt.datetime(2026, 3, 31, 14, 59, 59, tzinfo=dt.UTC), dt.date(2025, 4, 1)),
        (dt.datetime(2026, 3, 31, 15, 0, 0, tzinfo=dt.UTC), dt.date(2026, 4, 1)),
    ],
)
def test_without_a_word_it_is_the_fiscal_year_of_today_in_japan(now: dt.datetime, first: dt.date) -> None:
    assert period(StatisticsParams(), ManualClock(now)) == (first, first.replace(year=first.year + 1, month=3))


@pytest.mark.parametrize(
    ("words", "pointer"),
    [
        ("?from=2026-04", "/to"),
        ("?to=2026-04", "/from"),
        ("?from=2026-05&to=2026-04", "/to"),
        ("?from=2019-11&to=2026-11", "/to"),
        ("?from=2026-04&to=2026-05&fiscal_year=2026", "/fiscal_year"),
        ("?from=2026-13&to=2026-13", "/from"),
        ("?from=1999-12&to=2026-05", "/from"),
        ("?from=2026-4&to=2026-05", "/from"),
        ("?from=2026-04%0a&to=2026-05", "/from"),
        ("?fiscal_year=1926", "/fiscal_year"),
        ("?fiscal_year=now", "/fiscal_year"),
    ],
)
async def test_a_period_that_is_none_is_refused_by_its_name(served: Any, words: str, pointer: str) -> None:
    status, problem = await get(served, words)
    assert (status, problem["code"], problem["pointer"]) == (422, "invalid_field", pointer)
    assert served.exchange.calls == []


async def test_seven_years_are_the_longest_period(served: Any) -> None:
    assert (await get(served, "?from=2019-12&to=2026-11"))[0] == 200
    with pytest.raises(Problem, match="invalid_field"):
        period(StatisticsParams(first="2019-11", last="2026-11"), ManualClock(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))


async def test_an_unknown_parameter_is_refused(served: Any) -> None:
    assert (await get(served, "?first=2026-04&last=2026-05"))[1]["code"] == "unknown_field"


async def test_who_has_no_right_to_records_has_none_to_their_counts(served: Any) -> None:
    status, problem = await get(served, "", "counter")
    assert (status, problem["code"]) == (403, "function_not_granted")
    assert (await get(served, "", "town"))[1]["code"] == "wrong_agency"
    assert served.exchange.calls == []


def test_the_document_shows_a_reply_and_how_a_month_is_written() -> None:
    operation = openapi.document(ROUTES)["paths"]["/v1/agencies/{agency}/statistics"]["get"]
    parameters = {each["name"]: each for each in operation["parameters"]}
    assert parameters.keys() == {"from", "to", "fiscal_year"}
    assert not any(each["required"] for each in parameters.values())
    assert "2026-11" in str(parameters["from"]["schema"])
    (example,) = operation["responses"]["200"]["content"]["application/json"]["examples"].values()
    shown = msgspec.convert(example["value"], Statistics)
    assert shown.records == sum(line.records for line in shown.lines)
    assert shown.amendments == sum(line.amendments for line in shown.lines)
    assert "records" in operation["description"]


@pytest.mark.requirement("SYS-02")
async def test_a_step_by_procedure_has_its_period_its_place_and_its_length(served: Any) -> None:
    words = "/procedures?from=2026-04&to=2026-06&after=4999&limit=100"
    status, reply = await get(served, words)
    assert (status, reply) == (200, {"from": "2026-04", "to": "2026-06", "lines": []})
    first, last = dt.date(2026, 4, 1), dt.date(2026, 6, 1)
    assert served.exchange.calls == [("procedures", CITY, first, last, 4999, 100)]
    for wrong in ("after=-2", "limit=0", "limit=5001"):
        status, reply = await get(served, f"/procedures?fiscal_year=2026&{wrong}")
        assert (status, reply["code"]) == (422, "invalid_field")
