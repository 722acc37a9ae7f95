"""The judge of the independent writer, on journals in which a fault is planted; and that the program stands alone."""

import ast
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chukan.tests.independent.independent_judge import judge, outages

HERE = Path(__file__).parent
PROGRAM = [path for path in HERE.glob("*.py") if not path.name.startswith("test_")]
ASKS, GIVES = "9900000000000001", "9900000000000002"
Story = dict[str, Any]


def entry(e: str, t: float, line: str, **fields: Any) -> dict[str, Any]:
    """One entry of the one worker; the line's number stands for its key, its request and its case."""
    who = {"worker": "w", "home": "east", "agency": ASKS, "group": "g"}
    return {"e": e, "t": t, **who, "n": int(line[1:]), "key": f"key-{line}", "case": 0, **fields}


def told(e: str, t: float, line: str, state: str, outcome: str | None, **fields: Any) -> dict[str, Any]:
    return entry(e, t, line, batch=f"batch-{line}", lines=[[line, state, outcome]], **fields)


def record(one: str, side: str, reference: str, position: int, **fields: Any) -> dict[str, Any]:
    made = {
        "id": one,
        "side": side,
        "reference": reference,
        "position": position,
        "amends": None,
        "outcome": "provided",
    }
    return {**made, **fields}


def node(cell: str, queries: list[str], records: list[str]) -> dict[str, Any]:
    return {"cell": cell, "timeline": "2", "queries": queries, "records": records, "tables": {"log": "2 abc"}}


@pytest.fixture
def story() -> Story:
    """Two lines asked and answered: the second one's first reply was lost, and the leader changed in between."""
    lines = ["l1", "l2"]
    entries = [
        entry("sent", 1.0, "l1"),
        told("told", 1.1, "l1", "accepted", None, timeline=1),
        entry("sent", 2.0, "l2"),
        entry("doubt", 9.0, "l2", why="TimeoutError"),
        told("looked", 10.0, "l1", "answered", "provided"),
        told("again", 20.0, "l1", "answered", "provided"),
        told("again", 21.0, "l2", "answered", "provided"),
    ]
    there = {"inquirer": ASKS, "provider": GIVES, "outcome": "provided", "notified": True, "provided": True}
    seen = {
        "cells": {ASKS: "east", GIVES: "west"},
        "lines": {ASKS: [[line, "collected", "provided"] for line in lines], GIVES: []},
        "records": {
            ASKS: [record(line, "inquirer", f"r-{line}", place) for place, line in enumerate(lines)],
            GIVES: [record(f"p-{line}", "provider", f"r-{line}", place) for place, line in enumerate(lines)],
        },
        "network": [{"request": line, "reference": f"r-{line}", **there} for line in lines],
        "nodes": {
            **{name: node("east", [*lines], [*lines]) for name in ("e1", "e2")},
            **{name: node("west", [], [f"p-{line}" for line in lines]) for name in ("w1", "w2")},
        },
        "answers": {"l1": ["person"], "l2": ["person", "twin"]},
    }
    return {"entries": entries, "seen": seen}


def found(story: Story) -> set[tuple[str, str]]:
    return {(finding.kind, finding.what) for finding in judge(story["entries"], story["seen"])}


def test_nothing_is_found_where_nothing_is_wrong(story: Story) -> None:
    assert found(story) == set()


def without(rows: list[Any], place: int) -> None:
    del rows[place]


def again(rows: list[Any], place: int, **changed: Any) -> None:
    rows.append({**copy.deepcopy(rows[place]), **changed} if changed else copy.deepcopy(rows[place]))


PLANTED: list[tuple[str, str, Callable[[Story], object]]] = [
    ("lost", "acknowledged_query_shown_0_times", lambda s: without(s["seen"]["lines"][ASKS], 0)),
    ("lost", "query_without_outcome", lambda s: s["seen"]["lines"][ASKS].__setitem__(1, ["l2", "permitted", None])),
    ("lost", "acknowledged_key_is_refused", lambda s: again(s["entries"], 5, e="again_refused")),
    ("lost", "repeat_never_answered", lambda s: again(s["entries"], 6, e="again_unanswered")),
    ("lost", "never_asked_again", lambda s: without(s["entries"], 6)),
    ("lost", "0_records_at_inquirer", lambda s: without(s["seen"]["records"][ASKS], 0)),
    ("lost", "0_records_at_provider", lambda s: without(s["seen"]["records"][GIVES], 1)),
    ("lost", "0_records_at_network", lambda s: without(s["seen"]["network"], 0)),
    ("lost", "0_rows_of_queries_on_e2", lambda s: without(s["seen"]["nodes"]["e2"]["queries"], 0)),
    ("lost", "0_rows_of_records_on_w1", lambda s: without(s["seen"]["nodes"]["w1"]["records"], 0)),
    ("doubled", "one_key_two_effects", lambda s: again(s["entries"], 5, batch="batch-other")),
    ("doubled", "one_key_two_effects", lambda s: again(s["entries"], 6, lines=[["l9", "answered", "provided"]])),
    ("doubled", "acknowledged_query_shown_2_times", lambda s: again(s["seen"]["lines"][ASKS], 0)),
    ("doubled", "query_that_nobody_asked", lambda s: s["seen"]["lines"][ASKS].append(["l3", "answered", "provided"])),
    (
        "doubled",
        "two_outcomes (no_record, provided)",
        lambda s: again(s["entries"], 4, lines=[["l1", "answered", "no_record"]]),
    ),
    ("doubled", "2_records_at_inquirer", lambda s: again(s["seen"]["records"][ASKS], 0, position=7)),
    ("doubled", "2_records_at_provider", lambda s: again(s["seen"]["records"][GIVES], 0, id="p-l9", position=7)),
    ("doubled", "2_records_at_network", lambda s: again(s["seen"]["network"], 0)),
    (
        "doubled",
        "record_at_inquirer_tells_another_outcome",
        lambda s: s["seen"]["records"][ASKS][0].update(outcome="no_record"),
    ),
    (
        "doubled",
        "network_tells_another_outcome (expired)",
        lambda s: s["seen"]["network"][0].update(outcome="expired"),
    ),
    ("doubled", "2_rows_of_records_on_e1", lambda s: s["seen"]["nodes"]["e1"]["records"].append("l1")),
    (
        "two_writers",
        "timeline_1_after_2",
        lambda s: s["entries"].extend(
            [
                told("told", 11.0, "l1", "accepted", None, timeline=2),
                entry("sent", 12.0, "l2"),
                told("told", 12.1, "l2", "accepted", None, timeline=1),
            ]
        ),
    ),
    ("two_writers", "acknowledged_query_was_not_there", lambda s: again(s["entries"], 4, e="missing", about="l1")),
    (
        "two_writers",
        "one_place_in_the_log_given_twice",
        lambda s: s["seen"]["records"][ASKS][1].update(position=0),
    ),
    (
        "two_writers",
        "nodes_hold_different_rows_of_log",
        lambda s: s["seen"]["nodes"]["e2"]["tables"].update(log="3 abd"),
    ),
    ("wrong", "answer_of_no_registered_copy", lambda s: s["seen"]["answers"].update(l1=[])),
    ("wrong", "answers_of_two_people", lambda s: s["seen"]["answers"].update(l2=["twin"])),
]


@pytest.mark.parametrize(("kind", "what", "plant"), PLANTED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_fault_is_found(story: Story, kind: str, what: str, plant: Callable[[Story], object]) -> None:
    plant(story)
    assert (kind, what) in found(story)


def test_an_amendment_is_no_second_record(story: Story) -> None:
    amendment = record("a1", "inquirer", "r-l1", 5, amends="l1", outcome="provided_with_gaps")
    story["seen"]["records"][ASKS].append(amendment)
    for name in ("e1", "e2"):
        story["seen"]["nodes"][name]["records"].append("a1")
    assert found(story) == set()


def test_a_line_that_was_closed_at_home_has_no_record_at_the_network(story: Story) -> None:
    seen = story["seen"]
    seen["lines"][ASKS][0] = ["l1", "no_code", "no_code"]
    seen["records"][ASKS][0] = record("l1", "inquirer", "", 0, outcome="no_code")
    for rows in (seen["network"], seen["records"][GIVES]):
        without(rows, 0)
    for name in ("w1", "w2"):
        without(seen["nodes"][name]["records"], 0)
    ended = {"lines": [["l1", "no_code", "no_code"]]}
    later = {"looked", "again"}
    story["entries"] = [{**one, **ended} if one["e"] in later and one["n"] == 1 else one for one in story["entries"]]
    assert found(story) == set()


def test_an_outage_is_the_longest_time_without_an_acknowledgement() -> None:
    entries = [told("told", t, "l1", "accepted", None) for t in (1.0, 2.0, 9.5, 10.0)]
    assert outages(entries, "home", 0.0, 11.0) == {"east": 7.5}
    assert outages(entries, "home", 0.0, 30.0) == {"east": 20.0}
    assert outages([entry("sent", 1.0, "l1")], "home", 0.0, 4.0) == {"east": 4.0}


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: path.name)
def test_the_program_uses_nothing_but_the_standard_library(path: Path) -> None:
    beside = {other.stem for other in PROGRAM}
    imported: set[str] = set()
    for one in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(one, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in one.names)
        elif isinstance(one, ast.ImportFrom):
            assert one.level == 0
            imported.add((one.module or "").partition(".")[0])
    assert imported <= set(sys.stdlib_module_names) | beside
