"""``chukan bench exchange`` as its user runs it: what it refuses, and one quick real run."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops import cli
from chukan.ops.bench.measuring import require_runs
from chukan.ops.local.machine import state_folder
from chukan.tests.support.processes import processes_naming

TIMEOUT_S = 600


@pytest.mark.parametrize("runs", [1, 4])
def test_fewer_than_five_runs_are_no_measurement(
    runs: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise AssertionError("a benchmark was about to start")

    importlib.import_module("chukan.ops.bench.run")
    monkeypatch.setattr(sys.modules["chukan.ops.bench.run"], "find_pgbench", stop)
    assert cli.run(["bench", "exchange", "--runs", str(runs), "--json"]) == 2
    refused = json.loads(capsys.readouterr().out)
    assert (refused["code"], refused["pointer"], refused["limit"]) == ("invalid_field", "/runs", 5)


def test_a_quick_look_may_have_fewer() -> None:
    require_runs(1, quick=True)
    require_runs(5, quick=False)
    with pytest.raises(Problem):
        require_runs(4, quick=False)


def _check(result: dict[str, Any]) -> None:
    assert (result["bench"], result["quick"]) == ("exchange", True)
    assert result["machine"].keys() == {"cores", "memory_mib", "kernel", "load_before"}
    assert (result["settings"]["fsync"], result["settings"]["synchronous_commit"]) == ("on", "on")
    assert [figure["name"] for figure in result["figures"]] == ["single", "batch"]
    for figure in result["figures"]:
        assert figure["limit"] == "pgbench"
        assert figure["runs"] == len(figure["each"]) == 1
        assert figure["per_s"] > 0
        assert figure["limit_per_s"] > 0
        assert figure["ratio"] == pytest.approx(figure["per_s"] / figure["limit_per_s"], rel=0.05)
        assert 0 < figure["p50_ms"] <= figure["p99_ms"]


@pytest.mark.full
def test_a_quick_run_measures_both_and_leaves_nothing(tmp_path: Path) -> None:
    probe = (
        "import sys; from pathlib import Path; from chukan.ops.bench.run import Options, run\n"
        "from chukan.ops.demo.place import Place\n"
        "place = Place(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "options = Options(runs=1, quick=True, seconds=1, clients=4, lists=2, lines=50, people=600, as_json=True)\n"
        "sys.exit(run(options, place))"
    )
    databases = state_folder() / f"bench-test-{os.getpid()}"
    command = [sys.executable, "-c", probe, str(tmp_path / "bench"), str(databases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    _check(json.loads(done.stdout.splitlines()[-1]))
    assert "every commit synchronous: fsync on, synchronous_commit on" in done.stderr
    assert not databases.exists()
    assert processes_naming(str(databases)) == []
