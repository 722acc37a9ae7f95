"""One PostgreSQL server on this machine, for the demo and the tests.

It listens on a Unix socket only, asks everybody for a SCRAM password, and is durable (fsync on, checksums). It can be
stopped, killed, and resumed on its data. A keeper (a shell waiting on a pipe) stops it when the process that started it
is gone, however that ended, so nothing stays running; a server left over all the same is stopped before the next start.

Invariant: its log never holds personal data. PostgreSQL quotes values in errors, details and statements, so none of
these is logged: only the server's own condition is (see ``server_settings``).
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import asyncpg

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops.local.binaries import Binaries, find_binaries
from chukan.ops.local.machine import Identity, server_identity
from chukan.ops.local.processes import kill_tree, wait_gone
from chukan.ops.local.server_settings import as_file, server_settings

_SOCKET_PATH_MAX = 107
_SOCKET_PORT = 5432
_INIT_TIMEOUT_S = 120
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
_KILL_TIMEOUT_S = 20
_CONNECT_TIMEOUT_S = 20
_POLL_S = 0.02
_LOG_BYTES_MAX = 10 * 1024 * 1024
_STATUS_LINE = 7
_BUILTIN_LOCALE_SINCE = 17

# Its standard input is a pipe whose other end only the starting process holds: end of file means that it is gone.
# Its name is the socket folder, which goes with the server.
_KEEPER = """
ulimit -c 0
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
( read -r _ <&3; kill -INT "$server" 2>/dev/null ) 3<&3 & watch=$!
wait "$server"; status=$?
kill "$watch" 2>/dev/null
rm -f "$0"/.s.PGSQL.*; rmdir "$0"
exit "$status"
"""


class Server:
    """A PostgreSQL server with its own data folder, superuser and socket folder.

    Beside ``data_dir`` stand its settings (``.conf``, ``.hba``), its log (``.log``) and the superuser's password
    (``.password``, readable by the starting user only). ``socket_dir`` is a fresh short folder of every start: the path
    of a socket may have 107 bytes. ``port`` names the socket; there is no TCP.
    """

    superuser = "postgres"
    port = _SOCKET_PORT

    def __init__(
        self,
        name: str,
        data_dir: Path,
        *,
        binaries: Binaries | None = None,
        options: Mapping[str, str] = MappingProxyType({}),
        identity: Identity | None = None,
    ) -> None:
        """Prepare only; ``options`` are further lines of postgresql.conf (values are quoted here).

        It runs as ``identity`` where that is given, and else as ``server_identity`` says.
        """
        self.name = name
        self.data_dir = data_dir
        self.binaries = binaries or find_binaries()
        self.bin_dir = self.binaries.bin_dir
        self.log_file = _beside(data_dir, ".log")
        self.socket_dir = ""
        self._password_file = _beside(data_dir, ".password")
        self._options = options
        self._identity = identity or server_identity()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def superuser_password(self) -> str:
        """The superuser's password; the file is made with the data."""
        return self._password_file.read_text(encoding="ascii")

    @property
    def initialised(self) -> bool:
        """Tell whether the data folder holds a finished database cluster."""
        return (self.data_dir / "PG_VERSION").exists()

    def init(self) -> None:
        """Create the data folder unless it is there: UTF-8, C.UTF-8 order, checksums, SCRAM. Raises ``Problem``."""
        if self.initialised:
            return
        if not self.data_dir.parent.exists():
            self.data_dir.parent.mkdir(parents=True)
            self.data_dir.parent.chmod(0o755)  # the server's user must get in, whatever the umask says
        aside = _beside(self.data_dir, ".init")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        self._give(aside)
        _write_private(self._password_file, SystemChance(SystemClock()).token(24).hex())
        # The server's user reads its own copy, which lives for the time of this call only.
        handed = Path(tempfile.mkdtemp(prefix="chk-"))
        try:
            _write_private(handed / "password", self.superuser_password)
            self._give(handed / "password")
            self._give(handed)
            self._run_initdb(aside, handed / "password")
        finally:
            shutil.rmtree(handed, ignore_errors=True)
        aside.rename(self.data_dir)

    def _run_initdb(self, folder: Path, password_file: Path) -> None:
        modern = self.binaries.major >= _BUILTIN_LOCALE_SINCE
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"] if modern else []
        command = [
            str(self.bin_dir / "initdb"),
            f"--pgdata={folder}",
            f"--username={self.superuser}",
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            *(locale or ["--locale=C.UTF-8"]),
            "--data-checksums",
            "--auth=scram-sha-256",
            "--no-instructions",
        ]
        with _Log(self.log_file) as log:
            try:
                done = self._spawn(command, log, stdin=subprocess.DEVNULL).wait(_INIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                done = -1
        if done != 0:
            raise Problem("database_failed", expected=str(self.log_file))

    def start(self) -> None:
        """Start on the data folder and return when connections are accepted.

        A left-over server of the same data is stopped first. Raises ``Problem`` database_failed, naming the log; also
        when another process holds the data.
        """
        if self._keeper is not None:
            raise ValueError("the server is running")
        self._claim()
        try:
            self._stop_left_over()
            self._keeper = self._launch()
            self._wait_until_ready(self._keeper)
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> "subprocess.Popen[bytes]":
        self.socket_dir = _short_folder()
        self._give(Path(self.socket_dir))
        config, hba = _beside(self.data_dir, ".conf"), _beside(self.data_dir, ".hba")
        settings = server_settings(self.binaries.major, hba, self.socket_dir, self.port)
        _write_public(config, as_file({**settings, **self._options}))
        _write_public(hba, "local all all scram-sha-256\n")
        server = [str(self.bin_dir / "postgres"), "-D", str(self.data_dir), "-c", f"config_file={config}"]
        with _Log(self.log_file) as log:
            return self._spawn(["/bin/sh", "-c", _KEEPER, self.socket_dir, *server], log, stdin=subprocess.PIPE)

    def _wait_until_ready(self, keeper: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            lines = self._pid_lines()
            if len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready":
                return
            try:
                keeper.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            break
        raise Problem("database_failed", expected=str(self.log_file))

    def stop(self) -> None:
        """Stop fast: sessions are ended, everything is on disk. After a minute it is killed; the data stays good."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill it as a power cut would (SIGKILL to the postmaster and all its children); the data stays resumable."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self._end_keeper(keeper, how)
            shutil.rmtree(self.socket_dir, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _end_keeper(self, keeper: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
        pid = self._pid()
        if how is signal.SIGKILL and pid is not None:
            kill_tree(pid)
        if keeper.stdin is not None:
            keeper.stdin.close()
        try:
            keeper.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            if pid is not None:
                kill_tree(pid)
            keeper.kill()
            keeper.wait(_KILL_TIMEOUT_S)

    async def admin(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        """Connect as the superuser over the socket; the caller closes."""
        return await asyncpg.connect(
            host=self.socket_dir,
            port=self.port,
            user=self.superuser,
            password=self.superuser_password,
            database=database,
            timeout=_CONNECT_TIMEOUT_S,
        )

    async def enter(self, database: str, user: str) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect by the operating system's word (peer), where the server's own rules let the caller in as ``user``."""
        return await asyncpg.connect(
            host=self.socket_dir, port=self.port, user=user, database=database, timeout=_CONNECT_TIMEOUT_S
        )

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._pid() if self._keeper is not None else None

    def _pid_lines(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _pid(self) -> int | None:
        """Return the postmaster that runs on this data folder, if one does; a pid alone may be anybody's by now."""
        lines = self._pid_lines()
        if not lines or not lines[0].isdigit():
            return None
        pid = int(lines[0])
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        return pid if os.fsencode(self.data_dir) in words else None

    def _claim(self) -> None:
        """Hold the data folder until stop; a second start elsewhere must not take the server for a left-over one."""
        lock = os.open(_beside(self.data_dir, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Problem("database_failed", expected="no other process that uses the same data") from None
        self._lock = lock

    def _stop_left_over(self) -> None:
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGINT)
            if not wait_gone(pid, _STOP_TIMEOUT_S):
                kill_tree(pid)
        # A pid file without its server blocks the start when another process has that pid by now.
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _spawn(self, command: list[str], log: int, stdin: int) -> "subprocess.Popen[bytes]":
        identity = self._identity
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"},
            # A session of its own: Ctrl-C at the terminal reaches the demo, which stops its servers in good order.
            start_new_session=True,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
            umask=0o077,
        )

    def _give(self, path: Path) -> None:
        if self._identity is not None:
            os.chown(path, self._identity.uid, self._identity.gid)


class _Log:
    """The server's log, opened by the starting user and handed over as a descriptor; begun anew when it is long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> int:
        grown = self._path.exists() and self._path.stat().st_size > _LOG_BYTES_MAX
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if grown else 0)
        self._descriptor = os.open(self._path, flags, 0o600)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _beside(data_dir: Path, suffix: str) -> Path:
    return data_dir.with_name(data_dir.name + suffix)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _write_public(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)


def _short_folder() -> str:
    """Return a fresh folder whose socket has a path of at most 107 bytes."""
    longest = f"/chk-12345678/.s.PGSQL.{_SOCKET_PORT}.lock"
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes a private folder in it)
        if len(os.fsencode(base)) + len(longest) <= _SOCKET_PATH_MAX:
            return tempfile.mkdtemp(prefix="chk-", dir=base)
    raise Problem("database_failed", limit=_SOCKET_PATH_MAX, expected="a shorter temporary folder")
