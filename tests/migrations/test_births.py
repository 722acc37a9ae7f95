"""Agencies come and go while the cell works: nobody waits for them, and nothing is left half done."""

import asyncio
import contextlib

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants import births
from chukan.tenants.partition import act_for
from chukan.tenants.rows import AcceptBatch, AcceptLine
from chukan.tenants.sets import CellSets
from chukan.tenants.states import InquiryState, Outcome

LEAVES = 12


async def within(seconds, work):
    """Await something that must not take longer."""
    async with asyncio.timeout(seconds):
        return await work


@pytest.fixture(scope="module")
def cell(any_server, make_cell):
    return make_cell(any_server, [1])


@pytest.fixture
async def cells(cell, open_cell):
    return await open_cell(cell)


@pytest.fixture
async def steward(cells):
    async with cells.steward("here") as connection:
        yield connection


@pytest.fixture
async def admin(cell):
    connection = await cell.admin()
    yield connection
    await connection.close()


@pytest.fixture
def accept(cells, draw):
    """Accept one line for an agency, or tell that it is refused."""
    sets = CellSets(cells.primary("here").broker)

    async def one(agency, generation=1):
        batch = AcceptBatch(agency, generation, draw.bytes(32), draw.bytes(32), draw.id())
        line = AcceptLine(
            agency, batch.batch, draw.id(), 0, InquiryState.ACCEPTED, Outcome.NONE, None, draw.now, draw.now,
            None, b"request", b"outbox",
        )  # fmt: skip
        (accepted,) = await sets.accept([batch], [line])
        return accepted.fresh

    return one


async def leaves_of(admin, agency):
    return await admin.fetchval(
        "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'",
        f"a{agency:05d}",
    )


async def test_an_agency_is_born_once(steward, admin, cells, accept):
    assert await births.birth(steward, 2) is True
    assert await births.birth(steward, 2) is False
    assert await leaves_of(admin, 2) == LEAVES
    assert await accept(2) is True
    async with act_for(cells.primary("here").app, 2) as partition:
        assert len(await partition.fetch("SELECT * FROM a00002.queries")) == 1


async def test_the_steward_lists_what_is_here(steward):
    await births.birth(steward, 3, generation=4)
    assert (3, 4, "open") in await births.list_agencies(steward)


async def test_numbers_out_of_range_are_no_agencies(steward):
    for agency in (0, 100_000):
        with pytest.raises(Problem, match="unknown_agency"):
            await births.birth(steward, agency)


async def test_a_tablespace_of_its_own(steward, admin):
    await admin.execute("SET allow_in_place_tablespaces = on")
    await admin.execute("CREATE TABLESPACE apart LOCATION ''")
    await admin.execute("GRANT CREATE ON TABLESPACE apart TO chukan_owner")
    await births.birth(steward, 4, tablespace="apart")
    elsewhere = await admin.fetchval(
        "SELECT count(*) FROM pg_class c LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace"
        " WHERE c.relnamespace = 'a00004'::regnamespace AND c.relkind IN ('r', 'i')"
        " AND t.spcname IS DISTINCT FROM 'apart'"
    )
    assert elsewhere == 0
    assert await admin.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'a00004'::regnamespace") > 30
    await births.birth(steward, 5)
    assert await admin.fetchval(
        "SELECT bool_and(reltablespace = 0) FROM pg_class WHERE relnamespace = 'a00005'::regnamespace"
    ), "the next one is where all are"


async def test_two_births_at_once(cells, admin):
    async def one(agency):
        async with cells.steward("here") as connection:
            return await births.birth(connection, agency)

    assert await asyncio.gather(*(one(agency) for agency in (11, 12, 13, 14))) == [True] * 4
    assert [await leaves_of(admin, agency) for agency in (11, 12, 13, 14)] == [LEAVES] * 4


@contextlib.asynccontextmanager
async def lock_on(cell, sql):
    """Hold a lock as somebody else for a while."""
    connection = await cell.admin()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(sql)
    yield
    await transaction.rollback()
    await connection.close()


async def test_a_birth_does_not_wait_for_sets_in_flight(cell, steward, admin, accept):
    insert = (
        "INSERT INTO chukan.inbox (agency, sender, id) VALUES (1, 'network', gen_random_uuid());"
        "INSERT INTO chukan.outbox (agency, id, sealed) VALUES (1, gen_random_uuid(), 'x')"
    )
    async with lock_on(cell, insert):
        assert await within(5, births.birth(steward, 21)) is True
        assert await accept(21) is True


async def test_a_birth_gives_way_and_is_tried_again(cell, steward, admin, accept):
    async with lock_on(cell, "LOCK TABLE chukan.records IN SHARE UPDATE EXCLUSIVE MODE"):
        birth = asyncio.create_task(births.birth(steward, 22))
        for _ in range(20):
            assert await within(5, accept(1)) is True
        assert not birth.done()
        assert await leaves_of(admin, 22) == 0, "nothing is half done"
    assert await within(20, birth) is True
    assert await accept(22) is True


async def test_a_birth_gives_up_in_the_end(cell, steward, admin, monkeypatch):
    monkeypatch.setattr(births, "_TRIES_MAX", 2)
    async with lock_on(cell, "LOCK TABLE chukan.records IN SHARE UPDATE EXCLUSIVE MODE"):
        with pytest.raises(Problem, match="busy"):
            await within(20, births.birth(steward, 23))
    assert await leaves_of(admin, 23) == 0
    assert await admin.fetchval("SELECT to_regnamespace('a00023')") is None


async def test_a_closed_agency_is_refused_and_its_data_stay(steward, admin, accept, cells):
    await births.birth(steward, 31)
    await accept(31)
    assert await births.close(steward, 31) is True
    with pytest.raises(Problem, match="agency_moved"):
        await accept(31)
    async with act_for(cells.primary("here").app, 31) as partition:
        assert len(await partition.fetch("SELECT * FROM a00031.queries")) == 1
    assert await births.close(steward, 4321) is False


async def test_closing_waits_for_the_sets_in_flight(cell, steward, admin):
    await births.birth(steward, 32)
    async with lock_on(cell, "SELECT chukan.check_generation(ARRAY[32], ARRAY[1])"):
        closing = asyncio.create_task(births.close(steward, 32))
        state = "SELECT state FROM chukan.agencies WHERE agency = 32"
        done, _ = await asyncio.wait({closing}, timeout=0.5)
        assert not done
        assert await admin.fetchval(state) == "open"
    assert await within(20, closing) is True
    assert await admin.fetchval(state) == "closed"


async def test_a_departure_needs_a_closed_agency_and_leaves_nothing(steward, admin, accept):
    await births.birth(steward, 41)
    await accept(41)
    with pytest.raises(Problem, match="agency_open"):
        await births.depart(admin, 41)
    await births.close(steward, 41)
    await births.depart(admin, 41)
    assert await admin.fetchval("SELECT to_regnamespace('a00041')") is None
    for table in ("agencies", "inquiry_work", "log_heads"):
        assert await admin.fetchval(f"SELECT count(*) FROM chukan.{table} WHERE agency = 41") == 0
    with pytest.raises(Problem, match="agency_moved"):
        await accept(41)
    assert await accept(1) is True
    await births.depart(admin, 41)
    assert await births.birth(steward, 41) is True
    assert await accept(41) is True


async def test_a_departure_during_a_set_of_another_agency(cell, steward, admin, accept):
    await births.birth(steward, 42)
    await births.close(steward, 42)
    insert = "INSERT INTO chukan.inbox (agency, sender, id) VALUES (1, 'network', gen_random_uuid())"
    async with lock_on(cell, insert):
        departure = asyncio.create_task(births.depart(admin, 42))
        for _ in range(20):
            assert await within(5, accept(1)) is True
        assert not departure.done(), "it waits for whoever may still see the leaf"
    await within(30, departure)
    assert await accept(1) is True


async def test_an_interrupted_departure_goes_on(cell, steward, admin, accept):
    await births.birth(steward, 43)
    await births.close(steward, 43)
    other = await cell.admin()
    async with lock_on(cell, "INSERT INTO chukan.inbox (agency, sender, id) VALUES (1, 'network', gen_random_uuid())"):
        departure = asyncio.create_task(births.depart(other, 43))
        pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending AND inhrelid = to_regclass('a00043.inbox')"
        async with asyncio.timeout(20):
            while await admin.fetchval(pending) == 0:
                pass
        await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", other.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await departure
    assert await admin.fetchval(pending) == 1
    await births.depart(admin, 43)
    assert await admin.fetchval("SELECT to_regnamespace('a00043')") is None
    assert await accept(1) is True


async def test_a_cell_at_work_notices_neither_birth_nor_departure(cells, admin, accept):
    """Lines are accepted without a failure while five agencies come and go."""
    accepted = 0
    going = asyncio.Event()

    async def work():
        nonlocal accepted
        while not going.is_set():
            assert await accept(1) is True
            accepted += 1

    workers = [asyncio.create_task(work()) for _ in range(3)]
    async with cells.steward("here") as connection:
        for agency in range(51, 56):
            await births.birth(connection, agency)
            await births.close(connection, agency)
            await births.depart(admin, agency)
    going.set()
    await within(20, asyncio.gather(*workers))
    assert accepted > 20
