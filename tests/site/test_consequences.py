"""What is said of each loss follows from the site file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.ops import site as command
from chukan.replication.consequences import Consequence, explain
from chukan.replication.site import Site

Changed = Callable[..., Site]
FAR_EAST = '  { name = "ew2", host = "west-2", port = 10433, rest_port = 10809 },\n'
FAR_WEST = '  { name = "we2", host = "east-2", port = 10433, rest_port = 10809 },\n'


def about(site: Site, word: str) -> list[Consequence]:
    return [each for each in explain(site) if word in each.about]


def test_the_loss_of_a_centre_is_told_for_both_cells(changed: Changed) -> None:
    told = " ".join(each.en for each in about(changed(), "centre east is lost"))
    assert "ew1 or ew2 takes over unattended within about 23 s" in told
    assert "synchronously between the two nodes there" in told
    assert "Cell west: goes on at home" in told
    assert "exchange-west serves all agencies" in told


def test_one_far_node_alone_is_told_as_what_it_is(changed: Changed) -> None:
    small = ((FAR_EAST, ""), (FAR_WEST, ""), ('"2+2"', '"2+1"'))
    loose = changed(*small, ("strict = true", "strict = false\nsandbox = true"))
    assert "on one disk only" in " ".join(each.en for each in about(loose, "east"))
    strict = changed(*small, ("strict = true", "strict = true\nsandbox = true"))
    assert "takes no write until strict is lifted" in " ".join(each.en for each in about(strict, "east"))


def test_seconds_follow_the_timers(changed: Changed) -> None:
    slow = changed(("[network]", "[timers]\nttl_s = 40\n\n[network]"))
    assert "within about 43 s" in " ".join(each.en for each in about(slow, "centre west"))


def test_everything_is_said_in_both_languages(changed: Changed) -> None:
    for each in explain(changed()):
        assert each.en.isascii() or "≤" in each.en
        assert any("ぁ" <= letter <= "ん" for letter in each.ja)
        assert any("ぁ" <= letter <= "ん" for letter in each.about_ja)


def test_the_command_says_it_to_programs_too(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text, encoding="utf-8")
    command.explain(site=file, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert {"the witness is lost", "the link between the centres is cut"} <= {each["about"] for each in told}


def test_check_lists_everything_at_once(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.toml"
    assert (file.write_text(text, encoding="utf-8"), command.check_command(site=file))[1] == 0
    bad = text.replace("strict = true", "strict = false").replace(
        'token = "towns"', 'token = "towns"\npeer_port = 50380'
    )
    file.write_text(bad, encoding="utf-8")
    capsys.readouterr()
    assert command.check_command(site=file, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["code"] for each in told] == ["site_port_high", "site_strict"]
    assert all(each["title"] and each["action_en"] for each in told)
