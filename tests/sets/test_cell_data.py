"""The cell's own things: snapshots, the canary, figures, hints, and what is forgotten after its time."""

import asyncio
import datetime as dt

import pytest

from chukan.errors import Problem
from chukan.tenants import births
from chukan.tenants.hints import Hint
from chukan.tenants.sets import CellSets, listen
from chukan.tenants.states import LinkStatus, Outcome, ProvisionState, Side


@pytest.fixture(scope="module")
def own_cell(any_server, make_cell):
    """A cell that no other file changes."""
    return make_cell(any_server, [1, 2])


@pytest.fixture
async def own(own_cell, open_cell):
    return await open_cell(own_cell)


@pytest.fixture
async def sets(own):
    return CellSets(own.primary("here").broker)


async def number_of(sets):
    """The number in force: provisions must be decided on it."""
    row = await sets.snapshot()
    return row.number if row else 0


async def test_a_snapshot_is_put_by_the_steward_and_read_by_the_broker(own, sets, make):
    assert await sets.snapshot() is None
    assert await sets.snapshot_number() == 0
    async with own.steward("here") as steward:
        assert await births.put_snapshot(steward, 5, b"body", b"signature", "key") is True
        assert await births.put_snapshot(steward, 5, b"body", b"signature", "key") is False
        for number, body in ((5, b"other"), (4, b"older")):
            with pytest.raises(Problem, match="common_data_stale"):
                await births.put_snapshot(steward, number, body, b"signature", "key")
        row = await sets.snapshot()
        assert (row.number, row.body, row.signature, row.key) == (5, b"body", b"signature", "key")
        assert await sets.snapshot_number() == 5
        assert await sets.provide([make.provide(snapshot=5), make.provide(snapshot=0)]) == ["stored", "again"]
        assert await births.put_snapshot(steward, 6, b"newer", b"signature", "key") is True
    assert await sets.provide([make.provide(snapshot=5)]) == ["again"]


async def test_the_canary_is_a_real_commit(own_cell, sets):
    admin = await own_cell.admin()
    before = await admin.fetchval("SELECT at FROM chukan.canary")
    await sets.canary()
    assert await admin.fetchval("SELECT at FROM chukan.canary") > before
    blocking = admin.transaction()
    await blocking.start()
    await admin.execute("LOCK TABLE chukan.canary")
    impatient = CellSets(sets._pool, timeout_s=0.3)
    with pytest.raises(Problem, match="unavailable"):
        await impatient.canary()
    await blocking.rollback()
    await sets.canary()
    await admin.close()


async def test_the_backlog_counts_what_is_open(sets, make):
    batch = make.batch()
    await sets.accept([batch], [make.line(batch, n, due=make.now) for n in range(3)])
    held = make.provide(held=True, snapshot=await number_of(sets))
    await sets.provide([held])
    rows = {(row.side, row.state): row for row in await sets.backlog()}
    assert rows[Side.INQUIRER, 10].count >= 3
    assert rows[Side.INQUIRER, 10].oldest_due == make.now
    assert rows[Side.PROVIDER, ProvisionState.HELD].count >= 1


async def test_copy_ages_follow_changes_and_loads(own_cell, sets, make):
    admin = await own_cell.admin()
    insert = (
        "INSERT INTO a00002.copies (id, person, kind, effective_from, layout, body, content)"
        " VALUES ($1, $2, $3, '2026-01-01', 1, 'x', $4) ON CONFLICT (person, kind, period, effective_from, layout)"
        " DO UPDATE SET body = excluded.body"
    )
    person = make.digest()
    assert await sets.copy_ages() == []
    await admin.execute(insert, make.id(), person, "TM1", make.digest())
    (first,) = await sets.copy_ages()
    assert (first.agency, first.kind) == (2, "TM1")
    await admin.execute(insert, make.id(), person, "TM1", make.digest())
    (second,) = await sets.copy_ages()
    assert second.at > first.at
    await admin.execute(
        "INSERT INTO a00002.loads (id, kind, layout, mode, expected, state, committed_at)"
        " VALUES ($1, 'TM1', 1, 'full', 0, 'committed', $2), ($3, 'TM2', 1, 'full', 0, 'open', NULL)",
        make.id(),
        make.far,
        make.id(),
    )
    assert [(row.kind, row.at) for row in await sets.copy_ages()] == [("TM1", make.far)]
    assert await sets.copy_ages(after=2) == []
    await admin.close()


async def test_keys_and_sent_bytes_are_forgotten_after_their_time(own_cell, sets, make):
    admin = await own_cell.admin()
    number = await number_of(sets)
    old, new, sent = (make.provide(2, snapshot=number) for _ in range(3))
    await sets.provide([old, new, sent])
    await sets.settle_provisions(
        await sets.lease("worker", Side.PROVIDER, 64, 60),
        [make.receipt(sent, ProvisionState.RECEIPTED, Outcome.PROVIDED)],
    )
    batches = [make.batch(2), make.batch(2)]
    await sets.accept(batches, [])
    long_ago = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    await admin.execute("UPDATE a00002.inbox SET at = $1 WHERE id = $2", long_ago, old.inbox)
    await admin.execute("UPDATE a00002.permits_used SET until = $1 WHERE permit = $2", long_ago, old.permit)
    await admin.execute("UPDATE a00002.idempotency SET at = $1 WHERE key = $2", long_ago, batches[0].key)
    assert await sets.forget(0) == 2
    assert await sets.forget(2) == 0
    left = {
        "inbox": {row["id"] for row in await admin.fetch("SELECT id FROM a00002.inbox")},
        "permits": {row["permit"] for row in await admin.fetch("SELECT permit FROM a00002.permits_used")},
        "keys": {row["key"] for row in await admin.fetch("SELECT key FROM a00002.idempotency")},
        "outbox": {row["id"] for row in await admin.fetch("SELECT id FROM a00002.outbox")},
    }
    assert old.inbox not in left["inbox"]
    assert new.inbox in left["inbox"]
    assert (old.permit in left["permits"], new.permit in left["permits"]) == (False, True)
    assert (batches[0].key in left["keys"], batches[1].key in left["keys"]) == (False, True)
    assert (sent.id in left["outbox"], new.id in left["outbox"]) == (False, True)
    with pytest.raises(Problem, match="internal"):
        await sets.forget(0, keep_days=6)
    await admin.close()


async def test_hints_reach_whoever_listens_and_are_sent_alone(own, sets):
    heard: list[tuple[str, Side, Hint]] = []
    woken = asyncio.Event()

    def hear(cell, side, hint):
        heard.append((cell, side, hint))
        woken.set()

    async def wait_for(count):
        while len(heard) < count:
            woken.clear()
            async with asyncio.timeout(10):
                await woken.wait()

    task = asyncio.create_task(listen(own, "here", hear))
    await wait_for(2)
    everywhere = [("here", Side.INQUIRER, Hint()), ("here", Side.PROVIDER, Hint())]
    assert sorted(heard, key=lambda one: one[1]) == everywhere, "on connect everybody looks"
    told = Hint("east-1", frozenset({3, 17}), frozenset())
    await sets.notify(Side.PROVIDER, told)
    await wait_for(3)
    assert heard[2] == ("here", Side.PROVIDER, told)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lost_listener_comes_back_and_looks_again(own_cell, own):
    looks = asyncio.Queue()
    task = asyncio.create_task(listen(own, "here", lambda _cell, side, _hint: looks.put_nowait(side)))
    async with asyncio.timeout(10):
        assert {await looks.get() for _ in Side} == set(Side)
    admin = await own_cell.admin()
    ended = await admin.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND usename = 'chukan_broker' AND query LIKE 'LISTEN%'"
    )
    assert ended == 1
    async with asyncio.timeout(10):
        assert {await looks.get() for _ in Side} == set(Side)
    task.cancel()
    await admin.close()


async def test_a_person_of_one_agency_is_not_found_at_another(own_cell, sets, make):
    person = make.digest()
    admin = await own_cell.admin()
    await admin.execute(
        "INSERT INTO a00001.codes (person, status, addressee) VALUES ($1, $2, 'x')", person, LinkStatus.REQUESTED
    )
    assert [row is not None for row in await sets.find_codes([(1, person), (2, person)])] == [True, False]
    await admin.close()
