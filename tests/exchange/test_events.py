"""Events of an agency's own lines: each is told, whatever commits in whatever order, and a reader goes on anywhere."""

import asyncio
import re
from contextlib import aclosing
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.platform.exchange.event_streams import PER_AGENCY_MAX
from chukan.platform.wire.events import EventPage, LineEvent
from chukan.tenants import events

ASKS, GIVES = "9901131121000001", "9901011002000001"
INSERT = "INSERT INTO chukan.events (agency, id, side, to_state) VALUES ($1, gen_random_uuid(), 1, 10) RETURNING n"


class Reader:
    """Reads one agency's events by door 1, page by page, from its own cursor."""

    def __init__(self, nation: Any, code: str = ASKS) -> None:
        self._nation = nation
        self._agency = nation.agency(code)
        self.cursor: Any = None
        self.mark: Any = None

    async def start(self) -> None:
        async with self._nation.east.door(self._agency) as partition:
            self.cursor = await events.start(partition, self._agency.generation)

    async def read(self, limit: int = 500) -> list[int]:
        async with self._nation.east.door(self._agency) as partition:
            page = await events.read(partition, self.cursor, self.mark, limit)
        # A cursor goes over the wire and comes back between any two pages.
        self.cursor, self.mark = events.parse_cursor(str(page.cursor)), page.mark
        assert self.cursor == page.cursor
        return [event.n for event in page.events]


async def begun(nation: Any, code: str = ASKS) -> Any:
    """A transaction of a set that has its id, and will write events."""
    connection = await nation.admin(nation.databases["east"])
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval("SELECT pg_current_xact_id()")
    return connection, transaction, nation.agency(code).number


@pytest.mark.requirement("INQ-12")
async def test_an_event_that_commits_late_under_a_low_number_is_told(nation: Any) -> None:
    reader = Reader(nation)
    slow, slow_end, agency = await begun(nation)
    await reader.start()
    low = await slow.fetchval(INSERT, agency)
    quick, quick_end, _ = await begun(nation)
    high = await quick.fetchval(INSERT, agency)
    await quick_end.commit()
    assert low < high
    assert await reader.read() == [high]
    assert await reader.read() == []
    assert reader.cursor.floor == 0
    await slow_end.commit()
    assert await reader.read() == [low]
    assert await reader.read() == []
    assert reader.cursor.floor == high
    for connection in (slow, quick):
        await connection.close()


async def test_a_page_may_end_anywhere_and_nothing_is_told_twice_or_left_out(nation: Any) -> None:
    reader = Reader(nation)
    await reader.start()
    slow, slow_end, agency = await begun(nation)
    lows = [await slow.fetchval(INSERT, agency) for _ in range(3)]
    quick, quick_end, _ = await begun(nation)
    highs = [await quick.fetchval(INSERT, agency) for _ in range(5)]
    await quick_end.commit()
    assert await reader.read(2) == highs[:2]
    await slow_end.commit()
    assert await reader.read(2) == highs[2:4]
    assert await reader.read(2) == highs[4:]
    assert await reader.read(2) == lows[:2]
    assert await reader.read(2) == lows[2:]
    assert await reader.read(2) == []
    for connection in (slow, quick):
        await connection.close()


async def test_after_a_failover_what_is_behind_the_floor_is_told_again(nation: Any) -> None:
    reader = Reader(nation)
    await reader.start()
    connection, end, agency = await begun(nation)
    numbers = [await connection.fetchval(INSERT, agency) for _ in range(3)]
    await end.commit()
    await connection.close()
    assert await reader.read() == numbers
    reader.cursor = reader.cursor._replace(timeline="0000FFFF")
    assert await reader.read() == numbers
    assert await reader.read() == []


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "1/00000001/0/9:3:", "1/00000001/0/3:9:4,3", "1/00000001/0/3:9:9", "1/00000001/0/0:9:",
        "1/00000001/0/3:3:/1/9:3:", "1/0000000g/0/3:3:", "x" * 5000, "1/00000001/0/3:3:'",
    ],
)  # fmt: skip
def test_what_is_no_cursor_is_refused_before_the_database_sees_it(text: str) -> None:
    with pytest.raises(Problem, match="invalid_field"):
        events.parse_cursor(text)


async def test_no_function_that_writes_events_begins_a_subtransaction(nation: Any) -> None:
    """The id of a subtransaction stands in no snapshot: its events would pass for seen before they are."""
    admin = await nation.admin(nation.databases["east"])
    rows = await admin.fetch(
        "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'chukan'::regnamespace AND prosrc LIKE '%put_events%'"
    )
    await admin.close()
    assert len(rows) >= 8
    pattern = re.compile(r"^\s*EXCEPTION\b", re.MULTILINE)
    assert [row["proname"] for row in rows if pattern.search(row["prosrc"])] == []
    assert pattern.search("BEGIN\n  x;\nEXCEPTION WHEN others THEN")


async def take(pages: Any, last: str) -> list[EventPage]:
    """Pages until one tells that a line reached a state."""
    found: list[EventPage] = []
    async with asyncio.timeout(30):
        while last not in {event.state for event in of(found)}:
            found.append(await anext(pages))
    return found


def of(pages: list[EventPage]) -> list[LineEvent]:
    return [event for page in pages for event in page.events]


@pytest.mark.requirement("INQ-12", "TEN-01")
async def test_a_stream_tells_what_happens_to_the_agencys_own_lines_and_goes_on_after_a_break(nation: Any) -> None:
    addressee = await nation.person(ASKS, GIVES)
    asks, gives = [await nation.east.events.follow(nation.agency(code), None) for code in (ASKS, GIVES)]
    async with aclosing(asks), aclosing(gives):
        assert [(await anext(each)).events for each in (asks, gives)] == [[], []]
        batch = await nation.ask(ASKS, [nation.line(addressee, GIVES)], via="west")
        pages = await take(asks, "answered")
        provided = of(await take(gives, "receipted"))
    inquired = of(pages)
    # An answer may overtake its permit.
    assert [event.state for event in inquired] in (["accepted", "permitted", "answered"], ["accepted", "answered"])
    assert {event.side for event in inquired} == {"inquirer"}
    assert {event.id for event in inquired} == {batch.lines[0].id}
    assert [(event.side, event.state) for event in provided] == [("provider", "answered"), ("provider", "receipted")]
    assert {event.id for event in provided}.isdisjoint(event.id for event in inquired)

    await nation.east.inquiries.collect(nation.agency(ASKS), batch.batch)
    async with aclosing(await nation.west.events.follow(nation.agency(ASKS), pages[-1].cursor)) as again:
        (event,) = of(await take(again, "collected"))
    assert (event.before, event.state) == ("answered", "collected")


async def test_streams_are_few_and_a_cursor_of_another_cell_starts_anew(nation: Any) -> None:
    agency = nation.agency(ASKS)
    open_ones = [await nation.east.events.follow(agency, None) for _ in range(PER_AGENCY_MAX)]
    cursors = [(await anext(each)).cursor for each in open_ones]
    with pytest.raises(Problem, match="rate_limited"):
        await anext(await nation.east.events.follow(agency, None))
    for each in open_ones:
        await each.aclose()
    moved = re.sub(r"^\d+", "99", cursors[0])
    async with aclosing(await nation.east.events.follow(agency, moved)) as pages:
        first = await anext(pages)
    assert (first.reset, first.events) == (True, [])
    assert first.cursor.startswith(f"{agency.generation}/")
    assert nation.east.events._open.total() == 0
