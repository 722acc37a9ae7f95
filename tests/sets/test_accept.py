"""Accepting lists: durable once, whatever is repeated."""

import dataclasses

import pytest

from chukan.errors import Problem
from chukan.tenants.rows import AcceptedBatch
from chukan.tenants.states import InquiryState, Outcome, shard_of


async def test_a_list_is_stored_whole(bench, make):
    batch = make.batch(42)
    lines = [make.line(batch, n) for n in range(3)]
    assert await bench.sets.accept([batch], lines) == [AcceptedBatch(batch.batch, fresh=True, same_body=True)]
    ids = [line.id for line in lines]
    queries = {row["id"]: row for row in await bench.rows(42, "queries", *ids)}
    assert {line.id: (line.person, line.request, line.batch) for line in lines} == {
        line: (row["person"], row["request"], row["batch"]) for line, row in queries.items()
    }
    assert [row["sealed"] for row in await bench.rows(42, "outbox", *ids)] == [b"sealed permit request"] * 3
    assert await bench.rows(42, "records", *ids) == []
    work = await bench.work("inquiry_work", ids[1])
    assert (work["agency"], work["ordinal"], work["state"], work["outcome"]) == (42, 1, 10, 0)
    assert (work["due"], work["deadline"], work["tries"]) == (lines[1].due, lines[1].deadline, 0)
    assert await bench.steps(42, ids[1]) == [(None, 10)]


async def test_one_set_serves_any_mix_of_agencies(bench, make):
    batches = [make.batch(agency) for agency in (99999, 1, 42, 1)]
    lines = [make.line(batch) for batch in batches]
    assert [each.batch for each in await bench.sets.accept(batches, lines)] == [batch.batch for batch in batches]
    for line in lines:
        (row,) = await bench.rows(line.agency, "queries", line.id)
        assert row["agency"] == line.agency


@pytest.mark.requirement("TXR-03")
async def test_a_repeat_gets_the_first_batch_and_stores_nothing(bench, make):
    first = make.batch(2)
    line = make.line(first)
    await bench.sets.accept([first], [line])
    again = dataclasses.replace(first, batch=make.id())
    other_line = make.line(again)
    assert await bench.sets.accept([again], [other_line]) == [AcceptedBatch(first.batch, fresh=False, same_body=True)]
    assert await bench.rows(2, "queries", other_line.id) == []
    assert await bench.work("inquiry_work", other_line.id) is None


@pytest.mark.requirement("TXR-03")
async def test_a_repeat_writes_so_that_its_answer_is_durable(bench, make):
    batch = make.batch(2)
    line = make.line(batch)
    await bench.sets.accept([batch], [line])
    await bench.sets.accept([batch], [line])
    (row,) = await bench.rows(2, "idempotency", batch.key, by="key")
    assert row["tries"] == 2


async def test_the_same_key_with_another_body_is_told(bench, make):
    first = make.batch(3)
    await bench.sets.accept([first], [make.line(first)])
    other = make.batch(3, key=first.key)
    assert await bench.sets.accept([other], [make.line(other)]) == [
        AcceptedBatch(first.batch, fresh=False, same_body=False)
    ]


async def test_of_two_with_one_key_in_a_call_the_first_wins(bench, make):
    first = make.batch(1)
    second = make.batch(1, key=first.key, body=first.body)
    elsewhere = make.batch(2, key=first.key)
    lines = [make.line(batch) for batch in (first, second, elsewhere)]
    assert await bench.sets.accept([first, second, elsewhere], lines) == [
        AcceptedBatch(first.batch, fresh=True, same_body=True),
        AcceptedBatch(first.batch, fresh=False, same_body=True),
        AcceptedBatch(elsewhere.batch, fresh=True, same_body=True),
    ]
    stored = [await bench.work("inquiry_work", line.id) for line in lines]
    assert [row is not None for row in stored] == [True, False, True]


async def test_a_line_that_closes_at_once_has_its_record_and_no_outbox(bench, make):
    batch = make.batch(1)
    line = make.line(batch)
    closed = dataclasses.replace(
        line, state=InquiryState.NO_CODE, outcome=Outcome.NO_CODE, outbox=None, record=make.record(line.id)
    )
    await bench.sets.accept([batch], [closed])
    (record,) = await bench.rows(1, "records", line.id)
    assert (record["label"], record["commitment"]) == (closed.record.label, closed.record.commitment)
    assert await bench.rows(1, "outbox", line.id) == []
    assert await bench.admin.fetchval("SELECT count(*) FROM chukan.to_sequence WHERE record = $1", line.id) == 1


@pytest.mark.parametrize("state", [InquiryState.ACCEPTED, InquiryState.STOPPED])
async def test_effect_and_record_go_together_or_not_at_all(bench, make, state):
    batch = make.batch(1)
    line = make.line(batch, state=state)
    wrong = dataclasses.replace(line, record=make.record(line.id) if state is InquiryState.ACCEPTED else None)
    with pytest.raises(Problem, match="internal"):
        await bench.sets.accept([batch], [wrong])
    assert await bench.rows(1, "idempotency", batch.key, by="key") == []


async def test_a_record_of_another_line_is_refused(bench, make):
    batch = make.batch(1)
    line = make.line(batch, state=InquiryState.NO_CODE, record=make.record(make.id()))
    with pytest.raises(Problem, match="internal"):
        await bench.sets.accept([batch], [line])


async def test_a_line_of_another_agency_than_its_batch_is_not_stored(bench, make):
    batch = make.batch(1)
    line = make.line(batch, agency=2)
    await bench.sets.accept([batch], [line])
    assert await bench.work("inquiry_work", line.id) is None


@pytest.mark.parametrize(("agency", "generation"), [(1, 2), (77, 1)])
async def test_a_stale_generation_refuses_the_whole_set(bench, make, agency, generation):
    good, stale = make.batch(2), make.batch(agency, generation=generation)
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.accept([good, stale], [make.line(good)])
    assert await bench.rows(2, "idempotency", good.key, by="key") == []


async def test_the_database_computes_the_same_shards(bench):
    rows = await bench.admin.fetch("SELECT agency, shard FROM chukan.agencies")
    assert len(rows) >= 6
    assert {row["agency"]: row["shard"] for row in rows} == {row["agency"]: shard_of(row["agency"]) for row in rows}


async def test_an_empty_set_does_nothing(bench):
    assert await bench.sets.accept([], []) == []
    assert await bench.sets.settle_inquiries([], []) == []
    assert await bench.sets.deliver_answers([]) == []
    assert await bench.sets.provide([]) == []


async def linked(bench, make, agency: int, version: int = 3) -> bytes:
    """A person whose link has a version."""
    person = make.digest()
    await bench.admin.execute(
        f"INSERT INTO a{agency:05d}.codes (person, status, version, addressee, code_digest, code)"
        " VALUES ($1, 2, $2, $3, $4, $5)",
        person, version, b"addressee", make.digest(), b"code",
    )  # fmt: skip
    return person


@pytest.mark.requirement("SYM-09")
async def test_nothing_is_asked_by_a_link_that_changed_since_it_was_judged(bench, make):
    person = await linked(bench, make, 42)
    stale, other = make.batch(42), make.batch(1)
    lines = [
        make.line(stale, person=person, link_version=3),
        make.line(stale, 1, person=person, link_version=2),
        make.line(other),
    ]
    again, fresh = await bench.sets.accept([stale, other], lines)
    assert (again, fresh) == (
        AcceptedBatch(stale.batch, fresh=False, same_body=False, again=True),
        AcceptedBatch(other.batch, fresh=True, same_body=True),
    )
    assert [await bench.work("inquiry_work", line.id) is None for line in lines] == [True, True, False]
    assert await bench.rows(42, "idempotency", stale.key, by="key") == []
    right = [dataclasses.replace(line, link_version=3) for line in lines[:2]]
    assert [each.fresh for each in await bench.sets.accept([stale], right)] == [True]
    # A repeat says the same whatever has become of the link, once it was judged anew.
    assert [each.again for each in await bench.sets.accept([stale], lines[:2])] == [True]
    assert [each.fresh for each in await bench.sets.accept([stale], right)] == [False]


async def test_a_link_that_is_being_changed_is_not_waited_for(bench, make):
    person = await linked(bench, make, 2)
    batch, admin = make.batch(2), await bench.admin_too()
    async with admin.transaction():
        await admin.execute("UPDATE a00002.codes SET version = 4 WHERE person = $1", person)
        (found,) = await bench.sets.accept([batch], [make.line(batch, person=person, link_version=3)])
    assert found.again


@pytest.mark.requirement("INQ-08")
async def test_nothing_is_asked_under_a_delegation_that_was_ended(bench, make):
    half, ended = make.id(), make.id()
    for each, state in ((half, "in_force"), (ended, "ended")):
        await bench.admin.execute(
            "INSERT INTO a00003.delegations (id, state, body) VALUES ($1, $2, $3)", each, state, b"x"
        )
    batches = [make.batch(3) for _ in range(3)]
    under = (half, ended, make.id())
    lines = [make.line(batch, delegation=each) for batch, each in zip(batches, under, strict=True)]
    assert [(each.fresh, each.again) for each in await bench.sets.accept(batches, lines)] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    batch, admin = make.batch(3), await bench.admin_too()
    async with admin.transaction():
        # As an officer's end does it: whoever is about to ask does not wait for it, and does not overtake it.
        await admin.execute("UPDATE chukan.agencies SET hold_version = hold_version + 1 WHERE agency = 3")
        await admin.execute("UPDATE a00003.delegations SET state = 'ended' WHERE id = $1", half)
        (found,) = await bench.sets.accept([batch], [make.line(batch, delegation=half)])
        assert found.again
    await bench.admin.execute("UPDATE chukan.agencies SET hold_version = 0 WHERE agency = 3")
