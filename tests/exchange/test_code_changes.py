"""Repair of links (付替・統合・確認): suspended until another officer confirms, with the whole history."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chukan.errors import Problem
from chukan.platform.wire.agency import CodeAsk, CodeLine, ReviewDecision, ReviewPrepare
from chukan.platform.wire.code_changes import (
    CodeChangeLine,
    CodeChangeLines,
    CodeConfirm,
    CodeMerge,
    CodeRelink,
    ConfirmLine,
    MergeLine,
    RelinkLine,
)
from chukan.tenants import code_changes, copies, own_flags
from chukan.tests.support.nation import running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="nation")
async def shared(embedded_server: Any, tmp_path_factory: Any) -> AsyncIterator[Any]:
    """One world for all tests of this file: each has people of its own."""
    async with running(embedded_server, tmp_path_factory.mktemp("nation")) as world:
        yield world


ASKS, GIVES = "9901131121000001", "9901011002000001"
TAX = "TM00000000000002"


class Town:
    """The provider's two officers at work."""

    def __init__(self, nation: Any, code: str = GIVES) -> None:
        self.nation, self.code = nation, code
        self.agency = nation.agency(code)
        self.first, self.second = nation.officer(code, "first"), nation.officer(code, "second")

    async def relink(
        self, addressee: str, to: str | None, *, key: str | None = None, officer: Any = None
    ) -> CodeChangeLines:
        body = CodeRelink(lines=[RelinkLine(addressee=addressee, to=to, reason="点検")])
        key = key or str(uuid.uuid4())
        return await self.nation.east.code_changes.relink(self.agency, officer or self.first, body, key, b"content")

    async def merge(self, addressee: str, into: str) -> CodeChangeLine:
        body = CodeMerge(lines=[MergeLine(addressee=addressee, into=into, reason="二重登録")])
        desk = self.nation.east.code_changes
        return (await desk.merge(self.agency, self.first, body, str(uuid.uuid4()), b"content")).lines[0]

    async def decide(self, change: Any, decision: Any = "apply", officer: Any = None) -> CodeChangeLine:
        body = CodeConfirm(lines=[ConfirmLine(change=change, decision=decision)])
        return (await self.nation.west.code_changes.confirm(self.agency, officer or self.second, body)).lines[0]

    async def statuses(self, *addressees: str) -> list[str]:
        ask = CodeAsk(lines=[CodeLine(addressee=addressee) for addressee in addressees])
        return [line.status for line in (await self.nation.west.codes.search(self.agency, ask)).lines]

    async def answer(self, asker: str, addressee: str) -> str | None:
        nation = self.nation
        batch = await nation.ask(asker, [nation.line(addressee, self.code)])
        return (await nation.answered(asker, batch)).lines[0].outcome


def code_of(line: CodeChangeLine) -> str | None:
    return None if line.problem is None else line.problem.code


@pytest.mark.requirement("SYM-09")
async def test_a_relinked_code_answers_nothing_until_another_officer_has_confirmed_it(nation: Any) -> None:
    town = Town(nation)
    wrong = await nation.person(ASKS, GIVES)
    right = f"{next(nation.tokens):015d}"
    assert await town.answer(ASKS, wrong) == "provided"
    (line,) = (await town.relink(wrong, right)).lines
    assert (line.status, await town.statuses(wrong, right)) == ("open", ["suspended", "none"])

    # What is asked now is held, and an officer cannot let it out either.
    batch = await nation.ask(ASKS, [nation.line(wrong, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")

    own = await town.decide(line.change, officer=town.first)
    assert (own.status, code_of(own)) == ("refused", "second_officer_required")
    assert await town.statuses(wrong) == ["suspended"]
    assert (await town.decide(line.change)).status == "applied"
    assert await town.statuses(wrong, right) == ["requested", "active"]
    # Said again it is the same; otherwise it is too late.
    assert (await town.decide(line.change)).status == "applied"
    late = await town.decide(line.change, "withdraw")
    assert code_of(late) == "already_final"

    # The same code finds the other number's copies now, and the old number may acquire a code of its own.
    assert await town.answer(ASKS, wrong) == "no_record"
    await nation.register(GIVES, right)
    assert await town.answer(ASKS, wrong) == "provided"
    await nation.acquire(GIVES, [(wrong, "99000000990")])
    assert await town.statuses(wrong, right) == ["active", "active"]

    (entry,) = (await nation.west.code_changes.history(town.agency, right)).changes
    assert (entry.act, entry.state, entry.addressee, entry.to) == ("relink", "applied", wrong, right)
    assert (entry.was, entry.to_was, entry.reason) == ("active", None, "点検")
    assert (entry.proposed_by, entry.decided_by) == ("officer-first", "officer-second")


@pytest.mark.requirement("SYM-09")
async def test_two_mixed_up_numbers_swap_and_a_withdrawn_change_leaves_all_as_it_was(nation: Any) -> None:
    town = Town(nation)
    one, other = await nation.person(ASKS, GIVES), await nation.person(ASKS, GIVES, copy=False)
    assert [await town.answer(ASKS, each) for each in (one, other)] == ["provided", "no_record"]
    (line,) = (await town.relink(one, other)).lines
    assert await town.statuses(one, other) == ["suspended", "suspended"]
    (second,) = (await town.relink(other, f"{next(nation.tokens):015d}")).lines
    assert code_of(second) == "link_change_pending"
    assert [change.id for change in (await nation.east.code_changes.waiting(town.agency)).changes] == [line.change]
    assert (await town.decide(line.change, "withdraw")).status == "withdrawn"
    assert [await town.answer(ASKS, each) for each in (one, other)] == ["provided", "no_record"]

    (line,) = (await town.relink(one, other)).lines
    assert (await town.decide(line.change)).status == "applied"
    assert await town.statuses(one, other) == ["active", "active"]
    assert [await town.answer(ASKS, each) for each in (one, other)] == ["no_record", "provided"]
    assert [change.state for change in (await nation.west.code_changes.history(town.agency, one)).changes] == [
        "withdrawn",
        "applied",
    ]


@pytest.mark.requirement("SYM-09")
async def test_a_merged_number_gives_its_code_and_its_holds_to_the_one_that_stays(nation: Any) -> None:
    town = Town(nation)
    given_up = await nation.person(ASKS, GIVES, copy=False)
    stays = f"{next(nation.tokens):015d}"
    await nation.register(GIVES, stays)
    async with nation.east.door(town.agency) as partition:
        await copies.set_holds(partition, nation.keys(GIVES), [(given_up, TAX, True)])
        flag = own_flags.Wanted(given_up, TAX, "2026", None, flagged=True)
        await own_flags.set_flags(partition, nation.keys(GIVES), [flag])
    line = await town.merge(given_up, stays)
    assert line.status == "open"
    assert (await town.decide(line.change)).status == "applied"
    assert await town.statuses(given_up, stays) == ["merged", "active"]

    # The copy of the number that stays is found by the code, and what was withheld of the other is withheld here.
    batch = await nation.ask(ASKS, [nation.line(given_up, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    # Records of both numbers are found: each keeps the label under which it was written.
    keys = nation.keys(GIVES)
    persons = [keys.digest("addressee", each.encode()) for each in (stays, given_up)]
    async with nation.east.door(town.agency) as partition:
        flags = await own_flags.read(partition, [(persons[0], TAX)])
    assert flags == [own_flags.Flag(persons[0], TAX, "2026", None)], (
        "and what the portal is not given (自己情報提供不可)"
    )
    async with nation.east.door(town.agency) as partition:
        assert await code_changes.labels_of(partition, keys, persons[0]) == [keys.label(each) for each in persons]
        assert await code_changes.labels_of(partition, keys, persons[1]) == [keys.label(persons[1])]
    again = await town.merge(given_up, stays)
    assert code_of(again) == "no_code"


@pytest.mark.requirement("SYM-09")
async def test_two_codes_are_two_persons_and_are_not_merged(nation: Any) -> None:
    town = Town(nation)
    one, other = await nation.person(ASKS, GIVES), await nation.person(ASKS, GIVES)
    line = await town.merge(one, other)
    assert (line.status, code_of(line)) == ("refused", "link_change_conflict")
    assert await town.statuses(one, other) == ["active", "active"]


@pytest.mark.requirement("SYM-09")
async def test_a_doubt_suspends_until_a_second_officer_finds_the_link_right(nation: Any) -> None:
    town = Town(nation)
    person = await nation.person(ASKS, GIVES)
    wrong = await town.relink(person, person)
    assert code_of(wrong.lines[0]) == "link_change_conflict"
    (doubt,) = (await town.relink(person, None)).lines
    assert (await town.decide(doubt.change)).status == "applied"
    assert await town.statuses(person) == ["suspended"]
    (right,) = (await town.relink(person, person)).lines
    assert await town.statuses(person) == ["suspended"]
    assert (await town.decide(right.change)).status == "applied"
    assert await town.answer(ASKS, person) == "provided"
    told = await nation.east.code_changes.history(town.agency, person)
    acts = [(change.act, change.state) for change in told.changes]
    assert acts == [("doubt", "applied"), ("reinstate", "applied")]


@pytest.mark.requirement("SYM-09")
async def test_what_changed_after_the_proposal_can_only_be_withdrawn(nation: Any) -> None:
    town = Town(nation)
    person, fresh = await nation.person(ASKS, GIVES), f"{next(nation.tokens):015d}"
    (line,) = (await town.relink(person, fresh)).lines
    await nation.acquire(GIVES, [(fresh, "99000000880")])
    assert code_of(await town.decide(line.change)) == "link_changed"
    assert await town.statuses(person, fresh) == ["suspended", "active"]
    assert (await town.decide(line.change, "withdraw")).status == "withdrawn"
    assert await town.statuses(person, fresh) == ["active", "active"]


@pytest.mark.requirement("SYM-09")
async def test_a_repeated_key_has_no_second_effect_and_another_body_is_refused(nation: Any) -> None:
    town = Town(nation)
    person, to = await nation.person(ASKS, GIVES), f"{next(nation.tokens):015d}"
    key = str(uuid.uuid4())
    (first,) = (await town.relink(person, to, key=key)).lines
    (again,) = (await town.relink(person, to, key=key)).lines
    (other,) = (await town.relink(person, None, key=key)).lines
    assert (again.status, again.change) == ("open", first.change)
    assert code_of(other) == "idempotency_key_reused"
    assert (await town.decide(first.change, "withdraw")).status == "withdrawn"
    (again,) = (await town.relink(person, to, key=key)).lines
    assert (again.status, again.change) == ("withdrawn", first.change)
    assert await town.statuses(person) == ["active"], "a repeat suspends nothing"
    unknown = await town.decide(uuid.uuid4())
    assert code_of(unknown) == "not_found"


@pytest.mark.requirement("SYM-09")
async def test_queries_under_way_by_a_suspended_link_are_taken_back_with_their_record(nation: Any) -> None:
    inquirer = Town(nation, ASKS)
    person = await nation.person(ASKS, GIVES, review=True)
    batch = await nation.ask(ASKS, [nation.line(person, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    changed = await inquirer.relink(person, None)
    assert (changed.lines[0].status, changed.taken_back) == ("open", 1)
    (line,) = (await nation.answered(ASKS, batch)).lines
    assert (line.state, line.outcome, line.reason) == ("cancelled", "cancelled", "link_suspended")
    assert [record.fields.outcome for record in await nation.records(ASKS)].count("cancelled") == 1
    # And none is accepted as long as it is suspended.
    (closed,) = (await nation.ask(ASKS, [nation.line(person, GIVES)])).lines
    assert (closed.outcome, closed.reason) == ("no_code", "link_suspended")


@pytest.mark.requirement("SYM-09")
async def test_a_proposal_said_again_after_its_decision_takes_no_query_back(nation: Any) -> None:
    inquirer = Town(nation, ASKS)
    person = await nation.person(ASKS, GIVES, review=True)
    key = str(uuid.uuid4())
    (line,) = (await inquirer.relink(person, None, key=key)).lines
    assert (await inquirer.decide(line.change, "withdraw")).status == "withdrawn"
    batch = await nation.ask(ASKS, [nation.line(person, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    again = await inquirer.relink(person, None, key=key)
    assert (again.taken_back, again.lines[0].status) == (0, "withdrawn")
    assert await nation.state_of(ASKS, batch) == "held"


@pytest.mark.requirement("SYM-09", "PRV-05")
async def test_what_a_first_officer_proposed_about_one_person_lets_out_nothing_of_another(nation: Any) -> None:
    """A draft made while the link was suspended is not for the person to whom the code belongs afterwards."""
    town = Town(nation)
    wrong, right = await nation.person(ASKS, GIVES), f"{next(nation.tokens):015d}"
    await nation.register(GIVES, right)
    async with nation.east.door(town.agency) as partition:
        await copies.set_holds(partition, nation.keys(GIVES), [(right, TAX, True)])
    (line,) = (await town.relink(wrong, right)).lines
    batch = await nation.ask(ASKS, [nation.line(wrong, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    reviews = nation.east.reviews
    (review,) = [each for each in (await reviews.list(town.agency)).reviews if each.addressee == wrong]
    await reviews.prepare(town.agency, town.first, review.id, ReviewPrepare(decision="provide"))
    assert (await town.decide(line.change)).status == "applied"

    with pytest.raises(Problem, match="review_not_prepared"):
        await reviews.approve(town.agency, town.second, review.id, ReviewDecision())
    assert await nation.state_of(ASKS, batch) == "held"
    # Looked at anew by both officers, it may go.
    shown = await reviews.prepare(town.agency, town.first, review.id, ReviewPrepare(decision="provide"))
    assert (shown.addressee, shown.state) == (right, "prepared")
    await reviews.approve(town.agency, town.second, review.id, ReviewDecision())
    assert (await nation.answered(ASKS, batch)).lines[0].outcome == "provided"


@pytest.mark.requirement("PRV-05")
async def test_a_hold_set_after_the_first_officers_proposal_is_seen_by_both(nation: Any) -> None:
    town = Town(nation)
    person = await nation.person(ASKS, GIVES)
    (doubt,) = (await town.relink(person, None)).lines
    batch = await nation.ask(ASKS, [nation.line(person, GIVES)])
    await nation.until(lambda: nation.state_of(ASKS, batch), "held")
    assert (await town.decide(doubt.change, "withdraw")).status == "withdrawn"
    reviews = nation.west.reviews
    (review,) = [each for each in (await reviews.list(town.agency)).reviews if each.addressee == person]
    await reviews.prepare(town.agency, town.first, review.id, ReviewPrepare(decision="provide"))
    async with nation.east.door(town.agency) as partition:
        await copies.set_holds(partition, nation.keys(GIVES), [(person, TAX, True)])
    with pytest.raises(Problem, match="review_not_prepared"):
        await reviews.approve(town.agency, town.second, review.id, ReviewDecision())
    await reviews.refuse(town.agency, town.second, review.id, ReviewDecision())
    assert (await nation.answered(ASKS, batch)).lines[0].outcome == "refused"
