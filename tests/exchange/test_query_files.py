"""Query files through the exchange: durable part by part, once, whatever is sent again; and a result line by line."""

import hashlib
import uuid
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.platform.exchange.query_files import FileLine, SentFile, batch_of_part
from chukan.platform.wire.agency import QueryLineView
from chukan.platform.wire.files import QueryFile

ASKS, GIVES, ASKS_WEST = "9901131121000001", "9901011002000001", "9901271004000001"


def sent(content: bytes, *, name: str = "F-0001", key: str | None = None) -> SentFile:
    digest = hashlib.sha256(content).digest()
    return SentFile(name, "utf-8", digest, key or str(uuid.uuid4()), name.encode() + digest)


def parts_of(lines: list[FileLine]) -> list[list[FileLine]]:
    return [lines[start : start + 1000] for start in range(0, len(lines), 1000)]


async def put(nation: Any, lines: list[FileLine], content: bytes, *, via: str = "east", **given: Any) -> QueryFile:
    files = nation.sites[via].exchange.files
    return await files.put(nation.agency(ASKS), nation.caller(ASKS), sent(content, **given), parts_of(lines))


async def finished(nation: Any, file: QueryFile) -> QueryFile:
    for batch in file.batches:
        await nation.east.inquiries.wait(nation.agency(ASKS), batch, 30.0)
    return await nation.west.files.get(nation.agency(ASKS), file.id)


async def result(nation: Any, file: uuid.UUID, after: int = 0) -> list[QueryLineView]:
    found = await nation.west.files.result(nation.agency(ASKS), file, after)
    return [line async for page in found.pages for line in page]


@pytest.mark.requirement("INQ-06", "INQ-12", "CON-03", "SYS-01")
async def test_a_file_of_mixed_lines_ends_with_an_outcome_a_line(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES)
    bare = await nation.person(ASKS, GIVES, copy=False)
    lines = [
        FileLine(1, nation.line(known, GIVES)),
        FileLine(2, problem=Problem("bad_line", pointer="/4")),
        FileLine(3, nation.line(bare, GIVES)),
        FileLine(4, nation.line("000000000099999", GIVES)),
        FileLine(5, nation.line(known, GIVES, kind="TM00000000009999")),
        FileLine(6, nation.line(known, ASKS)),
        FileLine(7, nation.line(known, GIVES, withheld=True)),
    ]
    file = await put(nation, lines, b"seven lines")
    assert (file.state, file.lines, file.refused) == ("accepted", 5, 2)
    assert [(problem.line, problem.code, problem.pointer) for problem in file.problems] == [
        (2, "bad_line", "/4"),
        (5, "unknown_kind", "/14"),
    ]
    file = await finished(nation, file)
    assert file.states == {"answered": 3, "no_code": 1, "not_permitted": 1}
    assert file.outcomes == {"provided": 2, "no_record": 1, "no_code": 1, "not_permitted": 1}
    views = await result(nation, file.id)
    assert [(view.line + 1, view.outcome) for view in views] == [
        (1, "provided"),
        (2, "bad_request"),
        (3, "no_record"),
        (4, "no_code"),
        (5, "bad_request"),
        (6, "not_permitted"),
        (7, "provided"),
    ]
    assert [view.content is not None for view in views] == [True, False, False, False, False, False, True]
    assert [view.line + 1 for view in await result(nation, file.id, after=4)] == [5, 6, 7]
    file = await nation.east.files.get(nation.agency(ASKS), file.id)
    assert file.states == {"collected": 3, "no_code": 1, "not_permitted": 1}
    assert len(await nation.records(ASKS)) == 5


@pytest.mark.requirement("CON-03")
async def test_the_same_file_again_has_no_second_effect_and_the_first_id(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES)
    lines = [FileLine(n, nation.line(known, GIVES)) for n in range(1, 6)]
    first = await put(nation, lines, b"five", key="key-00001")
    again = await put(nation, lines, b"five", key="key-00002", via="west")
    assert (again.id, again.batches, again.lines) == (first.id, first.batches, 5)
    with pytest.raises(Problem, match="file_conflict"):
        await put(nation, lines[:2], b"two")
    with pytest.raises(Problem, match="idempotency_key_reused"):
        await put(nation, lines[:2], b"two", name="F-0002", key="key-00001")
    with pytest.raises(Problem, match="not_found"):
        await nation.east.files.get(nation.agency(ASKS_WEST), first.id)
    await finished(nation, first)
    assert len(await nation.records(ASKS)) == 5
    assert len(await nation.records(GIVES)) == 5


@pytest.mark.requirement("CON-03", "TXR-03")
async def test_a_file_that_was_cut_short_is_finished_by_sending_it_again(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES)
    lines = [FileLine(n, nation.line(known, GIVES)) for n in range(1, 2302)]
    lines[1500] = FileLine(1501, problem=Problem("bad_line"))
    agency, cut = nation.agency(ASKS), nation.east.files

    def broken() -> Any:
        yield from parts_of(lines)[:2]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await cut.put(agency, nation.caller(ASKS), sent(b"large", key="key-00001"), broken())
    key = nation.keys(ASKS).digest("file", b"F-0001")
    async with nation.east.door(agency) as partition:
        half = await partition.fetchrow(f"SELECT id, state FROM {partition.table('files')} WHERE name = $1", key)
    assert half["state"] == "open"
    open_file = await nation.west.files.get(agency, half["id"])
    assert (open_file.state, open_file.lines) == ("open", 1999)
    with pytest.raises(Problem, match="file_incomplete"):
        await nation.west.files.result(agency, half["id"], 0)
    file = await put(nation, lines, b"large", via="west")
    assert (file.id, file.lines, file.refused) == (half["id"], 2300, 1)
    assert file.batches == [batch_of_part(file.id, index) for index in range(3)]
    file = await finished(nation, file)
    assert sum(file.states.values()) == 2300
    views = await result(nation, file.id)
    assert [view.line for view in views] == list(range(2301))
    assert {view.outcome for view in views} == {"provided", "bad_request"}
    async with nation.east.door(agency) as partition:
        count = await partition.fetchval(f"SELECT count(*) FROM {partition.table('records')}")
    assert count == 2300


async def test_what_rests_of_a_file_shows_neither_its_name_nor_its_kinds(nation: Any) -> None:
    known = await nation.person(ASKS, GIVES)
    file = await put(nation, [FileLine(1, nation.line(known, GIVES))], b"one", name="SECRET-NAME")
    async with nation.east.door(nation.agency(ASKS)) as partition:
        row = await partition.fetchrow(f"SELECT * FROM {partition.table('files')} WHERE id = $1", file.id)
    rested = repr(dict(row))
    assert "SECRET" not in rested
    assert "TM0000" not in rested
    assert known not in rested
