"""One statement injected at door 1, acting as one agency: nothing of another is read, and nothing anywhere is changed.

Every attack runs as the agency's role in a transaction of ``chukan_app``, as a single extended-protocol statement (the
way in which ``Partition`` sends all of them). It must fail with the error that it names, or return nothing.
"""

import asyncpg
import pytest

pytestmark = pytest.mark.requirement("TEN-01")

DENIED = asyncpg.InsufficientPrivilegeError

ESCAPES = {
    "another role by set_config": "SELECT set_config('role', 'a00008', true)",
    "another role, then a query as text": "SELECT set_config('role', 'a00008', true), query_to_xml('select * from"
    " a00008.copies', true, false, '')",
    "no role by set_config": "SELECT set_config('role', 'none', true)",
    "row security off": "SELECT set_config('row_security', 'off', true)",
    "another session user": "SELECT set_config('session_authorization', 'postgres', false)",
    "another search path": "SELECT set_config('search_path', 'a00008', true), (SELECT count(*) FROM copies)",
    "settings as a table": "UPDATE pg_settings SET setting = 'a00008' WHERE name = 'role'",
    "session authorization": "SET SESSION AUTHORIZATION postgres",
    "the superuser's role": "SET ROLE postgres",
    "the functions' owner": "SET ROLE chukan_fn",
    "the owner of the leaves": "SET ROLE chukan_owner",
    "the broker": "SET ROLE chukan_broker",
    "triggers off": "SET session_replication_role = replica",
}
QUERIES_AS_TEXT = {
    "query_to_xml": "SELECT query_to_xml('select 1', true, false, '')",
    "query_to_xmlschema": "SELECT query_to_xmlschema('select 1', true, false, '')",
    "query_to_xml_and_xmlschema": "SELECT query_to_xml_and_xmlschema('select 1', true, false, '')",
    "table_to_xml": "SELECT table_to_xml('a00008.copies', true, false, '')",
    "schema_to_xml": "SELECT schema_to_xml('a00008', true, false, '')",
    "database_to_xml": "SELECT database_to_xml(true, false, '')",
    "cursor_to_xml": "SELECT cursor_to_xml('c', 1, true, false, '')",
    "ts_stat": "SELECT * FROM ts_stat('select body::text::tsvector from a00008.copies')",
    "ts_rewrite": "SELECT ts_rewrite('a'::tsquery, 'select ''a''::tsquery, ''b''::tsquery')",
}
CODE = {
    "an anonymous block": "DO $$ BEGIN PERFORM 1; END $$",
    "a temporary function": "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a function in plpgsql": "CREATE FUNCTION a00007.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    "a procedure in public": "CREATE PROCEDURE public.f() LANGUAGE sql AS 'SELECT 1'",
    "a temporary table": "CREATE TEMP TABLE t (a int)",
    "a temporary view": "CREATE TEMP VIEW v AS SELECT 1",
    "a table in the own schema": "CREATE TABLE a00007.t (a int)",
    "a table in the victim's schema": "CREATE TABLE a00008.t (a int)",
    "a table in public": "CREATE TABLE public.t (a int)",
    "a view over the victim": "CREATE VIEW a00007.v AS SELECT * FROM a00008.copies",
    "a schema": "CREATE SCHEMA mine",
    "a role": "CREATE ROLE mine",
    "an extension": "CREATE EXTENSION IF NOT EXISTS file_fdw",
    "a trigger of its own": "CREATE TRIGGER t AFTER INSERT ON a00007.copies EXECUTE FUNCTION chukan.mark_copies()",
    "a rule on the own table": "CREATE RULE r AS ON INSERT TO a00007.copies DO ALSO SELECT 1",
    "a policy on the own table": "CREATE POLICY p ON a00007.copies USING (true)",
    "row security away": "ALTER TABLE a00007.copies DISABLE ROW LEVEL SECURITY",
    "the own leaf detached": "ALTER TABLE chukan.records DETACH PARTITION a00007.records",
    "membership in the victim's role": "GRANT a00008 TO a00007",
    "the victim's objects": "REASSIGN OWNED BY a00008 TO a00007",
    "the victim's objects dropped": "DROP OWNED BY a00008",
    "the victim's schema dropped": "DROP SCHEMA a00008 CASCADE",
    "the victim's role dropped": "DROP ROLE a00008",
    "a setting of the database": "ALTER DATABASE postgres SET search_path = a00008",
    "a publication": "CREATE PUBLICATION p FOR TABLE a00008.copies",
    "a replication slot": "SELECT pg_create_logical_replication_slot('s', 'test_decoding')",
}
FILES = {
    "a program as input": "COPY a00007.stage FROM PROGRAM 'id'",
    "a program as output": "COPY (SELECT 1) TO PROGRAM 'cat'",
    "a file as input": "COPY a00007.stage FROM '/etc/passwd'",
    "a file as output": "COPY (SELECT 1) TO '/tmp/chukan-attack'",
    "the victim's table copied": "COPY a00008.copies TO STDOUT",
    "pg_read_file": "SELECT pg_read_file('/etc/passwd')",
    "pg_read_binary_file": "SELECT pg_read_binary_file('/etc/passwd')",
    "pg_ls_dir": "SELECT pg_ls_dir('/')",
    "pg_stat_file": "SELECT pg_stat_file('/etc/passwd')",
    "pg_ls_logdir": "SELECT pg_ls_logdir()",
    "lo_import": "SELECT lo_import('/etc/passwd')",
    "lo_export": "SELECT lo_export(1, '/tmp/chukan-attack')",
    "lo_from_bytea": "SELECT lo_from_bytea(0, 'x')",
    "lo_create": "SELECT lo_create(0)",
    "lo_get": "SELECT lo_get(1)",
    "lo_put": "SELECT lo_put(1, 0, 'x')",
    "lo_unlink": "SELECT lo_unlink(1)",
}
STALLS = {
    "the sequencer's lock": "SELECT pg_advisory_lock(4851205431602)",
    "any lock, tried": "SELECT pg_try_advisory_lock(1)",
    "a long sleep": "SELECT pg_sleep(60)",
    "a notification in a writing transaction": "SELECT pg_notify('chukan_inquirer', '')",
    "another backend ended": "SELECT pg_terminate_backend(1)",
    "another backend cancelled": "SELECT pg_cancel_backend(1)",
    "the victim's table locked": "LOCK TABLE a00008.copies",
    "a parent locked": "LOCK TABLE chukan.records",
    "a cell table locked": "LOCK TABLE chukan.cell",
    "the events' sequence": "SELECT nextval('chukan.events_n')",
}
SIDE_CHANNELS = {
    "row counts": "SELECT reltuples FROM pg_class WHERE relnamespace = 'a00008'::regnamespace",
    "page counts": "SELECT relpages FROM pg_class",
    "a whole row of pg_class": "SELECT c::text FROM pg_class c",
    "statistics of tables": "SELECT * FROM pg_stat_user_tables",
    "statistics of indexes": "SELECT * FROM pg_stat_user_indexes",
    "input and output": "SELECT * FROM pg_statio_user_tables",
    "live tuples": "SELECT pg_stat_get_live_tuples('a00008.copies'::regclass)",
    "the size of a table": "SELECT pg_relation_size('a00008.copies')",
    "the whole size of a table": "SELECT pg_total_relation_size('a00008.copies')",
    "the size of the database": "SELECT pg_database_size(current_database())",
    "what others run": "SELECT * FROM pg_stat_activity",
    "what others lock": "SELECT * FROM pg_locks",
    "what others prepared": "SELECT * FROM pg_prepared_statements",
    "raw statistics": "SELECT * FROM pg_statistic",
    "passwords": "SELECT * FROM pg_authid",
    "an error that depends on the victim": "SELECT 1 / (SELECT count(*) FROM a00008.copies)",
    "a cast error with the victim's value": "SELECT (SELECT body::text::int FROM a00008.copies LIMIT 1)",
    "a plan of the victim's table": "EXPLAIN SELECT * FROM a00008.copies",
    "a measured plan of the victim's table": "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM a00008.copies",
    "a plan of a parent": "EXPLAIN SELECT * FROM chukan.records WHERE agency = 8",
    "the victim's column in a subquery": "SELECT 1 FROM a00007.copies WHERE person IN"
    " (SELECT person FROM a00008.copies)",
    "the victim's row lock": "SELECT 1 FROM a00008.copies FOR UPDATE",
}
FUNCTIONS = {
    "find_codes": "SELECT * FROM chukan.find_codes(ARRAY[8], ARRAY['x'::bytea])",
    "lookup": "SELECT * FROM chukan.lookup(ARRAY[8], ARRAY['x'::bytea], ARRAY['k'], ARRAY['0'], ARRAY['y'],"
    " ARRAY[now()::date], ARRAY[now()::date], ARRAY[now()::date])",
    "collect": "SELECT * FROM chukan.collect(8, 1, ARRAY[gen_random_uuid()])",
    "inquiry_views": "SELECT * FROM chukan.inquiry_views(8, NULL, NULL, NULL, NULL, 10)",
    "provision_views": "SELECT * FROM chukan.provision_views(8, NULL, NULL, 10)",
    "forget": "SELECT chukan.forget(0, 10, '8 days', 10)",
    "fold_statistics": "SELECT chukan.fold_statistics(0, 10, 10)",
    "put_counted_records": "SELECT chukan.put_counted_records(1::smallint, ARRAY[1::smallint], ARRAY[8],"
    " ARRAY[gen_random_uuid()], ARRAY[true], ARRAY[gen_random_uuid()], ARRAY['x'::bytea], ARRAY[now()::date],"
    " ARRAY['x'::bytea], ARRAY['x'::bytea], ARRAY[NULL::uuid])",
    "add_leaf": "SELECT chukan.add_leaf('statistics', 'ALL', 'ALL')",
    "succeed": "SELECT chukan.succeed('x-00000000', 1::smallint)",
    "lease": "SELECT * FROM chukan.lease('x', 1::smallint, 64, '1 hour')",
    "raise_epochs": "SELECT chukan.raise_epochs()",
    "sequence": "SELECT chukan.sequence('x', 10)",
    "snapshot_put": "SELECT chukan.snapshot_put(9, 'x', 'x', 'x')",
    "snapshot_take": "SELECT * FROM chukan.snapshot_take('{}')",
    "snapshot_plan": "SELECT chukan.snapshot_plan(ARRAY[9], ARRAY['x'::bytea], ARRAY['x'::bytea], ARRAY['x'],"
    " ARRAY[NULL::timestamptz], ARRAY[true], '{}')",
    "snapshot_confirm": "SELECT chukan.snapshot_confirm(9, 'x')",
    "held_snapshot": "SELECT chukan.held_snapshot()",
    "opening": "SELECT * FROM chukan.opening()",
    "open_cell": "SELECT chukan.open_cell(2, '')",
    "known_permits": "SELECT chukan.known_permits(8, ARRAY['x'::bytea])",
    "move_freeze": "SELECT chukan.move_freeze(8, 1)",
    "move_thaw": "SELECT chukan.move_thaw(8)",
    "move_receive": "SELECT chukan.move_receive(9, 2)",
    "move_open": "SELECT chukan.move_open(8, 2, 0, 0, 0)",
    "move_leave": "SELECT chukan.move_leave(8, 2)",
    "give_work_back": "SELECT chukan.give_work_back('a00008')",
    "revoke_agency": "SELECT chukan.revoke_agency('a00008')",
    "birth": "SELECT chukan.birth(9, 1, NULL)",
    "close_agency": "SELECT chukan.close_agency(8)",
    "register_agency": "SELECT chukan.register_agency(9, 1)",
    "grant_agency": "SELECT chukan.grant_agency(8)",
    "put_inbox": "SELECT chukan.put_inbox(ARRAY[8], ARRAY[gen_random_uuid()], ARRAY[true])",
    "check_generation": "SELECT chukan.check_generation(ARRAY[8], ARRAY[1])",
    "make_leaves": "SELECT chukan.make_leaves(8, '{}')",
    "entrust": "CALL chukan.entrust('lease', 'a00007', 'a00007')",
    "the victim's holds bumped": "SELECT chukan.bump_holds(8)",
    "an act of the victim's": "SELECT chukan.operate(8, gen_random_uuid(), sha256(''), 'x', sha256(''))",
    "an act of the operators'": "SELECT chukan.operate(100000, gen_random_uuid(), sha256(''), 'x', sha256(''))",
    "operations_append": "SELECT chukan.operations_append(ARRAY[7], ARRAY[gen_random_uuid()], ARRAY[sha256('')],"
    " ARRAY['x'::bytea], ARRAY[sha256('')])",
    "operators_leaves": "SELECT * FROM chukan.operators_leaves(0, 10)",
    "incident_counts": "SELECT * FROM chukan.incident_counts(8, now(), now())",
    "open_doors": "SELECT chukan.open_doors()",
}
PARENTS = {
    "a parent read": "SELECT * FROM chukan.records",
    "a parent read with the own number": "SELECT * FROM chukan.records WHERE agency = 7",
    "a row routed to the victim": "INSERT INTO chukan.idempotency (agency, key, body, outcome)"
    " VALUES (8, repeat('x', 32)::bytea, repeat('x', 32)::bytea, gen_random_uuid())",
    "a row routed to the own leaf": "INSERT INTO chukan.idempotency (agency, key, body, outcome)"
    " VALUES (7, repeat('x', 32)::bytea, repeat('x', 32)::bytea, gen_random_uuid())",
    "a parent emptied": "DELETE FROM chukan.records",
    "a parent truncated": "TRUNCATE chukan.records",
    "a template read": "SELECT * FROM chukan_plain.copies",
    "the work of the cell": "SELECT * FROM chukan.inquiry_work",
    "the leases": "UPDATE chukan.leases SET epoch = 0",
    "the agencies": "UPDATE chukan.agencies SET generation = 2",
    "the snapshot": "SELECT * FROM chukan.snapshot",
    "the ledger": "SELECT * FROM chukan.migrations",
}
# Even its own leaves: what moves a flow, a record or the log belongs to the set functions.
OWN_FLOWS = {
    f"{verb.split()[0].lower()} own {table}": verb.format(table)
    for table in ("queries", "permits", "answers", "provisions", "records", "events", "outbox", "inbox", "log", "codes")
    for verb in ("DELETE FROM a00007.{}", "UPDATE a00007.{} SET at = now()", "TRUNCATE a00007.{}")
} | {
    "own outbox read": "SELECT * FROM a00007.outbox",
    "own operations emptied": "DELETE FROM a00007.operations",
    "own operations changed": "UPDATE a00007.operations SET body = 'x'",
    "an own operation without its place": "INSERT INTO a00007.operations SELECT * FROM a00007.operations",
    "own operation log emptied": "DELETE FROM a00007.operation_log",
    "the operators' acts": "SELECT * FROM chukan_operators.operations",
    "own statistics emptied": "DELETE FROM a00007.statistics",
    "own statistics changed": "UPDATE a00007.statistics SET count = 1",
    "own statistics truncated": "TRUNCATE a00007.statistics",
    "own statistics added to": "INSERT INTO a00007.statistics SELECT * FROM a00007.statistics",
    "statistics added to through the parent": "INSERT INTO chukan.statistics SELECT * FROM a00007.statistics",
    "a record inserted": "INSERT INTO a00007.records SELECT * FROM a00007.records",
    "own idempotency emptied": "DELETE FROM a00007.idempotency",
    "own copies truncated": "TRUNCATE a00007.copies",
}
VICTIMS = {
    "update copies": "UPDATE a00008.copies SET body = 'x'",
    "merge copies": "MERGE INTO a00008.copies c USING a00007.copies o ON c.id = o.id WHEN MATCHED THEN DELETE",
    "update in a CTE": "WITH x AS (UPDATE a00008.copies SET body = 'x' RETURNING *) SELECT * FROM x",
    "the victim's counts": "SELECT count FROM a00008.statistics",
    "counts of both": "SELECT s.count, v.count FROM a00007.statistics s JOIN a00008.statistics v USING (month)",
    "counts of everybody": "SELECT agency, sum(count) FROM chukan.statistics GROUP BY agency",
    "insert from the victim": "INSERT INTO a00007.holds (kind) SELECT kind FROM a00008.holds",
}
ON_EVERY_TABLE = (
    "SELECT * FROM a00008.{}",
    "DELETE FROM a00008.{}",
    "TRUNCATE a00008.{}",
    "INSERT INTO a00008.{0} SELECT * FROM a00007.{0}",
    "COPY a00008.{} TO STDOUT",
)
DENIED_ATTACKS = (
    ESCAPES | QUERIES_AS_TEXT | CODE | FILES | STALLS | SIDE_CHANNELS | FUNCTIONS | PARENTS | OWN_FLOWS | VICTIMS
)
# What the server answers in another way than with a refusal: with nothing, or with another error.
EMPTY = {
    "statistics of columns": "SELECT 1 FROM pg_stats WHERE schemaname = 'a00008'",
    "extended statistics": "SELECT 1 FROM pg_stats_ext WHERE schemaname = 'a00008'",
    "tables in the information schema": "SELECT * FROM information_schema.tables WHERE table_schema = 'a00008'",
    "columns in the information schema": "SELECT * FROM information_schema.columns WHERE table_schema = 'a00008'",
    "rights in the information schema": "SELECT * FROM information_schema.role_table_grants"
    " WHERE table_schema = 'a00008'",
}
OTHERWISE = {
    "own row given to the victim": (
        "UPDATE a00007.idempotency SET agency = 8",
        (asyncpg.CheckViolationError, DENIED),
    ),
    "a sibling's row in the own leaf": (
        "INSERT INTO a00007.idempotency SELECT 8, key, body, outcome FROM a00007.idempotency",
        (asyncpg.CheckViolationError, DENIED),
    ),
    "two statements": ("SELECT 1; SET ROLE a00008", asyncpg.PostgresSyntaxError),
    "a statement after a comment": ("SELECT 1 --\n; SET ROLE a00008", asyncpg.PostgresSyntaxError),
}


async def as_attacker(connection, sql):
    """Run one statement as the attacker's role in a transaction that commits; return its rows."""
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE a00007")
        statement = await connection.prepare(sql)
        return await statement.fetch()


@pytest.fixture
async def app(log_in):
    connection = await log_in("chukan_app")
    yield connection
    await connection.close()


async def test_every_attack_of_the_list_is_denied_and_leaves_nothing(eyes, app):
    before = await eyes.picture()
    tables = await eyes.admin.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'a00008'::regnamespace AND relkind = 'r'"
    )
    assert len(tables) >= 20
    everywhere = {sql: sql for row in tables for verb in ON_EVERY_TABLE for sql in (verb.format(row["relname"]),)}
    attacks = DENIED_ATTACKS | everywhere
    allowed = []
    for name, sql in attacks.items():
        try:
            await as_attacker(app, sql)
        except DENIED:
            continue
        except asyncpg.PostgresError as error:
            allowed.append(f"{name}: {type(error).__name__} {error}")
        else:
            allowed.append(f"{name}: went through")
    assert not allowed, "\n".join(allowed)
    assert len(attacks) > 200
    assert await eyes.picture() == before


async def test_what_is_visible_tells_nothing_of_the_victim(eyes, app):
    for name, sql in EMPTY.items():
        assert await as_attacker(app, sql) == [], name


async def test_what_is_refused_for_another_reason(eyes, app):
    before = await eyes.picture()
    for sql, error in OTHERWISE.values():
        with pytest.raises(error):
            await as_attacker(app, sql)
    assert await eyes.picture() == before


async def test_settings_in_a_data_changing_query_have_no_effect(eyes, app):
    """The server drops such an UPDATE without asking for rights; what matters is that nothing is set."""
    async with app.transaction():
        await app.execute("SET LOCAL ROLE a00007")
        await app.fetch("WITH x AS (UPDATE pg_settings SET setting = 'a00008' WHERE name = 'role') SELECT 1")
        assert await app.fetchval("SELECT current_user") == "a00007"
        assert await app.fetchval("SELECT current_setting('role')") == "a00007"


async def test_the_attacks_would_be_seen(eyes, app):
    """The same harness on what is allowed: the own tables answer, and a change shows in the picture."""
    before = await eyes.picture()
    assert len(await as_attacker(app, "SELECT * FROM a00007.copies")) == 3
    await as_attacker(app, "UPDATE a00007.copies SET source = source || 'x'")
    after = await eyes.picture()
    assert {name for name in before if before[name] != after[name]} == {"a00007.copies", "a00007.copy_marks"}


async def test_a_grant_by_who_may_not_grant_changes_nothing(eyes, app):
    before = await eyes.picture()
    await as_attacker(app, "GRANT SELECT ON a00007.copies TO a00008")
    assert await eyes.picture() == before


async def test_a_statement_prepared_for_one_agency_is_checked_again_for_another(eyes, app):
    async with app.transaction():
        await app.execute("SET LOCAL ROLE a00008")
        theirs = await app.prepare("SELECT body FROM a00008.copies")
        assert len(await theirs.fetch()) == 3
    async with app.transaction():
        await app.execute("SET LOCAL ROLE a00007")
        with pytest.raises(DENIED):
            await theirs.fetch()


async def test_the_role_ends_with_the_transaction(eyes, app):
    assert len(await as_attacker(app, "SELECT 1 FROM a00007.copies")) == 3
    assert await app.fetchval("SELECT current_user") == "chukan_app"
    for table in ("a00007.copies", "a00008.copies", "chukan.records", "chukan.inquiry_work"):
        with pytest.raises(DENIED):
            await app.fetch(f"SELECT * FROM {table}")
