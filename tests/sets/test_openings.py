"""The opening of a restored cell: no permit that was issued before it leaves anything behind."""

import dataclasses
import datetime as dt

import asyncpg
import pytest

from chukan.tenants.sets.common import UNGUARDED, columns, record_columns
from chukan.tenants.sets.provision import _PROVIDE_COLUMNS

AGENCY = 99999


@pytest.fixture
async def opened(bench, make):
    """An agency that was opened just now; others of the cell were not."""
    known = make.provide(AGENCY)
    assert await bench.sets.provide([known]) == ["stored"]
    await bench.admin.execute("UPDATE chukan.agencies SET opened_at = clock_timestamp() WHERE agency = $1", AGENCY)
    yield known
    await bench.admin.execute("UPDATE chukan.agencies SET opened_at = '-infinity' WHERE agency = $1", AGENCY)


async def test_a_cell_that_was_never_restored_is_in_its_first_epoch(bench):
    opening = await bench.sets.opening()
    assert (opening.epoch, opening.opened_at) == (1, dt.datetime.min.replace(tzinfo=dt.UTC))


@pytest.mark.requirement("PRV-01", "TXR-03")
async def test_an_older_permit_leaves_nothing_and_a_newer_one_serves(bench, make, opened):
    old, other, new = make.provide(AGENCY), make.provide(1), make.provide(AGENCY, permit_issued=make.far)
    assert await bench.sets.provide([old, other, new]) == ["before_restore", "stored", "stored"]
    for table, by, value in (
        ("provisions", "id", old.id),
        ("records", "id", old.id),
        ("outbox", "id", old.id),
        ("inbox", "id", old.inbox),
    ):
        assert await bench.rows(AGENCY, table, value, by=by) == []
    used = await bench.admin.fetchval(f"SELECT count(*) FROM a{AGENCY}.permits_used WHERE permit = $1", old.permit)
    assert used == 0
    assert await bench.work("provision_work", old.id) is None


async def test_a_message_that_was_taken_before_is_a_repeat(bench, make, opened):
    again = dataclasses.replace(opened, id=make.id())
    again = dataclasses.replace(again, record=make.record(again.id))
    assert await bench.fenced(bench.sets.provide([again])) == ["repeat"]
    replay = dataclasses.replace(again, inbox=make.id())
    assert await bench.sets.provide([replay]) == ["before_restore"]


async def test_the_release_before_provides_as_ever_and_nothing_after_a_restore(bench, make, opened):
    """Its exchanges call provide(), which tells nothing of the issue."""

    async def provide(*rows):
        names = [name for name in _PROVIDE_COLUMNS if name != "permit_issued"]
        given = [*columns(rows, *names), *record_columns(row.record for row in rows)]
        return await bench.sets._words("provide", *given)

    new, other = make.provide(AGENCY, permit_issued=make.far), make.provide(2)
    assert await provide(new, other) == ["again", "stored"]
    assert await provide(other) == ["repeat"]
    assert await provide(opened) == ["repeat"]
    assert await bench.rows(AGENCY, "provisions", new.id) == []


async def test_no_login_opens_a_cell_and_no_epoch_comes_twice(bench):
    with pytest.raises(asyncpg.PostgresError, match="later epoch"):
        await bench.admin.execute("SELECT chukan.open_cell(1, '')")
    async with bench.cells.primary("here").broker.acquire() as broker:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await broker.execute("SELECT chukan.open_cell(2, '')")


async def test_a_guard_stands_before_everything_that_changes_what_agencies_have(bench):
    rights = (
        "SELECT proname::text, provolatile::text FROM pg_proc WHERE pronamespace = 'chukan'::regnamespace"
        " AND has_function_privilege('chukan_broker', oid, 'EXECUTE')"
    )
    changing = {row[0] for row in await bench.admin.fetch(rights) if row[1] == "v"}
    # What changes and is not guarded belongs to the cell itself.
    assert changing & UNGUARDED == {"canary_sing", "release", "snapshot_confirm", "snapshot_take"}
    asked = []

    async def admit():
        asked.append(1)

    bench.sets.guard(admit)
    await bench.sets.opening()
    await bench.sets.canary()
    assert asked == []
    await bench.sets.release(bench.owner)
    await bench.sets.fold_statistics(100_000)
    assert asked == [1]
