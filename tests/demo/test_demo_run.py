"""The demo as its user runs it: ``./chukan demo --once --json`` in a clone of its own, and again on what that left."""

import json
import os
import shutil
import stat
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = (".git", ".venv", "var", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
PEOPLE, QUERIES = 400, 150
TIMEOUT_S = 150
OUTCOMES = {
    "provided", "provided_with_gaps", "no_record", "no_code", "not_permitted", "stopped", "under_review", "refused",
    "bad_request", "expired", "cancelled",
}  # fmt: skip


class Clone(NamedTuple):
    """A copy of the tree, and where its databases lie."""

    root: Path
    databases: Path

    def run(self) -> tuple[dict[str, Any], str]:
        """Run the demo to its end; return its JSON and what a person saw."""
        command = ["./chukan", "demo", "--once", "--json", "--people", str(PEOPLE), "--queries", str(QUERIES)]
        done = subprocess.run(
            command, cwd=self.root, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    def processes(self) -> list[str]:
        """Return the command lines of the processes that belong to this clone."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
                except OSError:
                    continue  # it has ended meanwhile
                if str(self.root) in words or str(self.databases) in words:
                    found.append(words)
        return found


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHUKAN", "PYTEST"))}


def _set_up(root: Path) -> None:
    """Give the copy an environment as ``chukan`` expects it, with the libraries that are here already."""
    venv.create(root / ".venv", symlinks=True)
    python = root / ".venv" / "bin" / "python"
    libraries = next((root / ".venv" / "lib").glob("python3*")) / "site-packages"
    (libraries / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (libraries / "chukan").symlink_to(root)
    shutil.copyfile(root / "requirements.lock", root / ".venv" / "chukan.lock")
    (root / ".venv" / "chukan.place").write_text(f"{root}\n{python.resolve()}\n")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    root = tmp_path.resolve() / "clone"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*NOT_COPIED))
    _set_up(root)
    told = subprocess.run(
        [root / ".venv/bin/python", "-P", "-c", "from chukan.ops.local import machine; print(machine.state_folder())"],
        env=_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    databases = Path(told.stdout.strip())
    assert databases != root
    yield Clone(root, databases)
    shutil.rmtree(databases, ignore_errors=True)


def _check(result: dict[str, Any]) -> None:
    outcomes = result["outcomes"]
    assert set(outcomes) == OUTCOMES
    assert all(outcomes.values())
    assert result["reviews"]["released"] >= 1
    assert result["withheld"] >= 1
    assert result["agencies"] >= 12
    assert sum(outcomes.values()) - outcomes["under_review"] == result["queries"] >= QUERIES * 0.9
    assert result["cross_cell"] * 3 >= result["queries"]
    assert result["copies"] > PEOPLE
    assert result["codes"] > PEOPLE
    assert result["records_inquirer"] == result["queries"] - outcomes["bad_request"]
    assert 0 < result["records_provider"] <= result["records_inquirer"]
    assert result["records_reconciled"] == result["records_network"] > 0
    assert result["differences"] == {}
    assert result["amendments"] >= 0
    assert result["seconds"] > 0


def test_the_demo_shows_everything_twice_and_leaves_nothing_running(clone: Clone) -> None:
    first, seen = clone.run()
    _check(first)
    assert clone.processes() == []
    assert "Lodging copies" in seen
    written = clone.root / "var" / "demo" / "connection.json"
    described = json.loads(written.read_text())
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert len(described["agencies"]) == first["agencies"]
    assert any(affair["provider_examples"] for affair in described["affairs"])

    second, seen = clone.run()
    _check(second)
    assert clone.processes() == []
    assert "Lodging copies" not in seen, "it goes on from the data of the first start"
    assert (second["copies"], second["codes"]) == (first["copies"], first["codes"])
