"""``chukan lint`` and ``chukan test``: everything that must hold before a change is good, in the order of its cost.

Lint is ruff, its formatter, mypy over every room, and the contracts of imports. Test is lint, then what the tests need
from the system, then pytest, whose closing line is the last thing printed. ``--full`` adds the tests marked ``full``;
any other argument goes to pytest. The first failure ends it.
"""

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chukan.ops.local.bootstrap import SetupError, apt_install

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("replication", "tenants", "vpn", "platform", "ops")
_PACKAGES = Path(__file__).with_name("packages.txt")
_CHECK_TIMEOUT_S = 900
_TESTS_TIMEOUT_S = 3600


class Package(NamedTuple):
    """A Debian package that the tests need, and a pattern of files that shows that it is there."""

    name: str
    shows: str


def main(arguments: Sequence[str]) -> int:
    """Run ``test`` or ``lint``; return the status of the first check that fails, or 0."""
    command, *rest = arguments
    try:
        status = next((failed for title, check in _lint() if (failed := _run(title, check, _CHECK_TIMEOUT_S))), 0)
        if status or command == "lint":
            return status
        _install_missing()
    except SetupError as error:
        _say(f"chukan: {error}")
        return 1
    full = ["-m", ""] if "--full" in rest else []
    chosen = [argument for argument in rest if argument != "--full"]
    # One file at a time to a worker: what a file's tests share is made once. One worker more than cores, for a test
    # of several processes waits for them now and then.
    workers = str(len(os.sched_getaffinity(0)) + 1)
    return _run("pytest", ["-m", "pytest", "-n", workers, "--dist", "loadfile", *full, *chosen], _TESTS_TIMEOUT_S)


def _lint() -> Iterator[tuple[str, list[str]]]:
    yield "ruff", ["-m", "ruff", "check", "--quiet", "."]
    yield "ruff format", ["-m", "ruff", "format", "--quiet", "--check", "."]
    yield "mypy", ["-m", "mypy", "--no-error-summary", *_typed()]
    # The linter of imports has no module to run, and its script's first line breaks in a long path.
    yield "imports", ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-logo"]


def _typed() -> list[str]:
    """Return mypy's arguments: the ground's modules, and every room as a package."""
    ground = [f"-mchukan.{path.stem}" for path in sorted(ROOT.glob("*.py")) if path.stem != "__init__"]
    return [*ground, *(f"-pchukan.{room}" for room in ROOMS if any((ROOT / room).rglob("*.py")))]


def missing_packages() -> list[Package]:
    """Return the packages of packages.txt that this machine lacks."""
    lines = [line.split() for line in _PACKAGES.read_text(encoding="utf-8").splitlines()]
    listed = [Package(*words) for words in lines if words and not words[0].startswith("#")]
    return [package for package in listed if not glob.glob(package.shows)]  # noqa: PTH207 (an absolute pattern)


def _install_missing() -> None:
    missing = [package.name for package in missing_packages()]
    if not missing:
        return
    command = f"apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"the tests need system packages that are missing. Run: sudo {command}")
    _say(f"chukan: {command}")
    apt_install(missing)
    if missing_packages():
        raise SetupError(f"the tests need system packages that {command} did not bring")


def _run(title: str, arguments: Sequence[str], timeout_s: float) -> int:
    _say(f"chukan: {title}")
    try:
        return subprocess.run([sys.executable, *arguments], check=False, cwd=ROOT, timeout=timeout_s).returncode
    except subprocess.TimeoutExpired:
        _say(f"chukan: {title} took longer than {timeout_s:.0f} s")
        return 1


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
