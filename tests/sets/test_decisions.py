"""Officers' decisions on held provisions, and the review list."""

import dataclasses

import pytest

from chukan.errors import Problem
from chukan.tenants.rows import DecideRow
from chukan.tenants.states import Outcome, ProvisionState, Side


@pytest.fixture
async def held(bench, make):
    row = make.provide(3, held=True)
    assert await bench.sets.provide([row]) == ["stored"]
    return row


@pytest.fixture
def decision(make, held):
    return DecideRow(
        agency=3,
        generation=1,
        id=held.id,
        outcome=Outcome.REFUSED,
        reason="officer",
        person=None,
        link_version=0,
        hold_version=0,
        snapshot=0,
        outbox=b"sealed final answer",
        record=make.record(held.id),
    )


async def test_a_decision_ends_the_hold_with_its_record_and_is_sent(bench, make, held, decision):
    assert await bench.sets.decide_provisions([decision]) == ["applied"]
    work = await bench.work("provision_work", held.id)
    assert (work["state"], work["outcome"], work["reason"], work["outbox"]) == (50, Outcome.REFUSED, "officer", True)
    grants = await bench.all_grants(Side.PROVIDER)
    (taken,) = [row for row in await bench.sets.take_provisions(grants, 5000) if row.id == held.id]
    assert taken.outbox == b"sealed final answer"
    assert len(await bench.rows(3, "records", held.id)) == 1
    assert await bench.steps(3, held.id) == [(None, 40), (40, 50)]


@pytest.mark.requirement("TXR-03")
async def test_two_decisions_have_one_outcome(bench, make, held, decision):
    other = dataclasses.replace(decision, outcome=Outcome.PROVIDED)
    assert await bench.sets.decide_provisions([decision, other]) == ["applied", "late"]
    assert await bench.fenced(bench.sets.decide_provisions([other])) == ["late"]
    assert (await bench.work("provision_work", held.id))["outcome"] == Outcome.REFUSED


async def test_a_decision_comes_too_late_after_the_deadline(bench, make, held, decision):
    grants = await bench.all_grants(Side.PROVIDER)
    lapse = make.receipt(held, ProvisionState.LAPSED, Outcome.EXPIRED, record=make.record(held.id))
    await bench.sets.settle_provisions(grants, [lapse])
    assert await bench.sets.decide_provisions([decision]) == ["late"]


@pytest.mark.parametrize("stale", [{"snapshot": 4}, {"hold_version": 1}, {"person": b"p" * 32, "link_version": 1}])
async def test_a_decision_on_other_facts_is_made_again(bench, held, decision, stale):
    assert await bench.sets.decide_provisions([dataclasses.replace(decision, **stale)]) == ["again"]
    assert (await bench.work("provision_work", held.id))["state"] == ProvisionState.HELD
    assert await bench.rows(3, "records", held.id) == []


async def test_a_decision_needs_the_generation_and_a_record_of_the_line(bench, make, decision):
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.decide_provisions([dataclasses.replace(decision, generation=3)])
    with pytest.raises(Problem, match="internal"):
        await bench.sets.decide_provisions([dataclasses.replace(decision, record=make.record(make.id()))])


async def test_the_interim_answer_may_be_sent_after_the_decision_without_undoing_it(bench, make, held, decision):
    await bench.sets.decide_provisions([decision])
    grants = await bench.all_grants(Side.PROVIDER)
    interim = make.receipt(held, ProvisionState.HELD, Outcome.UNDER_REVIEW)
    assert await bench.sets.settle_provisions(grants, [interim]) == ["late"]
    work = await bench.work("provision_work", held.id)
    assert (work["state"], work["outbox"]) == (ProvisionState.ANSWERED, True)


async def test_the_review_list_shows_only_the_agencys_own(bench, make, held):
    done = make.provide(3)
    await bench.sets.provide([done])
    listed = {view.id: view for view in await bench.sets.provision_views(3, state=ProvisionState.HELD)}
    assert listed[held.id].notice == held.notice
    assert done.id not in listed
    assert [view.id for view in await bench.sets.provision_views(3, ids=[done.id])] == [done.id]
    assert await bench.sets.provision_views(2, ids=[held.id, done.id]) == []
    assert len(await bench.sets.provision_views(3, limit=1)) == 1
