"""A restore takes back what it says, and nothing else: each fault beside it is still found by the same checkers."""

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.drills.checkers.every import all_faults
from chukan.ops.drills.facts import Evidence, Recorded
from chukan.ops.drills.journal import Account, Entry
from chukan.ops.drills.restored import Restored, is_listed, is_not_there, is_replaced
from chukan.ops.drills.restores import Restores
from chukan.ops.drills.scenario import find, parse
from chukan.ops.drills.verdict import Course, judge
from chukan.ops.drills.vocabulary import WHEN, understand
from chukan.tests.drills.stories import EAST, GAPS, REPLACE, WEST, ask, asker, giver, line_id, register, search, truth

TAKEN = Restored(
    cell="east", kept_until=10.0, gone_from=10.001, begun_at=20.0, led_at=30.0, opened_at=35.0, listed=[str(line_id(3))]
)
WEST_TAKEN = REPLACE(TAKEN, cell="west")
LATE = 3


def story(*more: list[Entry]) -> list[Account]:
    """Two questions of the east before the moment, one between it and the stop, one after the opening."""
    return [
        asker(ask(1, 1.0), ask(2, 8.0), ask(LATE, 15.0), ask(4, 40.0), *more),
        giver(register(11, 0.5, 1)),
    ]


def held(*numbers: int) -> Evidence:
    """What is there afterwards; the network, and the provider in the west, have heard of all four."""
    everything = truth(1, 2, LATE, 4)
    left = truth(*numbers)
    return REPLACE(everything, lines=left.lines, records={**everything.records, EAST: left.records[EAST]},
                   copies={"s1": {"name": "n", "amount": "v1"}})  # fmt: skip


def kinds(accounts: Sequence[Account], evidence: Evidence, restored: Restored | None = TAKEN) -> set[tuple[str, str]]:
    return {(fault.counts_as, fault.kind) for fault in all_faults(accounts, evidence, GAPS, restored)}


@pytest.mark.requirement("PLT-04")
def test_what_was_acknowledged_after_the_moment_is_no_loss_and_everything_else_is() -> None:
    assert kinds(story(), held(1, 2, 4)) == set()
    assert kinds(story(), held(1, 4)) == {("lost", "query_gone")}  # from before the moment
    assert kinds(story(), held(1, 2)) == {("lost", "query_gone")}  # from after the opening


def test_without_the_word_of_the_scenario_the_same_is_a_loss() -> None:
    assert ("lost", "query_gone") in kinds(story(), held(1, 2, 4), None)
    assert ("lost", "query_gone") in kinds(story(), held(1, 2, 4), REPLACE(TAKEN, cell="west"))


def test_looking_for_what_was_taken_back_is_no_sign_of_two_writers() -> None:
    sent = Entry("sending", 42.0, 9, "look", "exchange-east", after=str(line_id(LATE)))
    looked = [sent, REPLACE(sent, event="refused", at=42.1, status=404)]
    assert kinds(story(looked), held(1, 2, 4)) == set()
    other = [REPLACE(entry, after=str(line_id(2))) for entry in looked]
    assert kinds(story(other), held(1, 2, 4)) == {("two_writers", "acknowledged_query_not_shown")}


def registered(*found: tuple[float, int]) -> list[Account]:
    """The west registers 1 before the moment, 2 after it, 3 after the opening; searches find versions at instants."""
    searches = [search(20 + n, at, version) for n, (at, version) in enumerate(found)]
    writes = (register(11, 0.5, 1), register(12, 15.0, 2), register(13, 50.0, 3))
    return [asker(), giver(*writes, *searches)]


def with_copy(version: int) -> Evidence:
    return REPLACE(truth(), lines={EAST: [], WEST: []}, records={EAST: [], WEST: []}, network=[],
                   copies={"s1": {"name": "n", "amount": f"v{version}"}})  # fmt: skip


def test_a_registration_that_was_taken_back_is_in_force_until_the_stop_and_not_afterwards() -> None:
    good = registered((12.0, 1), (17.0, 2), (40.0, 1), (55.0, 3))
    assert kinds(good, with_copy(3), WEST_TAKEN) == set()
    replaced = {("two_writers", "replaced_copy_read")}
    assert kinds(registered((17.0, 1)), with_copy(3), WEST_TAKEN) == replaced  # before the stop the newer one counts
    assert kinds(registered((40.0, 2)), with_copy(3), WEST_TAKEN) == replaced  # what was taken back is read again
    assert kinds(registered((55.0, 1)), with_copy(3), WEST_TAKEN) == replaced  # after the opening all is as ever
    assert kinds(good, with_copy(1), WEST_TAKEN) == {("lost", "registration_gone")}
    assert ("two_writers", "replaced_copy_read") in kinds(good, with_copy(3), None)


def test_a_provision_that_was_taken_back_must_be_listed() -> None:
    evidence = held(1, 2, LATE, 4)
    given = [record for record in evidence.records[WEST] if record.reference != f"r{LATE}"]
    evidence = REPLACE(evidence, records={**evidence.records, WEST: given})
    assert kinds(story(), evidence, REPLACE(WEST_TAKEN, listed=[])) == {("lost", "no_record_at_provider")}
    assert kinds(story(), evidence, REPLACE(WEST_TAKEN, listed=[f"r{LATE}"])) == set()


# ---------------------------------------------------------------- what the scenario claims


def test_what_was_taken_back_is_not_there_and_listed() -> None:
    assert is_not_there(story(), held(1, 2, 4), TAKEN)
    assert not is_not_there(story(), held(1, 2, LATE, 4), TAKEN)
    half = REPLACE(held(1, 2, 4), lines=truth(1, 2, 4, 5).lines)
    assert not is_not_there(story(ask(5, 16.0)), half, TAKEN)
    assert is_listed(story(), held(1, 2, 4), TAKEN)
    assert not is_listed(story(), held(1, 2, 4), REPLACE(TAKEN, listed=[]))
    # Where nothing was taken back a drill has shown nothing.
    assert not is_listed(story(), held(1, 2, LATE, 4), TAKEN)


def test_a_permit_of_before_must_have_been_replaced_and_the_new_one_answered() -> None:
    evidence = held(1, 2, 4)
    waiting = {str(line_id(4)): "old permit"}
    assert is_replaced(story(), evidence, REPLACE(TAKEN, waiting=waiting))
    assert not is_replaced(story(), evidence, TAKEN)
    served = REPLACE(TAKEN, waiting={str(line_id(4)): "r4", str(line_id(2)): "old permit"})
    assert not is_replaced(story(), evidence, served)
    open_still = [REPLACE(one, outcome=None) if one.request == line_id(4) else one for one in evidence.network]
    assert not is_replaced(story(), REPLACE(evidence, network=open_still), REPLACE(TAKEN, waiting=waiting))


def test_the_verdict_bears_the_claims_of_the_scenario() -> None:
    course = Course(begun_at=0.0, ended_at=60.0, restored=REPLACE(TAKEN, waiting={str(line_id(4)): "old permit"}))
    verdict = judge(find("restore-to-time"), story(), held(1, 2, 4), course, GAPS)
    assert (verdict.lost, verdict.duplicates, verdict.two_writers) == (0, 0, 0)
    assert all(claim.held for claim in verdict.claims)
    untold = judge(find("restore-to-time"), story(), held(1, 2, 4), REPLACE(course, restored=None), GAPS)
    assert untold.lost > 0
    assert [claim.held for claim in untold.claims][-3:] == [None, None, None]


# ---------------------------------------------------------------- the sentences


class Place:
    """Clients, a network and a restorer that note what they are asked for."""

    def __init__(self, report: Path) -> None:
        self.restorer = self
        self.calls: list[str] = []
        self.report = report
        self.time = 0.0
        self.lines: list[Any] = [
            _Line(request=line_id(4), reference=uuid.UUID(int=7), provider=WEST, outcome=None),
            _Line(request=line_id(5), reference=uuid.UUID(int=8), provider=EAST, outcome=None),
            _Line(request=line_id(6), reference=uuid.UUID(int=9), provider=WEST, outcome="provided"),
        ]

    def now(self) -> float:
        self.time += 1.0
        return self.time

    def home_of(self, agency: str) -> str | None:
        return {EAST: "east", WEST: "west"}.get(agency)

    async def network_records(self) -> list[Any]:
        return self.lines

    async def back_up(self, cell: str) -> list[str]:
        self.calls.append(f"back_up {cell}")
        return ["20260401-090000F"]

    async def restore(self, cell: str, moment: str) -> list[str]:
        assert dt.datetime.fromisoformat(moment).tzinfo is not None
        self.calls.append(f"restore {cell}")
        return ["2"]

    async def open_restored(self, cell: str) -> list[str]:
        self.calls.append(f"open {cell}")
        self.report.write_text(json.dumps({"cell": cell, "differences": [{"id": "a", "what": "x"}, {"what": "y"}]}))
        return [str(self.report), "2026-04-01T00:00:00+00:00"]


class _Line(msgspec.Struct):
    request: uuid.UUID
    reference: uuid.UUID
    provider: str
    outcome: str | None
    expires_at: str | None = "2026-04-01T00:00:00+00:00"


async def said(place: Place, *texts: str) -> Restores:
    restores = Restores(place, place, lambda _ja, _en, _kind: None)  # type: ignore[arg-type]
    for text in texts:
        step = understand(text, WHEN, "/x")
        await restores.verbs[step.verb](step)
    return restores


async def test_the_sentences_restore_and_open_and_remember_between_which_instants(tmp_path: Path) -> None:
    place = Place(tmp_path / "report.json")
    restores = await said(
        place, "take a backup of cell west", "remember this moment", "restore cell west to that moment",
        "reconcile cell west with the network and open it",
    )  # fmt: skip
    assert place.calls == ["back_up west", "restore west", "open west"]
    assert restores.restored == Restored(
        cell="west", kept_until=1.0, gone_from=2.0, begun_at=3.0, led_at=4.0, opened_at=5.0, listed=["a"],
        waiting={str(line_id(4)): str(uuid.UUID(int=7))},
    )  # fmt: skip


async def test_without_a_moment_nothing_is_restored(tmp_path: Path) -> None:
    place = Place(tmp_path / "report.json")
    with pytest.raises(Problem) as refused:
        await said(place, "restore cell west to that moment")
    assert refused.value.code == "drill_step_failed"
    assert place.calls == []


def test_a_restore_without_its_opening_is_no_scenario() -> None:
    text = """
title_ja = "x"
title_en = "x"
breaks_ja = "x"
breaks_en = "x"
given = []
when = ["remember this moment", "restore cell east to that moment"]
[within]
drill_s = 60
"""
    with pytest.raises(Problem) as refused:
        parse("x", text)
    assert refused.value.code == "setting_missing"


def test_the_record_of_a_line_taken_back_would_be_seen() -> None:
    """A record that came back without its line is a duplicate as ever."""
    evidence = held(1, 2, 4)
    own = [*evidence.records[EAST], Recorded(line_id(LATE), "inquirer", "provided", f"r{LATE}", position=9)]
    evidence = REPLACE(evidence, records={**evidence.records, EAST: own})
    assert kinds(story(), evidence) == {("duplicates", "record_of_no_line")}
