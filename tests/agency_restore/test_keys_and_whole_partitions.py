"""Keys decide what can be read of what comes back, and it is told first; a partition that is gone comes back whole."""

import io
import json
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.tenants import births, copies, move_copy
from chukan.tenants.moving import Mover
from chukan.tenants.readable import Rows
from chukan.tests.support.nation import ASKS, GIVES


async def opened(town: Any, *addressees: str) -> list[str]:
    """The copies of these people, opened under the agency's keys of now."""
    async with town.world.east.door(town.world.agency(GIVES)) as partition:
        found = await copies.search(partition, town.world.keys(GIVES), [(each, None) for each in addressees])
    return [each.addressee for each in found]


@pytest.mark.requirement("PLT-06")
async def test_what_was_sealed_under_an_older_key_opens_after_it_came_back(town: Any) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    moment = await town.moment()
    assert world.keystores.rotate(world.agency(GIVES).number) == 2
    await world.register(GIVES, addressee, gaps=True)
    async with town.then(moment) as then:
        prospect = await town.restorer().look(GIVES, then)
    assert prospect.tables == {"codes": Rows(1, 0), "copies": Rows(1, 0)}
    assert (prospect.unreadable, prospect.keys, prospect.whole) == (0, True, False)
    await town.restore(moment)
    assert await opened(town, addressee) == [addressee]
    assert await town.asked(addressee) == "provided"


@pytest.mark.requirement("PLT-06")
async def test_what_no_key_opens_any_more_is_told_before_anything_is_done(
    town: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = town.world
    number = world.agency(GIVES).number
    await world.person(ASKS, GIVES)
    world.keystores.rotate(number)
    second = [await world.person(ASKS, GIVES) for _ in range(2)]
    moment = await town.moment()
    for folder in ("keys-east", "keys-west"):
        # The newer version is gone from both stores, as when they were brought back from copies that are too old.
        file = world.keystores._stores[folder[5:]]._keys / f"{number:05d}.json"
        known = json.loads(file.read_bytes())
        known["keys"] = [each for each in known["keys"] if (each["purpose"], each["version"]) != ("data", 2)]
        file.write_text(json.dumps(known))
    world.keystores.forget(number)
    async with town.then(moment) as then:
        prospect = await town.restorer().look(GIVES, then)
    assert prospect.tables == {"codes": Rows(3, len(second)), "copies": Rows(3, len(second))}
    # It goes on after the first question, and not after the second one.
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{GIVES}\nno\n"))
    with pytest.raises(Problem, match="not_confirmed") as refused:
        await town.restore(moment, confirmed=False)
    assert refused.value.expected == "unreadable"
    said = " ".join(capsys.readouterr().err.split())
    assert "4 rows stay unreadable for want of a key that was destroyed (codes 2, copies 2)." in said
    assert await town.state() == (1, "open")
    assert (await town.restore(moment)).rows["copies"] == 1 + len(second)


@pytest.mark.requirement("PLT-06")
async def test_of_destroyed_keys_it_is_told_that_nothing_opens(
    town: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = town.world
    await world.person(ASKS, GIVES)
    moment = await town.moment()
    world.keystores.destroy(world.agency(GIVES).number)
    async with town.then(moment) as then:
        prospect = await town.restorer().look(GIVES, then)
    assert prospect.tables == {"codes": Rows(1, 1), "copies": Rows(1, 1)}
    assert prospect.keys is False
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    with pytest.raises(Problem, match="not_confirmed") as refused:
        await town.restore(moment, confirmed=False)
    assert refused.value.expected == GIVES
    capsys.readouterr()
    await town.restore(moment)
    assert "for want of its keys, which were destroyed" in " ".join(capsys.readouterr().err.split())
    assert await town.state() == (2, "open")


async def destroy_tables(town: Any) -> None:
    """As by a mistake of the databases' administrator."""
    agency = town.world.agency(GIVES)
    admin = await town.world.admin(town.world.databases["east"])
    try:
        await admin.execute("UPDATE chukan.agencies SET state = 'closed' WHERE agency = $1", agency.number)
        await births.depart(admin, agency.number)
    finally:
        await admin.close()


@pytest.mark.requirement("PLT-06")
async def test_a_partition_that_is_gone_comes_back_whole(town: Any) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    assert await town.asked(addressee) == "provided"
    await world.until_records(GIVES, 1)
    await world.sequenced()
    moment = await town.moment()
    neighbour = await town.digests(ASKS)
    before = await town.digests(GIVES)
    await destroy_tables(town)
    with pytest.raises(Problem):
        await world.register(GIVES, addressee)
    done = await town.restore(moment)
    assert (done.whole, done.agency.generation) == (True, 2)
    assert await town.digests(GIVES) == before
    assert await town.digests(ASKS) == neighbour
    assert await town.state() == (2, "open")
    # What was used since is not known any more, so no permit of before is served.
    (row,) = await town.fetch("SELECT opened_at > $1 AS since FROM chukan.agencies WHERE agency = $2",
                              moment.at, world.agency(GIVES).number)  # fmt: skip
    assert row["since"] is True
    assert await opened(town, addressee) == [addressee]
    assert await town.asked(addressee) == "provided"
    await world.until_records(GIVES, 2)
    await world.sequenced()
    (row,) = await town.fetch(f"SELECT count(*) AS n, max(seq) AS head FROM {town.schema()}.log")
    assert tuple(row.values()) == (2, 2)


async def test_a_whole_partition_that_came_half_way_comes_back_at_the_next_try(
    town: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    moment = await town.moment()
    before = await town.digests(GIVES)
    await destroy_tables(town)
    document = town.order(moment.target())

    async def dying(*_: Any) -> Any:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(move_copy, "_digest", dying)
        with pytest.raises(KeyError):
            await town.restore(moment, document=document)
    assert await town.state() == (2, "arriving")
    with pytest.raises(Problem, match="agency_moved"):
        await world.register(GIVES, addressee)
    # The source is thrown away each time; the moment of this test is one folder, thawed by hand.
    async with town.then(moment) as then:
        await then.fetch("SELECT chukan.move_thaw($1)", world.agency(GIVES).number)
    done = await town.restore(moment, document=document)
    assert (done.whole, done.agency.generation) == (True, 2)
    assert await town.digests(GIVES) == before
    assert await town.asked(addressee) == "provided"


async def test_where_it_lived_then_and_where_it_lives_now_may_differ(town: Any) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES)
    moment = await town.moment()
    await world.register(GIVES, addressee, gaps=True)
    made = town.installation
    mover = Mover(made.cells, made.publisher, town.restorer()._admins)
    await mover.move(GIVES, "west")
    await town.follow()
    with pytest.raises(Problem, match="agency_not_there_then"):
        await town.restore(moment, cell="west")
    done = await town.restore(moment)
    assert (done.agency.cell, done.agency.generation) == ("west", 3)
    assert await town.state(cell="west") == (3, "open")
    assert await town.asked(addressee) == "provided"


async def test_what_is_on_its_way_or_closed_is_not_restored(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = town.world
    moment = await town.moment()
    number = world.agency(GIVES).number
    admin = await world.admin(world.databases["west"])
    await admin.fetchval("SELECT chukan.move_receive($1, 2)", number)
    with pytest.raises(Problem, match="restore_unfit"):
        await town.restore(moment)
    await births.depart(admin, number)
    await admin.close()
    await town.fetch("SELECT chukan.close_agency($1)", number)
    with pytest.raises(Problem, match="agency_closed"):
        await town.restore(moment)
    assert await town.state() == (1, "closed")
