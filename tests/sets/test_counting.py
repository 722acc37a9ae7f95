"""Statistics (統計): every record is counted once, in the commit that writes it; folding changes no sum."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
from collections import Counter

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants import births
from chukan.tenants.rows import DecideRow
from chukan.tenants.states import InquiryState, Outcome, ProvisionState, Side

pytestmark = pytest.mark.requirement("SYS-01")

INQUIRER, PROVIDER = int(Side.INQUIRER), int(Side.PROVIDER)
NOVEMBER = dt.date(2026, 11, 1)
SUMS = (
    "SELECT month, side, outcome, amendment, sum(count)::int AS count, count(*)::int AS rows FROM a{:05d}.statistics"
    " GROUP BY month, side, outcome, amendment"
)


@pytest.fixture
async def agency(bench):
    """The number of an agency that nobody has counted yet."""
    number = 10_000 + int.from_bytes(os.urandom(2))
    await births.birth(bench.admin, number)
    return number


async def counted(bench, agency):
    """What is counted: (side, outcome, amendment) → count, all of November."""
    rows = await bench.admin.fetch(SUMS.format(agency))
    assert {row["month"] for row in rows} <= {NOVEMBER}
    return {(row["side"], row["outcome"], row["amendment"]): row["count"] for row in rows}


async def lying(bench, agency):
    """How many rows there are, folded or not."""
    return await bench.admin.fetchval(f"SELECT count(*) FROM a{agency:05d}.statistics")


async def accepted(bench, make, agency, **fields):
    batch = make.batch(agency)
    line = make.line(batch, **fields)
    await bench.sets.accept([batch], [line])
    return line


def closed(make, batch, outcome=Outcome.NO_CODE):
    """A line that closes when it is accepted."""
    line = make.line(batch, state=InquiryState.NO_CODE, outcome=outcome, outbox=None)
    return dataclasses.replace(line, record=make.record(line.id))


async def test_a_line_that_closes_at_once_is_counted_and_an_open_one_is_not(bench, make, agency):
    batch = make.batch(agency)
    await bench.sets.accept([batch], [closed(make, batch), make.line(batch, 1), closed(make, batch)])
    assert await counted(bench, agency) == {(INQUIRER, Outcome.NO_CODE, False): 2}
    assert await lying(bench, agency) == 1, "a set counts once for all of its records that are alike"
    again = make.batch(agency, key=batch.key, body=batch.body)
    await bench.sets.accept([again], [closed(make, again)])
    assert await counted(bench, agency) == {(INQUIRER, Outcome.NO_CODE, False): 2}, "a repeat is not counted"


async def test_a_settled_line_is_counted_under_its_outcome_once(bench, make, agency):
    line = await accepted(bench, make, agency)
    grants = await bench.all_grants(Side.INQUIRER)
    steps = [make.settle(line, InquiryState.STOPPED, Outcome.STOPPED) for _ in range(2)]
    assert await bench.sets.settle_inquiries(grants, steps) == ["applied", "late"]
    assert await bench.sets.close_inquiries([steps[0]]) == ["late"]
    assert await counted(bench, agency) == {(INQUIRER, Outcome.STOPPED, False): 1}


async def test_an_answer_is_counted_and_a_late_one_as_an_amendment(bench, make, agency):
    line = await accepted(bench, make, agency)
    held = make.answer(line, Outcome.UNDER_REVIEW)
    answers = [make.answer(line, Outcome.PROVIDED), make.answer(line, Outcome.REFUSED, state=InquiryState.REFUSED)]
    assert await bench.sets.deliver_answers([held]) == ["applied"]
    assert await counted(bench, agency) == {}, "an interim notice has no record"
    assert await bench.sets.deliver_answers([*answers, answers[0]]) == ["applied", "late", "repeat"]
    assert await counted(bench, agency) == {
        (INQUIRER, Outcome.PROVIDED, False): 1,
        (INQUIRER, Outcome.REFUSED, True): 1,
    }


async def test_provisions_are_counted_when_they_end_and_a_lapse_as_an_amendment(bench, make, agency):
    given, held, decided = make.provide(agency), make.provide(agency, held=True), make.provide(agency, held=True)
    assert await bench.sets.provide([given, held, decided, given]) == ["stored", "stored", "stored", "repeat"]
    assert await counted(bench, agency) == {(PROVIDER, Outcome.PROVIDED, False): 1}
    decision = DecideRow(
        agency=agency, generation=1, id=decided.id, outcome=Outcome.REFUSED, reason="officer", person=None,
        link_version=0, hold_version=0, snapshot=0, outbox=b"final", record=make.record(decided.id),
    )  # fmt: skip
    assert await bench.sets.decide_provisions([decision]) == ["applied"]
    grants = await bench.all_grants(Side.PROVIDER)
    steps = [
        make.receipt(given, ProvisionState.LAPSED, Outcome.EXPIRED, record=make.record(given.id, amends=True)),
        make.receipt(held, ProvisionState.LAPSED, Outcome.EXPIRED, record=make.record(held.id)),
        make.receipt(decided, ProvisionState.RECEIPTED, Outcome.REFUSED),
    ]
    assert await bench.sets.settle_provisions(grants, steps) == ["applied"] * 3
    assert await counted(bench, agency) == {
        (PROVIDER, Outcome.PROVIDED, False): 1,
        (PROVIDER, Outcome.REFUSED, False): 1,
        (PROVIDER, Outcome.EXPIRED, True): 1,
        (PROVIDER, Outcome.EXPIRED, False): 1,
    }


async def test_a_set_that_fails_leaves_no_count(bench, make, agency):
    batch = make.batch(agency)
    good, bad = closed(make, batch), make.line(batch, 1, state=InquiryState.NO_CODE, outcome=Outcome.NO_CODE)
    with pytest.raises(Problem, match="internal"):
        await bench.sets.accept([batch], [good, bad])  # the second one is final and has no record
    assert await lying(bench, agency) == 0
    twin = closed(make, batch)
    with pytest.raises(Problem, match="internal"):
        await bench.sets.accept([batch], [twin, twin])  # the same line twice breaks a key
    assert await lying(bench, agency) == 0
    assert await bench.rows(agency, "records", good.id, twin.id) == []


async def test_a_set_whose_connection_is_killed_before_its_commit_leaves_no_count(bench, cell, make, agency):
    grants = await bench.all_grants(Side.INQUIRER)
    line = await accepted(bench, make, agency)
    step = make.settle(line, InquiryState.STOPPED, Outcome.STOPPED)
    doing = await cell.admin()
    transaction = doing.transaction()
    await transaction.start()
    done = await doing.fetchval(
        "SELECT chukan.settle_inquiries($1::smallint[], $2::bigint[], ARRAY[$3::int], ARRAY[$4::uuid],"
        " ARRAY[63::smallint], ARRAY[8::smallint], ARRAY[NULL::text], ARRAY[now()], ARRAY[now()], ARRAY[NULL::bytea],"
        " ARRAY[true], ARRAY[$4::uuid], ARRAY[$5::bytea], ARRAY[$6::date], ARRAY['r'::bytea], ARRAY[$5::bytea],"
        " ARRAY[NULL::uuid])",
        [grant.shard for grant in grants],
        [grant.epoch for grant in grants],
        agency,
        line.id,
        make.digest(),
        NOVEMBER,
    )
    assert done == "applied"
    assert await doing.fetchval(f"SELECT count(*) FROM a{agency:05d}.statistics") == 1, "counted in that transaction"
    assert await bench.admin.fetchval("SELECT pg_terminate_backend($1, 5000)", doing.get_server_pid())
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await transaction.commit()
    assert await lying(bench, agency) == 0
    assert await bench.sets.settle_inquiries(grants, [step]) == ["applied"]
    assert await counted(bench, agency) == {(INQUIRER, Outcome.STOPPED, False): 1}


async def fill(bench, make, agency, sets, outcome=Outcome.NO_CODE):
    """Count one record in each of so many commits."""
    for _ in range(sets):
        batch = make.batch(agency)
        await bench.sets.accept([batch], [closed(make, batch, outcome)])


async def test_folding_makes_one_row_of_many_and_changes_no_sum(bench, make, agency):
    await fill(bench, make, agency, 5)
    await fill(bench, make, agency, 3, Outcome.NOT_PERMITTED)
    before = await counted(bench, agency)
    assert await lying(bench, agency) == 8
    assert await bench.sets.fold_statistics(agency - 1, agencies=1) == agency
    assert (await counted(bench, agency), await lying(bench, agency)) == (before, 2)
    assert before == {(INQUIRER, Outcome.NO_CODE, False): 5, (INQUIRER, Outcome.NOT_PERMITTED, False): 3}
    where = f"SELECT ctid::text FROM a{agency:05d}.statistics ORDER BY 1"
    places = [row["ctid"] for row in await bench.admin.fetch(where)]
    assert await bench.sets.fold_statistics(agency - 1, agencies=1) == agency
    assert [row["ctid"] for row in await bench.admin.fetch(where)] == places, "nothing is written when all is folded"


async def test_a_page_of_folding_is_bounded(bench, make, agency):
    await fill(bench, make, agency, 6)
    assert await bench.sets.fold_statistics(agency - 1, agencies=1, limit=4) == agency
    assert await lying(bench, agency) == 3
    assert await counted(bench, agency) == {(INQUIRER, Outcome.NO_CODE, False): 6}
    assert await bench.sets.fold_statistics(99_999) == 0


async def test_a_closed_agency_is_passed_over(bench, make, agency):
    await fill(bench, make, agency, 2)
    await births.close(bench.admin, agency)
    assert await bench.sets.fold_statistics(agency - 1, agencies=1) != agency
    assert await lying(bench, agency) == 2


@contextlib.asynccontextmanager
async def folding(cell, agency):
    """Fold an agency's counts in a transaction that stays open, and is rolled back unless told otherwise."""
    connection = await cell.admin()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT chukan.fold_statistics($1, 1, 1000)", agency - 1)
    try:
        yield transaction
    finally:
        if connection.is_in_transaction():
            await transaction.rollback()
        await connection.close()


async def test_while_one_folds_sets_do_not_wait_and_nothing_is_lost(bench, cell, make, agency):
    await fill(bench, make, agency, 4)
    async with folding(cell, agency) as transaction:
        async with asyncio.timeout(10):
            await fill(bench, make, agency, 3)
        assert await bench.sets.fold_statistics(agency - 1, agencies=1) == 0, "one at a time, and nobody waits"
        assert (await counted(bench, agency))[INQUIRER, Outcome.NO_CODE, False] == 7
        await transaction.commit()
    assert (await counted(bench, agency))[INQUIRER, Outcome.NO_CODE, False] == 7
    assert await lying(bench, agency) == 4
    assert await bench.sets.fold_statistics(agency - 1, agencies=1) == agency
    assert (await counted(bench, agency), await lying(bench, agency)) == ({(INQUIRER, Outcome.NO_CODE, False): 7}, 1)


async def test_a_folding_that_dies_has_done_nothing(bench, cell, make, agency):
    await fill(bench, make, agency, 4)
    async with folding(cell, agency):
        pass
    assert (await counted(bench, agency), await lying(bench, agency)) == ({(INQUIRER, Outcome.NO_CODE, False): 4}, 4)


async def test_many_sets_and_many_foldings_at_once_count_every_record(bench, make, agency):
    over = asyncio.Event()
    folds = 0

    async def fold():
        nonlocal folds
        while not over.is_set():
            folds += await bench.sets.fold_statistics(agency - 1, agencies=1) == agency

    folders = [asyncio.create_task(fold()) for _ in range(2)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(fill(bench, make, agency, 15) for _ in range(4)))
        over.set()
        await asyncio.gather(*folders)
        await bench.sets.fold_statistics(agency - 1, agencies=1)
    assert folds > 0
    assert (await counted(bench, agency), await lying(bench, agency)) == ({(INQUIRER, Outcome.NO_CODE, False): 60}, 1)
    records = await bench.admin.fetchval(f"SELECT count(*) FROM a{agency:05d}.records")
    assert records == 60


async def test_a_set_of_several_agencies_counts_for_each_its_own(bench, make, agency):
    other = agency + 1 if agency < 80_000 else agency - 1
    await births.birth(bench.admin, other)
    batches = [make.batch(number) for number in (agency, other, agency)]
    await bench.sets.accept(batches, [closed(make, batch) for batch in batches])
    found = Counter({number: sum((await counted(bench, number)).values()) for number in (agency, other)})
    assert found == {agency: 2, other: 1}
