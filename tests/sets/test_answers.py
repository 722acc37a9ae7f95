"""Answers that the network pushes, their collection, and their purge."""

import asyncio
import dataclasses
import datetime as dt

import pytest

from chukan.errors import Problem
from chukan.tenants.states import InquiryState, Outcome, Side


async def accepted(bench, make, count=1, agency=1):
    batch = make.batch(agency)
    lines = [make.line(batch, n) for n in range(count)]
    await bench.sets.accept([batch], lines)
    return lines


async def records_of(bench, agency, line):
    own = await bench.rows(agency, "records", line)
    amendments = await bench.rows(agency, "records", line, by="amends")
    return len(own), len(amendments)


@pytest.mark.requirement("TXR-03")
async def test_an_answer_a_hundred_times_has_one_effect(bench, make):
    (line,) = await accepted(bench, make)
    answer = make.answer(line)
    words = await asyncio.gather(*(bench.sets.deliver_answers([answer]) for _ in range(20)))
    assert sorted(word for (word,) in words) == ["applied"] + ["repeat"] * 19
    assert await bench.sets.deliver_answers([answer] * 80) == ["repeat"] * 80
    assert await records_of(bench, 1, line.id) == (1, 0)
    (stored,) = await bench.rows(1, "answers", line.id)
    assert stored["sealed"] == b"sealed answer"
    (inbox,) = await bench.rows(1, "inbox", answer.inbox)
    assert inbox["tries"] == 21, "within a call duplicates are split, and every call writes"


async def test_an_answer_may_overtake_its_permit(bench, make):
    (line,) = await accepted(bench, make)
    assert await bench.sets.deliver_answers([make.answer(line)]) == ["applied"]
    grants = await bench.all_grants(Side.INQUIRER)
    assert line.id not in {row.id for row in await bench.sets.take_inquiries(grants, 5000)}


async def test_under_review_is_interim_and_one_final_outcome_follows(bench, make):
    (line,) = await accepted(bench, make)
    interim = make.answer(line, Outcome.UNDER_REVIEW)
    assert await bench.sets.deliver_answers([interim]) == ["applied"]
    assert await records_of(bench, 1, line.id) == (0, 0)
    assert await bench.sets.deliver_answers([make.answer(line, Outcome.UNDER_REVIEW)]) == ["repeat"]
    refused = make.answer(line, Outcome.REFUSED, state=InquiryState.REFUSED, answer=None)
    assert await bench.sets.deliver_answers([refused]) == ["applied"]
    assert await records_of(bench, 1, line.id) == (1, 0)
    assert await bench.steps(1, line.id) == [(None, 10), (10, 40), (40, 60)]
    assert await bench.sets.deliver_answers([interim]) == ["repeat"]
    assert await bench.sets.deliver_answers([make.answer(line, Outcome.UNDER_REVIEW)]) == ["late"]
    assert await records_of(bench, 1, line.id) == (1, 0)


async def test_both_messages_of_a_line_in_one_call_are_taken_in_turn(bench, make):
    line, other = await accepted(bench, make, 2)
    later = make.answer(line, Outcome.REFUSED)
    rows = [make.answer(line, Outcome.UNDER_REVIEW), make.answer(other), make.answer(line), later]
    assert await bench.sets.deliver_answers(rows) == ["applied", "applied", "applied", "late"]
    assert await records_of(bench, 1, line.id) == (1, 1)
    assert await bench.steps(1, line.id) == [(None, 10), (10, 40), (40, 50)]


@pytest.mark.requirement("TXR-03", "PRV-03")
@pytest.mark.parametrize("end", [InquiryState.CANCELLED, InquiryState.EXPIRED])
async def test_a_late_answer_is_dropped_and_amended(bench, make, end):
    (line,) = await accepted(bench, make, agency=42)
    await bench.sets.close_inquiries([make.settle(line, end, Outcome.EXPIRED)])
    answer = make.answer(line)
    assert await bench.sets.deliver_answers([answer]) == ["late"]
    assert await bench.rows(42, "answers", line.id) == []
    (amendment,) = await bench.rows(42, "records", line.id, by="amends")
    assert amendment["id"] == answer.amendment.id
    assert (await bench.work("inquiry_work", line.id))["state"] == end
    assert await bench.sets.deliver_answers([answer]) == ["repeat"]
    assert await records_of(bench, 42, line.id) == (1, 1)


@pytest.mark.requirement("TXR-03")
async def test_an_old_answer_under_a_new_id_says_nothing_new_and_amends_nothing(bench, make):
    (line,) = await accepted(bench, make)
    assert await bench.sets.deliver_answers([make.answer(line)]) == ["applied"]
    assert await bench.sets.deliver_answers([make.answer(line), make.answer(line)]) == ["late", "late"]
    assert await records_of(bench, 1, line.id) == (1, 0)


async def test_an_unknown_line_leaves_no_key_so_its_repeat_is_unknown_again(bench, make):
    ghost = make.line(make.batch())
    answer = make.answer(ghost)
    assert await bench.sets.deliver_answers([answer]) == ["unknown"]
    assert await bench.rows(1, "inbox", answer.inbox) == []
    assert await bench.sets.deliver_answers([answer]) == ["unknown"]


async def test_an_answer_for_another_agency_finds_no_line(bench, make):
    (line,) = await accepted(bench, make, agency=1)
    assert await bench.sets.deliver_answers([make.answer(line, agency=2)]) == ["unknown"]
    assert (await bench.work("inquiry_work", line.id))["state"] == InquiryState.ACCEPTED


async def test_a_stale_generation_is_refused(bench, make):
    (line,) = await accepted(bench, make)
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.deliver_answers([make.answer(line, generation=9)])


async def test_a_final_answer_without_record_is_refused(bench, make):
    (line,) = await accepted(bench, make)
    with pytest.raises(Problem, match="internal"):
        await bench.sets.deliver_answers([dataclasses.replace(make.answer(line), record=None)])


async def test_collecting_brings_the_answer_again_and_again(bench, make):
    lines = await accepted(bench, make, 3)
    answered, open_line, ended = lines
    await bench.sets.deliver_answers([make.answer(answered)])
    await bench.sets.close_inquiries([make.settle(ended, InquiryState.CANCELLED, Outcome.CANCELLED)])
    for _ in range(2):
        got = await bench.sets.collect(1, 1, [ended.id, answered.id, open_line.id, make.id()])
        assert [(row.id, row.state, row.answer) for row in got] == [
            (ended.id, InquiryState.CANCELLED, None),
            (answered.id, InquiryState.COLLECTED, b"sealed answer"),
            (open_line.id, InquiryState.ACCEPTED, None),
        ]
    assert await bench.steps(1, answered.id) == [(None, 10), (10, 50), (50, 80)]
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.collect(1, 2, [answered.id])


async def test_a_second_collection_is_fenced(bench, make):
    (line,) = await accepted(bench, make)
    await bench.sets.deliver_answers([make.answer(line)])
    await bench.sets.collect(1, 1, [line.id])
    (again,) = await bench.fenced(bench.sets.collect(1, 1, [line.id]))
    assert again.answer == b"sealed answer"


@pytest.mark.requirement("INQ-09")
async def test_results_are_purged_after_their_time_and_records_stay(bench, make):
    answered, collected, fresh, ended, waiting = await accepted(bench, make, 5, agency=1788)
    await bench.sets.deliver_answers([make.answer(line) for line in (answered, collected, fresh)])
    await bench.sets.collect(1788, 1, [collected.id])
    await bench.sets.close_inquiries([make.settle(ended, InquiryState.CANCELLED, Outcome.CANCELLED)])
    old = make.now - dt.timedelta(days=500)
    await bench.admin.execute(
        "UPDATE chukan.inquiry_work SET updated_at = $1 WHERE id = ANY($2)",
        old,
        [answered.id, collected.id, ended.id, waiting.id],
    )
    grants = await bench.all_grants(Side.INQUIRER)
    before = old + dt.timedelta(days=1)
    assert await bench.sets.purge_results(grants, before, 2) == 2
    assert await bench.sets.purge_results(grants, before, 100) == 1
    assert await bench.sets.purge_results(grants, before, 100) == 0
    lines = [answered, collected, fresh, ended, waiting]
    states = {view.id: view.state for view in await bench.sets.inquiry_views(1788, ids=[line.id for line in lines])}
    assert [states[line.id] for line in lines] == [
        InquiryState.PURGED,
        InquiryState.PURGED,
        InquiryState.ANSWERED,
        InquiryState.PURGED,
        InquiryState.ACCEPTED,
    ]
    assert [row["id"] for row in await bench.rows(1788, "answers", *(line.id for line in lines))] == [fresh.id]
    assert len(await bench.rows(1788, "records", answered.id, collected.id, ended.id)) == 3
    (gone,) = await bench.sets.collect(1788, 1, [answered.id])
    assert (gone.state, gone.answer) == (InquiryState.PURGED, None)


async def test_a_purged_line_leaves_the_work_table_after_the_same_time_again(bench, make):
    (line,) = await accepted(bench, make, agency=1788)
    await bench.sets.close_inquiries([make.settle(line, InquiryState.CANCELLED, Outcome.CANCELLED)])
    grants = await bench.all_grants(Side.INQUIRER)
    old = make.now - dt.timedelta(days=900)
    for _ in range(2):
        await bench.admin.execute("UPDATE chukan.inquiry_work SET updated_at = $1 WHERE id = $2", old, line.id)
        await bench.sets.purge_results(grants, old + dt.timedelta(days=1), 100)
    assert await bench.work("inquiry_work", line.id) is None
    assert await records_of(bench, 1788, line.id) == (1, 0)
    assert await bench.sets.deliver_answers([make.answer(line)]) == ["unknown"]
