"""Door 1 as the code uses it: one agency, single statements, one transaction."""

import asyncio
import contextlib

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants.partition import TABLES, act_for, schema_name

pytestmark = pytest.mark.requirement("TEN-01")


@pytest.fixture
async def app(eyes, walled, open_cell):
    return (await open_cell(walled)).primary("here").app


async def test_every_table_of_the_own_agency_answers(app):
    async with act_for(app, 7) as partition:
        for table in sorted(TABLES):
            assert len(await partition.fetch(f"SELECT * FROM {partition.table(table)}")) == 3, table


async def alone(app, sql, *values):
    """Run one statement in a transaction of its own, for agency 7."""
    async with act_for(app, 7) as partition:
        return await partition.execute(sql, *values)


async def test_another_agency_is_out_of_reach_and_the_problem_says_nothing(app, capfd):
    for sql in ("SELECT * FROM a00008.copies", "DELETE FROM a00008.copies", "SELECT * FROM chukan.records"):
        with pytest.raises(Problem) as caught:
            await alone(app, sql)
        assert str(caught.value) == "internal"
        assert caught.value.__cause__ is None
        assert "a00008" not in repr(caught.value.as_dict())
    assert "SECRET" not in capfd.readouterr().err


async def test_an_error_that_quotes_a_value_does_not_pass_it_on(app, capfd):
    with pytest.raises(Problem) as caught:
        await alone(app, "INSERT INTO a00007.holds (kind) VALUES ($1), ($1)", "VALUE-IN-AN-ERROR")
    assert caught.value.code == "internal"
    assert "VALUE-IN-AN-ERROR" not in str(caught.value) + repr(caught.value.args) + capfd.readouterr().err


OTHER_VERBS = [
    "SET ROLE a00008",
    "RESET ROLE",
    "SET LOCAL ROLE a00008",
    "reset all",
    "PREPARE x AS SELECT 1",
    "EXECUTE x",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "NOTIFY chukan_inquirer",
    "LISTEN chukan_inquirer",
    "COMMIT",
    "COPY a00007.stage TO STDOUT",
    "ALTER ROLE CURRENT_USER SET synchronous_commit = off",
    "/* SELECT */ SET ROLE a00008",
    "-- SELECT\nSET ROLE a00008",
    "DO 'BEGIN END'",
    "CALL chukan.entrust('a', 'b')",
    ";SET ROLE a00008",
]


async def test_only_the_four_verbs_go_through(app):
    async with act_for(app, 7) as partition:
        for sql in OTHER_VERBS:
            for send in (partition.fetch, partition.fetchrow, partition.fetchval, partition.execute):
                with pytest.raises(ValueError, match="go through a partition"):
                    await send(sql)
            with pytest.raises(ValueError, match="go through a partition"):
                await partition.executemany(sql, [])
        assert await partition.fetchval("SELECT current_user") == "a00007"


async def test_a_second_statement_is_refused_whatever_the_call(app):
    for send in ("fetch", "fetchrow", "fetchval", "execute"):
        with pytest.raises(Problem, match="internal"):
            async with act_for(app, 7) as partition:
                await getattr(partition, send)("SELECT 1; SET ROLE a00008")


async def test_names_come_from_a_list(app):
    async with act_for(app, 7) as partition:
        assert partition.table("copies") == "a00007.copies"
        for name in ("pg_authid", "copies; DROP TABLE x", "outbox", ""):
            with pytest.raises(KeyError):
                partition.table(name)
        with pytest.raises(KeyError):
            await partition.copy_in("copies", [], ["id"])


@pytest.mark.parametrize("agency", [0, -1, 100_000])
async def test_a_number_out_of_range_is_no_agency(app, agency):
    with pytest.raises(Problem, match="unknown_agency"):
        async with act_for(app, agency):
            pass
    with pytest.raises(Problem, match="unknown_agency"):
        schema_name(agency)


async def test_an_agency_that_is_not_here_is_unknown(app):
    with pytest.raises(Problem, match="unknown_agency"):
        async with act_for(app, 4321):
            pass


async def insert_and_fail(app):
    async with act_for(app, 7) as partition:
        await partition.execute("INSERT INTO a00007.holds (kind) VALUES ($1)", "rolled back")
        raise RuntimeError("mine")


async def test_the_block_commits_and_an_exception_rolls_back(eyes, app):
    async with act_for(app, 7) as partition:
        assert await partition.execute("INSERT INTO a00007.holds (kind) VALUES ($1)", "committed") == 1
    with pytest.raises(RuntimeError, match="mine"):
        await insert_and_fail(app)
    kinds = {row["kind"] for row in await eyes.admin.fetch("SELECT kind FROM a00007.holds")}
    assert "committed" in kinds
    assert "rolled back" not in kinds
    async with act_for(app, 7) as partition:
        assert await partition.execute("DELETE FROM a00007.holds WHERE kind = 'committed'") == 1


async def insert_and_swallow_an_error(app):
    async with act_for(app, 7) as partition:
        await partition.execute("INSERT INTO a00007.holds (kind) VALUES ('half')")
        with contextlib.suppress(Problem):
            await partition.fetch("SELECT 1/0")


async def test_a_failed_statement_that_was_swallowed_does_not_commit(eyes, app):
    with pytest.raises(Problem, match="internal"):
        await insert_and_swallow_an_error(app)
    assert await eyes.admin.fetchval("SELECT count(*) FROM a00007.holds WHERE kind = 'half'") == 0


async def test_a_partition_ends_with_its_block(app):
    async with act_for(app, 7) as partition:
        pass
    with pytest.raises(RuntimeError, match="has ended"):
        await partition.fetch("SELECT 1")


async def test_the_connection_forgets_the_agency(app):
    for agency in (7, 8, 7):
        async with act_for(app, agency) as partition:
            assert await partition.fetchval("SELECT current_user") == schema_name(agency)
    async with app.acquire() as connection:
        assert await connection.fetchval("SELECT current_user") == "chukan_app"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM a00007.copies")


async def test_rows_are_copied_into_the_stage(app):
    columns = ["load", "n", "line", "id", "person", "kind", "effective_from", "layout", "body", "content"]
    async with act_for(app, 7) as partition:
        model = await partition.fetchrow(f"SELECT {', '.join(columns)} FROM a00007.stage LIMIT 1")
        assert await partition.copy_in("stage", [tuple(model)] * 4, columns) == 4
        assert await partition.fetchval("SELECT count(*) FROM a00007.stage") == 7
        assert (
            await partition.execute("DELETE FROM a00007.stage WHERE ctid IN (SELECT ctid FROM a00007.stage OFFSET 3)")
            == 4
        )


async def test_holds_are_bumped_for_the_own_agency_only(eyes, app):
    sql = "SELECT hold_version FROM chukan.agencies WHERE agency = $1"
    before = [await eyes.admin.fetchval(sql, agency) for agency in (7, 8)]
    async with act_for(app, 7) as partition:
        await partition.execute("SELECT chukan.bump_holds($1)", 7)
    with pytest.raises(Problem):
        async with act_for(app, 7) as partition:
            await partition.execute("SELECT chukan.bump_holds($1)", 8)
    assert [await eyes.admin.fetchval(sql, agency) for agency in (7, 8)] == [before[0] + 1, before[1]]


async def test_a_statement_past_its_deadline_drops_the_connection(eyes, app):
    blocking = eyes.admin.transaction()
    await blocking.start()
    await eyes.admin.execute("LOCK TABLE a00007.holds")
    with pytest.raises(Problem, match="unavailable"):
        # Long enough to be let in on a machine that is busy: past it before that is "busy".
        async with act_for(app, 7, timeout_s=2.0) as partition:
            await partition.fetch("SELECT * FROM a00007.holds")
    await blocking.rollback()
    async with act_for(app, 7) as partition:
        assert len(await partition.fetch("SELECT * FROM a00007.holds")) == 3


async def test_a_cancelled_caller_leaves_nothing_running(eyes, walled, app):
    watching = await walled.admin()
    blocking = eyes.admin.transaction()
    await blocking.start()
    await eyes.admin.execute("LOCK TABLE a00007.holds")

    async def wait_for_it():
        async with act_for(app, 7) as partition:
            await partition.fetch("SELECT * FROM a00007.holds")

    task = asyncio.create_task(wait_for_it())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'chukan_app'"
    async with asyncio.timeout(10):
        while await watching.fetchval(waiting) == 0:
            pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await watching.close()
    await blocking.rollback()
    async with act_for(app, 7) as partition:
        assert len(await partition.fetch("SELECT * FROM a00007.holds")) == 3
