"""The service calendar: when a function is open in Japan's time, and when it reopens where it is not."""

import datetime as dt
import tomllib
from typing import Any

import msgspec
import pytest

from chukan.clock import JST
from chukan.platform.law.calendar import Calendar, CalendarFile, read_calendar
from chukan.platform.law.tables import Source

pytestmark = pytest.mark.requirement("OPS-01")

FILE = """
holidays = [2026-11-23]
[[function]]
name = "online"
outside = "refuse"
hours = [
  { days = ["mon", "tue", "wed", "thu", "fri"], open = "08:00", close = "20:00" },
  { days = ["holiday"], open = "10:00", close = "12:00" },
]
[[function]]
name = "batch"
outside = "queue"
hours = [{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"], open = "22:00", close = "24:00" }]
[[closed]]
functions = ["online"]
from = 2026-11-25T19:00:00+09:00
until = 2026-11-26T09:00:00+09:00
reason = "定期保守"
"""


def calendar(text: str = FILE) -> Calendar:
    return Calendar(msgspec.convert(tomllib.loads(text), CalendarFile))


def jst(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"2026-{text}").replace(tzinfo=JST)


@pytest.mark.parametrize(
    ("function", "at", "opens"),
    [
        ("online", "11-24T08:00:00", None),
        ("online", "11-24T19:59:59", None),
        ("online", "11-24T07:59:59", "11-24T08:00:00"),
        ("online", "11-24T20:00:00", "11-25T08:00:00"),
        ("online", "11-27T20:00:00", "11-30T08:00:00"),  # over a week-end
        ("online", "11-23T11:00:00", None),  # a Monday that is a holiday
        ("online", "11-23T08:00:00", "11-23T10:00:00"),
        ("online", "11-23T12:00:00", "11-24T08:00:00"),
        ("online", "11-25T19:00:00", "11-26T09:00:00"),  # a planned stop, which ends within the hours
        ("online", "11-25T21:00:00", "11-26T09:00:00"),
        ("batch", "11-25T19:00:00", "11-25T22:00:00"),  # it does not concern batch
        ("batch", "11-25T23:59:59", None),
        ("batch", "11-26T00:00:00", "11-26T22:00:00"),
    ],
)
def test_a_function_is_open_or_says_when_it_opens(function: Any, at: str, opens: str | None) -> None:
    found = calendar().standing(function, jst(at).astimezone(dt.UTC))
    assert (found.open, found.reopens) == (opens is None, None if opens is None else jst(opens))
    assert found.queues is (function == "batch" and opens is not None)
    assert found.reason == ("定期保守" if (function, at[:5]) == ("online", "11-25") else None)


def test_the_releases_own_calendar_is_always_open_and_so_is_none_at_all(tmp_path: Any) -> None:
    for source in (Source(None), Source(tmp_path)):
        found = read_calendar(source)
        assert all(found.standing(name, jst("11-24T03:00:00")).open for name in ("online", "batch"))


def test_a_stop_that_meets_the_next_one_reopens_after_both() -> None:
    text = FILE + FILE[FILE.index("[[closed]]") :].replace("11-25T19:00", "11-26T09:00").replace(
        "26T09:00:00+09:00\nr", "26T11:00:00+09:00\nr"
    )
    assert calendar(text).standing("online", jst("11-25T20:00:00")).reopens == jst("11-26T11:00:00")


def test_without_any_opening_no_time_is_named() -> None:
    text = "[[function]]\nname = 'online'\noutside = 'refuse'\n"
    text += "hours = [{days = ['holiday'], open = '08:00', close = '09:00'}]"
    found = calendar(text).standing("online", jst("11-24T03:00:00"))
    assert (found.open, found.reopens) == (False, None)


@pytest.mark.parametrize(
    "text",
    [
        FILE.replace('"20:00"', '"07:00"'),
        FILE.replace('name = "batch"', 'name = "online"'),
        FILE.replace("11-26T09", "11-25T09"),
        FILE.replace('"mon"', '"monday"', 1),
        FILE.replace("+09:00", ""),
        FILE.replace('"refuse"', '"drop"'),
        "[[functions]]\n",
    ],
    ids=[
        "hours backwards",
        "a function twice",
        "a stop backwards",
        "no such day",
        "no offset",
        "no such way",
        "a typo",
    ],
)
def test_a_calendar_that_contradicts_itself_can_not_be_made(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's is one too
        calendar(text)
