"""The command ``chukan pki``."""

import json
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.pki import app


def _run(*arguments: str) -> None:
    app(list(arguments), exit_on_error=False, result_action="return_value")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _run("init", "--directory", str(tmp_path / "pki"), "--name", "Example")
    return tmp_path / "pki"


def test_issue_tells_where_the_key_lies_and_never_the_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("issue", "--directory", str(folder), "--client", "town-system")
    said = capsys.readouterr().out
    assert "urn:chukan:client:town-system" in said
    assert str(folder / "clients" / "town-system" / "key.pem") in said.replace("\n", "")
    assert "PRIVATE" not in said


def test_show_lists_what_ends_first_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("issue", "--directory", str(folder), "--peer", "network", "--days", "9")
    _run("issue", "--directory", str(folder), "--client", "town-system", "--out", str(folder / "clients" / "x"))
    capsys.readouterr()
    _run("show", str(folder), "--json")
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed[:2]] == ["urn:chukan:peer:network", "urn:chukan:client:town-system"]
    assert [each["days_left"] for each in listed[:2]] == [8, 396]
    assert listed[-1]["usage"] == "authority"


def test_a_table_names_every_certificate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("issue", "--directory", str(folder), "--peer", "network")
    capsys.readouterr()
    _run("show", str(folder))
    said = capsys.readouterr().out
    assert "Example root" in said
    assert "peer" in said


@pytest.mark.parametrize("arguments", [[], ["--client", "a", "--peer", "b"], ["--client", "a", "--days", "0"]])
def test_issue_needs_exactly_one_name_and_a_bounded_life(folder: Path, arguments: list[str]) -> None:
    with pytest.raises(Problem) as refused:
        _run("issue", "--directory", str(folder), *arguments)
    assert refused.value.code == "certificate_name_invalid"


def test_show_says_so_when_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        _run("show", str(tmp_path))
    assert refused.value.code == "certificate_unreadable"
