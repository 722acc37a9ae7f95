"""Tables that come later: agencies that were born before have them too, with the same rights, and nobody else has."""

import asyncpg
import pytest

from chukan.tenants import births, migrate

RIGHTS = (
    "SELECT grantee, privilege_type FROM information_schema.role_table_grants"
    " WHERE table_schema = $1 AND table_name = 'files' AND grantee <> 'chukan_owner' ORDER BY 1, 2"
)
SHAPE = (
    "SELECT a.attname, t.typname, a.attnotnull, a.attstorage, c.relrowsecurity, c.relforcerowsecurity, r.rolname"
    " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 JOIN pg_type t ON t.oid = a.atttypid"
    " JOIN pg_roles r ON r.oid = c.relowner"
    " WHERE c.oid = ($1 || '.files')::regclass ORDER BY a.attnum"
)


@pytest.mark.requirement("CON-03")
async def test_an_agency_born_before_has_the_table_of_files(admin):
    everything = migrate.read_migrations()
    before = [each for each in everything if each.phase == "pre" and each.number < 40]
    await migrate.migrate(admin, "pre", before)
    await births.birth(admin, 1)
    assert await admin.fetchval("SELECT to_regclass('a00001.files')") is None
    await migrate.migrate(admin, "pre", everything)
    await births.birth(admin, 2)
    old, new = [await admin.fetch(SHAPE, schema) for schema in ("a00001", "a00002")]
    assert old == new
    assert len(old) == 10
    assert await admin.fetchval("SELECT chukan.add_plain_table('files', 'SELECT', 'SELECT')") == 0
    grants = {schema: [tuple(row) for row in await admin.fetch(RIGHTS, schema)] for schema in ("a00001", "a00002")}
    for schema, rights in grants.items():
        own = [(schema, right) for right in ("INSERT", "SELECT", "UPDATE")]
        assert rights == [*own, ("chukan_fn", "DELETE"), ("chukan_fn", "SELECT")]
    await admin.execute("SET ROLE a00001")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.fetch("SELECT * FROM a00002.files")
    assert await admin.fetch("SELECT * FROM a00001.files") == []
