"""The independent writer and killer on a real lab: what it finds, it finds without a line of the platform's own drills.

The lab is that of ``./chukan demo --centres --topology 2+1``, in a place of its own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chukan.ops.local.machine import state_folder
from chukan.tests.independent.independent_lab import processes

pytestmark = pytest.mark.full

PROGRAM = Path(__file__).with_name("writer_and_killer.py")
SCENARIOS = ("postgres-crash", "centre-loss", "frozen-patroni")
UP_S = 400.0
DOWN_S = 120.0
RUN_S = 1500.0
STANDS = "Running."
DEMO = """
import sys
from pathlib import Path
from chukan.ops.centres.run import run_centres
from chukan.ops.centres.place import LabPlace
from chukan.ops.demo.run import Options
options = Options(once=False, as_json=False, reset=True, people=300, queries=200, seed=11)
sys.exit(run_centres(options, "2+1", LabPlace(Path(sys.argv[1]))))
"""
"""What ``chukan demo`` does with its command line, but for the place."""


def until_it_stands(demo: subprocess.Popen[str]) -> list[str]:
    """Return what was said until it stands, or all there is when it ended before."""
    assert demo.stdout is not None
    told: list[str] = []
    late = threading.Timer(UP_S, demo.kill)
    late.start()
    try:
        for line in demo.stdout:
            told.append(line)
            if line.startswith(STANDS):
                break
    finally:
        late.cancel()
    return told


@pytest.fixture(scope="module")
def lab() -> Iterator[Path]:
    root = state_folder() / f"test-independent-{os.getpid()}"
    command = [sys.executable, "-P", "-c", DEMO, str(root)]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        told = until_it_stands(demo)
        assert told[-1].startswith(STANDS), "".join(told[-40:])
        yield root
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=DOWN_S)
        assert demo.returncode == 0
        assert not [words for _, words in processes() if any(str(root) in word for word in words)]
    finally:
        demo.kill()
        demo.wait()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def verdicts(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the program tells of each scenario; it runs without any library, so that it can lean on nothing of ours."""
    command = [sys.executable, "-BES", str(PROGRAM), "--lab", str(lab)]
    command += ["--journals", str(tmp_path_factory.mktemp("journals")), *SCENARIOS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)
    assert done.stdout, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["topology"] == "2+1"
    assert done.returncode == (0 if told["passed"] else 1)
    return {each["scenario"]: each for each in told["scenarios"]}


@pytest.mark.requirement("PLT-02", "PLT-03")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_doubled_or_written_by_two(verdicts: dict[str, dict[str, Any]], scenario: str) -> None:
    verdict = verdicts[scenario]
    counts = {count: verdict[count] for count in ("lost", "doubled", "two_writers", "wrong")}
    assert counts == dict.fromkeys(counts, 0), verdict["findings"]
    assert verdict["unsettled"] == []
    # It was tried at all: another node leads, and both homes were served again.
    assert verdict["course"]["before"] != verdict["course"]["after"]
    assert min(verdict["acknowledged_after"].values()) > 0
    assert verdict["provided"] > 0
