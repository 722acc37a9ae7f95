"""Reports: signed and kept, readable without anything else, told in the same fields to programs, and as metrics."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops import cli
from chukan.ops.drills import figures
from chukan.ops.drills.facts import Fault
from chukan.ops.drills.history import PAGE, REPORT, History
from chukan.ops.drills.page import page
from chukan.ops.drills.picture import Picture
from chukan.ops.drills.report import Event, Report, Stretch, together
from chukan.ops.drills.scenario import find
from chukan.ops.drills.verdict import Course, judge
from chukan.ops.drills.watch import Change
from chukan.tests.drills.stories import GAPS, REPLACE, asker, good, truth

COURSE = Course(begun_at=0.5, ended_at=4.5, leaders={"east": ["e1", "ew1"]})


def made(name: str = "switchover", at: str = "2026-11-23T01:02:03.000+00:00", *, passed: bool = True) -> Report:
    scenario = find(name)
    verdict = judge(scenario, good(), truth(), COURSE, GAPS)
    return Report(
        id=f"{at[:4]}{at[5:7]}{at[8:10]}T{at[11:13]}0203-{name}-0001",
        scenario=name,
        title_ja=scenario.title_ja,
        title_en=scenario.title_en,
        breaks_ja=scenario.breaks_ja,
        breaks_en="<script>alert(1)</script>",
        topology="2+1",
        site="lab",
        begun_at=at,
        seconds=60.0,
        version="0.1.0",
        verdict=verdict,
        passed=passed and verdict.passed,
        load_from=0.5,
        load_to=4.5,
        events=[Event(1.0, "切り替える", "switch"), Event(2.0, "宣言", "word", "word")],
        changes=[
            Change(0.5, "east", "e1", "primary", 1),
            Change(2.0, "east", "ew1", "primary", 2),
            Change(1, "", "x", "up"),
        ],
        stretches=[Stretch("home-east-near", 1.1, 3.1)],
        gaps=[],
    )


def test_the_verdict_of_a_good_story_is_yes() -> None:
    verdict = judge(find("switchover"), good(), truth(), COURSE, GAPS)
    assert verdict.passed
    assert (verdict.acknowledged, verdict.lost, verdict.failed_requests) == (5, 0, 0)
    assert verdict.outage_s == {"home-east-near": pytest.approx(2.0), "home-west-near": pytest.approx(2.0)}
    assert verdict.outcomes == {"provided": 2}
    assert verdict.durability == {"not told": 5}


def test_a_bound_that_is_passed_is_no_pass() -> None:
    verdict = judge(find("switchover"), good(), truth(), REPLACE(COURSE, ended_at=40.0), GAPS)
    assert not verdict.passed
    assert [bound.held for bound in verdict.bounds] == [False, False]


def test_the_operators_word_has_a_bound_of_its_own() -> None:
    scenario = find("centre-loss-fenced")
    spoken = REPLACE(COURSE, word_at=1.5, word_cell="east")
    verdict = judge(scenario, good(), truth(), spoken, GAPS)
    assert verdict.after_word_s == pytest.approx(1.6)
    assert verdict.passed
    assert not judge(scenario, good(), truth(), COURSE, GAPS).passed


def test_a_leader_that_changed_breaks_the_claim_that_none_does() -> None:
    assert not judge(find("witness-loss"), good(), truth(), COURSE, GAPS).passed
    assert judge(find("witness-loss"), good(), truth(), REPLACE(COURSE, leaders={"east": ["e1"]}), GAPS).passed


def test_without_evidence_nothing_is_claimed() -> None:
    verdict = judge(find("switchover"), good(), None, COURSE, GAPS)
    assert not verdict.passed
    assert {claim.held for claim in verdict.claims} == {None}


def test_nothing_tried_is_nothing_shown() -> None:
    assert not judge(find("key-rotation"), [asker()], truth(), COURSE, GAPS).passed


def test_a_report_is_kept_with_a_signature_that_holds(tmp_path: Path) -> None:
    history = History(tmp_path)
    report = made()
    folder = history.begin(report.id)
    history.keep(report, page(report))
    assert History(tmp_path).read(report.id) == report
    assert History(tmp_path).ids() == [report.id]
    for name in (REPORT, PAGE):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"lab", b"lap", 1))
        with pytest.raises(Problem) as told:
            history.read(report.id)
        assert told.value.code == "signature_invalid"
        (folder / name).write_bytes(content)
    assert (tmp_path / "drill-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_report_that_cannot_be_believed_hides_no_other(tmp_path: Path) -> None:
    history = History(tmp_path)
    reports = [made(at=f"2026-11-23T0{hour}:02:03.000+00:00") for hour in (1, 2)]
    for report in reports:
        history.begin(report.id)
        history.keep(report, page(report))
    (tmp_path / reports[0].id / f"{REPORT}.sig").write_bytes(b"nothing")
    assert history.readable() == [reports[1]]


def test_the_key_stays_the_same(tmp_path: Path) -> None:
    for hour in ("01", "02"):
        report = made(at=f"2026-11-23T{hour}:02:03.000+00:00")
        History(tmp_path).begin(report.id)
        History(tmp_path).keep(report, page(report))
    assert [History(tmp_path).read(each).passed for each in History(tmp_path).ids()] == [True, True]


def test_the_page_needs_nothing_else_and_believes_no_text() -> None:
    text = page(made())
    assert text.index("切替訓練報告") < text.index("Planned switchover")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert 'src="' not in text


def test_the_picture_is_one_drawing_with_every_group_node_and_event() -> None:
    root = ET.fromstring(Picture(made()).svg())  # noqa: S314 - our own drawing
    texts = [node.text for node in root.iter() if node.tag.endswith("}text")]
    for wanted in ("home-east-near", "home-west-near", "e1 (east)", "ew1 (east)", "x", "1", "2"):
        assert wanted in texts
    titles = [node.text for node in root.iter() if node.tag.endswith("}title")]
    assert "2.0 s" in titles
    assert "primary, timeline 2: 2.0-4.5 s" in titles


def test_several_drills_are_told_together() -> None:
    bad = REPLACE(made(at="2026-11-23T02:02:03.000+00:00"), passed=False)
    told = together("all", [made(), bad], ["disk-full"])
    assert (told["acknowledged"], told["passed"], told["not_possible_here"]) == (10, False, ["disk-full"])
    assert told["outage_s"]["home-east-near"] == pytest.approx(2.0)
    assert [run["passed"] for run in told["runs"]] == [True, False]
    assert not together("all", [], [])["passed"]


@pytest.mark.requirement("PLT-04")
def test_metrics_tell_the_last_run_and_the_last_success(tmp_path: Path) -> None:
    bad = made(at="2026-11-23T02:02:03.000+00:00")
    fault = Fault("lost", "query_gone", "x")
    bad = REPLACE(bad, passed=False, verdict=REPLACE(bad.verdict, lost=1, faults=[fault]), unhealed=["start e1"])
    lines = figures.write(tmp_path, [made(), bad]).read_text("utf-8").splitlines()
    assert 'chukan_drill_last_success_timestamp_seconds{scenario="switchover"} 1795395783' in lines
    assert 'chukan_drill_last_run_timestamp_seconds{scenario="switchover"} 1795399383' in lines
    assert 'chukan_drill_last_passed{scenario="switchover"} 0' in lines
    assert 'chukan_drill_rpo_lost{scenario="switchover"} 1' in lines
    assert 'chukan_drill_unhealed{scenario="switchover"} 1' in lines
    assert 'chukan_drill_rto_seconds{scenario="switchover",group="home-east-near"} 2' in lines
    assert all(line.startswith(("# HELP ", "# TYPE ", "chukan_drill_")) for line in lines)


# ---------------------------------------------------------------- the command


def test_the_list_says_what_breaks_what_must_hold_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["drill", "list", "--json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["centre-loss"]["when"][0] == "lose the centre east"
    assert "never two writers acknowledge" in told["centre-loss"]["then"]
    assert cli.run(["drill", "list"]) == 0
    shown = capsys.readouterr().out
    assert "拠点の喪失" in shown
    assert "takes at most" in shown


def test_reports_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = made()
    History(tmp_path).begin(report.id)
    History(tmp_path).keep(report, page(report))
    assert cli.run(["drill", "report", "--store", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["scenario"] == "switchover"
    assert cli.run(["drill", "report", "--last", "--store", str(tmp_path), "--json"]) == 0
    assert msgspec.convert(json.loads(capsys.readouterr().out), Report).id == report.id
    assert cli.run(["drill", "report", report.id, "--store", str(tmp_path)]) == 0
    assert "lost 0" in capsys.readouterr().out
    assert cli.run(["drill", "report", "nonesuch", "--store", str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "drill_unknown"


def test_an_unknown_drill_is_no_drill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["drill", "run", "centre-los", "--store", str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["expected"] == "centre-loss"
