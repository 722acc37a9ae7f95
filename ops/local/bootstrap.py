"""Makes ``.venv`` beside the clone from the hashed lock; run by the script ``chukan`` with whatever Python it found.

It uses the standard library only and imports nothing of ours, for nothing is installed yet. Every file that it installs
is named with its hash in ``requirements.lock``. Two starts at once wait for each other; the files that say "done" are
written last, so an interrupted set-up is simply done again.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_COMMAND_TIMEOUT_S = 1800
_TAIL_LINES = 25
# Some libraries come as source and are built in place; what builds them must be there first, from the lock as well.
_BUILDERS = ("setuptools",)


class SetupError(Exception):
    """The set-up cannot go on; its text says what to do."""


def main(arguments: Sequence[str]) -> int:
    """Set up the clone named by the only argument; 0 when ``.venv`` is ready, 1 when not."""
    clone = Path(arguments[0])
    try:
        # The libraries are for every user of this machine, whatever the caller's umask.
        os.umask(0o022)
        with _alone(clone):
            if not _is_done(clone):
                _set_up(clone)
    except SetupError as error:
        _say(f"chukan: {error}")
        return 1
    except KeyboardInterrupt:
        _say("chukan: interrupted; the next start goes on from here")
        return 130
    return 0


def _set_up(clone: Path) -> None:
    started = time.monotonic()
    venv, lock = clone / ".venv", clone / "requirements.lock"
    if not all(os.access(folder, os.W_OK) for folder in (clone, venv) if folder.exists()):
        raise SetupError(f"{clone} needs setting up. Run ./chukan once as a user who may write there.")
    _say(f"chukan: setting up {venv} (about half a minute, on the first start only)")
    for done in (venv / "chukan.place", venv / "chukan.lock"):
        done.unlink(missing_ok=True)
    _say(f"  [1/3] environment with {sys.executable} ({sys.version.split()[0]})")
    _make_venv(venv)
    _say(f"  [2/3] {_count(lock)} libraries, each checked against its hash")
    _install_lock(venv, lock)
    _say("  [3/3] chukan itself")
    _pip(venv, "--no-deps", "--no-build-isolation", "--editable", str(clone))
    _link_for_checkers(venv)
    shutil.copyfile(lock, venv / "chukan.lock")
    (venv / "chukan.place").write_text(_place(clone), encoding="utf-8")
    _say(f"chukan: ready after {time.monotonic() - started:.0f} s")


def _place(clone: Path) -> str:
    """Return what ``chukan`` compares: where the clone lies and which interpreter the environment was made with."""
    return f"{clone}\n{os.path.realpath(clone / '.venv' / 'bin' / 'python')}\n"


def _is_done(clone: Path) -> bool:
    """Tell whether another start finished the set-up while this one waited."""
    venv = clone / ".venv"
    with contextlib.suppress(OSError):
        same_lock = (venv / "chukan.lock").read_bytes() == (clone / "requirements.lock").read_bytes()
        return same_lock and (venv / "chukan.place").read_text(encoding="utf-8") == _place(clone)
    return False


@contextlib.contextmanager
def _alone(clone: Path) -> Iterator[None]:
    """Hold the set-up for this process; a lock on a file that every clone has leaves nothing behind."""
    with (clone / "requirements.lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("chukan: waiting for another start to finish the set-up")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_venv(venv: Path) -> None:
    if _works(venv):
        return
    # Made for another place or by another Python: links and scripts inside would point nowhere.
    if venv.exists():
        shutil.rmtree(venv)
    options = [] if _may_bring_pip() else ["--without-pip"]
    _run([sys.executable, "-I", "-m", "venv", *options, str(venv)], "the environment could not be made")


def _works(venv: Path) -> bool:
    """Tell whether an environment was made here, by this very Python, and runs."""
    try:
        marks = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False
    version = f"version = {sys.version_info.major}.{sys.version_info.minor}."
    made_here = f"command = {sys.executable}" in marks and marks.rstrip().endswith(f" {venv}")
    return made_here and version in marks and _succeeds("-c", "import sys", python=str(venv / "bin" / "python"))


def _may_bring_pip() -> bool:
    """Tell whether this Python gives an environment a pip; Debian keeps that in a package of its own.

    Where it is missing, root installs it, and anybody else uses this Python's own pip from outside.
    """
    if _succeeds("-c", "import ensurepip, venv; ensurepip.version()"):
        return True
    package = f"python3.{sys.version_info.minor}-venv"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _say(f"  installing Debian's {package}")
        apt_install([package])
        return True
    if _succeeds("-m", "pip", "--python", sys.executable, "--version"):
        return False
    raise SetupError(f"this Python cannot make an environment. Run: sudo apt-get install {package}")


def _succeeds(*arguments: str, python: str = sys.executable) -> bool:
    return subprocess.run([python, "-I", *arguments], check=False, capture_output=True).returncode == 0


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages as root, refreshing the lists only when the first try does not find them."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "-q", *packages]
    first = subprocess.run(install, check=False, capture_output=True, env=environment, timeout=_COMMAND_TIMEOUT_S)
    if first.returncode != 0:
        _run(["apt-get", "update", "-q"], "the package lists could not be refreshed", environment)
        _run(install, f"apt-get could not install {' '.join(packages)}", environment)


def _install_lock(venv: Path, lock: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as builders:
        builders.writelines(_entries(lock, _BUILDERS))
        builders.flush()
        _pip(venv, "--no-deps", "--require-hashes", "--requirement", builders.name)
    _pip(venv, "--no-deps", "--require-hashes", "--no-build-isolation", "--requirement", str(lock))


def _entries(lock: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a few entries of the lock; an entry goes on over indented lines."""
    wanted = False
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            wanted = line.partition("==")[0] in names
        if wanted:
            yield line


def _count(lock: Path) -> int:
    return sum("==" in line and not line.startswith((" ", "#")) for line in lock.read_text("utf-8").splitlines())


def _pip(venv: Path, *options: str) -> None:
    python = str(venv / "bin" / "python")
    own = _succeeds("-m", "pip", "--version", python=python)
    command = [python, "-I", "-m", "pip"] if own else [sys.executable, "-I", "-m", "pip", "--python", python]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    _run([*command, "install", *quiet, *options], "a library could not be installed (is the package index reachable?)")


def _run(command: Sequence[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """Run a command; say nothing when it succeeds and show the end of what it said when it does not."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
            timeout=_COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{failure} ({type(error).__name__})") from error
    if done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-_TAIL_LINES:])
        raise SetupError(f"{failure}\n{tail}")


def _link_for_checkers(venv: Path) -> None:
    """Make ``.venv/typing/chukan``, by which type checkers and editors find the package whose root is the clone."""
    link = venv / "typing" / "chukan"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / "..")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
