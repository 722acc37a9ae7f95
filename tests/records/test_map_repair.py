"""A damaged map is made anew from its log, while it is signed on; one that was not signed is never put in place."""

from typing import Any

import pytest

from chukan.errors import Problem
from chukan.tenants import map_repair
from chukan.tenants.map_repair import MapRepair
from chukan.tests.records.test_cosigning import EAST
from chukan.tests.records.test_signing_maps import Town

pytestmark = pytest.mark.requirement("REC-03")

DAMAGE = {
    "a body": "UPDATE {s}.map_pages SET body = set_byte(body, 34, get_byte(body, 34) # 1) WHERE path <> ''",
    "a page gone": "DELETE FROM {s}.map_pages WHERE path IN (SELECT max(path) FROM {s}.map_pages)",
    "all gone": "DELETE FROM {s}.map_pages",
    "a page of nobody's": "INSERT INTO {s}.map_pages SELECT repeat('a', 64), body FROM {s}.map_pages WHERE path = ''",
    "of another form": "UPDATE {s}.map_pages SET body = substr(body, 1, 70)",
}


@pytest.fixture
async def town(shelf: Any) -> Town:
    """A log of 60 leaves of 40 persons, signed with its map."""
    town = Town(shelf)
    for n in range(40):
        await shelf.record(f"B{n}")
    await town.grow(20)
    return town


def repair(town: Town) -> MapRepair:
    return MapRepair(town.shelf.cells, "here", town.shelf.agency, town.code, EAST)


async def pages(town: Town) -> dict[str, bytes]:
    return {row["path"]: row["body"] for row in await town.run("SELECT path, body FROM {s}.map_pages")}


async def aside(town: Town) -> list[str]:
    sql = "SELECT why FROM chukan.log_aside WHERE agency = $1"
    return [row["why"] for row in await town.shelf.admin.fetch(sql, town.shelf.agency)]


@pytest.mark.parametrize("what", DAMAGE)
async def test_what_was_damaged_is_the_signed_map_again(town: Town, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_repair, "LOT", 3)
    monkeypatch.setattr(map_repair, "NAMES_PAGE", 4)
    whole = await pages(town)
    assert len(whole) > 10
    await town.run(DAMAGE[what])
    found = await repair(town).mend("operator-1")
    assert (found.outcome, found.size, found.persons, found.pages) == ("sound", 60, 45, len(whole))
    assert found.put + found.gone > 0
    assert await pages(town) == whole
    again = await repair(town).mend("operator-1")
    assert (again.sound, again.put, again.gone) == (True, 0, 0)
    await town.grow(3)
    assert await town.cosigner.cosign_due() == 1, "the other centre finds it right too"


async def test_it_is_mended_while_the_log_is_signed_on_and_after_an_interruption(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_repair, "LOT", 2)
    await town.run("DELETE FROM {s}.map_pages WHERE path <> '' AND path <> '0'")
    calls: list[int] = []
    real = map_repair.fetch

    async def fetch(connection: Any, sql: str, *values: Any) -> Any:
        if "map_mend(" in sql:
            calls.append(values[1])
            if len(calls) == 3:
                raise Problem("unavailable")
            if len(calls) == 6:
                await town.run("UPDATE {s}.map_pages SET body = body")
                # What signers find by then is whole as far as it goes: none that is not there is gone by.
                await repaired(town)
                await town.grow(2)
        return await real(connection, sql, *values)

    async def repaired(town: Town) -> None:
        monkeypatch.setattr(map_repair, "fetch", real)
        assert (await repair(town).mend("operator-2")).sound
        monkeypatch.setattr(map_repair, "fetch", fetch)

    monkeypatch.setattr(map_repair, "fetch", fetch)
    with pytest.raises(Problem, match="unavailable"):
        await repair(town).mend("operator-1")
    found = await repair(town).mend("operator-1")
    assert (found.outcome, found.size) == ("sound", 62)
    assert set(calls) == {60, 62}, "one lot was refused, for the log had moved on"
    assert (await town.said()).size == 62
    await town.grow(1)


@pytest.mark.parametrize("bent", ["leaf", "map"])
async def test_what_was_not_signed_is_not_put_in_place_and_sets_the_agency_aside(town: Town, bent: str) -> None:
    before = await pages(town)
    leaf = "UPDATE {s}.log SET leaf_data = set_byte(leaf_data, 3, get_byte(leaf_data, 3) # 1) WHERE seq = 19"
    if bent == "leaf":
        await town.run(leaf)
    else:
        await town.sign_as(extensions=("chukan-map-1 " + "A" * 43 + "=",))
    found = await repair(town).mend("operator-1")
    assert found.outcome == ("log_differs" if bent == "leaf" else "map_differs")
    assert await pages(town) == before
    assert await aside(town) == ["evidence"]
    await town.shelf.record("A1")
    await town.shelf.sequence()
    assert (await town.run("SELECT max(seq) FROM {s}.log"))[0][0] == 60, "nothing gets its place"
    assert len(await town.shelf.admin.fetch("SELECT * FROM chukan.resume_logs() WHERE agency = $1",
                                            town.shelf.agency)) == 1  # fmt: skip
    assert await aside(town) == ["evidence"]
    if bent == "leaf":
        # Once the leaves are back as they were, the same command lets the log go on.
        await town.run(leaf)
        assert (await repair(town).mend("operator-1")).sound
        assert await aside(town) == []
        await town.grow(1)
    await town.shelf.admin.execute("DELETE FROM chukan.log_aside WHERE agency = $1", town.shelf.agency)


async def test_a_log_without_a_map_has_nothing_to_mend(shelf: Any) -> None:
    town = Town(shelf)
    with pytest.raises(Problem, match="proof_pending"):
        await repair(town).mend("operator-1")
    await town.grow(4, town.another_signer(maps=False))
    found = await repair(town).mend("operator-1")
    assert (found.outcome, found.sound) == ("no_map", False)
    assert await aside(town) == []
