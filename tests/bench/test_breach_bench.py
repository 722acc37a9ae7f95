"""``chukan bench breach``: one quick real run finds every record and every person, and leaves no process."""

import json
import os
import subprocess
import sys

import pytest

from chukan.ops.local.machine import CLONE
from chukan.tests.support.processes import processes_naming

TIMEOUT_S = 300


@pytest.mark.full
@pytest.mark.requirement("BRE-02")
def test_a_quick_run_lists_everybody_beside_its_limit() -> None:
    words = [sys.executable, "-m", "chukan.ops.cli", "bench", "breach", "--quick", "--records", "600", "--json"]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=CLONE, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["bench"], result["quick"]) == ("breach", True)
    assert result["settings"] == {"runs": 1, "records": 600, "agencies": 4, "persons": 60}
    assert [(each["name"], each["limit"]) for each in result["figures"]] == [
        ("persons", "COPY"),
        ("agencies", "one count"),
    ]
    assert all(each["ratio"] > 0 for each in result["figures"])
    assert processes_naming("bench-breach") == []
