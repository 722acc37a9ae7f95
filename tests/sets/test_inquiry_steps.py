"""The inquirer's steps: a line moves forward only, and has one final outcome and one record, whatever comes twice."""

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


async def take(bench, grants, lines):
    """What the worker finds of these lines: the cell is shared by the tests of a session."""
    wanted = {line.id for line in lines}
    return {row.id: row for row in await bench.sets.take_inquiries(grants, 5000) if row.id in wanted}


async def test_due_lines_are_taken_with_what_the_stage_needs(bench, make):
    (line,) = await accepted(bench, make, agency=42)
    grants = await bench.all_grants(Side.INQUIRER)
    row = (await take(bench, grants, [line]))[line.id]
    assert (row.agency, row.state, row.tries, row.deadline) == (42, InquiryState.ACCEPTED, 0, line.deadline)
    assert (row.request, row.outbox) == (line.request, line.outbox)


async def test_what_is_not_due_or_not_ours_is_not_taken(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    mine = [grant for grant in grants if grant.shard == (await bench.work("inquiry_work", line.id))["shard"]]
    others = [grant for grant in grants if grant not in mine]
    assert line.id in await take(bench, mine, [line])
    assert line.id not in await take(bench, others, [line])
    later = make.settle(line, InquiryState.PERMIT_REQUESTED, Outcome.NONE, drop_outbox=False)
    assert await bench.sets.settle_inquiries(grants, [later]) == ["applied"]
    assert line.id not in await take(bench, grants, [line])


async def test_each_shard_gives_its_share_before_a_flood_is_drained(bench, make):
    batch = make.batch(3)
    flood = [make.line(batch, n, due=make.now - dt.timedelta(days=1)) for n in range(40)]
    await bench.sets.accept([batch], flood)
    await accepted(bench, make, agency=99999)
    grants = await bench.all_grants(Side.INQUIRER)
    taken = await bench.sets.take_inquiries(grants, 30)
    assert len(taken) == 30
    assert {row.agency for row in taken} >= {3, 99999}


async def test_a_try_again_keeps_the_outbox_and_counts(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    again = make.settle(line, InquiryState.PERMIT_REQUESTED, Outcome.NONE, due=make.now, drop_outbox=False)
    assert await bench.sets.settle_inquiries(grants, [again]) == ["applied"]
    row = (await take(bench, grants, [line]))[line.id]
    assert (row.state, row.tries, row.outbox) == (InquiryState.PERMIT_REQUESTED, 1, line.outbox)


async def test_a_permit_is_kept_and_the_outbox_dropped(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    step = make.settle(line, InquiryState.PERMITTED, Outcome.NONE, due=make.now, permit=b"sealed permit")
    assert await bench.sets.settle_inquiries(grants, [step]) == ["applied"]
    assert [row["sealed"] for row in await bench.rows(1, "permits", line.id)] == [b"sealed permit"]
    assert (await take(bench, grants, [line]))[line.id].outbox is None
    assert await bench.steps(1, line.id) == [(None, 10), (10, 30)]
    assert await bench.sets.settle_inquiries(grants, [step]) == ["applied"], "a repeat of a lost reply"
    assert await bench.steps(1, line.id) == [(None, 10), (10, 30)]


@pytest.mark.requirement("TXR-03")
async def test_a_line_ends_once_with_one_record(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    first = make.settle(line, InquiryState.NOT_PERMITTED, Outcome.NOT_PERMITTED, reason="not_on_list")
    second = make.settle(line, InquiryState.EXPIRED, Outcome.EXPIRED)
    assert await bench.sets.settle_inquiries(grants, [first]) == ["applied"]
    assert await bench.sets.settle_inquiries(grants, [second]) == ["late"]
    assert await bench.fenced(bench.sets.close_inquiries([second])) == ["late"]
    (record,) = await bench.rows(1, "records", line.id)
    assert record["commitment"] == first.record.commitment
    (view,) = await bench.sets.inquiry_views(1, ids=[line.id])
    assert (view.state, view.outcome, view.reason) == (InquiryState.NOT_PERMITTED, Outcome.NOT_PERMITTED, "not_on_list")


async def test_of_two_steps_for_one_line_in_a_call_the_first_counts(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    steps = [
        make.settle(line, InquiryState.STOPPED, Outcome.STOPPED),
        make.settle(line, InquiryState.EXPIRED, Outcome.EXPIRED),
    ]
    assert await bench.sets.settle_inquiries(grants, steps) == ["applied", "late"]
    assert (await bench.work("inquiry_work", line.id))["state"] == InquiryState.STOPPED


async def test_a_permit_after_the_answer_is_late_but_kept_as_evidence(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    assert await bench.sets.deliver_answers([make.answer(line)]) == ["applied"]
    permit = make.settle(line, InquiryState.PERMITTED, Outcome.NONE, permit=b"sealed permit")
    assert await bench.sets.settle_inquiries(grants, [permit]) == ["late"]
    assert len(await bench.rows(1, "permits", line.id)) == 1
    work = await bench.work("inquiry_work", line.id)
    assert (work["state"], work["outbox"]) == (InquiryState.ANSWERED, False)


async def test_a_held_line_goes_back_to_nothing_but_may_end(bench, make):
    (line,) = await accepted(bench, make)
    grants = await bench.all_grants(Side.INQUIRER)
    assert await bench.sets.deliver_answers([make.answer(line, Outcome.UNDER_REVIEW)]) == ["applied"]
    for state in (InquiryState.PERMIT_REQUESTED, InquiryState.PERMITTED):
        assert await bench.sets.settle_inquiries(grants, [make.settle(line, state, Outcome.NONE)]) == ["late"]
    assert await bench.rows(1, "records", line.id) == []
    end = make.settle(line, InquiryState.EXPIRED, Outcome.EXPIRED)
    assert await bench.sets.settle_inquiries(grants, [end]) == ["applied"]
    assert await bench.steps(1, line.id) == [(None, 10), (10, 40), (40, 64)]


async def test_closing_needs_no_lease(bench, make):
    (line,) = await accepted(bench, make, agency=1788)
    assert await bench.sets.close_inquiries([make.settle(line, InquiryState.CANCELLED, Outcome.CANCELLED)]) == [
        "applied"
    ]
    assert len(await bench.rows(1788, "records", line.id)) == 1


async def test_an_unknown_line_is_late_and_leaves_nothing(bench, make):
    ghost = make.line(make.batch())
    step = make.settle(ghost, InquiryState.CANCELLED, Outcome.CANCELLED, permit=b"x")
    assert await bench.sets.close_inquiries([step]) == ["late"]
    assert await bench.rows(1, "records", ghost.id) == []
    assert await bench.rows(1, "permits", ghost.id) == []


async def test_a_final_step_without_record_is_refused_whole(bench, make):
    one, two = await accepted(bench, make, 2)
    steps = [
        make.settle(one, InquiryState.CANCELLED, Outcome.CANCELLED),
        dataclasses.replace(make.settle(two, InquiryState.CANCELLED, Outcome.CANCELLED), record=None),
    ]
    with pytest.raises(Problem, match="internal"):
        await bench.sets.close_inquiries(steps)
    assert (await bench.work("inquiry_work", one.id))["state"] == InquiryState.ACCEPTED


async def test_a_line_named_under_another_agency_is_not_touched(bench, make):
    (line,) = await accepted(bench, make, agency=1)
    foreign = dataclasses.replace(make.settle(line, InquiryState.CANCELLED, Outcome.CANCELLED), agency=2)
    assert await bench.sets.close_inquiries([foreign]) == ["late"]
    assert (await bench.work("inquiry_work", line.id))["state"] == InquiryState.ACCEPTED
    assert await bench.sets.inquiry_views(2, ids=[line.id]) == []
    assert await bench.sets.collect(2, 1, [line.id]) == []


@pytest.mark.requirement("INQ-12")
async def test_progress_is_visible_and_countable(bench, make):
    batch = make.batch(99999)
    lines = [make.line(batch, n) for n in range(5)]
    await bench.sets.accept([batch], lines)
    grants = await bench.all_grants(Side.INQUIRER)
    await bench.sets.settle_inquiries(
        grants,
        [
            make.settle(lines[1], InquiryState.PERMIT_REQUESTED, Outcome.NONE, drop_outbox=False),
            make.settle(lines[2], InquiryState.PERMITTED, Outcome.NONE),
            make.settle(lines[3], InquiryState.REFUSED, Outcome.REFUSED),
            make.settle(lines[4], InquiryState.EXPIRED, Outcome.EXPIRED),
        ],
    )
    views = await bench.sets.inquiry_views(99999, batch=batch.batch)
    assert [(view.ordinal, view.id, view.state) for view in views] == [
        (n, line.id, state)
        for n, (line, state) in enumerate(
            zip(
                lines,
                [
                    InquiryState.ACCEPTED,
                    InquiryState.PERMIT_REQUESTED,
                    InquiryState.PERMITTED,
                    InquiryState.REFUSED,
                    InquiryState.EXPIRED,
                ],
                strict=True,
            )
        )
    ]
    refused = await bench.sets.inquiry_views(99999, state=InquiryState.REFUSED)
    assert lines[3].id in {view.id for view in refused}
    assert {view.state for view in refused} == {InquiryState.REFUSED}
    counted = {(row.side, row.state): row.count for row in await bench.sets.backlog()}
    for state in (InquiryState.ACCEPTED, InquiryState.PERMIT_REQUESTED, InquiryState.PERMITTED):
        assert counted[Side.INQUIRER, state] >= 1


async def test_pages_follow_the_ids(bench, make):
    lines = await accepted(bench, make, 7, agency=2)
    seen = []
    after = None
    while page := await bench.sets.inquiry_views(2, after=after, limit=3):
        assert len(page) <= 3
        seen += [view.id for view in page]
        after = page[-1].id
    assert seen == sorted(seen)
    assert {line.id for line in lines} <= set(seen)


async def test_facts_of_lines_are_read_in_order(bench, make):
    (one,) = await accepted(bench, make, agency=42)
    (two,) = await accepted(bench, make, agency=1)
    hits = await bench.sets.read_requests([(1, two.id), (1, one.id), (42, one.id), (77, one.id)])
    assert [None if hit is None else hit.person for hit in hits] == [two.person, None, one.person, None]
    assert hits[0].request == two.request
