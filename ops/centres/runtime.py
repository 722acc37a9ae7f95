"""Patroni for a user that may not enter the clone: its libraries, copied where everybody may read them.

A clone under the home of root is closed to the user that PostgreSQL and Patroni run as, and Patroni then hangs without
a word when it starts a helper of its own. So root's copy goes to ``/var/lib/chukan/runtime/patroni-<hash>``: written
aside first and renamed, so that an interrupted copy is never used. Anybody else uses the environment as it is.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from chukan.errors import Problem
from chukan.ops.local.checks import ROOT
from chukan.ops.local.machine import STATE_ROOT, is_root, make_passable

_ROOTS: Final = ("patroni", "python-etcd", "dnspython", "psycopg", "psycopg-binary", "typing-extensions")
"""Patroni, and what it needs for etcd and PostgreSQL; what these need always is found from them."""
_OURS: Final = ("__init__.py", "core_dumps.py", "replication/__init__.py", "replication/patroni_rest.py",
                "replication/revoked_serials.py")  # fmt: skip
"""What Patroni is started by here, and needs of this project."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


class Runtime(NamedTuple):
    """An interpreter and the folder of libraries with which it runs Patroni; none when it has them itself."""

    python: Path
    libraries: Path | None

    def environment(self) -> dict[str, str]:
        """Return what Patroni's environment holds; nothing of the caller's gets in."""
        path = {} if self.libraries is None else {"PYTHONPATH": str(self.libraries)}
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", **path}


def find() -> Runtime:
    """Return a runtime that the server's user can use. Raises ``Problem`` runtime_missing."""
    missing = [name for name in _ROOTS if not _is_there(name)]
    if missing:
        raise Problem("runtime_missing", expected=missing[0])
    if not is_root():
        return Runtime(Path(sys.executable), None)
    wanted = sorted(_needed())
    digest = hashlib.sha256(
        "\n".join([sys.version, *(f"{name}=={metadata.version(name)}" for name in wanted)]).encode()
        + b"".join((ROOT / name).read_bytes() for name in _OURS)
    )
    libraries = STATE_ROOT / "runtime" / f"patroni-{digest.hexdigest()[:16]}"
    if not libraries.exists():
        _copy(wanted, libraries)
    return Runtime(Path(os.path.realpath(sys.executable)), libraries)


def _is_there(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _needed() -> set[str]:
    found: set[str] = set()
    open_: list[str] = list(_ROOTS)
    while open_:
        name = open_.pop()
        if name in found or not _is_there(name):
            continue
        found.add(name)
        open_ += _requires(name)
    return found


def _requires(name: str) -> Iterator[str]:
    for line in metadata.requires(name) or ():
        named = _NAME.match(line)
        if named is not None and "extra ==" not in line:
            yield named[0].lower()


def _files(name: str) -> Iterator[tuple[Path, Path]]:
    """Give the files of a library, each by its place beneath the libraries and where it is.

    One that was installed from its source without a wheel has a list of its own, relative to its metadata.
    """
    distribution = metadata.distribution(name)
    libraries = Path(str(distribution.locate_file("")))
    listed = distribution.read_text("installed-files.txt")
    if listed is None:
        places = [Path(file) for file in distribution.files or ()]
    else:
        folder = next(libraries.glob(f"{name.replace('-', '_')}-*.egg-info"))
        places = [Path(os.path.relpath(folder / line, libraries)) for line in listed.splitlines()]
    for place in places:
        if ".." not in place.parts and "__pycache__" not in place.parts:
            yield place, libraries / place


def _copy(names: list[str], target: Path) -> None:
    for folder in (STATE_ROOT, target.parent):
        make_passable(folder)
    aside = Path(tempfile.mkdtemp(prefix=".patroni-", dir=target.parent))
    try:
        aside.chmod(0o755)
        for name in names:
            for file, found in _files(name):
                place = aside / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, place)  # the modes of a private clone are not taken over
        for name in _OURS:
            place = aside / "chukan" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place)
        for each in aside.rglob("*"):
            each.chmod(0o755 if each.is_dir() else 0o644)  # whatever the umask says
        if not target.exists():
            aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
