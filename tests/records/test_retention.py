"""Records are kept seven years and not a day less, cannot be changed, and are deleted when their time is over."""

import datetime as dt
import uuid
from typing import Any

import asyncpg
import pytest

from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.tenants.records import make_record, month_of
from chukan.tenants.retention import kept_from
from chukan.tenants.sets.common import Expired

from .conftest import CHANCE, Shelf

pytestmark = pytest.mark.requirement("REC-02")

KEPT = kept_from(today_jst(SystemClock()))
TABLES = ("queries", "provisions", "permits", "events")


async def put(shelf: Shelf, month: dt.date, **changes: Any) -> uuid.UUID:
    """Put a record that was made in the middle of a month, and has been there since."""
    at = dt.datetime(month.year, month.month, 15, 3, tzinfo=dt.UTC)
    row = make_record(shelf.keys, CHANCE, shelf.fields(asked_at=at, closed_at=at, **changes), person=shelf.person("A1"))
    await shelf.admin.execute(
        f"INSERT INTO {shelf.schema}.records (agency, id, label, month, sealed, commitment, amends, at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        shelf.agency, row.id, row.label, row.month, row.sealed, row.commitment, row.amends, at,
    )  # fmt: skip
    assert row.month == month_of(at) == month
    return row.id


async def left(shelf: Shelf) -> set[uuid.UUID]:
    return {row["id"] for row in await shelf.admin.fetch(f"SELECT id FROM {shelf.schema}.records")}


async def expire(shelf: Shelf, before: dt.date = KEPT, **given: int) -> None:
    assert await shelf.sets.expire_records(shelf.agency - 1, before, agencies=1, **given) == shelf.agency


def back(months: int) -> dt.date:
    """Return the first day of the month so many months before the oldest that is kept."""
    year, month = divmod(KEPT.year * 12 + KEPT.month - 1 - months, 12)
    return dt.date(year, month + 1, 1)


def test_a_month_is_kept_until_all_of_it_is_seven_years_old() -> None:
    assert kept_from(dt.date(2026, 11, 1)) == kept_from(dt.date(2026, 11, 30)) == dt.date(2019, 11, 1)
    assert kept_from(dt.date(2028, 2, 29)) == dt.date(2021, 2, 1)


async def test_what_is_older_goes_and_the_report_says_so(shelf: Shelf) -> None:
    old = [await put(shelf, back(1)), await put(shelf, back(1)), await put(shelf, back(30))]
    kept = {await put(shelf, KEPT), await put(shelf, back(-40))}
    await expire(shelf)
    assert await left(shelf) == kept
    told = await shelf.sets.expired_records(shelf.agency)
    assert {(each.month, each.count) for each in told} == {(back(1), 2), (back(30), 1)}
    assert all(isinstance(each, Expired) and each.agency == shelf.agency for each in told)
    assert sum(each.count for each in told) == len(old)


async def test_a_clock_that_is_ahead_deletes_nothing_young(shelf: Shelf) -> None:
    kept = {await put(shelf, KEPT)}
    gone = await put(shelf, back(2))
    await expire(shelf, dt.date(2099, 1, 1))
    assert await left(shelf) == kept
    assert gone not in kept


async def test_a_clock_that_is_behind_keeps_more(shelf: Shelf) -> None:
    kept = {await put(shelf, back(2))}
    await put(shelf, back(5))
    await expire(shelf, back(3))
    assert await left(shelf) == kept


@pytest.mark.parametrize(
    "act",
    [
        "DELETE FROM {records}",
        "UPDATE {records} SET label = commitment",
        "UPDATE {records} SET month = month - 4000",
        "UPDATE {records} SET at = at - interval '9 years'",
        "UPDATE {records} SET commitment = label",
    ],
)
async def test_not_even_an_administrator_changes_or_deletes_one_before(shelf: Shelf, act: str) -> None:
    kept = {await put(shelf, KEPT)}
    with pytest.raises(asyncpg.RestrictViolationError):
        await shelf.admin.execute(act.format(records=f"{shelf.schema}.records"))
    assert await left(shelf) == kept


async def test_sealed_bytes_may_be_sealed_anew(shelf: Shelf) -> None:
    await put(shelf, KEPT)
    await shelf.admin.execute(f"UPDATE {shelf.schema}.records SET sealed = sealed")


async def test_what_amends_goes_before_what_it_amends(shelf: Shelf) -> None:
    first = await put(shelf, back(3))
    second = await put(shelf, KEPT, amends=first)
    await expire(shelf)
    assert await left(shelf) == {first, second}, "alone the amendment would show what was withheld"
    other = await put(shelf, back(4))
    await put(shelf, back(3), amends=other)
    for _ in range(2):
        await expire(shelf)
    assert await left(shelf) == {first, second}


async def test_a_call_is_bounded_and_the_next_goes_on(shelf: Shelf) -> None:
    for _ in range(5):
        await put(shelf, back(2))
    for rest in (3, 1, 0):
        await expire(shelf, limit=2)
        assert len(await left(shelf)) == rest


async def test_what_a_line_left_elsewhere_goes_with_it_and_what_is_open_stays(shelf: Shelf) -> None:
    gone, kept = await put(shelf, back(2)), await put(shelf, KEPT)
    long_ago = dt.datetime(back(2).year, back(2).month, 15, tzinfo=dt.UTC)
    for id_ in (gone, kept):
        for table, columns, values in (
            ("queries", "batch, request", "$2, 'x'"), ("provisions", "notice", "'x'"), ("permits", "sealed", "'x'"),
            ("events", "side, to_state", "1, 1"),
        ):  # fmt: skip
            sql = f"INSERT INTO {shelf.schema}.{table} (agency, id, {columns}, at) VALUES ($1, $2, {values}, $3)"
            await shelf.admin.execute(sql, shelf.agency, id_, long_ago)
    await expire(shelf)
    for table in TABLES:
        rows = await shelf.admin.fetch(f"SELECT id FROM {shelf.schema}.{table}")
        assert [row["id"] for row in rows] == [kept], table


async def test_the_log_keeps_its_leaves(shelf: Shelf) -> None:
    id_ = await put(shelf, back(2))
    await shelf.admin.execute("INSERT INTO chukan.to_sequence (agency, record) VALUES ($1, $2)", shelf.agency, id_)
    await shelf.sequence()
    await expire(shelf)
    assert await left(shelf) == set()
    assert await shelf.admin.fetchval(f"SELECT count(*) FROM {shelf.schema}.log WHERE record = $1", id_) == 1


async def test_nobody_but_the_functions_may(shelf: Shelf) -> None:
    kept = {await put(shelf, KEPT), await put(shelf, back(9))}
    with pytest.raises(Problem, match="internal"):
        async with shelf.open() as partition:
            await partition.execute(f"DELETE FROM {partition.table('records')}")
    assert await left(shelf) == kept
