"""A process refuses to serve where one door stands open, and says so without a value."""

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants.partition import act_for
from chukan.tenants.sets import CellSets

pytestmark = pytest.mark.requirement("TEN-01")

OPENED = {
    "set_config": "EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean)",
    "query_to_xml": "EXECUTE ON FUNCTION pg_catalog.query_to_xml(text, boolean, boolean, text)",
    "lo_import": "EXECUTE ON FUNCTION pg_catalog.lo_import(text)",
    "pg_advisory_lock": "EXECUTE ON FUNCTION pg_catalog.pg_advisory_lock(bigint)",
    "pg_notify": "EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text)",
    "pg_sleep": "EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision)",
    "pg_relation_size": "EXECUTE ON FUNCTION pg_catalog.pg_relation_size(regclass)",
    "pg_settings": "UPDATE ON pg_catalog.pg_settings",
    "pg_class": "SELECT ON pg_catalog.pg_class",
    "plpgsql": "USAGE ON LANGUAGE plpgsql",
    "sql": "USAGE ON LANGUAGE sql",
    "public": "USAGE ON SCHEMA public",
}
LOGIN_CHANGES = {
    "row security bypassed": ("BYPASSRLS", "NOBYPASSRLS"),
    "a superuser": ("SUPERUSER", "NOSUPERUSER"),
    "rights inherited": ("INHERIT", "NOINHERIT"),
    "roles created": ("CREATEROLE", "NOCREATEROLE"),
    "commits that do not wait": ("SET synchronous_commit = off", "SET synchronous_commit = on"),
    "local commits only": ("SET synchronous_commit = local", "SET synchronous_commit = on"),
    "generic plans": ("SET plan_cache_mode = auto", "SET plan_cache_mode = force_custom_plan"),
}


async def serves(cells, doors=("broker", "app")):
    """Tell of each door whether it opens."""
    connections = cells.primary("here")
    asks = {"broker": CellSets(connections.broker).canary, "app": lambda: touch(connections.app)}
    answers = []
    for door in doors:
        try:
            await asks[door]()
        except Problem as problem:
            answers.append(False if problem.code == "unavailable" else problem.code)
        else:
            answers.append(True)
    await cells.close()
    return answers


async def touch(app):
    async with act_for(app, 7) as partition:
        await partition.fetch("SELECT 1")


async def test_every_open_door_is_found_at_connect(eyes, walled, open_cell):
    rights = OPENED | {
        right: f"{right} ON DATABASE {walled.settings.database}" for right in ("TEMP", "CREATE", "CONNECT")
    }
    assert await serves(await open_cell(walled)) == [True, True]
    served = []
    for door, right in rights.items():
        await eyes.admin.execute(f"GRANT {right} TO PUBLIC")
        try:
            if await serves(await open_cell(walled), ["broker"]) != [False]:
                served.append(door)
        finally:
            await eyes.admin.execute(f"REVOKE {right} FROM PUBLIC")
            if door == "pg_class":
                await grant_columns_again(eyes.admin)
    assert served == []
    assert await serves(await open_cell(walled)) == [True, True]


async def test_both_doors_look(eyes, walled, open_cell):
    await eyes.admin.execute("GRANT EXECUTE ON FUNCTION pg_catalog.lo_import(text) TO PUBLIC")
    try:
        assert await serves(await open_cell(walled)) == [False, False]
    finally:
        await eyes.admin.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.lo_import(text) FROM PUBLIC")


async def grant_columns_again(admin):
    """Revoking a table's right takes those on its columns along."""
    columns = await admin.fetchval(
        "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'pg_class'::regclass"
        " AND attname NOT IN ('reltuples', 'relpages', 'relallvisible', 'relallfrozen')"
    )
    await admin.execute(f"GRANT SELECT ({columns}) ON pg_catalog.pg_class TO PUBLIC")


async def test_every_unsafe_login_is_found_at_connect(eyes, walled, open_cell):
    served = []
    for change, (unsafe, safe) in LOGIN_CHANGES.items():
        await eyes.admin.execute(f"ALTER ROLE chukan_broker {unsafe}")
        try:
            if await serves(await open_cell(walled)) != [False, True]:
                served.append(change)
        finally:
            await eyes.admin.execute(f"ALTER ROLE chukan_broker {safe}")
    assert served == []


async def test_a_login_that_lowers_its_own_promise_is_refused(eyes, walled, open_cell, log_in):
    """A role may change its own defaults; whoever serves notices."""
    stolen = await log_in("chukan_broker")
    await stolen.execute("ALTER ROLE chukan_broker SET synchronous_commit = off")
    await stolen.close()
    try:
        assert await serves(await open_cell(walled)) == [False, True]
    finally:
        await eyes.admin.execute("ALTER ROLE chukan_broker SET synchronous_commit = on")


async def test_a_database_without_our_schema_is_refused(any_server, walled, open_cell):
    admin = await any_server.admin()
    await admin.execute("CREATE DATABASE bare")
    try:
        bare = walled.__class__(walled.server, bare_settings(walled.settings), walled.passwords)
        assert await serves(await open_cell(bare)) == [False, False]
    finally:
        await admin.execute("DROP DATABASE bare WITH (FORCE)")
        await admin.close()


def bare_settings(settings):
    return type(settings)(
        host=settings.host,
        port=settings.port,
        database="bare",
        broker_password_file=settings.broker_password_file,
        app_password_file=settings.app_password_file,
    )


async def test_an_unreachable_cell_is_no_primary(walled, open_cell, tmp_path):
    settings = type(walled.settings)(
        host=str(tmp_path),
        port=5432,
        broker_password_file=walled.settings.broker_password_file,
        app_password_file=walled.settings.app_password_file,
    )
    cells = await open_cell(walled.__class__(walled.server, settings, walled.passwords))
    with pytest.raises(Problem, match="no_primary"):
        await CellSets(cells.primary("here").broker).canary()


async def test_open_doors_are_named_for_the_operator(eyes, log_in):
    steward = await log_in("chukan_steward")
    assert await steward.fetch("SELECT chukan.open_doors()") == []
    await eyes.admin.execute("GRANT EXECUTE ON FUNCTION pg_catalog.lo_import(text) TO PUBLIC")
    try:
        assert [row[0] for row in await steward.fetch("SELECT chukan.open_doors()")] == ["lo_import(text)"]
    finally:
        await eyes.admin.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.lo_import(text) FROM PUBLIC")
        await steward.close()


async def test_monitoring_keeps_working_for_its_own_role(eyes):
    async with eyes.admin.transaction():
        await eyes.admin.execute("SET LOCAL ROLE pg_monitor")
        assert await eyes.admin.fetchval("SELECT count(*) FROM pg_stat_activity") > 0
        assert await eyes.admin.fetchval("SELECT pg_database_size(current_database())") > 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await eyes.admin.fetch("SELECT * FROM a00008.copies")
