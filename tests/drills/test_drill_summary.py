"""Many drills in one table: sums, spans, and nothing left out but what cannot be believed."""

import json
from pathlib import Path

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.drill_summary import summary
from chukan.ops.drills.history import REPORT, History
from chukan.ops.drills.report import Report
from chukan.ops.drills.tables import headings, markdown, rows
from chukan.tests.drills.test_drill_reports import made


def seen(report: Report, east_s: float, west_s: float, word_s: float | None = None, **counts: int) -> Report:
    outages = {"home-east-near": east_s, "home-east-far": east_s / 2, "home-west-near": west_s}
    verdict = msgspec.structs.replace(report.verdict, outage_s=outages, after_word_s=word_s, **counts)
    return msgspec.structs.replace(report, verdict=verdict)


def test_runs_of_a_scenario_are_one_row_with_the_shortest_and_the_longest_outage() -> None:
    first, again = seen(made(), 2.0, 0.5), seen(made(passed=False), 4.0, 0.25, failed_requests=3, lost=1)
    (row,) = rows([first, again])
    assert (row.scenario, row.runs, row.passed, row.lost) == ("switchover", 2, 1, 1)
    assert row.acknowledged == first.verdict.acknowledged + again.verdict.acknowledged
    assert row.outage_s == {"east": (2.0, 4.0), "west": (0.25, 0.5)}
    assert row.after_word_s is None
    assert row.failed_requests == (0, 3)


def test_topologies_are_not_mixed_and_words_are_timed() -> None:
    small = seen(made("centre-loss-fenced"), 6.0, 1.0, 1.5)
    large = msgspec.structs.replace(seen(made("centre-loss-fenced"), 7.0, 1.0, 2.5), topology="2+2")
    found = rows([small, large])
    assert [(row.topology, row.after_word_s) for row in found] == [("2+1", (1.5, 1.5)), ("2+2", (2.5, 2.5))]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_markdown_is_a_table_of_as_many_columns_as_headings(language: str) -> None:
    lines = markdown(rows([seen(made(), 2.0, 0.5)]), language).splitlines()  # type: ignore[arg-type]
    assert len(lines) == 3
    assert {line.count("|") for line in lines} == {len(headings(language)) + 1}  # type: ignore[arg-type]
    assert "| 2.0 | 0.5 | – |" in lines[2]


def test_several_runs_are_a_span() -> None:
    table = markdown(rows([seen(made(), 2.0, 0.5), seen(made(), 3.25, 0.5)]), "en")
    assert "| 2.0–3.2 | 0.5 | – |" in table


@pytest.mark.requirement("PLT-04")
def test_only_signed_reports_are_counted_and_the_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(tmp_path)
    for name in ("switchover", "witness-loss"):
        history.begin(made(name).id)
        history.keep(seen(made(name), 2.0, 0.5), "<html></html>")
    summary(store=tmp_path, as_json=True)
    assert [row["scenario"] for row in json.loads(capsys.readouterr().out)["drills"]] == ["switchover", "witness-loss"]
    (tmp_path / made("switchover").id / REPORT).write_bytes(b"{}")
    summary(store=tmp_path, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert [row["scenario"] for row in said["drills"]] == ["witness-loss"]
    assert said["not_believed"] == 1
    summary(store=tmp_path, as_json=True, since="2027-01-01T00:00:00+00:00")
    assert json.loads(capsys.readouterr().out)["drills"] == []
    with pytest.raises(Problem) as caught:
        summary(store=tmp_path, since="2026-04-01")
    assert caught.value.code == "setting_invalid"
