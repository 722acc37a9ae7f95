"""Coverage-guided fuzzing (Atheris) of every decoder, and the inputs that it found, kept and tried at every run.

The harness is ``tests/support/fuzzing``. A longer run by hand: ``python -m chukan.tests.support.fuzzing FOLDER``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chukan.tests.support import fuzzing
from chukan.tests.support.decoder_forms import Decoder
from chukan.tests.support.decoders import all_decoders

DECODERS = all_decoders()
KEPT = fuzzing.kept()
SHARES = 4
"""Processes that the whole table is cut into, one after another, so that none comes near its deadline."""
KEPT_BYTES_MAX = 160 * 1024


def fuzzed(folder: Path, names: list[str], *, runs: int, seconds: int, deadline_s: float) -> list[dict[str, Any]]:
    """Fuzz in a process, for the counters go in when modules are imported; return its findings."""
    command = [sys.executable, "-m", "chukan.tests.support.fuzzing", str(folder), *names]
    done = subprocess.run(
        [*command, "--runs", str(runs), "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline_s,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode in {0, 1}, done.stderr[-3_000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.full
@pytest.mark.requirement("TST-03")
@pytest.mark.parametrize("share", range(SHARES))
def test_no_input_that_coverage_leads_to_is_a_fault(tmp_path: Path, share: int) -> None:
    findings = fuzzed(tmp_path, sorted(DECODERS)[share::SHARES], runs=10_000, seconds=2, deadline_s=900)
    assert not findings, "\n".join(f"{each['decoder']}: {each['content']}\n{each['said']}" for each in findings)


@pytest.mark.full
@pytest.mark.requirement("TST-03")
def test_a_fault_that_only_coverage_leads_to_is_found(tmp_path: Path) -> None:
    (finding,) = fuzzed(tmp_path, [fuzzing.PLANTED], runs=500_000, seconds=60, deadline_s=300)
    assert finding["decoder"] == fuzzing.PLANTED
    assert "PlantedError" in finding["said"]
    assert finding["content"]


@pytest.mark.requirement("TST-03")
def test_what_fuzzing_kept_is_read_or_refused() -> None:
    for name, inputs in KEPT.items():
        for content in inputs:
            tried(DECODERS[name], content)


def tried(decoder: Decoder, content: bytes) -> None:
    """Let a decoder read; what it does not say that it raises goes through."""
    try:
        decoder.call(content)
    except decoder.allowed:
        return


def test_the_corpus_is_small_and_of_decoders_that_there_are() -> None:
    assert KEPT.keys() <= DECODERS.keys()
    assert sum(len(each) for inputs in KEPT.values() for each in inputs) < KEPT_BYTES_MAX
    assert len(KEPT) > len(DECODERS) / 10
