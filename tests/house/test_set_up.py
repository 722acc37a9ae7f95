"""The first start: which Python, when set-up is due, and what an environment is made of."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.ops.local import bootstrap

# Stands for .venv/bin/python: says how it was called.
ECHO = '#!/bin/sh\necho "$(basename "$PWD"): $*"\n'
# Stands for bootstrap.py: leaves what the real one leaves.
BOOTSTRAP = f"""
import os, pathlib, sys
clone = pathlib.Path(sys.argv[1])
sys.stderr.write("set up\\n")
venv = clone / ".venv"
(venv / "bin").mkdir(parents=True, exist_ok=True)
(venv / "bin" / "python").write_text({ECHO!r})
(venv / "bin" / "python").chmod(0o755)
(venv / "chukan.lock").write_bytes((clone / "requirements.lock").read_bytes())
(venv / "chukan.place").write_text(f"{{clone}}\\n{{os.path.realpath(venv / 'bin' / 'python')}}\\n")
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """A clone with the real script and stand-ins for everything behind it, in a path with a space."""
    clone = tmp_path / "a clone"
    (clone / "ops" / "local").mkdir(parents=True)
    shutil.copy(root / "chukan", clone / "chukan")
    (clone / "requirements.lock").write_text("x==1\n")
    (clone / "ops" / "local" / "bootstrap.py").write_text(BOOTSTRAP)
    return clone


@pytest.fixture
def chukan(clone: Path) -> Run:
    """Run the script with some arguments, from some folder, with some environment."""

    def run(
        *arguments: str, cwd: Path = clone, script: Path = clone / "chukan", **environ: str
    ) -> "subprocess.CompletedProcess[str]":
        environ = {"PATH": os.environ["PATH"], "CHUKAN_PYTHON": sys.executable, **environ}
        return subprocess.run(
            [str(script), *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60
        )

    return run


def test_the_first_start_sets_up_and_the_second_does_not(chukan: Run) -> None:
    first, second = chukan("agency", "list"), chukan("agency", "list")
    assert first.stderr == "set up\n"
    assert second.stderr == ""
    assert first.stdout == second.stdout == "a clone: -m chukan.ops.cli agency list\n"


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ([], "-m chukan.ops.cli"),
        (["test", "--full"], "-m chukan.ops.local.checks test --full"),
        (["lint"], "-m chukan.ops.local.checks lint"),
        (["--help"], "-m chukan.ops.cli --help"),
    ],
)
def test_what_runs_behind_the_script(chukan: Run, arguments: list[str], called: str) -> None:
    assert chukan(*arguments).stdout == f"a clone: {called}\n"


def test_it_runs_from_any_folder_and_through_a_link(chukan: Run, tmp_path: Path, clone: Path) -> None:
    (tmp_path / "link").symlink_to(clone / "chukan")
    done = chukan("demo", cwd=Path("/"), script=tmp_path / "link")
    assert done.stdout == "/: -m chukan.ops.cli demo\n"


@pytest.mark.parametrize("change", ["lock", "moved", "python", "unfinished"])
def test_set_up_is_due_again_when_something_under_it_changed(
    chukan: Run, clone: Path, tmp_path: Path, change: str
) -> None:
    chukan()
    script = clone / "chukan"
    if change == "lock":
        (clone / "requirements.lock").write_text("x==2\n")
    elif change == "moved":
        script = clone.rename(tmp_path / "elsewhere") / "chukan"
    elif change == "python":
        python = clone / ".venv" / "bin" / "python"
        python.rename(python.with_name("python3.12"))
        python.symlink_to("python3.12")
    else:
        (clone / ".venv" / "chukan.place").unlink()
    assert chukan(script=script, cwd=tmp_path).stderr == "set up\n"
    assert chukan(script=script, cwd=tmp_path).stderr == ""


def test_variables_that_would_bend_the_interpreter_do_not_reach_it(chukan: Run, clone: Path) -> None:
    chukan()
    (clone / ".venv" / "bin" / "python").write_text(
        '#!/bin/sh\necho "$PYTHONPATH|$PYTHONHOME|$PYTHONSAFEPATH|$PYTHONUTF8"\n'
    )
    assert chukan(PYTHONPATH="/nonexistent", PYTHONHOME="/nonexistent").stdout == "||1|1\n"


def test_an_old_python_is_passed_over_and_having_none_is_explained(chukan: Run, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "readlink", "cmp", "env"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 4\n")
    old.chmod(0o755)
    script = (tmp_path / "a clone" / "chukan").read_text().replace("/usr/bin/python3", "python3")
    (tmp_path / "a clone" / "chukan").write_text(script)
    done = chukan(PATH=str(tools), CHUKAN_PYTHON="")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_only_the_named_entries_of_the_lock_are_taken(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# made\na==1 \\\n    --hash=x\n    # via b\nsetuptools==2 \\\n    --hash=y\nz==3\n")
    assert "".join(bootstrap._entries(lock, ["setuptools"])) == "setuptools==2 \\\n    --hash=y\n"
    assert bootstrap._count(lock) == 3


def test_the_real_lock_holds_what_builds_the_others(root: Path) -> None:
    entries = "".join(bootstrap._entries(root / "requirements.lock", bootstrap._BUILDERS))
    assert entries.startswith("setuptools==")
    assert "--hash=sha256:" in entries


def test_two_starts_set_up_one_after_the_other(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entered = threading.Event()

    def second() -> None:
        with bootstrap._alone(clone):
            entered.set()

    with bootstrap._alone(clone):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    waiting.join(10)
    assert "waiting for another start" in capsys.readouterr().err


def test_a_failing_command_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(bootstrap.SetupError, match=r"(?s)it failed\n.*line 39$") as caught:
        bootstrap._run([sys.executable, "-c", "for n in range(40): print('line', n)\nraise SystemExit(1)"], "it failed")
    assert "line 3\n" not in str(caught.value)


def test_a_clone_that_cannot_be_written_says_who_has_to_run_it(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.os, "access", lambda *_: False)
    assert bootstrap.main([str(clone)]) == 1
    assert "Run ./chukan once as a user who may write there" in capsys.readouterr().err


@pytest.mark.full
def test_a_bare_copy_sets_itself_up(root: Path, files: list[Path], tmp_path: Path) -> None:
    clone = tmp_path / "bare copy"
    for path in files:
        target = clone / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    command = [str(clone / "chukan"), "--version"]
    for said in ("chukan: ready after", ""):
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "0.1.0\n"
        assert said in done.stderr
    assert done.stderr == ""
    assert (clone / ".venv" / "typing" / "chukan").resolve() == clone
