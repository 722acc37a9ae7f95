"""Who is a second person: a card beside one administrator, a card and an account, and how many accounts count."""

import datetime as dt
import types
import uuid
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import personnel
from chukan.platform.exchange.officer_changes import Administrator
from chukan.platform.exchange.two_persons import are_one
from chukan.platform.wire import officers as wire
from chukan.tenants import officer_accounts as accounts
from chukan.tenants import officer_rows as rows
from chukan.tenants.officer_accounts import Account, Entry, change
from chukan.tests.officers.conftest import Office, add, card, grant

DAY = dt.date(2027, 3, 30)
OFFICER = "k-tanaka"


async def refused(work: Any) -> str:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value.code


def act(name: Any, officer: str, **changes: Any) -> Any:
    return add(officer, act=name, name="", department="", **changes)


@pytest.mark.requirement("AUT-05")
async def test_of_two_administrators_one_loses_a_device_and_a_card_is_the_second_person(office: Office) -> None:
    first, second = await office.administrators()
    # Only two hold the accounts: nobody but a card could be the other person, and it may be the proposer's own.
    lost = await office.propose(first, act("enrol", "kanri-2"))
    assert await refused(office.accounts.approve(office.agency, card("kacho"), lost.id)) == "second_officer_required"
    cardless = await office.propose(second, act("cardless", "kanri-1"))
    await office.accounts.approve(office.agency, first, cardless.id)
    shown = (await office.accounts.changes(office.agency, card("kacho"))).changes
    assert [each.id for each in shown] == [lost.id]
    done = await office.accounts.approve(office.agency, card("kacho"), lost.id)
    half = {each.officer: each.half for each in done.codes}["kanri-2"]
    await office.enrol("kanri-2", ({each.officer: each.half for each in lost.codes}["kanri-2"], half))
    await office.sign_in("kanri-2")
    # The agency administers itself again, and the card has no say.
    assert await refused(office.accounts.changes(office.agency, card("kacho"))) == "session_required"


@pytest.mark.requirement("AUT-05")
async def test_a_card_is_no_second_person_for_anything_else(office: Office) -> None:
    first, second = await office.administrators()
    known = await office.propose(first, act("card", "kanri-1", card="card-of-kanri"))
    await office.accounts.approve(office.agency, second, known.id)
    other = await office.propose(first, add(OFFICER), grant(OFFICER, "reviews.approve"))
    assert await refused(office.accounts.approve(office.agency, card("kacho"), other.id)) == "session_required"
    assert await refused(office.accounts.approve(office.agency, card("kacho"), uuid.uuid4())) == "session_required"
    assert await refused(office.propose(card("kacho"), act("enrol", "kanri-2"))) == "session_required"
    # Nor for what the same person proposed by account, whatever it is.
    lost = await office.propose(first, act("enrol", "kanri-2"))
    own = await refused(office.accounts.approve(office.agency, card("card-of-kanri"), lost.id))
    assert own == "second_officer_required"
    # An administrator who has left meanwhile gives nobody back.
    assert accounts.recovers([Entry(act="grant", officer="x", function="administer")])
    assert not accounts.recovers([Entry(act="grant", officer="x", function="order")])


@pytest.mark.requirement("PRV-05")
async def test_one_person_counts_once_when_the_agency_goes_over_from_cards_to_accounts(office: Office) -> None:
    context: Any = types.SimpleNamespace(clock=office.clock, keys=lambda _number: office.keys)

    async def one(officer: str, first: str) -> bool:
        return await are_one(context, office.door, office.agency, officer, first)

    assert await one("card-a", "card-a")
    assert not await one("card-a", "card-b")  # no accounts yet: two cards are two officers
    await office.administrators()
    admins = (Administrator("kanri-1", account=True), Administrator("kanri-2", account=True))
    await office.decide(add(OFFICER, card="card-of-tanaka"), add("m-ito"), by=admins)
    assert await one(OFFICER, "card-of-tanaka")
    assert not await one(OFFICER, "card-of-sato")
    # Nobody has said which card this officer holds, so any may be it; but one that is another's in service.
    assert await one("m-ito", "card-of-sato")
    assert not await one("m-ito", "card-of-tanaka")
    assert not await one("m-ito", OFFICER)
    await office.decide(act("cardless", "m-ito"), by=admins)
    assert not await one("m-ito", "card-of-sato")


@pytest.mark.requirement("AUT-04")
async def test_who_has_left_takes_nobodys_place(office: Office) -> None:
    admins = await office.administrators()
    await office.decide(add(OFFICER), by=admins)
    await office.decide(act("end", OFFICER, last=DAY - dt.timedelta(days=1)), by=admins)
    async with office.door(office.agency) as partition:
        found = {name: row.account for name, row in (await rows.accounts(partition, office.keys)).items()}
    assert sorted(found) == [OFFICER, "kanri-1", "kanri-2"]
    assert [each.officer for each in (await office.accounts.list(office.agency, admins[0])).officers] == sorted(found)

    def more(last: dt.date | None) -> dict[str, Account]:
        crowd = {f"o-{n}": Account(officer=f"o-{n}", name="x", first=DAY, last=last) for n in range(1_998)}
        return {**found, **crowd}

    entry = [Entry(act="add", officer="new", name="職員")]
    rest: Any = {"by": uuid.uuid4(), "day": DAY, "enrol_until": office.clock.now(), "ready_after": 2}
    with pytest.raises(Problem, match="too_many_lines"):
        change(more(None), entry, **rest)
    assert change(more(DAY - dt.timedelta(days=1)), entry, **rest).keys() == {"new"}


@pytest.mark.requirement("AUT-05")
async def test_a_card_that_is_the_only_factor_is_not_exchanged_in_passing(office: Office) -> None:
    admins = await office.administrators()
    body = Account(officer=OFFICER, name="x", first=DAY, card="old", password="x", since=office.clock.now())  # noqa: S106
    async with office.door(office.agency) as partition:
        await rows.put_account(partition, office.keys, body)
    for entry in (act("card", OFFICER, card="new"), act("cardless", OFFICER)):
        assert await refused(office.propose(admins[0], entry)) == "invalid_field"
    assert await refused(office.propose(admins[0], act("card", "kanri-1"))) == "invalid_field"
    assert not msgspec.structs.replace(body, card=accounts.NO_CARD).enrolled


def test_every_function_that_there_is_can_be_granted_and_asked_for() -> None:
    assert set(get_args(accounts.AccountFunction)) == accounts.ACCOUNT_FUNCTIONS
    assert set(get_args(wire.Function)) == accounts.ACCOUNT_FUNCTIONS
    assert wire.OfficerEntry.__struct_fields__ == Entry.__struct_fields__


def test_a_personnel_file_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: whoever reads it whole has no memory left
    with pytest.raises(Problem, match="too_large"):
        personnel.read(path)
