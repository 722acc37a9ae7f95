"""A whole drill on a village in memory: the good end, every planted fault seen, and healing however it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.ops.demo.population import Population
from chukan.ops.drills import evidence, runner
from chukan.ops.drills.history import History
from chukan.ops.drills.report import Report, summary
from chukan.ops.drills.runner import Drill
from chukan.ops.drills.scenario import Scenario, parse
from chukan.platform.law import Law
from chukan.tests.drills.village import Village, village

CLOCK = SystemClock()
FILE = """
title_ja = "試験"
title_en = "A trial"
breaks_ja = "何か"
breaks_en = "Something"
given = ["the site is settled", "clients have worked for 0.5 s"]
when = [{when}, "let clients work for 0.5 s"]
[within]
drill_s = {drill_s}
outage_home_east_s = 5
outage_home_west_s = 5
"""
KILL = '"kill the primary\'s postgres in cell east"'
CRASH = f'{KILL}, "wait at most 2 s until cell east has another leader", "let clients work for 1.0 s"'
CRASH += ', "start again what was killed"'


def scenario(when: str = CRASH, drill_s: float = 60) -> Scenario:
    return parse("trial", FILE.format(when=when, drill_s=drill_s))


@pytest.fixture(scope="module")
def law() -> Law:
    return Law.load()


@pytest.fixture
async def place(tmp_path: Path, law: Law, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Village]:
    monkeypatch.setattr(runner, "CALM_S", 0.1)
    monkeypatch.setattr(runner, "EVIDENCE_S", 0.5)
    monkeypatch.setattr(evidence, "LOOK_S", 0.1)
    monkeypatch.setattr("chukan.ops.drills.crowd.EVERY_S", 0.08)
    async with village(tmp_path, Population(200, 7, today_jst(CLOCK)), law) as built:
        yield built


def drill(place: Village, tmp_path: Path, which: Scenario | None = None) -> Drill:
    return Drill(
        place, which or scenario(), History(tmp_path / "kept"), clock=CLOCK, chance=SystemChance(CLOCK),
        say=lambda _: None, calm_s=0.1,
    )  # fmt: skip


async def run(place: Village, tmp_path: Path, which: Scenario | None = None) -> Report:
    found, _ = await drill(place, tmp_path, which).run()
    return found


async def test_a_drill_whose_acts_the_site_cannot_do_is_refused_before_anything_is_touched(
    place: Village, tmp_path: Path
) -> None:
    place.cannot_do = {"kill postgres"}
    with pytest.raises(Problem) as told:
        drill(place, tmp_path).check(understood=True)
    assert (told.value.code, told.value.expected) == ("not_possible_here", "kill postgres")
    assert place.done == []


@pytest.mark.requirement("PLT-04")
async def test_a_drill_in_which_nothing_is_lost_passes(place: Village, tmp_path: Path) -> None:
    one = drill(place, tmp_path)
    found, folder = await one.run()
    assert found.passed, (found.faults()[:3], found.bounds(), found.ended_early)
    told = summary(found)
    wanted = {"scenario", "topology", "acknowledged", "lost", "duplicates", "two_writers", "outage_s",
              "failed_requests", "passed"}  # fmt: skip
    assert wanted <= told.keys()
    assert told["acknowledged"] > 40
    assert set(told["outage_s"]) == {"home-east-near", "home-east-far", "home-west-near", "home-west-far"}
    assert (told["lost"], told["duplicates"], told["two_writers"], told["failed_requests"]) == (0, 0, 0, 0)
    assert place.done[:2] == ["kill postgres-e1", "heal"]
    assert len(list((folder / "journals").glob("*.jsonl"))) == 8
    assert (folder / "evidence.json").exists()
    assert History(tmp_path / "kept").unfinished() is None
    # What the drill registered, it put back as it was.
    assert all(case.copy == place.copies[case.provider, case.copy.addressee]
               for case in place.cases() if (case.provider, case.copy.addressee) in place.copies)  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "count"),
    [("lose", "lost"), ("twice", "duplicates"), ("two records", "duplicates"), ("wrong", "wrong_answers"),
     ("stale", "two_writers")],
)  # fmt: skip
async def test_a_planted_fault_is_found(place: Village, tmp_path: Path, fault: str, count: str) -> None:
    place.plant.add(fault)
    found = await run(place, tmp_path)
    assert not found.passed
    assert getattr(found.verdict, count) > 0, found.verdict


async def test_no_journal_or_evidence_names_a_person(place: Village, tmp_path: Path) -> None:
    one = drill(place, tmp_path)
    _, folder = await one.run()
    written = "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())
    for case in place.cases():
        assert case.question.addressee not in written
        assert case.copy.addressee not in written


async def test_requests_that_fail_are_counted_and_never_repeated(place: Village, tmp_path: Path) -> None:
    when = '"kill network", "let clients work for 1.0 s", "start again what was killed"'
    found = await run(place, tmp_path, scenario(when))
    assert found.verdict.failed_requests > 0
    assert found.verdict.in_doubt == {"settled": found.verdict.in_doubt["settled"]}
    assert found.verdict.lost == 0
    keys: list[str] = []
    for path in (tmp_path / "kept" / found.id / "journals").glob("*.jsonl"):
        entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
        keys += [entry["key"] for entry in entries if entry["event"] == "sending" and entry.get("key")]
    assert len(keys) == len(set(keys))


async def test_a_step_that_does_not_come_true_ends_the_drill_healed(place: Village, tmp_path: Path) -> None:
    when = '"kill etcd-witness", "wait at most 0.5 s until cell east has another leader", "start again what was killed"'
    found = await run(place, tmp_path, scenario(when))
    # Nobody led before in the drill's eyes, so the present leader is another one; the next sentence mends.
    assert found.passed
    when = (
        '"switch cell east over to the other centre", "wait at most 0.5 s until cell west is led from the other centre"'
    )
    found = await run(place, tmp_path, scenario(when))
    assert not found.passed
    assert found.ended_early.startswith("drill_step_failed: wait at most 0.5 s")
    assert place.done[-1] == "heal"


async def test_the_drills_own_deadline_ends_it_healed(place: Village, tmp_path: Path) -> None:
    place.plant.add("slow")
    which = scenario('"kill etcd-witness", "let clients work for 3 s", "start again what was killed"', drill_s=4)
    found = await run(place, tmp_path, Scenario(**{**{name: getattr(which, name) for name in which.__struct_fields__},
                                                   "within": type(which.within)(drill_s=1.5)}))  # fmt: skip
    assert found.ended_early == "the drill's own deadline of 2 s"
    assert not found.passed
    assert place.done == ["kill etcd-witness", "heal"]
    assert place.down == set()


async def test_an_aborted_drill_is_healed_and_reported(place: Village, tmp_path: Path) -> None:
    when = '"kill etcd-witness", "let clients work for 30 s", "start again what was killed"'
    one = drill(place, tmp_path, scenario(when, drill_s=100))
    task = asyncio.create_task(one.run())
    async with asyncio.timeout(20):
        await place.broken.wait()
    task.cancel()
    found, folder = await task
    assert found.ended_early == "aborted"
    assert not found.passed
    assert place.down == set()
    assert all(claim.held is None for claim in found.claims())
    assert (folder / "report.json.sig").exists()


async def test_a_fault_of_the_drill_itself_is_healed_too(place: Village, tmp_path: Path) -> None:
    place.plant.add("stumble")
    with pytest.raises(ZeroDivisionError):
        await run(place, tmp_path)
    assert place.done[-1] == "heal"


async def test_what_cannot_be_healed_is_said_and_remembered(place: Village, tmp_path: Path) -> None:
    place.cannot_heal.append("start etcd-witness")
    one = drill(place, tmp_path)
    found, _ = await one.run()
    assert found.unhealed == ["start etcd-witness"]
    assert not found.passed
    assert History(tmp_path / "kept").unfinished() == one.id


async def test_what_is_not_possible_is_refused_before_anything_is_touched(place: Village, tmp_path: Path) -> None:
    which = scenario('"fill the disk of the primary of cell east", "free the disk"')
    with pytest.raises(Problem) as told:
        drill(place, tmp_path, which).check(understood=False)
    assert (told.value.code, told.value.expected) == ("not_possible_here", "small disks")
    assert place.done == []


async def test_a_site_that_is_not_marked_needs_to_be_understood(place: Village, tmp_path: Path) -> None:
    place.marked = False
    with pytest.raises(Problem) as told:
        drill(place, tmp_path).check(understood=False)
    assert told.value.code == "site_not_for_drills"
    drill(place, tmp_path).check(understood=True)


def test_two_drills_never_run_at_once(tmp_path: Path) -> None:
    with History(tmp_path).lock(), pytest.raises(Problem) as told, History(tmp_path).lock():
        pass
    assert told.value.code == "drill_running"
    with History(tmp_path).lock():
        pass
