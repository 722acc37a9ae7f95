"""Migrations of ``pre`` take nothing away that exchanges of the release before go on using (無停止更新).

They are applied to a real database one by one, with an agency that was born before the first of them, and after each
the database's own catalogue is compared with the one before. What a file may take away in spite of this stands in
release.toml, with its reason.
"""

import tomllib
from pathlib import Path

import pytest

from chukan.tenants import births
from chukan.tenants.migrate import migrate, read_migrations
from chukan.tests.upgrade.catalogue import losses, read

RELEASE = tomllib.loads((Path(__file__).parent / "release.toml").read_text("utf-8"))
NEWEST = RELEASE["release"]["newest_migration"]


def shipped(newest: int):
    return [each for each in read_migrations() if each.phase == "pre" and each.number <= newest]


@pytest.fixture
async def earlier(admin):
    """The database as the release before left it, with an agency."""
    await migrate(admin, "pre", shipped(NEWEST))
    await births.birth(admin, 1)
    return admin


async def test_no_pre_migration_takes_away_what_the_release_before_uses(earlier):
    excused = {(entry["file"], entry["loss"]) for entry in RELEASE.get("excused", [])}
    assert all(entry["reason"] for entry in RELEASE.get("excused", []))
    found = set()
    first = before = await read(earlier)
    for each in shipped(9999):
        if each.number <= NEWEST:
            continue
        await migrate(earlier, "pre", shipped(each.number))
        after = await read(earlier)
        found |= {(each.name, loss) for loss in losses(before, after)}
        before = after
    assert len(before.offers) > len(first.offers), "nothing was compared"
    assert sorted(found - excused) == []
    assert sorted(excused - found) == [], "these excuse nothing"


async def test_an_agency_born_before_is_what_one_born_after_is(earlier):
    await migrate(earlier, "pre")
    await births.birth(earlier, 2)
    found = await read(earlier)
    told_of = [
        {
            words.replace(f"a{number:05d}", "aN").replace(f"agency = {number})", "agency = N)")
            for words in found.offers
            if f"a{number:05d}" in words
        }
        for number in (1, 2)
    ]
    assert len(told_of[0]) > 50
    assert told_of[0] == told_of[1]


TAKING = [
    ("DROP FUNCTION chukan.snapshot_put", "takes away: function chukan.snapshot_put("),
    (
        """DROP FUNCTION chukan.list_agencies; CREATE FUNCTION chukan.list_agencies(_from integer) RETURNS integer
           LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'""",
        "takes away: function chukan.list_agencies() returns",
    ),
    ("ALTER FUNCTION chukan.schema_of RENAME TO schema_for", "takes away: function chukan.schema_of("),
    ("REVOKE EXECUTE ON FUNCTION chukan.snapshot_put FROM chukan_steward", "takes away: EXECUTE on function chukan.sn"),
    ("ALTER FUNCTION chukan.snapshot_put SECURITY INVOKER", "takes away: function chukan.snapshot_put("),
    ("DROP TABLE a00001.copies CASCADE", "takes away: table a00001.copies"),
    ("ALTER TABLE chukan_plain.files RENAME name TO called", "takes away: column chukan_plain.files.name bytea"),
    ("ALTER TABLE a00001.files ALTER tries TYPE bigint", "takes away: column a00001.files.tries integer"),
    (
        "ALTER TABLE a00001.files DROP CONSTRAINT files_purpose_name_key",
        "takes away: key purpose, name of a00001.files",
    ),
    ("REVOKE SELECT ON a00001.copies FROM a00001", "takes away: SELECT on table a00001.copies for a00001"),
    ("REVOKE USAGE ON SCHEMA chukan FROM chukan_app", "takes away: USAGE on schema chukan for chukan_app"),
    ("ALTER TABLE chukan.agencies ALTER state DROP DEFAULT", "demands: a value for column chukan.agencies.state"),
    (
        """ALTER TABLE a00001.files ADD seen integer NOT NULL DEFAULT 1;
           ALTER TABLE a00001.files ALTER seen DROP DEFAULT""",
        "demands: a value for column a00001.files.seen",
    ),
    ("ALTER TABLE a00001.files ADD CHECK (tries < 9)", "demands: constraint of a00001.files: CHECK"),
    ("CREATE UNIQUE INDEX ON a00001.files (at)", "demands: unique CREATE UNIQUE INDEX"),
    (
        """CREATE FUNCTION chukan.schema_of(_agency bigint, _more integer DEFAULT 0) RETURNS text LANGUAGE plpgsql
           AS 'BEGIN RETURN 1; END'""",
        "confuses: function chukan.schema_of(",
    ),
]


async def told(database, sql):
    """What is lost by a statement, which is taken back."""
    before = await read(database)
    block = database.transaction()
    await block.start()
    try:
        await database.execute(sql)
        return losses(before, await read(database))
    finally:
        await block.rollback()


async def test_what_takes_something_away_is_found(earlier):
    for sql, loss in TAKING:
        found = await told(earlier, sql)
        assert any(words.startswith(loss) for words in found), (sql, found)


async def test_what_only_adds_is_allowed(earlier):
    adding = """
        ALTER TABLE a00001.files ADD seen integer NOT NULL DEFAULT 1 CHECK (seen > 0);
        CREATE TABLE chukan.more (id integer PRIMARY KEY, said text NOT NULL UNIQUE);
        CREATE FUNCTION chukan.schema_of(_agency integer, _more integer) RETURNS text LANGUAGE plpgsql
          AS 'BEGIN RETURN 1; END';
        CREATE OR REPLACE FUNCTION chukan.schema_of(_agency integer) RETURNS text LANGUAGE plpgsql IMMUTABLE
          AS 'BEGIN RETURN 2; END';
        GRANT SELECT ON chukan.more TO chukan_broker;
    """
    assert await told(earlier, adding) == []
