"""What takes two persons takes two who both are in office on the day: attacks, each of which once went through."""

import datetime as dt
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.platform.exchange.officer_changes import CHANGE_LIFE, OPEN_MAX, Administrator
from chukan.tests.officers.conftest import Office, add, card, grant

OFFICER = "k-tanaka"
MARCH_30 = dt.date(2027, 3, 30)


async def refused(work: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value


def ended(officer: str, last: dt.date) -> Any:
    return add(officer, act="end", name="", department="", last=last)


@pytest.mark.requirement("AUT-05")
async def test_one_card_never_stands_behind_two_accounts(office: Office) -> None:
    admins = await office.administrators()
    await office.decide(add(OFFICER, card="card-of-tanaka"), by=admins)
    twice = await refused(office.propose(admins[0], add("m-ito"), add("k-tanaka-2", card="card-of-tanaka")))
    assert (twice.code, twice.pointer, twice.line) == ("invalid_field", "/entries/1/card", 2)
    anew = add("kanri-2", act="enrol", name="", department="", card="card-of-tanaka")
    assert (await refused(office.propose(admins[0], anew))).pointer == "/entries/0/card"
    # Whose account has ended has given the card back.
    await office.decide(ended(OFFICER, MARCH_30 - dt.timedelta(days=1)), by=admins)
    await office.decide(add("k-tanaka-2", card="card-of-tanaka"), by=admins)


@pytest.mark.requirement("AUT-05")
async def test_two_accounts_of_one_card_are_one_person(office: Office) -> None:
    await office.administrators()
    first = Administrator("kanri-1", account=True, card="card-of-kanri")
    await office.decide(
        add("kanri-3", card="card-of-kanri"), grant("kanri-3", "administer"),
        by=(Administrator("kanri-1", account=True), Administrator("kanri-2", account=True)),
    )  # fmt: skip
    proposed = await office.propose(Administrator("kanri-2", account=True), add(OFFICER))
    await office.admin.execute(
        f"UPDATE {office.schema}.officer_changes SET proposer = 'kanri-3' WHERE id = $1", proposed.id
    )
    assert (await refused(office.accounts.approve(office.agency, first, proposed.id))).code == "second_officer_required"


@pytest.mark.requirement("AUT-05")
async def test_what_somebody_proposed_ends_with_the_right_to_propose_it(office: Office) -> None:
    names = ("kanri-1", "kanri-2", "kanri-3")
    admins = await office.administrators(*names)
    third = Administrator("kanri-3", account=True)
    left = await office.propose(third, add(OFFICER), grant(OFFICER, "reviews.approve"))
    await office.decide(ended("kanri-3", MARCH_30 - dt.timedelta(days=1)), by=admins)
    assert (await refused(office.accounts.approve(office.agency, admins[0], left.id))).code == "change_closed"
    assert OFFICER not in {each.officer for each in (await office.accounts.list(office.agency, admins[0])).officers}
    assert (await office.accounts.reject(office.agency, admins[0], left.id)).state == "rejected"


@pytest.mark.requirement("AUT-05")
async def test_what_a_card_proposed_ends_when_cards_have_no_say_any_more(office: Office) -> None:
    beginning = [add("kanri-1"), grant("kanri-1", "administer"), add("kanri-2"), grant("kanri-2", "administer")]
    codes = await office.decide(*beginning)
    mine = await office.propose(card("suzuki"), add(OFFICER), grant(OFFICER, "administer"))
    for name, halves in codes.items():
        await office.enrol(name, halves)
    admin = Administrator("kanri-1", account=True)
    assert (await refused(office.accounts.approve(office.agency, admin, mine.id))).code == "change_closed"


@pytest.mark.requirement("AUT-04")
async def test_who_has_left_does_not_come_back_by_a_later_end(office: Office) -> None:
    admins = await office.administrators()
    codes = await office.decide(add(OFFICER), grant(OFFICER, "queries"), by=admins)
    await office.enrol(OFFICER, codes[OFFICER])
    await office.decide(ended(OFFICER, MARCH_30), by=admins)
    # While the officer serves, the last day may be another one.
    await office.decide(ended(OFFICER, MARCH_30 + dt.timedelta(days=1)), by=admins)
    office.clock.advance(3 * 86_400)
    later = await refused(office.propose(admins[0], ended(OFFICER, dt.date(2028, 3, 31))))
    assert (later.code, later.pointer) == ("invalid_field", "/entries/0/last")
    await office.decide(ended(OFFICER, MARCH_30 + dt.timedelta(days=1)), by=admins)  # a file read twice
    assert (await refused(office.sign_in(OFFICER))).code == "login_refused"


async def test_what_waits_is_shown_however_much_was_left_to_lapse(office: Office) -> None:
    admins = await office.administrators()
    for _ in range(OPEN_MAX):
        await office.propose(admins[0], add(OFFICER))
    office.clock.advance(CHANGE_LIFE.total_seconds())
    due = await office.propose(admins[0], add("m-ito"))
    shown = (await office.accounts.changes(office.agency, admins[1])).changes
    assert shown[0].id == due.id
