"""The statistics came later than some agencies: those have the leaf too, attached, with the same rights."""

import asyncpg
import pytest

from chukan.tenants import births, migrate

RIGHTS = (
    "SELECT grantee, privilege_type FROM information_schema.role_table_grants"
    " WHERE table_schema = $1 AND table_name = 'statistics' AND grantee <> 'chukan_owner' ORDER BY 1, 2"
)
SHAPE = (
    "SELECT a.attname, t.typname, a.attnotnull, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, r.rolname,"
    " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid) AS constraints,"
    " (SELECT string_agg(p.polname || pg_get_expr(p.polqual, p.polrelid), ' ' ORDER BY p.polname)"
    "  FROM pg_policy p WHERE p.polrelid = c.oid) AS policies"
    " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 JOIN pg_type t ON t.oid = a.atttypid"
    " JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = ($1 || '.statistics')::regclass ORDER BY a.attnum"
)
COUNT = "INSERT INTO chukan.statistics VALUES ($1, '2026-11-01', 1, 1, false, 1)"


@pytest.mark.requirement("SYS-01")
async def test_an_agency_born_before_has_its_statistics(admin):
    everything = migrate.read_migrations()
    before = [each for each in everything if each.phase == "pre" and each.number < 41]
    await migrate.migrate(admin, "pre", before)
    await births.birth(admin, 1)
    assert await admin.fetchval("SELECT to_regclass('a00001.statistics')") is None
    await migrate.migrate(admin, "pre", everything)
    await births.birth(admin, 2)
    old, new = [await admin.fetch(SHAPE, schema) for schema in ("a00001", "a00002")]
    assert [tuple(row)[:-1] for row in old] == [tuple(row)[:-1] for row in new]
    for agency, shape in ((1, old), (2, new)):
        assert {row["policies"] for row in shape} == {f"fntrue own(agency = {agency})"}
    assert len(old) == 6
    assert await admin.fetchval("SELECT chukan.add_leaf('statistics', 'SELECT', 'SELECT')") == 0
    for schema in ("a00001", "a00002"):
        rights = [tuple(row) for row in await admin.fetch(RIGHTS, schema)]
        assert rights == [(schema, "SELECT"), ("chukan_fn", "DELETE"), ("chukan_fn", "SELECT")]
    for agency in (1, 2):
        await admin.execute(COUNT, agency)
        assert await admin.fetchval(f"SELECT count(*) FROM a{agency:05d}.statistics") == 1
    await admin.execute("SET ROLE a00001")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.fetch("SELECT * FROM a00002.statistics")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute("DELETE FROM a00001.statistics")
    assert len(await admin.fetch("SELECT * FROM a00001.statistics")) == 1


async def test_a_function_that_writes_its_records_in_another_way_stops_the_migration(admin):
    """The functions are rewritten in one place only: a call that is not found must not pass for one that was."""
    everything = migrate.read_migrations()
    await migrate.migrate(admin, "pre", [each for each in everything if each.phase == "pre" and each.number < 41])
    text = await admin.fetchval(
        "SELECT pg_get_functiondef(oid) FROM pg_proc"
        " WHERE proname = 'provide' AND pronamespace = 'chukan'::regnamespace"
    )
    await admin.execute(text.replace("PERFORM chukan.put_records(_agency, ", "PERFORM chukan.put_records( _agency, "))
    with pytest.raises(asyncpg.RaiseError, match=r"chukan\.provide does not write its records as it did"):
        await migrate.migrate(admin, "pre", everything)
