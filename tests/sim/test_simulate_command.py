"""``chukan simulate``: many seeds, one seed with its dialogue, and what a broken one looks like."""

import json

import pytest

from chukan.ops import cli
from chukan.ops.simulation import inquiry_rules


def test_many_seeds_end_with_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", "--seeds", "4", "--from", "7", "--jobs", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["first"], told["seeds"], told["broken"], told["jobs"]) == (7, 4, [], 2)
    assert told["lines"] > 0
    assert told["seeds_per_s"] > 0


def test_one_seed_tells_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", "--seed", "1", "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("the sky clears" in line for line in lines)
    assert any("accepted" in line for line in lines)
    assert lines[-1].startswith("seed 1:")
    assert lines[-1].endswith("no complaint")


def test_a_broken_seed_prints_itself_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = inquiry_rules._store
    monkeypatch.setattr(inquiry_rules, "_store", lambda cell, tx, line: store(cell, tx, line) if line.ordinal else None)
    assert cli.run(["simulate", "--seeds", "1", "--jobs", "1"]) == 1
    told = capsys.readouterr()
    assert "seed 0 is broken:" in told.err
    assert "loss: " in told.err
    assert "chukan simulate --seed 0 --trace" in told.err
    assert "1 broken" in told.out
    assert cli.run(["simulate", "--seed", "0"]) == 1
    assert "loss: " in capsys.readouterr().out


def test_a_dialogue_of_many_seeds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", "--seeds", "2", "--trace"]) == 2
    assert "invalid_field" in capsys.readouterr().err
