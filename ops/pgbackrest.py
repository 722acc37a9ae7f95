"""Runs pgBackRest on this host as the databases' own user, and reads what it says about its backups.

Invariant: no key is an argument or in the environment: pgBackRest reads it from its configuration, which others cannot.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from chukan.errors import Problem
from chukan.ops.local.machine import Identity, is_root
from chukan.replication.backup import PROGRAM
from chukan.replication.site import Backup, Site

ASK_TIMEOUT_S: Final = 120
WORK_TIMEOUT_S: Final = 86_400
"""A cell of a whole region is copied or verified within a day, or something is wrong."""
_REASON_MAX: Final = 240
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


class Made(NamedTuple):
    """One backup in a repository; ``size`` is in bytes as it lies there, times are Unix seconds."""

    cell: str
    centre: str
    label: str
    kind: str
    started: int
    ended: int
    size: int
    damaged: bool
    """Whether page checksums were wrong when it was made."""


def backup_of(site: Site) -> Backup:
    """Return the site's table of backups. Raises ``Problem`` setting_missing."""
    if site.backup is None:
        raise Problem("setting_missing", pointer="/backup")
    return site.backup


def identity_of(site: Site) -> Identity | None:
    """Return whom to be for the databases, None when that is who we are. Raises ``Problem`` backup_failed."""
    if not is_root():
        return None
    name = backup_of(site).user
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Problem("backup_failed", expected=f"a system user {name}") from None
    return Identity(entry.pw_uid, entry.pw_gid)


def spawn(site: Site, argv: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run a program as the databases' user and return how it ended. Raises ``Problem`` backup_failed."""
    identity = identity_of(site)
    try:
        return subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",  # under a wrong key it quotes what it could not decipher
            timeout=timeout_s,
            cwd="/",
            env=ENVIRONMENT,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
            umask=0o077,
        )
    except FileNotFoundError:
        raise Problem("backup_failed", expected=f"{Path(argv[0]).name}: the program is not installed") from None
    except subprocess.TimeoutExpired:
        raise Problem("backup_failed", expected=f"{Path(argv[0]).name}: an end within {timeout_s:.0f} s") from None


def call(site: Site, config: Path, cell: str, *words: str, timeout_s: float = ASK_TIMEOUT_S) -> str:
    """Run one command of pgBackRest (``words``, the command last) and return what it printed.

    Raises ``Problem`` backup_failed with pgBackRest's own first word about it.
    """
    if not os.access(config, os.R_OK):
        raise Problem("settings_unreadable", expected=f"{config}, as chukan site render writes it")
    done = spawn(site, [PROGRAM, f"--config={config}", f"--stanza={cell}", *words], timeout_s)
    if done.returncode != 0:
        raise Problem("backup_failed", expected=f"{words[-1]}: {_reason(done.stdout + done.stderr)}")
    return done.stdout


def _reason(said: str) -> str:
    lines = [line for line in said.splitlines() if "ERROR:" in line] or ["it said nothing"]
    return lines[0].partition("ERROR:")[2].strip()[:_REASON_MAX] or lines[0]


def made(site: Site, config: Path, cell: str, centre: str, key: int) -> list[Made]:
    """Return the backups in one repository, oldest first. Raises ``Problem`` backup_failed."""
    text = call(site, config, cell, f"--repo={key}", "--output=json", "info")
    found: list[Made] = []
    for stanza in msgspec.json.decode(text):
        _refuse_unreadable(stanza)
        found += [
            Made(
                cell=cell,
                centre=centre,
                label=row["label"],
                kind=row["type"],
                started=row["timestamp"]["start"],
                ended=row["timestamp"]["stop"],
                size=row["info"]["repository"]["delta"],
                damaged=bool(row.get("error")),
            )
            for row in stanza.get("backup", [])
        ]
    return sorted(found, key=lambda row: row.ended)


_EMPTY_CODES: Final = frozenset({0, 1, 2})
"""Statuses of a repository: ok, no stanza yet, no backup yet."""


def _refuse_unreadable(stanza: dict[str, dict[str, object]]) -> None:
    # A repository that cannot be read must not look like one without backups.
    status = stanza["status"]
    if status["code"] not in _EMPTY_CODES:
        raise Problem("backup_failed", expected=f"info: {status['message']}"[:_REASON_MAX])


def write_metrics(path: Path, rows: Sequence[Made]) -> None:
    """Write when each cell's last good backup ended, for Prometheus' textfile collector. Raises ``Problem``."""
    registry = CollectorRegistry()
    name = "chukan_backup_last_success_timestamp_seconds"
    gauge = Gauge(name, "When the last good backup of a cell ended.", ["cell", "repo"], registry=registry)
    for row in rows:  # oldest first: the last one stays
        if not row.damaged:
            gauge.labels(row.cell, row.centre).set(row.ended)
    try:
        write_to_textfile(str(path), registry)
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
