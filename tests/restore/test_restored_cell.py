"""A restored cell: closed until it is reconciled and opened, and nothing of before the opening is done twice."""

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import reopening
from chukan.platform.wire.network import Notice
from chukan.tenants import directory
from chukan.tenants.operations import OPERATORS
from chukan.tenants.states import Side
from tests.restore.conftest import CELL, Town
from tests.support.nation import ASKS, ASKS_WEST, GIVES, GIVES_WEST

pytestmark = pytest.mark.requirement("TXR-03")


async def test_a_closed_cell_reads_and_refuses_every_write(town: Town) -> None:
    world = town.world
    here = await world.person(ASKS, GIVES_WEST)
    there = await world.person(ASKS_WEST, GIVES_WEST)
    batch = await world.ask(ASKS, [world.line(here, GIVES_WEST)])
    assert await town.outcome(ASKS, batch) == "provided"
    await town.settled()
    await town.keep()
    await town.restore()
    for exchange in (world.east, world.west):
        agency, openings = town.agency(ASKS), exchange.openings
        with pytest.raises(Problem, match="cell_restored") as refused:
            await world.ask(ASKS, [world.line(here, GIVES_WEST)], via=exchange.settings.exchange.name)
        assert refused.value.retry_after_s == 30
        with pytest.raises(Problem, match="cell_restored"):
            await exchange.inquiries.collect(agency, batch.batch)
        with pytest.raises(Problem, match="cell_restored"):
            await openings.admit(CELL)
        assert (openings.closed(CELL), openings.epoch(CELL)) == (True, 1)
        assert [line.outcome for line in (await exchange.inquiries.view(agency, batch.batch)).lines] == ["provided"]
        assert not exchange.openings.closed("west")
    assert len(await world.records(ASKS)) == 1
    # The other cell is not touched by it, and asks and answers as ever.
    other = await world.ask(ASKS_WEST, [world.line(there, GIVES_WEST)], via="west")
    assert await town.outcome(ASKS_WEST, other) == "provided"


async def test_nobody_works_in_a_closed_cell(town: Town) -> None:
    world = town.world
    await town.keep()
    await town.restore()
    sets = world.west.sets[CELL]
    for call in (
        sets.lease("somebody-00000001", Side.PROVIDER, 64, 10.0),
        sets.sequence("somebody", 10),
        sets.forget(0),
        sets.fold_statistics(0),
    ):
        with pytest.raises(Problem, match="cell_restored"):
            await call
    await sets.canary()
    assert await sets.take_snapshots()


async def test_an_old_permit_is_refused_reissued_and_answered_once(town: Town) -> None:
    world = town.world
    addressee = await world.person(ASKS_WEST, GIVES)
    await town.keep()
    await town.restore()
    # The cell is closed: the notice waits at the network, whose permit is from before the opening.
    batch = await world.ask(ASKS_WEST, [world.line(addressee, GIVES)], via="west")
    await world.until(lambda: _state(town, batch), "permitted")
    first = (await world.network.records(0, 10)).records[-1].reference
    waiting = await _notices(town, "outbox")
    assert len(waiting) == 1
    assert (await town.reconcile()).count == 0
    opened = await town.open(0)
    marks = [await world.east.sets[CELL].evidence_restored(town.agency(code).number) for code in (ASKS, GIVES)]
    assert [len(each) for each in marks] == [1, 1], "each log says that it was restored"
    acts = [await world.east.sets[CELL].operations_restored(town.agency(code).number) for code in (ASKS, GIVES)]
    assert [len(each) for each in [*acts, await world.east.sets[CELL].operations_restored(OPERATORS)]] == [1, 1, 1]
    assert await town.outcome(ASKS_WEST, batch) == "provided"
    await town.settled()
    (record,) = (await world.network.records(0, 10)).records
    assert record.reference != first
    assert (record.outcome, await town.replaced()) == ("provided", 1)
    assert await town.references(ASKS_WEST) == [("provided", str(record.reference))]
    assert await town.references(GIVES) == [("provided", str(record.reference))]
    assert opened.epoch == 2
    # Whoever brings the first permit again, under its own or another message, is refused and changes nothing.
    for message in (waiting[0].id, world.chance.uuid7()):
        (ack,) = await world.west.inbox.notices([msgspec.structs.replace(waiting[0], id=message)])
        assert (ack.status, ack.reason) == ("refused", "permit_before_restore")
    assert await town.references(GIVES) == [("provided", str(record.reference))]


async def test_a_permit_used_in_the_lost_time_is_not_answered_again(town: Town) -> None:
    world = town.world
    addressee = await world.person(ASKS_WEST, GIVES)
    await town.keep()
    batch = await world.ask(ASKS_WEST, [world.line(addressee, GIVES)], via="west")
    assert await town.outcome(ASKS_WEST, batch) == "provided"
    await town.settled()
    await town.restore()
    assert await world.records(GIVES) == [], "the provision is lost"
    report = await town.reconcile()
    (record,) = (await world.network.records(0, 10)).records
    assert [(each.agency, each.what, each.id, each.final) for each in report.differences] == [
        (GIVES, "provision_unknown", str(record.reference), "provided")
    ]
    assert report.redelivered == 0
    with pytest.raises(Problem, match="differences_not_accepted") as refused:
        await town.open(0)
    assert refused.value.expected == "1"
    assert world.west.openings.closed(CELL), "nothing was changed by it"
    await town.open(1)
    taken = await _notices(town, "pushed")
    for message in (taken[0].id, world.chance.uuid7()):
        (ack,) = await world.west.inbox.notices([msgspec.structs.replace(taken[0], id=message)])
        assert (ack.status, ack.reason) == ("refused", "permit_before_restore")
    assert await world.records(GIVES) == []
    assert await town.replaced() == 0, "the network knows that it was answered"


async def test_a_redelivered_answer_is_accepted_once(town: Town) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES_WEST, review=True)
    batch = await world.ask(ASKS, [world.line(addressee, GIVES_WEST)])
    await world.until(lambda: world.state_of(ASKS, batch), "held")
    await town.settled()
    await town.keep()
    await town.release(GIVES_WEST)
    assert await town.outcome(ASKS, batch) == "provided"
    await town.settled()
    await town.restore()
    assert await world.state_of(ASKS, batch) == "held", "the answer is lost"
    report = await town.reconcile()
    assert (report.count, report.redelivered) == (0, 1)
    assert await world.state_of(ASKS, batch) == "held", "the cell is closed still"
    await town.open(0)
    assert await town.outcome(ASKS, batch) == "provided"
    content = await world.west.inquiries.collect(town.agency(ASKS), batch.batch)
    assert content.lines[0].content is not None
    records = await town.references(ASKS)
    assert [outcome for outcome, _ in records] == ["provided"]
    assert await town.references(GIVES_WEST) == records
    # Once more changes nothing.
    await world.network.store.write(
        lambda c: c.execute(
            "INSERT INTO outbox (route, channel, id, body, until, position) SELECT route, channel, id, body, until,"
            " position FROM pushed WHERE channel = 'answers' AND position IS NOT NULL LIMIT 1"
        )
    )
    await town.settled()
    assert await town.references(ASKS) == records


async def test_a_notice_whose_effect_is_gone_is_asked_anew(town: Town) -> None:
    world = town.world
    addressee = await world.person(ASKS_WEST, GIVES, review=True)
    await town.keep()
    batch = await world.ask(ASKS_WEST, [world.line(addressee, GIVES)], via="west")
    await world.until(lambda: _state(town, batch), "held")
    await town.settled()
    await town.restore()
    assert (await world.west.reviews.list(town.agency(GIVES))).reviews == []
    report = await town.reconcile()
    assert (report.count, report.redelivered) == (0, 1)
    await town.open(0)
    await town.release(GIVES)
    assert await town.outcome(ASKS_WEST, batch) == "provided"
    await town.settled()
    records = await town.references(GIVES)
    assert [outcome for outcome, _ in records] == ["provided"]
    assert await town.references(ASKS_WEST) == records
    assert await town.replaced() == 1


async def test_what_was_held_before_can_not_be_decided_under_its_old_permit(town: Town) -> None:
    world = town.world
    addressee = await world.person(ASKS_WEST, GIVES, review=True)
    batch = await world.ask(ASKS_WEST, [world.line(addressee, GIVES)], via="west")
    await world.until(lambda: _state(town, batch), "held")
    await town.settled()
    await town.keep()
    await town.release(GIVES)
    assert await town.outcome(ASKS_WEST, batch) == "provided"
    await town.restore()
    report = await town.reconcile()
    assert [(each.agency, each.what, each.final) for each in report.differences] == [
        (GIVES, "provision_undecided", "provided")
    ]
    await town.open(1)
    with pytest.raises(Problem, match="permit_before_restore"):
        await town.release(GIVES)
    assert await world.records(GIVES) == []


async def test_queries_and_codes_of_the_lost_time_are_listed_and_a_code_comes_again(town: Town) -> None:
    world = town.world
    addressee = await world.person(ASKS, GIVES_WEST)
    await town.keep()
    batch = await world.ask(ASKS, [world.line(addressee, GIVES_WEST)])
    assert await town.outcome(ASKS, batch) == "provided"
    await world.acquire(ASKS, [("000000000077777", "99000777770")])
    await town.settled()
    await town.restore()
    report = await town.reconcile()
    found = {each.what: each for each in report.differences}
    assert sorted(found) == ["code_to_acquire", "request_unknown"]
    assert found["request_unknown"].id == str(batch.lines[0].id)
    assert report.count == 2
    await town.open(2)
    # The agency acquires it once more, and gets the very code that the network gave before.
    await world.acquire(ASKS, [("000000000077777", "99000777770")])
    codes = "SELECT count(*) FROM codes WHERE agency = ?"
    assert await world.network.store.read(lambda c: c.execute(codes, (ASKS,)).fetchone()[0]) == 2


async def test_what_was_not_restored_is_not_opened(town: Town) -> None:
    with pytest.raises(Problem, match="cell_not_restored"):
        await town.reconcile()
    with pytest.raises(Problem, match="cell_not_restored"):
        await town.open(0)
    await town.keep()
    await town.restore()
    await town.open(0)
    with pytest.raises(Problem, match="cell_not_restored"):
        await town.open(0)
    async with town.place() as place:
        assert (await reopening.reopening.read_opening(place.admin)).epoch == 2


async def test_settings_of_before_the_restore_are_served_nothing(town: Town) -> None:
    world = town.world
    await town.keep()
    await town.restore()
    await town.open(0)
    world.epochs[CELL] = 1
    await town.stop()
    await town.start()
    for call in (world.east.sets[CELL].canary(), world.records(ASKS)):
        with pytest.raises(Problem, match="unavailable"):
            await call
    world.epochs[CELL] = 2
    await town.stop()
    await town.start()
    assert await world.records(ASKS) == []


async def _state(town: Town, batch) -> str:
    (line,) = (await town.world.west.inquiries.view(town.agency(ASKS_WEST), batch.batch)).lines
    return line.state


async def _notices(town: Town, table: str) -> list[Notice]:
    """The notices that wait at the network (outbox), or that were accepted (pushed)."""
    sql = f"SELECT body FROM {table} WHERE channel = 'notices'"
    rows = await town.world.network.store.read(lambda c: c.execute(sql).fetchall())
    return [msgspec.json.decode(row[0], type=Notice) for row in rows]


async def test_an_operator_opens_it_by_the_settings_of_an_exchange_and_it_catches_up(town: Town) -> None:
    """As the commands and the drill do; common data that came after the moment are in force again."""
    world = town.world
    addressee = await world.person(ASKS_WEST, GIVES)
    await town.keep()
    world.snapshot = directory.renumber(world.snapshot, world.snapshot.number + 1, world.clock.now())
    await world.publish()
    await town.restore()
    password = world.folder / "superuser"
    password.write_text(world.server.superuser_password)
    stores = {centre: world.folder / f"keys-{centre}" for centre in ("east", "west")}
    settings = msgspec.structs.replace(world.settings("west"), keystores=stores)
    admin = {"admin_user": world.server.superuser, "admin_password_file": password}
    found = await reopening.reconcile_cell(settings, CELL, town.moment, **admin)
    assert (found.agencies, found.differences, found.epoch) == (2, [], 2)
    with pytest.raises(Problem, match="differences_not_accepted"):
        await reopening.open_cell(settings, CELL, town.moment, accept=5, **admin)
    opened = await reopening.open_cell(settings, CELL, town.moment, accept=0, note="a drill", **admin)
    await town.until_open()
    assert (opened.epoch, opened.agencies) == (2, 2)
    assert await world.west.sets[CELL].snapshot_number() == world.snapshot.number
    async with town.place() as place:
        note = await place.admin.fetchval("SELECT note FROM chukan.cell_opening WHERE epoch = 2")
    assert note.endswith("0 differences accepted; a drill")
    batch = await world.ask(ASKS_WEST, [world.line(addressee, GIVES)], via="west")
    assert await town.outcome(ASKS_WEST, batch) == "provided"
