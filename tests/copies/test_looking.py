"""An agency finds, exports and deletes its own copies; nobody else can, and what was tampered with is not shown."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants import copies
from chukan.tenants.copies import Copy, open_hit, person_digest
from chukan.tenants.rows import CopyHit
from chukan.tenants.sealing import SealError

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
KIND, OTHER = "TM00000000000002", "TM00000000000003"
Make = Callable[..., Copy]


async def register(desk: Any, *given: Copy) -> None:
    async with desk.open() as partition:
        await copies.register(partition, desk.keys, given, source="api", at=AT)


async def search(desk: Any, *names: tuple[str, str | None]) -> list[tuple[str, str]]:
    async with desk.open() as partition:
        return [(each.addressee, each.kind) for each in await copies.search(partition, desk.keys, names)]


async def delete(desk: Any, *names: tuple[str, str | None]) -> list[int]:
    async with desk.open() as partition:
        return await copies.delete(partition, desk.keys, names)


async def exported(desk: Any, kind: str, limit: int) -> list[copies.StoredCopy]:
    found: list[copies.StoredCopy] = []
    after: str | None = None
    for _ in range(100):
        async with desk.open() as partition:
            page = await copies.export(partition, desk.keys, kind, after=after, limit=limit)
        assert len(page.copies) <= limit
        found += page.copies
        if page.next is None:
            return found
        after = page.next
    raise AssertionError("the pages have no end")


async def test_a_search_finds_the_named_persons_and_kinds_once_each(desk: Any, copy: Make) -> None:
    await register(desk, copy("A1"), copy("A1", kind=OTHER), copy("A2"), copy("A3"))
    assert await search(desk, ("A2", None), ("A1", KIND)) == [("A2", KIND), ("A1", KIND)]
    assert await search(desk, ("A1", None), ("A1", KIND), ("A1", None)) == [("A1", KIND), ("A1", OTHER)]
    assert await search(desk, ("A9", None), ("A2", OTHER)) == []


async def test_a_search_that_finds_too_much_says_so(desk: Any, copy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SEARCH_MAX", 3)
    await register(desk, *(copy(period=str(year)) for year in range(2020, 2023)))
    assert len(await search(desk, ("A1", None))) == 3
    await register(desk, copy(period="2023"))
    with pytest.raises(Problem, match="too_many_lines"):
        await search(desk, ("A1", None))


@pytest.mark.requirement("REP-04")
@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_an_export_brings_every_copy_of_the_kind_exactly_once(desk: Any, copy: Make, limit: int) -> None:
    given = [copy(f"A{n % 4}", period=str(2020 + n % 5), items=b'{"n":"%d"}' % n) for n in range(20)]
    await register(desk, *given, *(copy(f"A{n}", kind=OTHER) for n in range(5)))
    found = await exported(desk, KIND, limit)
    assert sorted((each.addressee, each.items) for each in found) == sorted(
        (each.addressee, each.items) for each in given
    )
    assert len(await exported(desk, OTHER, limit)) == 5
    assert await exported(desk, "TM00000000000099", limit) == []


@pytest.mark.parametrize("after", ["", "x", "AAAA", "é", "A" * 200, "____" * 20])
async def test_a_cursor_that_is_none_of_ours_is_refused(desk: Any, after: str) -> None:
    with pytest.raises(Problem, match="invalid_field"):
        async with desk.open() as partition:
            await copies.export(partition, desk.keys, KIND, after=after)


@pytest.mark.requirement("REP-08")
async def test_the_agency_deletes_what_it_names_and_nothing_else(desk: Any, copy: Make) -> None:
    await register(desk, copy("A1"), copy("A1", kind=OTHER), copy("A2"), copy("A2", kind=OTHER), copy("A3"))
    names = [("A1", KIND), ("A9", None), ("A2", OTHER), ("A2", None), ("A1", KIND)]
    assert await delete(desk, *names) == [1, 0, 1, 1, 0]
    assert await search(desk, ("A1", None), ("A2", None), ("A3", None)) == [("A1", OTHER), ("A3", KIND)]
    assert await delete(desk, *names) == [0, 0, 0, 0, 0]


@pytest.mark.requirement("REP-08", "TEN-01")
@pytest.mark.parametrize("login", ["chukan_app", "chukan_broker", "chukan_steward"])
@pytest.mark.parametrize("statement", ["DELETE FROM {0}.copies", "TRUNCATE {0}.copies", "SELECT * FROM {0}.copies"])
async def test_no_login_reaches_copies_but_as_the_agency(desk: Any, copy: Make, login: str, statement: str) -> None:
    await register(desk, copy("A1"))
    settings = desk.cell.settings
    connection = await asyncpg.connect(
        host=settings.host,
        port=settings.port,
        database=settings.database,
        user=login,
        password=desk.cell.passwords[login],
    )
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(statement.format(desk.schema))
    finally:
        await connection.close()
    assert len(await desk.rows("copies")) == 1


@pytest.mark.requirement("TEN-01")
async def test_a_neighbour_neither_finds_nor_reaches_anything(desk: Any, neighbour: Any, copy: Make) -> None:
    await register(desk, copy("A1"))
    assert await search(neighbour, ("A1", None)) == []
    assert await exported(neighbour, KIND, 10) == []
    assert await delete(neighbour, ("A1", None)) == [0]
    for statement in (f"SELECT * FROM {desk.schema}.copies", f"DELETE FROM {desk.schema}.copies"):
        with pytest.raises(Problem):
            async with neighbour.open() as partition:
                await partition.fetch(statement)
    # Even with the row in its hands it cannot read it.
    (row,) = await desk.rows("copies")
    with pytest.raises(SealError):
        copies.open_body(neighbour.keys, row["id"], row["body"])


@pytest.mark.parametrize(
    "change",
    [
        "review = NOT review",
        "kind = 'TM00000000000003'",
        "period = '2025'",
        "layout = 2",
        "effective_from = '2020-01-01'",
        "id = '00000000-0000-0000-0000-000000000001'",
        "body = set_byte(body, 40, get_byte(body, 40) # 1)",
        "person = sha256('x')",
    ],
)
async def test_a_row_that_was_tampered_with_is_not_shown(desk: Any, copy: Make, change: str) -> None:
    await register(desk, copy("A1"))
    await desk.admin.execute(f"UPDATE {desk.schema}.copies SET {change}")
    (row,) = await desk.rows("copies")
    with pytest.raises(SealError):
        await exported(desk, row["kind"], 10)
    hit = CopyHit(row["id"], row["layout"], row["effective_from"], row["period"], row["body"], row["review"])
    with pytest.raises(SealError):
        open_hit(desk.keys, row["person"], row["kind"], hit)


async def test_an_untouched_row_opens_as_a_hit(desk: Any, copy: Make) -> None:
    await register(desk, copy("A1"))
    (row,) = await desk.rows("copies")
    hit = CopyHit(row["id"], row["layout"], row["effective_from"], row["period"], row["body"], row["review"])
    assert open_hit(desk.keys, person_digest(desk.keys, "A1"), KIND, hit).addressee == "A1"


async def hold(desk: Any, *wanted: tuple[str | None, str | None, bool]) -> None:
    async with desk.open() as partition:
        await copies.set_holds(partition, desk.keys, wanted)


async def held(desk: Any) -> set[tuple[bytes | None, str | None]]:
    return {(row["person"], row["kind"]) for row in await desk.rows("holds")}


async def test_holds_are_set_and_lifted_by_person_kind_or_both(desk: Any) -> None:
    person = person_digest(desk.keys, "A1")
    await hold(desk, ("A1", None, True), (None, KIND, True), ("A1", KIND, True), ("A1", None, True))
    assert await held(desk) == {(person, None), (None, KIND), (person, KIND)}
    await hold(desk, ("A1", None, True), (None, KIND, False), (None, OTHER, False))
    assert await held(desk) == {(person, None), (person, KIND)}
    await hold(desk, ("A1", None, False), ("A1", None, True), ("A1", KIND, True), ("A1", KIND, False))
    assert await held(desk) == {(person, None)}


async def test_every_change_of_holds_is_seen_by_provisions_decided_before(desk: Any, neighbour: Any) -> None:
    async def version(agency: int) -> int:
        return int(await desk.admin.fetchval("SELECT hold_version FROM chukan.agencies WHERE agency = $1", agency))

    before, beside = await version(desk.agency), await version(neighbour.agency)
    await hold(desk, ("A1", None, True))
    assert await version(desk.agency) == before + 1
    await hold(desk, ("A1", None, False))
    assert await version(desk.agency) == before + 2
    assert await version(neighbour.agency) == beside


async def test_a_hold_names_a_person_or_a_kind(desk: Any) -> None:
    with pytest.raises(Problem, match="invalid_field") as caught:
        await hold(desk, ("A1", None, True), (None, None, True))
    assert caught.value.line == 1
    assert await held(desk) == set()
