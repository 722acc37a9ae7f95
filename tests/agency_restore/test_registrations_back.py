"""One agency goes back to a moment: what it registered comes back, what happened stays, nobody else is touched."""

from typing import Any

import pytest

from chukan.tenants import copies, restore_copy
from chukan.tests.support.nation import ASKS, ASKS_WEST, GIVES, GIVES_WEST


async def changed_since(town: Any) -> tuple[Any, list[str]]:
    """Three people; a moment; then one's copy is altered, one's deleted, one is new; everybody is asked about."""
    world = town.world
    altered, deleted = [await world.person(ASKS, GIVES) for _ in range(2)]
    assert await town.asked(altered) == "provided"
    moment = await town.moment()
    await world.register(GIVES, altered, gaps=True)
    keys, agency = world.keys(GIVES), world.agency(GIVES)
    async with world.east.door(agency) as partition:
        await copies.delete(partition, keys, [(deleted, None)])
    new = await world.person(ASKS, GIVES)
    assert await town.asked(altered) == "provided_with_gaps"
    assert await town.asked(deleted) == "no_record"
    assert await town.asked(new) == "provided"
    await world.sequenced()
    return moment, [altered, deleted, new]


@pytest.mark.requirement("PLT-06")
async def test_copies_come_back_and_what_happened_stays(town: Any) -> None:
    world = town.world
    moment, (altered, deleted, new) = await changed_since(town)
    async with town.then(moment) as then:
        rows = await then.fetch(f"SELECT * FROM {town.schema()}.copies ORDER BY person")
    before = await town.digests(GIVES)
    done = await town.restore(moment)
    after = await town.digests(GIVES)
    assert (done.whole, done.agency.generation, done.rows["copies"]) == (False, 2, 2)
    assert await town.fetch(f"SELECT * FROM {town.schema()}.copies ORDER BY person") == rows
    assert {name for name in before if before[name] != after[name]} <= {"copies", "copy_marks", "codes"}
    for name in restore_copy.HAPPENED:
        assert before[name] == after[name], name
    # It goes on in the next generation: what comes back is answered from, and each record is there once.
    assert await town.state() == (2, "open")
    assert await town.asked(altered) == "provided"
    assert await town.asked(deleted) == "provided"
    assert await town.asked(new) == "no_record"
    await world.register(GIVES, new)
    assert await town.asked(new) == "provided"
    for code in (ASKS, GIVES):
        await world.until_records(code, 8)
        await world.sequenced()
        sql = f"SELECT count(*) AS n, count(DISTINCT record) AS records, max(seq) AS head FROM {town.schema(code)}.log"
        assert (len(await world.records(code)), *(await town.fetch(sql))[0].values()) == (8, 8, 8, 8)


@pytest.mark.requirement("PLT-06")
async def test_nobody_else_is_touched(town: Any) -> None:
    moment, _ = await changed_since(town)
    others = (ASKS, ASKS_WEST, GIVES_WEST)
    before = [await town.digests(code) for code in others]
    await town.restore(moment)
    assert [await town.digests(code) for code in others] == before
    assert await town.state(ASKS) == (1, "open")


async def test_every_table_of_an_agency_is_known_to_a_restore(town: Any) -> None:
    """A new table goes back, or stays, or is joined: somebody has to say so before it can come."""
    lists = (restore_copy.BACK, restore_copy.JOINED, restore_copy.EMPTIED, restore_copy.HAPPENED)
    named = [name for each in lists for name in each]
    rows = await town.fetch(
        "SELECT c.relname::text AS name FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = $1::regnamespace",
        town.schema(),
    )
    assert sorted(named) == sorted(row["name"] for row in rows)
