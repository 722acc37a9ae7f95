"""Statistics (統計) as an agency reads them: months of Japan, fiscal years, records and amendments apart."""

import datetime as dt

import pytest

from chukan.tenants.records import make_record
from chukan.tenants.rows import AcceptBatch, AcceptLine
from chukan.tenants.states import InquiryState, Outcome, Side
from chukan.tenants.statistics import MonthCount, count_records, fiscal_year_of, month_span, months_of

from .conftest import CHANCE, Shelf

pytestmark = pytest.mark.requirement("SYS-01")

APRIL, MARCH, NOVEMBER = dt.date(2026, 4, 1), dt.date(2027, 3, 1), dt.date(2026, 11, 1)


async def close_at(shelf: Shelf, *instants: dt.datetime, outcome: Outcome = Outcome.NO_CODE) -> None:
    """Have one line after the other close at acceptance, each at its instant."""
    for at in instants:
        fields = shelf.fields(side="inquirer", outcome=outcome.word, asked_at=at, closed_at=at)
        person = shelf.person("A1")
        batch = AcceptBatch(shelf.agency, 1, *(shelf.keys.digest(word, fields.id.bytes) for word in ("key", "body")),
                            CHANCE.uuid7())  # fmt: skip
        line = AcceptLine(
            agency=shelf.agency, batch=batch.batch, id=fields.id, ordinal=0, state=InquiryState.NO_CODE,
            outcome=outcome, reason=None, due=at, deadline=at, person=person, request=b"request", outbox=None,
            record=make_record(shelf.keys, CHANCE, fields, person=person),
        )  # fmt: skip
        await shelf.sets.accept([batch], [line])


async def read(shelf: Shelf, first: dt.date = APRIL, last: dt.date = MARCH) -> list[MonthCount]:
    async with shelf.open() as partition:
        return await count_records(partition, first, last)


def at(day: int, hour: int, month: int = 10, *, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, month, day, hour, minute, tzinfo=dt.UTC)


async def test_a_month_begins_at_midnight_in_japan(shelf: Shelf) -> None:
    """15:00 UTC of the last day of October is the first instant of November in Japan."""
    last_of_october = at(31, 15) - dt.timedelta(microseconds=1)
    await close_at(shelf, last_of_october, at(31, 15), at(30, 14, 11, minute=59))
    assert [(count.month, count.records) for count in await read(shelf)] == [
        (dt.date(2026, 10, 1), 1),
        (NOVEMBER, 2),
    ]


async def test_a_new_years_eve_lies_in_the_year_of_japan(shelf: Shelf) -> None:
    await close_at(shelf, at(31, 14, 12), at(31, 15, 12))
    assert [count.month for count in await read(shelf)] == [dt.date(2026, 12, 1), dt.date(2027, 1, 1)]


async def test_a_period_has_both_its_months_and_no_other(shelf: Shelf) -> None:
    await close_at(shelf, *(at(10, 3, month) for month in range(1, 13)))
    found = await read(shelf, dt.date(2026, 5, 1), dt.date(2026, 7, 1))
    assert [count.month.month for count in found] == [5, 6, 7]
    assert await read(shelf, dt.date(2030, 1, 1), dt.date(2030, 12, 1)) == []


async def test_counts_are_the_same_before_and_after_folding(shelf: Shelf) -> None:
    await close_at(shelf, *(at(day, 3, 11) for day in (1, 2, 3)))
    await close_at(shelf, at(4, 3, 11), outcome=Outcome.NOT_PERMITTED)
    expected = [
        MonthCount(NOVEMBER, Side.INQUIRER, Outcome.NO_CODE, 3, 0),
        MonthCount(NOVEMBER, Side.INQUIRER, Outcome.NOT_PERMITTED, 1, 0),
    ]
    assert await read(shelf) == expected
    assert await shelf.sets.fold_statistics(shelf.agency - 1, agencies=1) == shelf.agency
    assert await read(shelf) == expected


async def test_an_amendment_stands_beside_the_records(shelf: Shelf) -> None:
    await close_at(shelf, at(1, 3, 11))
    for amendment, count in ((False, 4), (True, 2), (True, 1)):
        await shelf.admin.execute(
            f"INSERT INTO {shelf.schema}.statistics VALUES ($1, $2, 2, $3, $4, $5)",
            shelf.agency, NOVEMBER, int(Outcome.EXPIRED), amendment, count,
        )  # fmt: skip
    assert await read(shelf) == [
        MonthCount(NOVEMBER, Side.INQUIRER, Outcome.NO_CODE, 1, 0),
        MonthCount(NOVEMBER, Side.PROVIDER, Outcome.EXPIRED, 4, 3),
    ]


@pytest.mark.requirement("TEN-01")
async def test_an_agency_counts_its_own_only(shelf: Shelf, neighbour: Shelf) -> None:
    await close_at(shelf, at(1, 3, 11))
    await close_at(neighbour, at(1, 3, 11), at(2, 3, 11))
    assert [count.records for count in await read(shelf)] == [1]
    assert [count.records for count in await read(neighbour)] == [2]


@pytest.mark.parametrize(
    ("day", "year"),
    [
        (dt.date(2026, 3, 31), 2025),
        (dt.date(2026, 4, 1), 2026),
        (dt.date(2026, 12, 31), 2026),
        (dt.date(2027, 1, 1), 2026),
        (dt.date(2027, 3, 31), 2026),
    ],
)
def test_a_fiscal_year_runs_from_april_to_march(day: dt.date, year: int) -> None:
    assert fiscal_year_of(day) == year
    first, last = months_of(year)
    assert (first, last) == (dt.date(year, 4, 1), dt.date(year + 1, 3, 1))
    assert month_span(first, last) == 12
    assert first <= day.replace(day=1) <= last


def test_a_period_that_ends_too_early_has_no_month() -> None:
    assert month_span(NOVEMBER, NOVEMBER) == 1
    assert month_span(NOVEMBER, dt.date(2026, 10, 1)) == 0
