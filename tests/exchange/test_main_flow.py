"""The main job through two exchanges, two cells and the network: each outcome, with its record on each side."""

import datetime as dt

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.admin import PiaEntry, PiaFlags, StopEntry, Stops
from chukan.platform.wire.agency import ReviewDecision, ReviewPrepare
from chukan.tenants import directory

ASKS, GIVES, ASKS_WEST, GIVES_WEST = (
    "9901131121000001",
    "9901011002000001",
    "9901271004000001",
    "9901401307000001",
)


@pytest.mark.requirement("PRV-04", "TXR-01", "REC-01")
@pytest.mark.parametrize("gives", [GIVES, GIVES_WEST], ids=["same-cell", "other-cell"])
async def test_a_query_is_answered_from_the_copy_and_both_sides_hold_the_record(nation, gives):
    addressee = await nation.person(ASKS, gives)
    batch = await nation.ask(ASKS, [nation.line(addressee, gives)])
    assert [line.state for line in batch.lines] == ["accepted"]
    done = await nation.answered(ASKS, batch)
    assert [(line.state, line.outcome) for line in done.lines] == [("answered", "provided")]
    collected = await nation.west.inquiries.collect(nation.agency(ASKS), batch.batch)
    content = collected.lines[0].content
    assert content is not None
    assert set(content.copies[0].items.values()) == {"0"}
    (asked,) = await nation.records(ASKS)
    (gave,) = await nation.records(gives)
    assert (asked.fields.outcome, gave.fields.outcome) == ("provided", "provided")
    assert asked.fields.reference == gave.fields.reference is not None
    assert asked.fields.items == gave.fields.items
    assert asked.fields.id != gave.fields.id


@pytest.mark.requirement("PRV-10", "PRV-09")
async def test_an_item_without_a_value_leaves_as_a_reason_code(nation):
    addressee = await nation.person(ASKS, GIVES_WEST, gaps=True)
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)]))
    assert [line.outcome for line in done.lines] == ["provided_with_gaps"]


@pytest.mark.requirement("PRV-09", "REC-01")
async def test_a_person_without_a_copy_has_no_record_and_both_sides_say_so(nation):
    addressee = await nation.person(ASKS, GIVES_WEST, copy=False)
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)]))
    assert [(line.state, line.outcome) for line in done.lines] == [("answered", "no_record")]
    assert [r.fields.outcome for r in await nation.records(ASKS)] == ["no_record"]
    assert [r.fields.outcome for r in await nation.records(GIVES_WEST)] == ["no_record"]


@pytest.mark.requirement("PRV-09", "INQ-02")
async def test_a_person_whose_code_is_not_acquired_closes_at_once_with_the_inquirers_record_only(nation):
    batch = await nation.ask(ASKS, [nation.line("000000000099999", GIVES)])
    assert [(line.state, line.outcome, line.reason) for line in batch.lines] == [("no_code", "no_code", "no_code")]
    (record,) = await nation.records(ASKS)
    assert (record.fields.outcome, record.fields.reference) == ("no_code", None)
    assert await nation.records(GIVES) == []


@pytest.mark.requirement("PRV-09")
async def test_a_provider_without_a_code_for_the_person_is_told_by_the_network(nation):
    addressee = f"{next(nation.tokens):015d}"
    await nation.acquire(ASKS, [(addressee, "99000000010")])
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)]))
    assert [(line.outcome, line.reason) for line in done.lines] == [("no_code", "provider_has_no_code")]
    (record,) = await nation.records(ASKS)
    assert record.fields.reference is not None


@pytest.mark.requirement("INQ-05", "REC-01")
async def test_without_a_published_assessment_the_network_refuses_and_the_record_says_so(nation):
    addressee = await nation.person(ASKS, GIVES)
    await nation.network.put_pia(PiaFlags(flags=[PiaEntry(agency=GIVES, published=False)]))
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    assert [(line.outcome, line.reason) for line in done.lines] == [("not_permitted", "pia_unpublished")]
    (record,) = await nation.records(ASKS)
    assert record.fields.pia_refusal


@pytest.mark.requirement("PRV-09", "INQ-02", "LAW-01")
async def test_what_the_list_does_not_name_never_leaves_the_platform(nation):
    addressee = await nation.person(ASKS, GIVES)
    batch = await nation.ask(ASKS, [nation.line(addressee, ASKS)])
    assert [(line.state, line.outcome) for line in batch.lines] == [("not_permitted", "not_permitted")]
    assert (await nation.network.state()).exchanges == {}


@pytest.mark.requirement("PRV-09", "REP-01")
async def test_a_malformed_line_is_refused_by_its_number_and_the_others_go_on(nation):
    addressee = await nation.person(ASKS, GIVES)
    lines = [nation.line(addressee, GIVES), nation.line(addressee, GIVES, kind="TMX9999999999999")]
    batch = await nation.ask(ASKS, lines)
    assert [line.outcome for line in batch.lines] == [None, "bad_request"]
    assert batch.lines[1].id is None
    assert batch.lines[1].problem.code == "unknown_kind"
    assert len((await nation.answered(ASKS, batch)).lines) == 1
    assert len(await nation.records(ASKS)) == 1


@pytest.mark.requirement("PRV-05", "AUT-05")
async def test_a_held_copy_leaves_only_after_two_officers(nation):
    addressee = await nation.person(ASKS, GIVES_WEST, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)])
    provider = nation.agency(GIVES_WEST)
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    (review,) = (await nation.west.reviews.list(provider)).reviews
    assert review.addressee == addressee
    assert not review.escalated
    (sets,) = [sets for cell, sets in nation.west.sets.items() if cell == provider.cell]
    assert await sets.reviews_lapsing(review.expires_at - dt.timedelta(seconds=1)) == {}
    assert await sets.reviews_lapsing(review.expires_at + dt.timedelta(minutes=1)) == {provider.number: 1}
    first, second = nation.officer(GIVES_WEST, "first"), nation.officer(GIVES_WEST, "second")
    with pytest.raises(Problem, match="review_not_prepared"):
        await nation.west.reviews.approve(provider, second, review.id, ReviewDecision())
    await nation.west.reviews.prepare(provider, first, review.id, ReviewPrepare(decision="provide"))
    with pytest.raises(Problem, match="second_officer_required"):
        await nation.east.reviews.approve(provider, first, review.id, ReviewDecision())
    assert await nation.records(GIVES_WEST) == []
    await nation.east.reviews.approve(provider, second, review.id, ReviewDecision())
    done = await nation.answered(ASKS, batch)
    assert [(line.state, line.outcome) for line in done.lines] == [("answered", "provided")]
    assert [r.fields.outcome for r in await nation.records(GIVES_WEST)] == ["provided"]
    assert [r.fields.outcome for r in await nation.records(ASKS)] == ["provided"]
    with pytest.raises(Problem, match="already_final"):
        await nation.east.reviews.approve(provider, second, review.id, ReviewDecision())


@pytest.mark.requirement("PRV-05", "PRV-09", "PRV-07")
async def test_officers_may_refuse_and_the_withheld_flag_is_carried(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES, withheld=True)])
    provider = nation.agency(GIVES)
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    (review,) = (await nation.east.reviews.list(provider)).reviews
    prepared = ReviewPrepare(decision="refuse")
    await nation.east.reviews.prepare(provider, nation.officer(GIVES, "first"), review.id, prepared)
    await nation.east.reviews.refuse(provider, nation.officer(GIVES, "second"), review.id, ReviewDecision())
    done = await nation.answered(ASKS, batch)
    assert [(line.state, line.outcome) for line in done.lines] == [("refused", "refused")]
    for code in (ASKS, GIVES):
        (record,) = await nation.records(code)
        assert record.fields.outcome == "refused"
        assert record.fields.withheld


@pytest.mark.requirement("BRE-03", "PRV-09")
async def test_a_stopped_kind_is_stopped_on_our_side_and_by_the_network(nation):
    addressee = await nation.person(ASKS, GIVES)
    await nation.network.put_stops(Stops(stops=[StopEntry(kind="TM00000000000002")]))
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    assert [line.outcome for line in done.lines] == ["stopped"]
    nation.snapshot = directory.stop(nation.snapshot, nation.clock.now(), kind="TM00000000000002")
    await nation.publish()
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    assert [(line.state, line.reason) for line in batch.lines] == [("stopped", "kind_stopped")]


@pytest.mark.requirement("TXR-03")
async def test_a_repeated_key_gets_the_first_batch_and_another_body_is_refused(nation):
    addressee = await nation.person(ASKS, GIVES)
    lines = [nation.line(addressee, GIVES)]
    first = await nation.ask(ASKS, lines, key="k-0000001")
    await nation.answered(ASKS, first)
    again = await nation.ask(ASKS, lines, key="k-0000001", via="west")
    assert again.batch == first.batch
    assert [line.id for line in again.lines] == [line.id for line in first.lines]
    with pytest.raises(Problem, match="idempotency_key_reused"):
        await nation.ask(ASKS, [*lines, *lines], key="k-0000001")
    assert len(await nation.records(ASKS)) == 1


async def test_a_line_that_is_cancelled_in_time_has_the_cancelled_record(nation):
    addressee = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    view = await nation.east.inquiries.cancel(nation.agency(ASKS), nation.caller(ASKS), batch.batch)
    assert [(line.state, line.outcome) for line in view.lines] == [("cancelled", "cancelled")]
    assert [r.fields.outcome for r in await nation.records(ASKS)] == ["cancelled"]


async def test_lines_are_seen_by_their_own_agency_only(nation):
    addressee = await nation.person(ASKS, GIVES)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.answered(ASKS, batch)
    for call in (nation.east.inquiries.view, nation.east.inquiries.collect):
        with pytest.raises(Problem, match="not_found"):
            await call(nation.agency(GIVES), batch.batch)
        with pytest.raises(Problem, match="not_found"):
            await call(nation.agency(ASKS_WEST), batch.lines[0].id)


async def test_a_large_list_is_answered_line_by_line(nation):
    addressee = await nation.person(ASKS_WEST, GIVES)
    batch = await nation.ask(ASKS_WEST, [nation.line(addressee, GIVES) for _ in range(1000)], via="west")
    done = await nation.answered(ASKS_WEST, batch)
    assert {line.outcome for line in done.lines} == {"provided"}
    assert len(done.lines) == 1000
    assert len({r.fields.id for r in await nation.records(GIVES)}) == 1000
