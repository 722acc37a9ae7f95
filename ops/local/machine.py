"""Where things lie on one machine, and as whom PostgreSQL runs there.

PostgreSQL refuses to run as root. So, started by root, its files lie under ``/var/lib/chukan`` (a clone is often in a
0700 folder that no other user may enter), in a folder named by a hash of the clone's path, and it runs as the system
user ``chukan``, which is created when missing. Started by anybody else, everything stays under the clone, in ``var/``.
Only PostgreSQL drops privileges; nothing here changes the user of the calling process.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from chukan.errors import Problem

STATE_ROOT = Path("/var/lib/chukan")
SYSTEM_USER = "chukan"
CLONE = Path(__file__).resolve().parents[2]
_USERADD_TIMEOUT_S = 30


class Identity(NamedTuple):
    """The user and group that a process runs as."""

    uid: int
    gid: int


def is_root() -> bool:
    """Tell whether this process may change users."""
    return os.geteuid() == 0


def state_folder() -> Path:
    """Return the folder for this clone's databases, made when missing and passable for every user."""
    if not is_root():
        folder = CLONE / "var"
        folder.mkdir(exist_ok=True)
        return folder
    digest = hashlib.sha256(os.fsencode(CLONE)).hexdigest()[:12]
    folder = STATE_ROOT / digest
    for each in (STATE_ROOT, folder):
        make_passable(each)
    return folder


def make_passable(folder: Path) -> None:
    """Make a folder that everybody may enter and only its owner may write, whatever the umask says."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def server_identity() -> Identity | None:
    """Return the user that PostgreSQL must run as, or None when that is the calling one.

    Creates the system user when root asks and it is missing. Raises ``Problem`` database_failed when that cannot be
    done.
    """
    if not is_root():
        return None
    try:
        return _lookup()
    except KeyError:
        _create_user()
    try:
        return _lookup()
    except KeyError:
        raise Problem("database_failed", expected=f"a system user named {SYSTEM_USER}") from None


def _lookup() -> Identity:
    entry = pwd.getpwnam(SYSTEM_USER)
    return Identity(entry.pw_uid, entry.pw_gid)


def _create_user() -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise Problem("database_failed", expected=f"useradd, or a system user named {SYSTEM_USER}")
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", str(STATE_ROOT)]
    # A failure shows in the look-up that follows: another start may have created the user in the same second.
    subprocess.run(
        [useradd, *options, "--shell", "/usr/sbin/nologin", SYSTEM_USER],
        check=False,
        capture_output=True,
        timeout=_USERADD_TIMEOUT_S,
    )
