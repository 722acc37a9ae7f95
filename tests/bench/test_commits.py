"""``chukan bench commit``: both write paths, what it refuses, and one quick real run."""

import asyncio
import json
import os
import re
import subprocess
import sys
import uuid
from typing import Any, cast

import pytest

from chukan.errors import Problem
from chukan.ops import cli
from chukan.ops.bench.commits import Commits, script
from chukan.ops.bench.driving import RoundTripError
from chukan.ops.local.machine import is_root, state_folder
from chukan.tenants.directory import AgencyRow
from chukan.tenants.hints import Hint
from chukan.tenants.rows import AcceptBatch, AcceptedBatch, AcceptLine
from chukan.tenants.sets import CellSets
from chukan.tenants.states import Side
from chukan.tests.support.processes import processes_naming

TIMEOUT_S = 600
AGENCY = AgencyRow(number=7, code="1000000000007", body="011002", name="somewhere", cell="east", generation=3)


async def after(seconds: float) -> None:
    """Be as far away as that: time is what is measured here."""
    arrived = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, arrived.set)
    await arrived.wait()


class Far:
    """The set functions of a cell whose commits take a while."""

    def __init__(self, *, fresh: bool = True, problem: str = "") -> None:
        self.sets: list[int] = []
        self.keys: set[bytes] = set()
        self.hints = 0
        self._fresh, self._problem = fresh, problem

    async def accept(self, batches: list[AcceptBatch], lines: list[AcceptLine]) -> list[AcceptedBatch]:
        assert [batch.batch for batch in batches] == [line.batch for line in lines]
        assert {batch.generation for batch in batches} == {3}
        if self._problem:
            raise Problem(self._problem)
        self.sets.append(len(batches))
        self.keys |= {batch.key for batch in batches}
        await after(0.01)
        return [AcceptedBatch(batch.batch, self._fresh, same_body=True) for batch in batches]

    async def notify(self, side: Side, hint: Hint) -> None:
        assert side is Side.INQUIRER
        self.hints += 1
        await after(0.005)


def commits(far: Far) -> Commits:
    return Commits(cast("CellSets", far), AGENCY)


async def test_clients_share_commits_and_each_line_counts_once() -> None:
    far = Far()
    ours = commits(far)
    sample = await ours.run(16, 0.2)
    await ours.close()
    assert sample.lines == sum(far.sets) == len(far.keys) == len(sample.taken_s)
    assert len(far.sets) == ours.commits < sample.lines
    assert min(sample.taken_s) >= 0.01
    assert 0 < far.hints <= ours.commits


async def test_a_lone_client_has_a_commit_for_each_line() -> None:
    far = Far()
    ours = commits(far)
    await ours.run(1, 0.1)
    await ours.close()
    assert set(far.sets) == {1}


@pytest.mark.parametrize("far", [Far(fresh=False), Far(problem="no_primary")])
async def test_a_commit_that_is_not_good_ends_it(far: Far) -> None:
    with pytest.raises(RoundTripError):
        await commits(far).run(4, 0.5)


def test_the_script_commits_one_line_and_hints_alone_after_it() -> None:
    statements = script(AGENCY).splitlines()
    assert len(statements) == 2
    assert re.findall(r"chukan\.(\w+)\(|(pg_notify)\(", script(AGENCY)) == [("accept_asked", ""), ("", "pg_notify")]
    assert "1 / (count(*) FILTER (WHERE r.fresh) = 1)::int" in statements[0]
    assert "ARRAY[7], ARRAY[3]" in statements[0]


def test_fewer_than_five_runs_are_no_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "commit", "--runs", "4", "--json"]) == 2
    refused = json.loads(capsys.readouterr().out)
    assert (refused["code"], refused["pointer"], refused["limit"]) == ("invalid_field", "/runs", 5)


def _check(result: dict[str, Any]) -> None:
    assert (result["bench"], result["quick"], result["settings"]["leader"]) == ("commit", True, "e1")
    assert "ew1" in result["settings"]["synchronous_standby_names"]
    names = [figure["name"] for figure in result["figures"]]
    assert names == ["commit-0ms-1", "commit-0ms-4", "commit-20ms-1", "commit-20ms-4"]
    for figure in result["figures"]:
        assert (figure["limit"], figure["runs"]) == ("pgbench", 1)
        assert min(figure["per_s"], figure["limit_per_s"], figure["ratio"]) > 0
        # Light is no faster here: no commit is acknowledged before it was there and back.
        assert figure["round_trip_ms"] >= 2 * figure["delay_ms"]
        assert figure["p50_ms"] >= 2 * figure["delay_ms"]


@pytest.mark.full
def test_a_quick_run_measures_each_length_and_leaves_nothing() -> None:
    place = state_folder() / f"bench-commit-test-{uuid.uuid4().hex[:8]}-{os.getpid()}"
    probe = (
        "import sys; from pathlib import Path; from chukan.ops.bench.commit_bench import Options, run\n"
        "from chukan.ops.centres.place import LabPlace\n"
        "options = Options(runs=1, quick=True, seconds=1, as_json=True, delays_ms=(0, 20), clients=(1, 4))\n"
        "sys.exit(run(options, LabPlace(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(place)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if not is_root():
        assert "not_possible_here" in done.stdout + done.stderr
        return
    assert done.returncode == 0, done.stderr[-3000:]
    _check(json.loads(done.stdout.splitlines()[-1]))
    assert processes_naming(str(place)) == []
