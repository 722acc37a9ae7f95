"""Delegations (委任): officers of both agencies register their halves; then one asks or answers for the other."""

import datetime as dt
import json
import uuid

import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.admin import Agencies, AgencyEntry
from chukan.platform.wire.delegations import DelegationTerms
from chukan.platform.wire.registrations import Delegation

ASKS, GIVES, GIVES_WEST = "9901131121000001", "9901011002000001", "9901401307000001"
BOARD = "9902401307000001"
SCHOOL = {"affair": "JMX0000000000003", "procedure": "JTX0000000000004"}
SINCE = dt.date(2026, 4, 1)


async def both_officers(nation, code: str, **terms) -> uuid.UUID:
    """Propose a half by one officer and approve it by another; return its id."""
    agency = nation.agency(code)
    body = DelegationTerms(**{"valid_from": SINCE, **terms})
    key = str(uuid.uuid4())
    service = nation.east.delegations
    view = await service.propose(agency, nation.officer(code, "first"), body, key=key, content=repr(body).encode())
    again = await service.propose(agency, nation.officer(code, "first"), body, key=key, content=repr(body).encode())
    assert again.id == view.id
    with pytest.raises(Problem, match="second_officer_required"):
        await service.approve(agency, nation.officer(code, "first"), view.id)
    approved = await nation.west.delegations.approve(agency, nation.officer(code, "second"), view.id)
    assert (approved.state, approved.approved_by) == ("in_force", "officer-second")
    return view.id


@pytest.fixture
async def nation_with_board(nation):
    """The network knows an agency more than the platform."""
    board = AgencyEntry(code=BOARD, name="教育委員会", route="chukan", pia=True)
    await nation.network.put_agencies(Agencies(agencies=[board]))
    return nation


async def given_by_board(nation, *, side: str, to: str, **changes) -> None:
    """The half of an agency that is on another platform, as the network gets it."""
    half = Delegation(
        **{
            "id": uuid.uuid4(),
            "agency": BOARD,
            "role": "given",
            "side": side,
            "counterpart": to,
            "affair": SCHOOL["affair"],
            "valid_from": SINCE,
            **changes,
        }
    )
    replies = await nation.network.delegations("chukan", [json.dumps(_plain(half)).encode()])
    assert json.loads(replies[0])["status"] == "accepted"


def _plain(half: Delegation) -> dict[str, object]:
    words = {name: getattr(half, name) for name in half.__struct_fields__}
    return {name: str(value) if isinstance(value, (uuid.UUID, dt.date)) else value for name, value in words.items()}


async def outcome(nation, addressee: str, gives: str = GIVES, **changes) -> tuple[str | None, str | None]:
    batch = await nation.ask(ASKS, [nation.line(addressee, gives, **(SCHOOL | changes))])
    done = await nation.answered(ASKS, batch)
    return done.lines[0].outcome, done.lines[0].reason


@pytest.mark.requirement("INQ-08")
async def test_an_agency_asks_for_another_once_both_have_said_so(nation_with_board):
    nation = nation_with_board
    addressee = await nation.person(ASKS, GIVES)
    assert await outcome(nation, addressee) == ("not_permitted", "inquirer_not_in_class")
    assert await outcome(nation, addressee, on_behalf_of=BOARD) == ("not_permitted", "delegation_missing")
    assert (await nation.network.state()).exchanges == {}, "what our own register does not know never leaves"

    half = await both_officers(nation, ASKS, role="taken", side="inquirer", counterpart=BOARD, affair=SCHOOL["affair"])
    assert await outcome(nation, addressee, on_behalf_of=BOARD) == ("not_permitted", "delegation_missing")
    await given_by_board(nation, side="provider", to=ASKS)
    await given_by_board(nation, side="inquirer", to=GIVES)
    assert await outcome(nation, addressee, on_behalf_of=BOARD) == ("not_permitted", "delegation_missing")
    await given_by_board(nation, side="inquirer", to=ASKS)
    assert await outcome(nation, addressee, on_behalf_of=BOARD) == ("provided", None)
    assert await outcome(nation, addressee) == ("not_permitted", "inquirer_not_in_class")

    (gave,) = await nation.records(GIVES)
    assert (gave.fields.inquirer, gave.fields.on_behalf_of) == (ASKS, BOARD)
    asked = [stored.fields for stored in await nation.records(ASKS) if stored.fields.outcome == "provided"]
    assert [(fields.inquirer, fields.on_behalf_of) for fields in asked] == [(ASKS, BOARD)]

    ended = await nation.east.delegations.end(nation.agency(ASKS), nation.officer(ASKS, "first"), half)
    assert ended.state == "ended"
    assert await outcome(nation, addressee, on_behalf_of=BOARD) == ("not_permitted", "delegation_missing")
    with pytest.raises(Problem, match="delegation_state"):
        await nation.east.delegations.approve(nation.agency(ASKS), nation.officer(ASKS, "second"), half)
    shown = await nation.east.delegations.list(nation.agency(ASKS), ended=True)
    assert [(view.id, view.state, view.ended_by) for view in shown.delegations] == [(half, "ended", "officer-first")]
    assert (await nation.east.delegations.list(nation.agency(ASKS), ended=False)).delegations == []


@pytest.mark.requirement("INQ-08")
async def test_a_delegation_is_of_its_affair_and_its_days(nation_with_board):
    nation = nation_with_board
    addressee = await nation.person(ASKS, GIVES)
    terms = {"role": "taken", "side": "inquirer", "counterpart": BOARD}
    await both_officers(nation, ASKS, **terms, affair="JMX0000000000004")
    await both_officers(nation, ASKS, **terms, valid_from=dt.date(2020, 1, 1), valid_until=dt.date(2020, 12, 31))
    await both_officers(nation, ASKS, **(terms | {"side": "provider"}))
    await given_by_board(nation, side="inquirer", to=ASKS, affair=None)
    assert await outcome(nation, addressee, on_behalf_of=BOARD) == ("not_permitted", "delegation_missing")
    assert (await nation.network.state()).exchanges == {}


@pytest.mark.requirement("INQ-08")
async def test_a_provider_answers_for_another_only_where_its_own_register_says_so(nation):
    """The network, the delegator and the provider must all know of it; the provider judges by its own half."""
    addressee = await nation.person(ASKS, GIVES_WEST)
    ordinary = {"affair": "JM01000000121000", "procedure": "JT01010000000214", "provider_for": GIVES}
    assert await outcome(nation, addressee, GIVES_WEST, **ordinary) == ("not_permitted", "delegation_missing")
    await both_officers(nation, GIVES, role="given", side="provider", counterpart=GIVES_WEST)
    assert await outcome(nation, addressee, GIVES_WEST, **ordinary) == ("not_permitted", "delegation_missing")
    assert await nation.records(GIVES_WEST) == []

    taken = {"agency": GIVES_WEST, "role": "taken", "counterpart": GIVES, "affair": None}
    await given_by_board(nation, side="provider", to=GIVES, **taken)
    assert await outcome(nation, addressee, GIVES_WEST, **ordinary) == ("not_permitted", "delegation_missing")
    (refused,) = await nation.records(GIVES_WEST)
    assert (refused.fields.outcome, refused.fields.provider_for) == ("not_permitted", GIVES)

    await both_officers(nation, GIVES_WEST, role="taken", side="provider", counterpart=GIVES)
    assert await outcome(nation, addressee, GIVES_WEST, **ordinary) == ("provided", None)


@pytest.mark.requirement("INQ-08")
async def test_nobody_delegates_to_itself_and_unknown_agencies_are_refused(nation):
    addressee = await nation.person(ASKS, GIVES)
    agency, officer = nation.agency(ASKS), nation.officer(ASKS, "first")
    batch = await nation.ask(ASKS, [nation.line(addressee, GIVES, on_behalf_of=ASKS)])
    assert batch.lines[0].problem.code == "delegation_of_itself"
    for counterpart, code in ((ASKS, "delegation_of_itself"), ("9999999999999999", "unknown_agency")):
        body = DelegationTerms(role="taken", side="inquirer", counterpart=counterpart, valid_from=SINCE)
        with pytest.raises(Problem, match=code):
            await nation.east.delegations.propose(agency, officer, body, key=str(uuid.uuid4()), content=b"x")
    refused = DelegationTerms(role="taken", side="inquirer", counterpart=BOARD, valid_from=SINCE)
    view = await nation.east.delegations.propose(agency, officer, refused, key=str(uuid.uuid4()), content=b"y")
    with pytest.raises(Problem, match="delegation_refused"):
        await nation.east.delegations.approve(agency, nation.officer(ASKS, "second"), view.id)
    assert [half.state for half in await nation.east.delegations.held(agency)] == ["proposed"]
