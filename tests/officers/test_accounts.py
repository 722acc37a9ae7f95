"""Accounts: who may change them, that it takes two, how an agency begins, and what a change may not do."""

import datetime as dt
from typing import Any

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.platform.exchange.officer_changes import CHANGE_LIFE, ENROL_WITHIN, Administrator
from chukan.platform.wire.officers import Enrol, SignIn
from chukan.tests.officers.conftest import PASSWORD, TERMINAL, Office, add, card, client, grant

OFFICER, SHORT = "k-tanaka", "short"
BEGINNING = [add("kanri-1"), grant("kanri-1", "administer"), add("kanri-2"), grant("kanri-2", "administer")]


async def refused(work: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value


@pytest.mark.requirement("AUT-01")
async def test_an_agency_begins_by_two_cards_and_then_they_can_do_nothing_more(office: Office) -> None:
    assert not await office.sessions.has_accounts(office.agency)
    alone = [add("kanri-1"), grant("kanri-1", "administer")]
    assert (await refused(office.propose(card("suzuki"), *alone))).code == "administrators_needed"
    first, second = await office.administrators()
    assert await office.sessions.has_accounts(office.agency)
    assert (await refused(office.propose(card("suzuki"), add(OFFICER)))).code == "session_required"
    assert (await refused(office.accounts.list(office.agency, card("sato")))).code == "session_required"
    await office.decide(add(OFFICER), by=(first, second))
    listed = await office.accounts.list(office.agency, first)
    assert [(view.officer, view.enrolled) for view in listed.officers] == [
        (OFFICER, False), ("kanri-1", True), ("kanri-2", True),
    ]  # fmt: skip


@pytest.mark.requirement("AUT-01")
async def test_cards_help_again_when_the_administrators_are_gone(office: Office) -> None:
    first, second = await office.administrators()
    replace = [add("kanri-3"), grant("kanri-3", "administer"), add("kanri-4"), grant("kanri-4", "administer")]
    await office.decide(*replace, by=(first, second))
    ends = [add(name, act="end", name="", last=dt.date(2027, 3, 31)) for name in ("kanri-1", "kanri-2")]
    # The new ones have no factors yet: whoever ends the old ones now leaves nobody.
    ended_now = [add(name, act="end", name="", last=dt.date(2027, 3, 29)) for name in ("kanri-1", "kanri-2")]
    assert (await refused(office.propose(first, *ended_now))).code == "administrators_needed"
    await office.decide(*ends, by=(first, second))
    assert (await refused(office.propose(card("suzuki"), add(OFFICER)))).code == "session_required"
    office.clock.advance(2 * 86_400)
    anew = await office.decide(add("kanri-3", act="enrol", name=""), add("kanri-4", act="enrol", name=""))
    for name, codes in anew.items():
        await office.enrol(name, codes)
    assert (await refused(office.propose(card("suzuki"), add(OFFICER)))).code == "session_required"


@pytest.mark.requirement("AUT-05")
async def test_one_person_never_decides_alone(office: Office) -> None:
    proposed = await office.propose(card("suzuki"), *BEGINNING)
    assert (await refused(office.accounts.approve(office.agency, card("suzuki"), proposed.id))).code == (
        "second_officer_required"
    )
    await office.accounts.approve(office.agency, card("sato"), proposed.id)
    # The same person with the other credential is the same person.
    proposed = await office.propose(card("suzuki"), add(OFFICER, card="card-of-tanaka"))
    by_account = Administrator("kanri-1", account=True, card="suzuki")
    assert (await refused(office.accounts.approve(office.agency, by_account, proposed.id))).code == (
        "second_officer_required"
    )
    # And the table itself refuses it.
    with pytest.raises(asyncpg.CheckViolationError):
        await office.admin.execute(
            f"UPDATE {office.schema}.officer_changes SET state = 'approved', decided_by = proposer, decided_at = now()"
            " WHERE id = $1",
            proposed.id,
        )


async def test_a_change_is_carried_out_once_and_a_repeat_shows_the_same(office: Office) -> None:
    proposed = await office.propose(card("suzuki"), *BEGINNING, key="the-same-key")
    again = await office.propose(card("suzuki"), *BEGINNING, key="the-same-key")
    assert (again.id, again.codes) == (proposed.id, proposed.codes)
    other = await refused(office.propose(card("suzuki"), *BEGINNING[:2], *BEGINNING[2:], add("x"), key="the-same-key"))
    assert other.code == "idempotency_key_reused"
    approved = await office.accounts.approve(office.agency, card("sato"), proposed.id)
    assert await office.accounts.approve(office.agency, card("sato"), proposed.id) == approved
    assert {each.half for each in approved.codes}.isdisjoint({each.half for each in proposed.codes})
    kinds = [kind for _, kind, _, _ in await office.operations()]
    assert kinds == ["account.propose", "account.approve"]
    assert (await refused(office.accounts.reject(office.agency, card("suzuki"), proposed.id))).code == "change_closed"


async def test_a_rejected_or_old_change_has_no_effect(office: Office) -> None:
    rejected = await office.propose(card("suzuki"), *BEGINNING)
    assert (await office.accounts.reject(office.agency, card("sato"), rejected.id)).state == "rejected"
    assert (await refused(office.accounts.approve(office.agency, card("sato"), rejected.id))).code == "change_closed"
    old = await office.propose(card("suzuki"), *BEGINNING)
    office.clock.advance(CHANGE_LIFE.total_seconds())
    assert (await refused(office.accounts.approve(office.agency, card("sato"), old.id))).code == "change_closed"
    assert not (await office.accounts.list(office.agency, card("sato"))).officers
    shown = await office.accounts.changes(office.agency, card("sato"))
    assert [each.state for each in shown.changes] == ["open", "rejected"]


@pytest.mark.requirement("AUT-01")
async def test_neither_administrator_can_take_a_new_account(office: Office) -> None:
    admins = await office.administrators()
    codes = (await office.decide(add(OFFICER), by=admins))[OFFICER]
    for halves in ((codes[0], codes[0]), (codes[1], codes[1]), (codes[1], codes[0]), ("AAAAAAAA", codes[1])):
        assert (await refused(office.enrol(OFFICER, halves))).code == "enrolment_refused"
    await office.enrol(OFFICER, codes)
    assert (await refused(office.enrol(OFFICER, codes))).code == "enrolment_refused"


async def test_an_enrolment_has_its_time_and_its_guesses_are_counted(office: Office) -> None:
    admins = await office.administrators()
    codes = (await office.decide(add(OFFICER), by=admins))[OFFICER]
    for _ in range(5):
        await refused(office.enrol(OFFICER, ("AAAAAAAA", "AAAAAAAA")))
    assert (await refused(office.enrol(OFFICER, codes))).code == "officer_locked"
    office.clock.advance(ENROL_WITHIN.total_seconds())
    assert (await refused(office.enrol(OFFICER, codes))).code == "enrolment_refused"


@pytest.mark.requirement("AUT-04")
async def test_lost_factors_are_void_from_the_approval_on(office: Office) -> None:
    admins = await office.administrators()
    codes = await office.decide(add(OFFICER), grant(OFFICER, "queries"), by=admins)
    await office.enrol(OFFICER, codes[OFFICER])
    session = (await office.sign_in(OFFICER)).session
    anew = await office.decide(add(OFFICER, act="enrol", name=""), by=admins)
    assert (await refused(office.acting(session))).code == "session_ended"
    assert (await refused(office.sign_in(OFFICER))).code == "login_refused"
    await office.enrol(OFFICER, anew[OFFICER])
    assert (await office.acting((await office.sign_in(OFFICER)).session)).officer == OFFICER


@pytest.mark.requirement("AUT-02")
async def test_a_transfer_by_file_comes_into_force_on_its_day(office: Office) -> None:
    admins = await office.administrators()
    april = dt.date(2027, 4, 1)
    affair = "JM00000000000001"
    codes = await office.decide(
        add(OFFICER),
        grant(OFFICER, "queries", affair=affair, last=april - dt.timedelta(days=1)),
        grant(OFFICER, "reviews.approve", affair=affair, first=april),
        by=admins,
    )
    await office.enrol(OFFICER, codes[OFFICER])
    before = (await office.acting((await office.sign_in(OFFICER)).session)).rights
    assert set(before) == {"queries"}
    assert before["queries"].allows(affair)
    assert not before["queries"].allows("JM00000000000002")
    office.clock.advance((dt.datetime(2027, 3, 31, 14, 59, 59, tzinfo=dt.UTC) - office.clock.now()).total_seconds())
    session = (await office.sign_in(OFFICER)).session
    assert set((await office.acting(session)).rights) == {"queries"}
    office.clock.advance(1)  # midnight in Japan
    assert set((await office.acting(session)).rights) == {"reviews.approve"}


async def test_nothing_of_an_account_rests_in_the_clear(office: Office) -> None:
    admins = await office.administrators()
    codes = await office.decide(add(OFFICER, name="秘密 太郎", department="秘密課"), by=admins)
    await office.enrol(OFFICER, codes[OFFICER])
    session = (await office.sign_in(OFFICER)).session
    for table in ("officers", "officer_changes", "officer_sessions", "operations"):
        rows = await office.admin.fetch(f"SELECT t::text AS text FROM {office.schema}.{table} t")
        text = " ".join(row["text"] for row in rows)
        for secret in ("秘密 太郎", "秘密課", PASSWORD, session, codes[OFFICER][0], "argon2"):
            assert secret not in text
            assert secret.encode().hex() not in text


async def test_a_row_that_somebody_moved_or_made_opens_nothing(office: Office) -> None:
    await office.administrators()
    await office.sign_in("kanri-1")
    session = (await office.sign_in("kanri-2")).session
    # Whoever holds the database but not the key: another's body under this id, and a session copied to another digest.
    await office.admin.execute(
        f"UPDATE {office.schema}.officers SET body ="
        f" (SELECT o.body FROM {office.schema}.officers o WHERE o.officer = 'kanri-1')"
        " WHERE officer = 'kanri-2'"
    )
    assert (await refused(office.acting(session))).code == "internal"
    assert (await refused(office.sign_in("kanri-2"))).code == "internal"


async def test_who_is_not_there_yet_or_was_never_enrolled_cannot_sign_in(office: Office) -> None:
    admins = await office.administrators()
    codes = await office.decide(
        add(OFFICER, first=dt.date(2027, 4, 1)), grant(OFFICER, "queries"), add("m-ito", card="ito"), by=admins
    )
    await office.enrol(OFFICER, codes[OFFICER])
    assert (await refused(office.sign_in(OFFICER))).code == "login_refused"
    bare = SignIn(officer="m-ito", password=PASSWORD)
    assert (await refused(office.sessions.login(office.agency, client("ito"), bare))).code == "login_refused"
    short = Enrol(officer="m-ito", code_proposer=codes["m-ito"][0], code_approver=codes["m-ito"][1], password=SHORT)
    assert (await refused(office.sessions.enrol(office.agency, TERMINAL, short))).code == "password_weak"
