"""Restores a whole cell (セル) to a moment, into a new data directory, and makes it a history of its own.

pgBackRest lays the files down; a server that nobody can connect to replays the archive up to the moment and promotes
itself, which begins a new timeline; it is stopped again, and the directory is ready for Patroni. That server archives
nothing: a restore that is thrown away leaves no trace in the archive. The history of its timeline is only marked for
archiving, so that it is the first thing the restored cell archives once it is opened; without it a later restore would
begin the same timeline a second time.

Invariant: nothing that was there is overwritten; a directory is left behind only whole or not at all.
"""

import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from chukan.errors import Problem
from chukan.ops.local.server_settings import as_file
from chukan.ops.pgbackrest import WORK_TIMEOUT_S, call, identity_of, spawn
from chukan.replication.backup import node_file
from chukan.replication.quiet import QUIET
from chukan.replication.site import Node, Site

_STOP_TIMEOUT_S: Final = 600
_STATUS_LINE: Final = 7
_POLL_S: Final = 0.2
_RECOVERY: Final = re.compile(r"^(restore_command|recovery_\w+)\s*=")
_TIMELINE: Final = re.compile(r"^Latest checkpoint's TimeLineID:\s*(\d+)$", re.MULTILINE)
_STATE: Final = re.compile(r"^Database cluster state:\s*(.+)$", re.MULTILINE)
Tell = Callable[[str], None]


class Restored(NamedTuple):
    """What came of a restore."""

    cell: str
    folder: str
    target: str
    timeline: int
    epoch: int
    """The epoch that the site file must bear before the cell is opened."""


def running(site: Site, cell: str) -> str | None:
    """Return a node of a cell whose database runs on this machine, None when none does."""
    for node in site.cells[cell].nodes:
        pid_file = site.directory(site.where(node.host)) / "data" / node.name / "postmaster.pid"
        try:
            pid = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
            os.kill(pid, 0)
        except PermissionError:
            return node.name
        except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            continue
        return node.name
    return None


def restore(site: Site, cell: str, node: Node, repository: int, to: datetime, into: Path, tell: Tell) -> Restored:
    """Restore a cell on the host of ``node`` into the new directory ``into``, up to the moment ``to`` and no further.

    Raises ``Problem`` as ``bring_back`` does.
    """
    target, timeline = bring_back(site, cell, node, repository, to, into, tell)
    epoch = site.cells[cell].restore_epoch + 1
    tell(f"4/4 Timeline {timeline} is ready in {into}; it becomes epoch {epoch} of cell {cell}.")
    return Restored(cell, str(into), target, timeline, epoch)


def bring_back(
    site: Site, cell: str, node: Node, repository: int, to: datetime, into: Path, tell: Tell
) -> tuple[str, int]:
    """Make the new directory ``into`` what a cell was at a moment, shut down; return that moment and its timeline.

    Raises ``Problem``: file_exists, file_unwritable, backup_failed (also when the archive does not reach that moment).
    """
    target = f"{to.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"
    _make(site, into)
    try:
        tell(f"1/4 The latest backup before {target} is laid down in {into}.")
        _lay_down(site, cell, node, repository, target, into)
        tell("2/4 The archive is replayed up to that moment; nobody can connect meanwhile.")
        _replay(site, into)
        tell("3/4 It stands. What led it there is taken out of its settings.")
        timeline = _finish(site, into)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return target, timeline


def _make(site: Site, into: Path) -> None:
    try:
        into.mkdir(mode=0o700)
        if (identity := identity_of(site)) is not None:
            os.chown(into, identity.uid, identity.gid)
    except FileExistsError:
        raise Problem("file_exists", expected=str(into)) from None
    except OSError:
        raise Problem("file_unwritable", expected=str(into)) from None


def _lay_down(site: Site, cell: str, node: Node, repository: int, target: str, into: Path) -> None:
    options = [f"--repo={repository}", f"--pg1-path={into}", "--type=time", f"--target={target}"]
    call(
        site, node_file(site, node), cell, *options, "--target-action=promote", "restore", timeout_s=WORK_TIMEOUT_S
    )  # fmt: skip


def _replay(site: Site, into: Path) -> None:
    """Have a server replay and promote itself, then stop it. Raises ``Problem`` backup_failed."""
    aside = Path(tempfile.mkdtemp(prefix="chk-"))
    try:
        (aside / "hba").write_text("local all all reject\n", encoding="utf-8")
        settings = {
            **QUIET,
            "hba_file": str(aside / "hba"),
            "listen_addresses": "",
            "unix_socket_directories": str(aside),
            "archive_mode": "off",
            "hot_standby": "off",
            "restart_after_crash": "off",
            "max_locks_per_transaction": "256",
        }
        (aside / "conf").write_text(as_file(settings), encoding="utf-8")
        if (identity := identity_of(site)) is not None:
            for path in (aside, aside / "hba", aside / "conf"):
                os.chown(path, identity.uid, identity.gid)
        _control(site, into, WORK_TIMEOUT_S, "-l", str(aside / "log"), "-o", _option(aside / "conf"), "start")
        _wait_promoted(into)
        _control(site, into, _STOP_TIMEOUT_S, "-m", "fast", "stop")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _wait_promoted(into: Path) -> None:
    """Wait until the server takes writes: it is said to be up as soon as it replays. Raises ``Problem``."""
    deadline = time.monotonic() + WORK_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            lines = (into / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            break
        if len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready":
            return
        threading.Event().wait(_POLL_S)  # the server tells nobody
    raise Problem("backup_failed", expected="an archive that reaches the moment; try an earlier one")


def _option(config: Path) -> str:
    return f"-c config_file={shlex.quote(str(config))}"


def _control(site: Site, into: Path, timeout_s: int, *words: str) -> None:
    pg_ctl = str(site.postgresql / "pg_ctl")
    done = spawn(site, [pg_ctl, "-D", str(into), "-s", "-w", "-t", str(timeout_s), *words], timeout_s + 1)
    if done.returncode != 0:
        # The server says no more than that it ended: its log never quotes data. The commonest reason comes first.
        reason = "an archive that reaches the moment; try an earlier one"
        raise Problem("backup_failed", expected=f"{words[-1]} of the restored server: {reason}")


def _finish(site: Site, into: Path) -> int:
    """Take the recovery settings out, mark the timeline's history for archiving, and return the timeline."""
    said = spawn(site, [str(site.postgresql / "pg_controldata"), str(into)], _STOP_TIMEOUT_S).stdout
    state, timeline = _STATE.search(said), _TIMELINE.search(said)
    if state is None or timeline is None or state[1] != "shut down" or (into / "recovery.signal").exists():
        raise Problem("backup_failed", expected="a restored server that ended its recovery and was shut down")
    # As a standby of a later leader it would stop at the old moment again.
    auto = into / "postgresql.auto.conf"
    kept = [line for line in auto.read_text(encoding="utf-8").splitlines(keepends=True) if not _RECOVERY.match(line)]
    auto.write_text("".join(kept), encoding="utf-8")
    ready = into / "pg_wal" / "archive_status" / f"{int(timeline[1]):08X}.history.ready"
    ready.touch(mode=0o600)
    if (identity := identity_of(site)) is not None:
        os.chown(ready, identity.uid, identity.gid)
    return int(timeline[1])
