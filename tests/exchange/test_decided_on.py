"""What a line was decided on changes between judgement and commit: nothing is asked, answered or corrected on it."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.inquiries import Inquiries
from chukan.platform.exchange.provisions import Provisions
from chukan.platform.law.calendar import Calendar, CalendarFile
from chukan.platform.wire.corrections import RecordCorrection
from chukan.tenants import records
from chukan.tests.exchange.test_delegations import BOARD, SCHOOL, both_officers, given_by_board, nation_with_board
from chukan.tests.support.nation import ASKS, GIVES, GIVES_WEST

__all__ = ["nation_with_board"]
NEVER = {"name": "online", "outside": "queue", "hours": [{"days": ["holiday"], "open": "09:00", "close": "17:00"}]}
ORDINARY = {"affair": "JM01000000121000", "procedure": "JT01010000000214", "provider_for": GIVES}


def once(
    patch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], Awaitable[Any]], *, after: bool = False
) -> None:
    """Have something happen right before (or after) the next call of a coroutine function, and only then."""
    original, acted = getattr(owner, name), []

    async def call(*args: Any, **words: Any) -> Any:
        if after:
            found = await original(*args, **words)
        if not acted:
            acted.append(True)
            await act()
        return found if after else await original(*args, **words)

    patch.setattr(owner, name, call)


async def outcome(nation: Any, line: Any) -> tuple[str | None, str | None]:
    done = await nation.answered(ASKS, await nation.ask(ASKS, [line]))
    return done.lines[0].outcome, done.lines[0].reason


async def change(nation: Any, code: str, sql: str) -> None:
    """Change something of an agency behind its back, as another commit in its cell does."""
    agency = nation.agency(code)
    admin = await nation.admin(nation.databases[agency.cell])
    await admin.execute(sql.format(schema=f"a{agency.number:05d}", agency=agency.number))
    await admin.close()


@pytest.mark.requirement("SYM-09", "INQ-02")
async def test_a_list_is_judged_anew_by_the_link_and_the_calendar_of_its_commit(nation, monkeypatch):
    addressee = await nation.person(ASKS, GIVES)
    line = nation.line(addressee, GIVES)

    async def suspend() -> None:
        await change(nation, ASKS, "UPDATE {schema}.codes SET status = 3, version = version + 1")

    with monkeypatch.context() as patch:
        once(patch, Inquiries, "_commit", suspend)
        assert await outcome(nation, line) == ("no_code", "link_suspended")
    assert (await nation.network.state()).exchanges == {}, "what a suspended link would have asked never leaves"
    await change(nation, ASKS, "UPDATE {schema}.codes SET status = 2, version = version + 1")

    with monkeypatch.context() as patch:
        calendar = Calendar(msgspec.convert({"function": [NEVER]}, CalendarFile))
        patch.setattr(Context, "calendar", property(lambda _: calendar))
        with pytest.raises(Problem, match="outside_hours"):
            await nation.ask(ASKS, [line])
    assert (await nation.network.state()).exchanges == {}, "nothing is sent where no opening is known"
    assert len(await nation.records(ASKS)) == 1
    assert await outcome(nation, line) == ("provided", None)


@pytest.mark.requirement("REC-04")
async def test_of_two_corrections_made_at_once_the_second_is_told_and_writes_nothing(nation, monkeypatch):
    addressee = await nation.person(ASKS, GIVES)
    done = await nation.answered(ASKS, await nation.ask(ASKS, [nation.line(addressee, GIVES)]))
    agency, service = nation.agency(ASKS), nation.west.corrections

    async def correct(key: str, **words: Any) -> Any:
        officer = nation.officer(ASKS, "first")
        return await service.correct(agency, officer, done.lines[0].id, RecordCorrection(**words), key)

    async def other() -> None:
        await correct("other", department="税務課")

    with monkeypatch.context() as patch:
        once(patch, records, "of_line", other, after=True)
        with pytest.raises(Problem, match="correction_conflict"):
            await correct("mine", withheld=True)
    words = [(stored.fields.department, stored.fields.withheld) for stored in await nation.records(ASKS)]
    assert words == [("給付課", False), ("税務課", False)]
    await correct("mine again", withheld=True)
    last = (await nation.records(ASKS))[-1].fields
    assert (last.department, last.withheld) == ("税務課", True), "the second stands on what the first one said"


@pytest.mark.requirement("INQ-08")
async def test_no_line_is_asked_or_answered_under_a_delegation_that_ended_meanwhile(nation_with_board, monkeypatch):
    nation = nation_with_board
    addressee = await nation.person(ASKS, GIVES_WEST)
    asking = await both_officers(
        nation, ASKS, role="taken", side="inquirer", counterpart=BOARD, affair=SCHOOL["affair"]
    )
    await given_by_board(nation, side="inquirer", to=ASKS)
    await both_officers(nation, GIVES, role="given", side="provider", counterpart=GIVES_WEST)
    answering = await both_officers(nation, GIVES_WEST, role="taken", side="provider", counterpart=GIVES)

    def ending(code: str, half: uuid.UUID) -> Callable[[], Awaitable[Any]]:
        return lambda: nation.west.delegations.end(nation.agency(code), nation.officer(code, "first"), half)

    with monkeypatch.context() as patch:
        once(patch, Inquiries, "_commit", ending(ASKS, asking))
        mine = nation.line(addressee, GIVES_WEST, **SCHOOL, on_behalf_of=BOARD)
        assert await outcome(nation, mine) == ("not_permitted", "delegation_missing")
    assert (await nation.network.state()).exchanges == {}

    terms = {"role": "taken", "side": "inquirer", "counterpart": BOARD, "affair": SCHOOL["affair"]}
    again = await both_officers(nation, ASKS, **terms)
    await nation.stop_network()
    waiting = await nation.ask(ASKS, [mine])
    with pytest.raises(Problem, match="network_unavailable"):
        await ending(ASKS, again)()
    taken = (await nation.answered(ASKS, waiting)).lines[0]
    assert (taken.outcome, taken.reason) == ("cancelled", "delegation_ended"), "though the network could not be told"
    await nation.start_network()

    with monkeypatch.context() as patch:
        once(patch, Provisions, "_look_for_delegations", ending(GIVES_WEST, answering), after=True)
        theirs = nation.line(addressee, GIVES_WEST, **ORDINARY)
        assert await outcome(nation, theirs) == ("not_permitted", "delegation_missing")
    (refused,) = await nation.records(GIVES_WEST)
    assert refused.fields.outcome == "not_permitted"


@pytest.mark.requirement("INQ-08")
async def test_the_delegations_of_an_agency_that_is_closed_end_on_both_sides(nation):
    await both_officers(nation, GIVES, role="given", side="provider", counterpart=GIVES_WEST)
    taken = await both_officers(nation, GIVES_WEST, role="taken", side="provider", counterpart=GIVES)
    assert [half.id for half in await nation.east.delegations.held(nation.agency(GIVES_WEST))] == [taken]
    closing = nation.agency(GIVES)
    await change(nation, GIVES, "SELECT chukan.close_agency({agency})")
    admin = await nation.admin(nation.databases[closing.cell])
    rows = await admin.fetch(f"SELECT state FROM a{closing.number:05d}.delegations")
    await admin.close()
    assert [row["state"] for row in rows] == ["ended"]

    closed = [
        msgspec.structs.replace(row, state="closed") if row.number == closing.number else row
        for row in nation.snapshot.agencies
    ]
    nation.snapshot = msgspec.structs.replace(nation.snapshot, agencies=closed, number=nation.snapshot.number + 1)
    await nation.publish()
    assert await nation.east.delegations.held(nation.agency(GIVES_WEST)) == []
