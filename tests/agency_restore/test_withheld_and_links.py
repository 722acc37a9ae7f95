"""What is joined: links and holds of the moment with those of now, so that nothing withheld is let out by a restore."""

import uuid
from typing import Any

import pytest

from chukan.tenants import copies, loads
from chukan.tenants.load_forms import LoadSpec
from chukan.tenants.states import LinkStatus
from chukan.tests.support.nation import ASKS, GIVES, TAX


def digest_of(town: Any, addressee: str) -> bytes:
    return copies.person_digest(town.world.keys(GIVES), addressee)


async def hold(town: Any, *wanted: tuple[str | None, str | None, bool]) -> None:
    async with town.world.east.door(town.world.agency(GIVES)) as partition:
        await copies.set_holds(partition, town.world.keys(GIVES), list(wanted))


async def links(town: Any) -> dict[bytes, tuple[int, bytes, int]]:
    rows = await town.fetch(f"SELECT person, status, code_digest, version FROM {town.schema()}.codes")
    return {row["person"]: (row["status"], row["code_digest"], row["version"]) for row in rows}


async def test_links_come_back_and_codes_given_since_stay(town: Any) -> None:
    world, table = town.world, f"{town.schema()}.codes"
    lost, moved, suspended, other = [await world.person(ASKS, GIVES) for _ in range(4)]
    before = await links(town)
    moment = await town.moment()
    since = await world.person(ASKS, GIVES)
    lost_to, moved_from = digest_of(town, lost), digest_of(town, moved)
    await town.fetch(f"DELETE FROM {table} WHERE person = $1", lost_to)
    # The code of one person was given to somebody who had none, by mistake; the number of another stands suspended.
    stranger = digest_of(town, "stranger")
    await town.fetch(f"UPDATE {table} SET person = $2, version = 7 WHERE person = $1", moved_from, stranger)
    await town.fetch(f"UPDATE {table} SET status = 3, version = 9 WHERE person = $1", digest_of(town, suspended))
    done = await town.restore(moment)
    after = await links(town)
    assert done.kept["links"] == 1
    assert set(after) == {*before, digest_of(town, since)}
    assert after[digest_of(town, since)][0] == LinkStatus.ACTIVE
    assert {person: found[:2] for person, found in after.items() if person in before} == {
        person: (LinkStatus.SUSPENDED if person == digest_of(town, suspended) else found[0], found[1])
        for person, found in before.items()
    }
    # A version never goes back: whoever decided on the one of before must decide again.
    assert after[digest_of(town, suspended)][2] == 10
    assert after[digest_of(town, other)][2] > before[digest_of(town, other)][2]
    assert await town.asked(lost) == await town.asked(moved) == "provided"
    assert await town.asked(suspended) != "provided"


async def test_an_acquisition_that_was_open_goes_on_from_where_it_is_now(town: Any) -> None:
    world = town.world
    table = f"{town.schema()}.codes"
    answered, lost = [await world.person(ASKS, GIVES) for _ in range(2)]
    number = {"digest": b"n" * 32, "sealed": b"sealed"}
    for person in (digest_of(town, answered), digest_of(town, lost)):
        await town.fetch(
            f"INSERT INTO {table} (person, status, addressee, request, number_digest, number)"
            f" SELECT sha256($1), 1, addressee, $2, sha256($1 || $3), $4 FROM {table} WHERE person = $1",
            person, uuid.uuid4(), number["digest"], number["sealed"],
        )  # fmt: skip
    before = await links(town)
    waiting = [person for person, (status, *_) in before.items() if status == LinkStatus.REQUESTED]
    assert len(waiting) == 2
    moment = await town.moment()
    code = "status = 2, code = 'sealed', code_digest = sha256(person), number = NULL, number_digest = NULL"
    await town.fetch(f"UPDATE {table} SET {code} WHERE person = $1", waiting[0])
    await town.fetch(f"DELETE FROM {table} WHERE person = $1", waiting[1])
    await town.restore(moment)
    after = await links(town)
    assert after[waiting[0]][0] == LinkStatus.ACTIVE
    assert after[waiting[1]][0] == LinkStatus.REQUESTED


async def test_no_hold_is_lifted_by_a_restore(town: Any) -> None:
    world = town.world
    was, lifted, flagged, free = [await world.person(ASKS, GIVES) for _ in range(4)]
    await hold(town, (was, None, True), (lifted, TAX, True))
    moment = await town.moment()
    await hold(town, (lifted, TAX, False), (None, "TM00000000000003", True))
    await world.register(GIVES, flagged, review=True)
    done = await town.restore(moment)
    rows = await town.fetch(f"SELECT person, kind FROM {town.schema()}.holds")
    assert {(row["person"], row["kind"]) for row in rows} == {
        (digest_of(town, was), None),
        (digest_of(town, lifted), TAX),
        (None, "TM00000000000003"),
        # Its copy of the moment bears no flag, so a hold stands for the one that it has now.
        (digest_of(town, flagged), TAX),
    }
    assert done.kept["holds"] == 2
    assert await town.asked(free) == "provided"
    for addressee in (was, lifted, flagged):
        batch = await world.ask(ASKS, [world.line(addressee, GIVES)])
        await world.until(lambda batch=batch: world.state_of(ASKS, batch), "held")


@pytest.mark.requirement("PLT-06")
async def test_loads_that_the_copies_do_not_show_are_aborted(town: Any) -> None:
    world = town.world
    agency, keys = world.agency(GIVES), world.keys(GIVES)
    ids = [world.chance.uuid7() for _ in range(3)]

    async def load(which: Any, *addressees: str, commit: bool) -> None:
        spec = LoadSpec(
            kind=TAX, layout=1, mode="difference", expected=len(addressees), period="2026", on_error="reject_file",
            source="test",
        )  # fmt: skip
        lines = [
            copies.Copy(
                addressee=each, kind=TAX, layout=1, effective_from=world.clock.now().date(), period="2026",
                items=b'{"TM1":"1"}',
            )
            for each in addressees
        ]  # fmt: skip
        async with world.east.door(agency) as partition:
            await loads.open_load(partition, spec, load=which, at=world.clock.now())
            await loads.put_part(partition, keys, which, 0, lines, digest=bytes(32))
            if commit:
                digest = loads.digest_of_parts([bytes(32)])
                await loads.commit(partition, which, digest=digest, at=world.clock.now())

    await load(ids[0], "one", "two", commit=True)
    moment = await town.moment()
    await load(ids[1], "two", "three", commit=True)
    await load(ids[2], "four", commit=False)
    done = await town.restore(moment)
    async with world.east.door(agency) as partition:
        states = [(await loads.get(partition, each)).state for each in ids]
        assert await partition.fetchval(f"SELECT count(*) FROM {partition.table('stage')}") == 0
        found = await copies.search(partition, keys, [("one", None), ("two", None), ("three", None)])
    assert states == ["committed", "aborted", "aborted"]
    assert done.kept["loads"] == 2
    assert sorted(each.addressee for each in found) == ["one", "two"]
