"""The command line: what help costs, and how a refusal looks."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops import cli
from chukan.ops.local import checks


def test_every_command_has_one_line_of_help_and_a_target() -> None:
    assert set(cli.COMMANDS) == set(cli.SUMMARIES)
    for name, target in cli.COMMANDS.items():
        assert target.startswith("chukan.ops.")
        assert target.rpartition(":")[2] in {"app", f"{name}_app"}, "a module of one command calls it app"
        assert len(cli.SUMMARIES[name]) < 90


def test_help_lists_every_command_and_imports_none() -> None:
    probe = (
        "import sys\nfrom chukan.ops import cli\n"
        "status = cli.run(['--help'])\n"
        "loaded = [t for t in cli.COMMANDS.values() if t.partition(':')[0] in sys.modules]\n"
        "assert loaded == [], loaded\nassert 'asyncpg' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in [*cli.COMMANDS, "config"]:
        assert f"│ {name} " in done.stdout


def test_an_unknown_command_is_refused_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demmo"]) == 2
    shown = capsys.readouterr()
    assert "unknown_command" in shown.err
    assert "expected: demo" in shown.err
    assert shown.out == ""


def test_a_problem_is_a_document_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "explain", "--json", "--file", "/nonexistent"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["code"] == "settings_unreadable"
    assert shown.err == ""


def test_a_problem_is_shown_to_people_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    cli.show(Problem("no_code", pointer="/lines/0/addressee", line=1), as_json=False)
    shown = capsys.readouterr().err
    for part in ("no_code", "符号がありません", "no linkage code", "/lines/0/addressee", "Acquire a code"):
        assert part in shown


def test_a_command_that_is_not_part_of_this_installation_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", {"later": "chukan.ops.later:app"})
    cli.app.command("chukan.ops.later:app", name="later", help="Not here yet.")
    try:
        assert cli.run(["later", "x", "--json"]) == 2
    finally:
        del cli.app["later"]
    assert json.loads(capsys.readouterr().out)["code"] == "not_in_service"


def test_settings_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "chukan.toml"
    file.write_text('[site]\ncentre = "west"\n', encoding="utf-8")
    monkeypatch.setenv("CHUKAN_SETTINGS", str(file))
    monkeypatch.setenv("CHUKAN__SITE__SANDBOX", "true")
    assert cli.run(["config", "explain", "--json"]) == 0
    entries = {entry["key"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["site.centre"] == {"key": "site.centre", "value": "west", "source": f"{file}:2"}
    assert entries["site.sandbox"]["source"] == "environment"
    assert entries["network.url"]["source"] == "missing"
    assert cli.run(["config", "explain"]) == 0
    assert "site.centre" in capsys.readouterr().out


def test_every_command_of_the_table_is_there() -> None:
    modules = {name: target.partition(":")[0] for name, target in cli.COMMANDS.items()}
    assert [name for name, module in modules.items() if importlib.util.find_spec(module) is None] == []


def test_the_packages_that_tests_need_are_listed_with_a_sign_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.missing_packages() == []
    listing = tmp_path / "packages.txt"
    listing.write_text("# comment\nnonesuch  /nonexistent/*/bin\nshell  /bin/s*\n", encoding="utf-8")
    monkeypatch.setattr(checks, "_PACKAGES", listing)
    assert [package.name for package in checks.missing_packages()] == ["nonesuch"]


def test_without_the_right_to_install_the_tests_say_exactly_what_to_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "missing_packages", lambda: [checks.Package("postgresql", "x")])
    monkeypatch.setattr(checks, "_lint", lambda: iter(()))
    monkeypatch.setattr(checks.os, "geteuid", lambda: 1000)
    assert checks.main(["test"]) == 1
    assert "sudo apt-get install postgresql" in capsys.readouterr().err


def test_the_first_failing_check_ends_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [("first", ["-c", ""]), ("second", ["-c", "raise SystemExit(3)"]), ("third", ["-c", ""])]
    monkeypatch.setattr(checks, "_lint", lambda: iter(steps))
    assert checks.main(["lint"]) == 3
    assert capsys.readouterr().err == "chukan: first\nchukan: second\n"
