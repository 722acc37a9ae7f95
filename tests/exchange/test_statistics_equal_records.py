"""Statistics (統計) after the main flow: for each agency they equal its records, opened and counted one by one."""

import asyncio
import datetime as dt
import uuid
from collections import Counter

import msgspec
import pytest

from chukan.platform.exchange.forgetting import Forgetting
from chukan.platform.http.desks.records import PartitionRecords
from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare
from chukan.tenants.partition import schema_name
from chukan.tenants.records import month_of
from chukan.tenants.statistics import fiscal_year_of, months_of

from .test_recovery import stored_answer

pytestmark = pytest.mark.requirement("SYS-01")

ASKS, GIVES, ASKS_WEST, GIVES_WEST = AGENCIES = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)


async def told(nation, code):
    """What ``GET /statistics`` says of the fiscal years of now: (month, side, outcome) → (records, amendments)."""
    agency = nation.agency(code)
    desk = PartitionRecords(nation.east.door, nation.keystores.load)
    year = fiscal_year_of(month_of(nation.clock.now()))
    reply = await desk.statistics(agency, months_of(year - 1)[0], months_of(year + 1)[1])
    assert reply.records == sum(line.records for line in reply.lines)
    assert reply.amendments == sum(line.amendments for line in reply.lines)
    return {(line.month, line.side, line.outcome): (line.records, line.amendments) for line in reply.lines}


async def true(nation, code):
    """The same from the raw records."""
    records, amendments = Counter(), Counter()
    for stored in await nation.records(code):
        fields = stored.fields
        what = f"{month_of(fields.closed_at):%Y-%m}", fields.side, fields.outcome
        (records if fields.amends is None else amendments)[what] += 1
    return {what: (records[what], amendments[what]) for what in {*records, *amendments}}


async def lying(nation, code):
    """How many rows the counts lie in."""
    agency = nation.agency(code)
    admin = await nation.admin(nation.databases[agency.cell])
    count = await admin.fetchval(f"SELECT count(*) FROM {schema_name(agency.number)}.statistics")
    await admin.close()
    return count


async def many_outcomes(nation, asks, gives):
    """Provided, with gaps, no record, refused by an officer, no code, and a late answer that amends."""
    people = [await nation.person(asks, gives) for _ in range(3)]
    people += [await nation.person(asks, gives, gaps=True), await nation.person(asks, gives, copy=False)]
    held = await nation.person(asks, gives, review=True)
    lines = [nation.line(addressee, gives) for addressee in (*people, held, "000000000099999")]
    batch = await nation.ask(asks, lines)
    review = await nation.until_some(nation.east.reviews.list, nation.agency(gives))
    officers = [nation.officer(gives, name) for name in ("first", "second")]
    await nation.east.reviews.prepare(nation.agency(gives), officers[0], review.id, ReviewPrepare(decision="refuse"))
    await nation.east.reviews.refuse(nation.agency(gives), officers[1], review.id, ReviewDecision())
    done = await nation.answered(asks, batch)
    delivery = await stored_answer(nation, asks, batch.lines[0].id)
    late = msgspec.structs.replace(delivery, id=uuid.uuid4(), outcome="refused", sealed=None)
    (ack,) = await nation.west.inbox.answers([late])
    assert ack.reason == "late"
    await nation.sequenced()
    return Counter(line.outcome for line in done.lines)


async def test_the_statistics_equal_the_records_before_and_after_folding(nation):
    outcomes = await many_outcomes(nation, ASKS, GIVES_WEST)
    outcomes += await many_outcomes(nation, ASKS_WEST, GIVES_WEST)
    assert set(outcomes) == {"provided", "provided_with_gaps", "no_record", "refused", "no_code"}
    before = {code: await told(nation, code) for code in AGENCIES}
    assert before == {code: await true(nation, code) for code in AGENCIES}
    month = f"{month_of(nation.clock.now()):%Y-%m}"
    assert before[ASKS][month, "inquirer", "provided"] == (3, 0)
    assert before[ASKS][month, "inquirer", "refused"] == (1, 1), "a late answer amends, and is no second record"
    assert before[GIVES_WEST][month, "provider", "provided"] == (6, 0)
    assert before[GIVES] == {}
    rows = await lying(nation, GIVES_WEST)
    for _ in range(2):
        for cell in ("east", "west"):
            sites = [Forgetting(site.sets, nation.clock) for site in (nation.east, nation.west)]
            await asyncio.gather(*(site.round(cell) for site in sites))
    assert {code: await told(nation, code) for code in AGENCIES} == before
    assert await lying(nation, GIVES_WEST) == len(before[GIVES_WEST]) <= rows


async def test_a_list_that_is_sent_twice_is_counted_once(nation):
    addressee = await nation.person(ASKS, GIVES)
    key = str(nation.chance.uuid7())
    lines = [nation.line(addressee, GIVES), nation.line("no/number", GIVES)]
    first = await nation.ask(ASKS, lines[:1], key=key)
    again = await nation.ask(ASKS, lines[:1], key=key, via="west")
    assert first.batch == again.batch
    await nation.answered(ASKS, first)
    await nation.sequenced()
    assert await told(nation, ASKS) == await true(nation, ASKS)
    assert sum(records for records, _ in (await told(nation, ASKS)).values()) == 1


@pytest.mark.requirement("SYS-02")
async def test_counts_by_procedure_and_kind_are_those_of_the_opened_records(nation) -> None:
    await many_outcomes(nation, ASKS, GIVES)
    desk = PartitionRecords(nation.east.door, nation.keystores.load)
    first, last = dt.date(2000, 4, 1), dt.date(2098, 3, 1)
    for code in (ASKS, GIVES):
        expected = Counter()
        for stored in await nation.records(code):
            fields = stored.fields
            what = f"{month_of(fields.closed_at):%Y-%m}", fields.side, fields.procedure, fields.kind, fields.outcome
            expected[(*what, fields.amends is not None)] += 1
        assert len(expected) > 2
        for limit in (1, 5_000):
            counted, after = Counter(), -1
            while after is not None:
                step = await desk.procedures(nation.agency(code), first, last, after, limit)
                for line in step.lines:
                    what = line.month, line.side, line.procedure, line.kind, line.outcome
                    counted[(*what, False)] += line.records
                    counted[(*what, True)] += line.amendments
                after = step.next
            assert +counted == expected, limit
        clear = Counter()
        for (month, side, _, _, outcome, amendment), count in expected.items():
            clear[month, side, outcome, amendment] += count
        for what, (records, amendments) in (await told(nation, code)).items():
            assert (clear[*what, False], clear[*what, True]) == (records, amendments)
