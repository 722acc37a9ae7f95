"""Sending a failed line again (再送): an officer's act, one new line for an old one, both with their own records."""

import pytest

from chukan.errors import Problem

ASKS, GIVES, GIVES_WEST = "9901131121000001", "9901011002000001", "9901401307000001"


@pytest.mark.requirement("INQ-10")
async def test_a_line_that_failed_is_sent_again_once_and_both_lines_keep_their_records(nation):
    addressee = f"{next(nation.tokens):015d}"
    first = await nation.ask(ASKS, [nation.line(addressee, GIVES_WEST)])
    assert first.lines[0].reason == "no_code"
    resident = "99000000770"
    await nation.acquire(ASKS, [(addressee, resident)])
    await nation.acquire(GIVES_WEST, [(addressee, resident)])
    await nation.register(GIVES_WEST, addressee)

    agency, officer = nation.agency(ASKS), nation.officer(ASKS, "first")
    again = await nation.east.inquiries.resend(agency, officer, first.lines[0].id)
    assert [(line.line, line.state, line.resends) for line in again.lines] == [(0, "accepted", first.lines[0].id)]
    twice = await nation.west.inquiries.resend(agency, nation.officer(ASKS, "second"), first.batch)
    assert [line.id for line in twice.lines] == [again.lines[0].id]

    done = await nation.east.inquiries.wait(agency, again.lines[0].id, 30.0)
    assert [line.outcome for line in done.lines] == ["provided"]
    shown = await nation.west.inquiries.view(agency, again.lines[0].id)
    assert shown.lines[0].resends == first.lines[0].id
    assert (await nation.west.inquiries.view(agency, first.batch)).lines[0].state == "no_code"
    outcomes = {stored.fields.id: stored.fields.outcome for stored in await nation.records(ASKS)}
    assert outcomes == {first.lines[0].id: "no_code", again.lines[0].id: "provided"}
    assert len(await nation.records(GIVES_WEST)) == 1
    with pytest.raises(Problem, match="not_resendable"):
        await nation.east.inquiries.resend(agency, officer, again.lines[0].id)


@pytest.mark.requirement("INQ-10")
async def test_only_the_lines_of_a_list_that_failed_are_sent_again_under_their_numbers(nation):
    addressee = await nation.person(ASKS, GIVES)
    lines = [nation.line(addressee, GIVES), nation.line(f"{next(nation.tokens):015d}", GIVES)]
    lines.append(nation.line(addressee, ASKS))
    batch = await nation.ask(ASKS, lines)
    await nation.answered(ASKS, batch)
    again = await nation.east.inquiries.resend(nation.agency(ASKS), nation.officer(ASKS, "first"), batch.batch)
    shown = [(line.line, line.state, line.resends) for line in again.lines]
    assert shown == [(1, "no_code", batch.lines[1].id), (2, "not_permitted", batch.lines[2].id)]
    assert len(await nation.records(ASKS)) == 5, "a line that fails again has a record again"
    assert len(await nation.records(GIVES)) == 1


@pytest.mark.requirement("INQ-10")
async def test_nothing_is_sent_again_that_has_its_answer_or_that_is_not_ours(nation):
    addressee = await nation.person(ASKS, GIVES)
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)])
    await nation.answered(ASKS, batch)
    with pytest.raises(Problem, match="not_resendable"):
        await nation.east.inquiries.resend(nation.agency(ASKS), nation.officer(ASKS, "first"), batch.batch)
    with pytest.raises(Problem, match="not_found"):
        await nation.east.inquiries.resend(nation.agency(GIVES), nation.officer(GIVES, "first"), batch.batch)
