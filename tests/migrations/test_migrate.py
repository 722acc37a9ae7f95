"""The runner of migrations: each file once, in order, alone, and never a changed one."""

import asyncio
import hashlib

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.tenants import migrate as runner
from chukan.tenants.migrate import Migration, migrate, prepare_cell, read_migrations, scram_verifier, status


def file(phase, number, text, name=None):
    return Migration(phase, number, name or f"{number:04d}_x.sql", text, hashlib.sha256(text.encode()).digest())


FILES = [
    file("pre", 1, "CREATE TABLE t (a int); INSERT INTO t VALUES (1);"),
    file("pre", 2, "INSERT INTO t VALUES (2);"),
    file("post", 2, "DELETE FROM t WHERE a = 1;"),
]


async def rows(admin):
    return [row[0] for row in await admin.fetch("SELECT a FROM t ORDER BY a")]


async def test_the_shipped_files_apply_and_a_second_run_does_nothing(admin):
    shipped = read_migrations()
    assert await migrate(admin, "pre") == [each.name for each in shipped if each.phase == "pre"]
    assert await migrate(admin, "pre") == []
    assert await migrate(admin, "post") == [each.name for each in shipped if each.phase == "post"]
    listed = await status(admin)
    assert [row.name for row in listed] == [each.name for each in shipped]
    assert all(row.applied and not row.changed for row in listed)


async def test_status_of_a_blank_database_reads_only(admin):
    assert not any(row.applied for row in await status(admin))
    assert await admin.fetchval("SELECT to_regnamespace('chukan')") is None


async def test_phases_run_apart_and_post_after_all_of_pre(admin):
    with pytest.raises(Problem, match="database_failed"):
        await migrate(admin, "post", FILES)
    assert await migrate(admin, "pre", FILES) == ["0001_x.sql", "0002_x.sql"]
    assert await rows(admin) == [1, 2]
    assert await migrate(admin, "post", FILES) == ["0002_x.sql"]
    assert await rows(admin) == [2]
    newer = [*FILES, file("pre", 3, "INSERT INTO t VALUES (3)")]
    with pytest.raises(Problem, match="database_failed"):
        await migrate(admin, "post", newer)
    assert await migrate(admin, "pre", newer) == ["0003_x.sql"]
    assert await migrate(admin, "post", newer) == []


@pytest.mark.parametrize("change", ["text", "name", "gone"])
async def test_a_changed_file_is_refused_before_anything_runs(admin, change):
    await migrate(admin, "pre", FILES)
    first = {
        "text": [file("pre", 1, "CREATE TABLE t (a bigint);")],
        "name": [file("pre", 1, FILES[0].text, "0001_y.sql")],
        "gone": [],
    }[change]
    newer = [*first, *FILES[1:], file("pre", 3, "INSERT INTO t VALUES (3)")]
    with pytest.raises(Problem) as caught:
        await migrate(admin, "pre", newer)
    assert caught.value.code == "database_failed"
    assert "0001_x.sql" in caught.value.expected
    assert await rows(admin) == [1, 2]


async def test_a_changed_shipped_file_shows_in_the_status(admin):
    await migrate(admin, "pre")
    await admin.execute("UPDATE chukan.migrations SET sha256 = 'x' WHERE number = 2 AND phase = 'pre'")
    assert [row.number for row in await status(admin) if row.changed] == [2]
    with pytest.raises(Problem, match="database_failed"):
        await migrate(admin, "pre")


async def test_a_failing_file_leaves_nothing_and_the_ones_before_it_stay(admin):
    broken = [*FILES[:2], file("pre", 3, "INSERT INTO t VALUES (3); SELECT 1/0; INSERT INTO t VALUES (4)")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(admin, "pre", broken)
    assert await rows(admin) == [1, 2]
    mended = [*FILES[:2], file("pre", 3, "INSERT INTO t VALUES (3)")]
    assert await migrate(admin, "pre", mended) == ["0003_x.sql"]


async def test_two_runners_at_once_run_each_file_once(any_server, blank, admin):
    other = await any_server.admin(blank)
    slow = [FILES[0], file("pre", 2, "INSERT INTO t VALUES (2); SELECT pg_sleep(0.3)")]
    done = await asyncio.gather(migrate(admin, "pre", slow), migrate(other, "pre", slow))
    assert sorted(done) == [[], ["0001_x.sql", "0002_x.sql"]]
    assert await rows(admin) == [1, 2]
    await other.close()


async def test_a_runner_does_not_wait_for_ever(any_server, blank, admin, monkeypatch):
    monkeypatch.setattr(runner, "_LOCK_TIMEOUT", "100ms")
    other = await any_server.admin(blank)
    await other.execute("SELECT pg_advisory_lock($1)", runner._LOCK)
    with pytest.raises(Problem, match="busy"):
        await migrate(admin, "pre", FILES)
    await other.close()
    assert await admin.fetchval("SHOW lock_timeout") == "0"
    assert len(await migrate(admin, "pre", FILES)) == 2


async def test_a_file_that_waits_for_a_lock_holds_nobody_up(any_server, blank, admin):
    await migrate(admin, "pre", FILES)
    busy, reader = await any_server.admin(blank), await any_server.admin(blank)
    await reader.execute("SET lock_timeout = '3s'")
    holding = busy.transaction()
    await holding.start()
    await busy.execute("INSERT INTO t VALUES (9)")
    newer = [*FILES, file("pre", 3, "ALTER TABLE t ADD b int")]
    migrating = asyncio.create_task(migrate(admin, "pre", newer))
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
    while not await reader.fetchval(waits):
        assert not migrating.done()
    # Behind the file that waits, and not for longer than it does.
    assert await reader.fetchval("SELECT count(*) FROM t") == 2
    assert not migrating.done()
    await holding.commit()
    assert await migrating == ["0003_x.sql"]
    await asyncio.gather(busy.close(), reader.close())


def tree(tmp_path, **files):
    for phase in ("pre", "post"):
        (tmp_path / phase).mkdir()
    for name, text in files.items():
        phase, _, rest = name.partition("_")
        (tmp_path / phase / f"{rest}.sql").write_text(text)
    return tmp_path


def test_files_are_read_in_order_with_their_digests(tmp_path):
    found = read_migrations(tree(tmp_path, pre_0002_b="B", pre_0001_a="A", post_0002_b="C"))
    assert [(each.phase, each.number, each.text) for each in found] == [
        ("pre", 1, "A"),
        ("pre", 2, "B"),
        ("post", 2, "C"),
    ]
    assert found[0].sha256 == hashlib.sha256(b"A").digest()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"pre_1_a": ""}, "is named"),
        ({"pre_0001_a": "", "pre_0001_b": ""}, "same number"),
        ({"pre_0001_a": "", "post_0002_a": ""}, "without its pair"),
    ],
)
def test_a_tree_out_of_form_is_refused(tmp_path, files, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_migrations(tree(tmp_path, **files))


async def test_a_cell_is_prepared_again_with_other_passwords(any_server, blank, admin):
    old, new = {"chukan_steward": "first word"}, {"chukan_steward": "second, 'quoted' word"}
    await prepare_cell(admin, "east", old)
    await prepare_cell(admin, "east", new)
    assert await admin.fetchval("SELECT name FROM chukan.cell") == "east"
    login = {"host": any_server.socket_dir, "port": any_server.port, "database": blank, "user": "chukan_steward"}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**login, password=old["chukan_steward"])
    steward = await asyncpg.connect(**login, password=new["chukan_steward"])
    assert await steward.fetchval("SELECT session_user") == "chukan_steward"
    await steward.close()
    # Roles are shared by the databases of a server: other tests' cells log in with this one.
    await prepare_cell(admin, "east", {"chukan_steward": "password-of-chukan_steward"})
    with pytest.raises(ValueError, match="not login roles"):
        await prepare_cell(admin, "east", {"postgres": "x"})


def test_the_server_gets_a_verifier_and_never_a_password():
    salt = bytes.fromhex("5b6d99689d12358eeca04b141236fa81")
    assert scram_verifier("pencil", salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert scram_verifier("pencil") != scram_verifier("pencil")
    for bad in ("", "密", "line\nbreak"):
        with pytest.raises(ValueError, match="printable ASCII"):
            scram_verifier(bad)
