"""Signing in: two factors, lockout, sessions that end, and everything of it in the log."""

import asyncio
import datetime as dt
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.platform.exchange.officer_changes import Administrator
from chukan.platform.exchange.officer_sessions import lock_s
from chukan.platform.wire.officers import ChallengeAsk, Enrol, PasswordChange, SignIn
from chukan.settings import Officers
from chukan.tests.officers.conftest import (
    DOMAIN,
    ORIGIN,
    OTHER_TERMINAL,
    PASSWORD,
    TERMINAL,
    Office,
    add,
    client,
    grant,
)
from chukan.tests.support.soft_authenticator import PRESENT, Authenticator

OFFICER = "k-tanaka"
WRONG, OTHER, WEAK = "not this one at all", "another staple entirely", "xk-tanaka-2027-secret"
ADMINS = (Administrator("kanri-1", account=True), Administrator("kanri-2", account=True))


async def refused(work: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value


@pytest.fixture
async def staffed(office: Office) -> Office:
    """Two administrators, and an officer who may ask and view records."""
    admins = await office.administrators()
    codes = await office.decide(
        add(OFFICER), grant(OFFICER, "queries"), grant(OFFICER, "records", last=dt.date(2027, 3, 31)), by=admins
    )
    await office.enrol(OFFICER, codes[OFFICER])
    return office


@pytest.mark.requirement("AUT-01")
async def test_password_and_passkey_together_begin_a_session(staffed: Office) -> None:
    signed_in = await staffed.sign_in(OFFICER)
    acting = await staffed.acting(signed_in.session)
    assert acting.officer == OFFICER
    assert set(acting.rights) == {"queries", "records"}
    assert {right.function for right in signed_in.rights} == {"queries", "records"}


@pytest.mark.requirement("AUT-01")
async def test_one_factor_alone_is_refused(staffed: Office) -> None:
    device = staffed.authenticators[OFFICER]
    asked = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer=OFFICER))
    wrong = SignIn(officer=OFFICER, password=WRONG, passkey=device.get(asked.options))
    assert (await refused(staffed.sessions.login(staffed.agency, TERMINAL, wrong))).code == "login_refused"
    bare = SignIn(officer=OFFICER, password=PASSWORD)
    assert (await refused(staffed.sessions.login(staffed.agency, TERMINAL, bare))).code == "login_refused"
    # A card that is somebody's, but not this account's, is no factor of it.
    assert (await refused(staffed.sessions.login(staffed.agency, client("suzuki"), bare))).code == "login_refused"
    assert await staffed.sign_in(OFFICER)


@pytest.mark.requirement("AUT-01")
@pytest.mark.parametrize("fault", ["origin", "domain", "key", "unverified", "replayed", "stale", "counter", "foreign"])
async def test_an_assertion_that_proves_something_else_is_refused(staffed: Office, fault: str) -> None:
    device = staffed.authenticators[OFFICER]
    first = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer=OFFICER))
    used = device.get(first.options)
    await staffed.sessions.login(staffed.agency, TERMINAL, SignIn(officer=OFFICER, password=PASSWORD, passkey=used))
    asked = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer=OFFICER))
    if fault == "origin":
        device.origin = "https://console.chukan.example.evil.test"
    if fault == "domain":
        device.domain = "evil.test"
    if fault == "key":
        device.key = Authenticator(DOMAIN, ORIGIN).key
    if fault == "unverified":
        device.flags = PRESENT
    if fault == "counter":
        device.counter = 0
    if fault == "foreign":
        asked = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer="kanri-1"))
    answer = used if fault == "replayed" else device.get(asked.options)
    if fault == "stale":
        staffed.clock.advance(121)
    attempt = SignIn(officer=OFFICER, password=PASSWORD, passkey=answer)
    assert (await refused(staffed.sessions.login(staffed.agency, TERMINAL, attempt))).code == "login_refused"


@pytest.mark.requirement("AUT-01")
async def test_a_card_and_a_password_are_two_factors_too(staffed: Office) -> None:
    codes = await staffed.decide(add("m-card", card="card-of-mori"), grant("m-card", "queries"), by=ADMINS)
    halves = {"code_proposer": codes["m-card"][0], "code_approver": codes["m-card"][1]}
    enrol = Enrol(officer="m-card", password=PASSWORD, **halves)
    assert (await refused(staffed.sessions.enrol(staffed.agency, TERMINAL, enrol))).code == "enrolment_refused"
    card = client("card-of-mori")
    assert (await staffed.sessions.enrol(staffed.agency, card, enrol)).factor == "card"
    attempt = SignIn(officer="m-card", password=PASSWORD)
    # A system's certificate of the same name is no card.
    system = client("card-of-mori", "system")
    assert (await refused(staffed.sessions.login(staffed.agency, system, attempt))).code == "login_refused"
    signed_in = await staffed.sessions.login(staffed.agency, card, attempt)
    assert (await staffed.acting(signed_in.session, card)).officer == "m-card"


@pytest.mark.requirement("AUT-04")
async def test_failures_lock_for_longer_and_longer_but_a_day_at_most(staffed: Office) -> None:
    wrong = SignIn(officer=OFFICER, password=WRONG)
    for _ in range(5):
        assert (await refused(staffed.sessions.login(staffed.agency, TERMINAL, wrong))).code == "login_refused"
    locked = await refused(staffed.sign_in(OFFICER))
    assert (locked.code, locked.retry_after_s) == ("officer_locked", 300)
    staffed.clock.advance(301)
    assert (await refused(staffed.sessions.login(staffed.agency, TERMINAL, wrong))).code == "login_refused"
    assert (await refused(staffed.sign_in(OFFICER))).retry_after_s == 600
    staffed.clock.advance(601)
    await staffed.sign_in(OFFICER)
    assert (await refused(staffed.sessions.login(staffed.agency, TERMINAL, wrong))).code == "login_refused"
    # The count began anew with the success.
    await staffed.sign_in(OFFICER)
    assert [lock_s(n, Officers()) for n in (4, 5, 6, 13, 14, 10**9)] == [0, 300, 600, 76_800, 86_400, 86_400]


@pytest.mark.requirement("AUT-04")
async def test_attempts_at_the_same_time_each_count(staffed: Office) -> None:
    wrong = SignIn(officer=OFFICER, password=WRONG)
    tries = [staffed.sessions.login(staffed.agency, TERMINAL, wrong) for _ in range(12)]
    outcomes = [str(each) for each in await asyncio.gather(*tries, return_exceptions=True)]
    assert outcomes.count("login_refused") == 5
    assert outcomes.count("officer_locked") == 7


@pytest.mark.requirement("AUT-04")
async def test_two_administrators_unlock(staffed: Office) -> None:
    wrong = SignIn(officer=OFFICER, password=WRONG)
    for _ in range(5):
        await refused(staffed.sessions.login(staffed.agency, TERMINAL, wrong))
    unlock = add(OFFICER, act="unlock", name="")
    await staffed.decide(unlock, by=ADMINS)
    assert await staffed.sign_in(OFFICER)


@pytest.mark.requirement("AUT-04")
async def test_a_session_ends_by_idleness_and_by_its_time(staffed: Office) -> None:
    session = (await staffed.sign_in(OFFICER)).session
    staffed.clock.advance(899)
    await staffed.acting(session)
    staffed.clock.advance(900)
    assert (await refused(staffed.acting(session))).code == "session_ended"
    session = (await staffed.sign_in(OFFICER)).session
    for _ in range(59):
        staffed.clock.advance(600)
        await staffed.acting(session)
    staffed.clock.advance(600)
    assert (await refused(staffed.acting(session))).code == "session_ended"


@pytest.mark.requirement("AUT-04")
async def test_an_installation_sets_locks_and_ends_of_its_own(staffed: Office) -> None:
    staffed.rules = Officers(idle_s=60, session_s=300, failures_free=0, lock_first_s=120, lock_max_s=200)
    strict, _ = staffed.exchange()
    signed_in = await staffed.sign_in(OFFICER, via=strict)
    assert (signed_in.idle_s, signed_in.until - staffed.clock.now()) == (60, dt.timedelta(seconds=300))
    staffed.clock.advance(60)
    with pytest.raises(Problem, match="session_ended"):
        await strict.resume(staffed.agency, TERMINAL, signed_in.session)
    wrong = SignIn(officer=OFFICER, password=WRONG)
    await refused(strict.login(staffed.agency, TERMINAL, wrong))
    assert (await refused(strict.login(staffed.agency, TERMINAL, wrong))).retry_after_s == 120
    assert [lock_s(n, staffed.rules) for n in (0, 1, 2)] == [0, 120, 200]


@pytest.mark.requirement("AUT-03", "AUT-04")
async def test_signing_out_ends_the_session_in_both_centres(staffed: Office) -> None:
    west, _ = staffed.exchange()
    session = (await staffed.sign_in(OFFICER)).session
    acting = await west.resume(staffed.agency, TERMINAL, session)
    await west.logout(staffed.agency, acting)
    await west.logout(staffed.agency, acting)
    assert (await refused(staffed.acting(session))).code == "session_ended"
    kinds = [kind for actor, kind, _, _ in await staffed.operations() if actor == OFFICER]
    assert kinds == ["account.enrol", "session.login", "session.logout"]


@pytest.mark.requirement("AUT-04")
async def test_a_session_serves_at_its_own_terminal_and_agency_only(staffed: Office) -> None:
    session = (await staffed.sign_in(OFFICER)).session
    assert (await refused(staffed.acting(session, OTHER_TERMINAL))).code == "session_ended"
    for text in ("", "A" * 43, session[:-2], session + "AA", "!" * 43, "あ" * 43):
        assert (await refused(staffed.acting(text))).code == "session_ended"
    assert await staffed.acting(session)


@pytest.mark.requirement("AUT-04")
async def test_who_retires_is_out_at_midnight_in_japan(staffed: Office) -> None:
    staffed.clock.advance(11 * 3600 + 1800)
    session = (await staffed.sign_in(OFFICER)).session  # at 21:30
    await staffed.decide(add("next", name="後任"), by=ADMINS)
    staffed.clock.advance(840)
    await staffed.acting(session)
    ends = add(OFFICER, act="end", name="", last=dt.date(2027, 3, 30))
    await staffed.decide(ends, by=ADMINS)
    session = (await staffed.sign_in(OFFICER)).session
    for _ in range(9):
        staffed.clock.advance(840)  # 21:44 … 23:50
        await staffed.acting(session)
    staffed.clock.advance(599)
    await staffed.acting(session)  # 23:59:59
    staffed.clock.advance(1)
    assert (await refused(staffed.acting(session))).code == "session_ended"
    assert (await refused(staffed.sign_in(OFFICER))).code == "login_refused"


@pytest.mark.requirement("AUT-02", "AUT-04")
async def test_a_right_ends_with_its_last_day(staffed: Office) -> None:
    staffed.clock.advance(24 * 3600)  # 31 March, the last day of "records"
    assert set((await staffed.acting((await staffed.sign_in(OFFICER)).session)).rights) == {"queries", "records"}
    staffed.clock.advance(24 * 3600)
    assert set((await staffed.acting((await staffed.sign_in(OFFICER)).session)).rights) == {"queries"}


@pytest.mark.requirement("AUT-03")
async def test_every_attempt_is_in_the_log_without_what_was_tried(staffed: Office) -> None:
    wrong = SignIn(officer=OFFICER, password=WRONG)
    await refused(staffed.sessions.login(staffed.agency, TERMINAL, wrong))
    nobody = SignIn(officer="nobody-here", password=PASSWORD)
    await refused(staffed.sessions.login(staffed.agency, TERMINAL, nobody))
    assert (await staffed.operations())[-2:] == [
        (OFFICER, "session.login", "refused", "login_refused"),
        (TERMINAL.id, "session.login", "refused", "login_refused"),
    ]


@pytest.mark.requirement("AUT-03")
async def test_refusals_that_follow_each_other_are_one_entry_with_their_number(staffed: Office) -> None:
    bursts = staffed.refused

    async def tries(count: int, name: str = "nobody-here") -> None:
        for _ in range(count):
            await refused(staffed.sessions.login(staffed.agency, TERMINAL, SignIn(officer=name, password=WRONG)))

    async def entered() -> list[int]:
        return [times for _, kind, times in await staffed.times() if kind == "session.login"]

    await tries(1)
    assert await entered() == [1], "the first is there before it is told"
    await tries(49)
    await bursts.write()
    assert await entered() == [1], "the minute is not over"
    staffed.clock.advance(60)
    await bursts.write()
    assert await entered() == [1, 49]
    await tries(3)
    await bursts.write()
    assert await entered() == [1, 49]
    await bursts.close()
    assert await entered() == [1, 49, 3], "nothing that was counted is lost where the exchange is stopped"
    await tries(1)
    await tries(1, OFFICER)
    assert await entered() == [1, 49, 3, 1, 1], "another one's are others"


async def test_an_officer_who_does_not_exist_is_answered_like_others(staffed: Office) -> None:
    there = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer=OFFICER))
    nobody = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer="nobody-here"))
    again = await staffed.sessions.challenge(staffed.agency, ChallengeAsk(officer="nobody-here"))
    assert there.options.keys() == nobody.options.keys()
    assert [len(each["id"]) for each in there.options["allowCredentials"]] == [
        len(each["id"]) for each in nobody.options["allowCredentials"]
    ]
    assert nobody.options["allowCredentials"] == again.options["allowCredentials"]


@pytest.mark.requirement("AUT-04")
async def test_a_new_password_ends_every_session(staffed: Office) -> None:
    first, second = [(await staffed.sign_in(OFFICER)).session for _ in range(2)]
    acting = await staffed.acting(first)
    change = PasswordChange(password=PASSWORD, new=OTHER)
    weak = PasswordChange(password=PASSWORD, new=WEAK)
    sessions, agency = staffed.sessions, staffed.agency
    assert (await refused(sessions.change_password(agency, TERMINAL, acting, weak))).code == "password_weak"
    await sessions.change_password(agency, TERMINAL, acting, change)
    for session in (first, second):
        assert (await refused(staffed.acting(session))).code == "session_ended"
    assert (await refused(staffed.sign_in(OFFICER))).code == "login_refused"
    assert await staffed.sign_in(OFFICER, change.new)


async def test_a_restore_of_the_cell_ends_the_sessions_it_brought_back(staffed: Office) -> None:
    session = (await staffed.sign_in(OFFICER)).session
    staffed.clock.advance(60)
    staffed.opened_at = staffed.clock.now()
    assert (await refused(staffed.acting(session))).code == "session_ended"


async def test_an_officer_holds_three_sessions_at_most(staffed: Office) -> None:
    sessions = []
    for _ in range(4):
        staffed.clock.advance(1)
        sessions.append((await staffed.sign_in(OFFICER)).session)
    assert (await refused(staffed.acting(sessions[0]))).code == "session_ended"
    for session in sessions[1:]:
        await staffed.acting(session)
