"""What each login can do by itself, with its password in a thief's hands and as many statements as the thief likes.

The broker, the steward and a gateway's login can reach no table at all. The login of door 1 can become any agency:
that is what encryption is for, and one test says so, lest anybody believe that roles would hold it.
"""

import asyncpg
import pytest

pytestmark = pytest.mark.requirement("TEN-01")

DENIED = asyncpg.InsufficientPrivilegeError
LOGINS = ("chukan_broker", "chukan_app", "chukan_steward", "chukan_links")
# A new function of the broker is added here on purpose.
BROKER = {
    "decide_acquisition_ask", "decide_changes", "open_lines", "propose_changes", "purge_acquisition_asks",
    "put_acquisition_asks",
    "accept", "accept_asked", "correct_record", "decide_reviews",
    "agency_backlog", "backlog", "batch_progress", "body_link_act", "body_links", "canary_sing",
    "close_inquiries", "collect", "copy_ages", "current_snapshot", "decide_provisions", "deliver_answers",
    "enter_refusals", "environment", "expire_messages", "expire_records", "expired_records", "keep_messages",
    "find_codes", "fold_statistics", "forget", "inquiry_views", "kept_from", "lease", "lookup",
    "open_codes", "open_doors", "opening", "provide", "provide_notices", "provision_views", "purge_results",
    "purge_sessions", "put_codes", "put_correction", "take_corrections", "told_corrections",
    "master_get", "notice_mark", "notices",
    "evidence_age", "evidence_cosign", "evidence_due", "evidence_last", "evidence_leaves", "evidence_sign",
    "evidence_signed", "evidence_tiles", "witness_keep", "witness_recall",
    "evidence_restored", "logs_aside", "witness_all", "witness_restore",
    "evidence_sign_mapped", "map_pages", "witness_map", "witness_map_keep",
    "operations_age", "operations_append", "operations_cosign", "operations_grown", "operations_last",
    "operations_restored",
    "operations_leaves", "operations_sequence", "operations_sign", "operations_signed", "operations_tiles",
    "raise_epochs", "read_requests", "release", "resume", "reviews_lapsing", "sequence", "sequencer_age", "set_numbers",
    "settle_inquiries", "settle_provisions", "snapshot_confirm", "snapshot_number", "snapshot_take", "standings",
    "succeed", "take_inquiries", "take_provisions", "whoami", "worker_share",
}  # fmt: skip
STEWARD = {
    "key_floors_open", "retirement_name", "retirements_begun",
    "key_floor", "key_floor_drop", "key_floor_prove", "list_sealed_places", "reencrypt_begin", "reencrypt_blocks",
    "reencrypt_end", "reencrypt_read", "reencrypt_write", "reencryption_progress", "sealed_before",
    "master_acts", "master_enter", "master_get", "master_put", "master_versions", "notice_put", "notice_rows",
    "notice_withdraw", "map_mend", "map_mended", "map_names", "messages_over", "retention_over",
    "incident_counts", "incident_enter", "incident_steps", "operations_append", "operators_checkpoints",
    "operators_leaves", "operators_tiles", "operators_unplaced",
    "arrival_turn", "birth", "close_agency", "environment", "link_approve", "link_drain", "link_extend",
    "link_gateway_put", "link_gateway_rows", "link_gateway_turn", "link_history", "link_invite", "link_next_key",
    "link_request", "link_resume", "link_revoke", "link_rows", "link_suspend", "list_agencies", "open_doors", "opening",
    "order_begin", "order_finish", "refusals", "snapshot_confirm", "snapshot_plan", "snapshot_put", "whoami",
}  # fmt: skip
# Of a gateway's process: what it must have, what it saw, and nothing that decides who has a link.
LINKS = {
    "environment", "link_desired", "link_drifted", "link_gateway", "link_hold_service", "link_leave_service",
    "link_number", "link_rotated", "link_seen", "open_doors", "opening", "whoami",
}  # fmt: skip
ESCALATIONS = {
    "a server setting": "ALTER SYSTEM SET log_statement = 'all'",
    "the superuser": "SET SESSION AUTHORIZATION postgres",
    "superuser for itself": "ALTER ROLE CURRENT_USER SUPERUSER",
    "no row security for itself": "ALTER ROLE CURRENT_USER BYPASSRLS",
    "the functions' owner": "SET ROLE chukan_fn",
    "the leaves' owner": "SET ROLE chukan_owner",
    "the agencies' common role": "SET ROLE chukan_agency",
    "the monitor": "SET ROLE pg_monitor",
    "the reader of all": "SET ROLE pg_read_all_data",
    "another login's password": "ALTER ROLE postgres PASSWORD 'x'",
    "a database": "CREATE DATABASE mine",
    "a temporary table": "CREATE TEMP TABLE t (a int)",
    "an anonymous block": "DO 'BEGIN PERFORM 1; END'",
    "a program": "COPY (SELECT 1) TO PROGRAM 'cat'",
    "a file": "SELECT pg_read_file('/etc/passwd')",
    "a large object": "SELECT lo_import('/etc/passwd')",
    "a query as text": "SELECT query_to_xml('select 1', true, false, '')",
    "functions handed over": "CALL chukan.entrust('birth', current_user, current_user)",
}


@pytest.mark.parametrize("login", LOGINS)
async def test_a_login_by_itself_has_no_right_on_any_table(eyes, login):
    rights = await eyes.admin.fetch(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'p', 'v', 'S')"
        " AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege($1, c.oid, 'USAGE, SELECT, UPDATE')"
        " ELSE has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"
        " OR has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE') END",
        login,
    )
    assert rights == []


@pytest.mark.requirement("REP-08")
@pytest.mark.parametrize("login", LOGINS)
async def test_the_operators_logins_can_not_delete_or_read_a_copy(eyes, log_in, login):
    before = await eyes.picture()
    connection = await log_in(login)
    for table in (
        "a00007.copies",
        "a00008.copies",
        "chukan_plain.copies",
        "a00008.records",
        "chukan.records",
        "a00008.statistics",
        "chukan.statistics",
        "chukan.links",
        "chukan.link_peers",
        "chukan.link_change",
    ):
        for sql in (f"SELECT * FROM {table}", f"DELETE FROM {table}", f"TRUNCATE {table}", f"DROP TABLE {table}"):
            with pytest.raises(DENIED):
                await connection.fetch(sql)
    await connection.close()
    assert await eyes.picture() == before


@pytest.mark.parametrize("login", LOGINS)
async def test_no_login_rises_above_itself(eyes, log_in, login):
    before = await eyes.picture()
    connection = await log_in(login)
    through = []
    for name, sql in ESCALATIONS.items():
        try:
            await connection.execute(sql)
        except DENIED:
            continue
        through.append(name)
        await connection.execute("RESET ROLE")
    await connection.close()
    # The agencies' common role may call one function, which asks for an agency's role.
    assert through in ([], ["the agencies' common role"])
    assert not through or login == "chukan_app"
    assert await eyes.picture() == before


@pytest.mark.parametrize("login", ["chukan_broker", "chukan_steward", "chukan_links"])
async def test_none_but_the_login_of_door_1_becomes_an_agency(eyes, log_in, login):
    connection = await log_in(login)
    for role in ("a00007", "a00008", "chukan_app"):
        with pytest.raises(DENIED):
            await connection.execute(f"SELECT 1; SET ROLE {role}; SELECT * FROM a00008.copies")
    await connection.close()


@pytest.mark.parametrize(
    ("login", "functions"), [("chukan_broker", BROKER), ("chukan_steward", STEWARD), ("chukan_links", LINKS)]
)
async def test_a_login_may_execute_its_functions_and_no_others(eyes, login, functions):
    rows = await eyes.admin.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'chukan'::regnamespace"
        " AND has_function_privilege($1, oid, 'EXECUTE')",
        login,
    )
    assert {row["proname"] for row in rows} == functions


async def test_the_app_and_the_agencies_may_execute_next_to_nothing(eyes):
    sql = (
        "SELECT array_agg(proname::text ORDER BY proname) FROM pg_proc WHERE pronamespace = 'chukan'::regnamespace"
        " AND has_function_privilege($1, oid, 'EXECUTE')"
    )
    assert await eyes.admin.fetchval(sql, "chukan_app") == ["environment", "open_doors", "opening", "whoami"]
    assert await eyes.admin.fetchval(sql, "a00007") == ["bump_holds", "operate"]
    assert await eyes.admin.fetchval(sql, "public") is None


async def test_the_steward_reads_nothing_by_its_functions(eyes, log_in):
    before = await eyes.picture()
    steward = await log_in("chukan_steward")
    assert await steward.fetchval("SELECT chukan.birth(8, 1, NULL)") is False
    with pytest.raises(asyncpg.PostgresError):
        await steward.fetchval("SELECT chukan.birth(9, 1, 'pg_default; DROP SCHEMA a00008')")
    with pytest.raises(asyncpg.PostgresError):
        await steward.fetchval("SELECT chukan.birth(100000, 1, NULL)")
    listed = await steward.fetch("SELECT * FROM chukan.list_agencies()")
    assert [tuple(row) for row in listed] == [(7, 1, "open"), (8, 1, "open")]
    await steward.close()
    assert await eyes.picture() == before


async def test_a_stolen_gateways_login_learns_what_is_sealed_for_gateways_and_decides_nothing(eyes, log_in):
    links = await log_in("chukan_links")
    before = await eyes.picture()
    assert await links.fetch("SELECT * FROM chukan.link_desired('east')") == []
    for act in (
        "link_invite('131016', 'pair', 'wireguard', 'x', now(), 'me')",
        "link_approve('131016-1', '{}', '{}', NULL, NULL, 'me', 'you')",
        "link_resume('131016-1', 'me', 'you', 'x')",
        "link_gateway_put('east', 'here:1', 'x', 'x', NULL, NULL, NULL, 'me')",
        "link_enter(1, '131016-1', NULL, 'approve', 'me', NULL, NULL, NULL)",
        "link_claim('131016-1', '{}')",
        "body_links('131016')",
    ):
        with pytest.raises(DENIED):
            await links.execute(f"SELECT chukan.{act}")
    await links.close()
    assert await eyes.picture() == before


async def test_values_never_become_statements(eyes, log_in):
    before = await eyes.picture()
    broker = await log_in("chukan_broker")
    nasty = "'; DROP SCHEMA a00008 CASCADE; -- %I %s $1"
    hits = await broker.fetch(
        "SELECT * FROM chukan.lookup(ARRAY[8], ARRAY['x'::bytea], ARRAY[$1], ARRAY['1'], ARRAY[$1], ARRAY[now()::date],"
        " NULL, NULL)",
        nasty,
    )
    assert [row["person"] for row in hits] == [None]
    for agency in (0, -8, 100000):
        with pytest.raises(asyncpg.PostgresError):
            await broker.fetch("SELECT * FROM chukan.find_codes(ARRAY[$1::integer], ARRAY['x'::bytea])", agency)
    await broker.close()
    assert await eyes.picture() == before


async def test_a_stolen_login_of_door_1_is_held_by_encryption_alone(eyes, log_in):
    """With many statements it is any agency in turn, and reads what rests: ciphertext, digests, months, states."""
    app = await log_in("chukan_app")
    assert await app.execute("SELECT 1; SET ROLE a00008; UPDATE a00008.copies SET source = source") == "UPDATE 3"
    rows = await app.fetch("SELECT body FROM a00008.copies")
    assert len(rows) == 3
    with pytest.raises(DENIED):
        await app.fetch("SELECT body FROM a00007.copies")
    await app.close()


async def test_agency_roles_can_not_log_in(eyes, walled):
    roles = await eyes.admin.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname ~ '^(a[0-9]{5}|chukan_(fn|owner|agency))$'"
    )
    assert len(roles) >= 5
    assert (
        await eyes.admin.fetchval(
            "SELECT count(*) FROM pg_roles WHERE rolname ~ '^(a[0-9]{5}|chukan_(fn|owner|agency))$'"
            " AND (rolcanlogin OR rolsuper OR rolbypassrls OR rolreplication)"
        )
        == 0
    )
