"""Each checker of a drill finds nothing in a good story, and the fault that is planted in a bad one."""

import uuid
from collections.abc import Callable

import pytest

from chukan.ops.drills.checkers import outage
from chukan.ops.drills.checkers.every import all_faults
from chukan.ops.drills.facts import Evidence, Recorded
from chukan.ops.drills.journal import Account, Entry, Line
from chukan.tests.drills.stories import (
    EAST,
    GAPS,
    REPLACE,
    WEST,
    ask,
    asker,
    giver,
    good,
    line_id,
    marks,
    register,
    search,
    truth,
)


def kinds(accounts: list[Account], evidence: Evidence) -> set[tuple[str, str]]:
    return {(fault.counts_as, fault.kind) for fault in all_faults(accounts, evidence, GAPS)}


def test_a_good_story_has_no_fault() -> None:
    assert kinds(good(), truth()) == set()


# ---------------------------------------------------------------- lost


@pytest.mark.requirement("PLT-02")
def test_an_acknowledged_query_that_is_gone_is_lost() -> None:
    assert ("lost", "query_gone") in kinds(good(), truth(1))


def test_a_query_found_by_its_key_afterwards_must_stay_too() -> None:
    settled = Entry(
        "settled", 9.0, 3, "query", key="key-3", batch=uuid.UUID(int=3), lines=[Line(line_id(3), "accepted")]
    )
    sent = Entry("sending", 3.5, 3, "query", "exchange-east", "key-3", "s1")
    story = good()
    story[0] = asker(list(story[0].entries), [sent, REPLACE(sent, event="in_doubt", at=3.6), settled])
    assert kinds(story, truth()) == {("lost", "query_gone")}


def test_a_query_that_never_closes_is_told() -> None:
    evidence = truth()
    evidence.lines[EAST][1] = Line(line_id(2), "permitted", None)
    assert ("lost", "query_never_closed") in kinds(good(), evidence)


@pytest.mark.requirement("PLT-02")
def test_an_acknowledged_registration_that_is_gone_is_lost() -> None:
    assert kinds(good(), REPLACE(truth(), copies={"s1": marks(2)})) == {("lost", "registration_gone")}
    assert kinds(good(), REPLACE(truth(), copies={})) == {("lost", "copy_gone")}


def test_a_registration_in_doubt_may_be_there_or_not() -> None:
    story = good()
    story[1] = giver(list(story[1].entries), register(15, 5.0, 4, event="in_doubt"))
    assert kinds(story, truth()) == set()
    assert kinds(story, REPLACE(truth(), copies={"s1": marks(4)})) == set()
    refused = [*good()[1].entries, *register(15, 5.0, 4, event="refused")]
    story[1] = giver(refused)
    assert kinds(story, REPLACE(truth(), copies={"s1": marks(4)})) == {("lost", "registration_gone")}


# ---------------------------------------------------------------- duplicates


def test_one_request_with_two_effects_is_a_duplicate() -> None:
    again = Entry(
        "settled", 9.0, 1, "query", key="key-1", batch=uuid.UUID(int=77), lines=[Line(line_id(1), "collected")]
    )
    story = good()
    story[0] = asker(list(story[0].entries), [again])
    assert ("duplicates", "two_effects_of_one_request") in kinds(story, truth())


def test_a_line_that_nobody_asked_for_is_a_duplicate() -> None:
    assert ("duplicates", "line_that_nobody_asked_for") in kinds(good(), truth(1, 2, 3))


def test_two_outcomes_of_one_line_are_a_duplicate() -> None:
    evidence = truth()
    evidence.lines[EAST][0] = Line(line_id(1), "answered", "no_record")
    assert ("duplicates", "two_outcomes_of_one_line") in kinds(good(), evidence)


# ---------------------------------------------------------------- records


def second(evidence: Evidence, agency: str, record: Recorded) -> Evidence:
    return REPLACE(evidence, records={**evidence.records, agency: [*evidence.records[agency], record]})


def without(evidence: Evidence, agency: str) -> Evidence:
    return REPLACE(evidence, records={**evidence.records, agency: evidence.records[agency][1:]})


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda e: without(e, EAST), ("lost", "no_record_at_inquirer")),
        (lambda e: without(e, WEST), ("lost", "no_record_at_provider")),
        (lambda e: REPLACE(e, network=e.network[1:]), ("lost", "no_record_at_network")),
        (lambda e: REPLACE(e, network=[*e.network, e.network[0]]), ("duplicates", "two_records_at_network")),
        (
            lambda e: second(e, EAST, Recorded(line_id(1), "inquirer", "provided", "r1", position=8)),
            ("duplicates", "two_records_at_inquirer"),
        ),
        (
            lambda e: second(e, WEST, Recorded(uuid.UUID(int=1), "provider", "provided", "r1", position=8)),
            ("duplicates", "two_records_at_provider"),
        ),
        (
            lambda e: second(e, EAST, Recorded(line_id(9), "inquirer", "provided", "r9", position=9)),
            ("duplicates", "record_of_no_line"),
        ),
        (
            lambda e: REPLACE(e, network=[REPLACE(e.network[0], outcome="no_code"), e.network[1]]),
            ("duplicates", "sides_tell_different_outcomes"),
        ),
        (
            lambda e: second(e, WEST, Recorded(uuid.UUID(int=7), "provider", "provided", "", position=1)),
            ("two_writers", "one_place_given_twice"),
        ),
    ],
)
def test_each_side_has_one_record(change: Callable[[Evidence], Evidence], kind: tuple[str, str]) -> None:
    assert kind in kinds(good(), change(truth()))


def test_an_amendment_is_no_second_record_and_has_the_last_word() -> None:
    evidence = truth()
    first = REPLACE(evidence.records[EAST][0], outcome="expired")
    amended = Recorded(uuid.UUID(int=8), "inquirer", "provided", "r1", amends=line_id(1), position=5)
    records = {EAST: [first, evidence.records[EAST][1], amended], WEST: evidence.records[WEST]}
    assert kinds(good(), REPLACE(evidence, records=records)) == set()


# ---------------------------------------------------------------- two writers


@pytest.mark.requirement("PLT-03")
def test_an_older_timeline_that_acknowledges_after_a_newer_one_is_a_second_writer() -> None:
    story = good()
    story[0] = asker(ask(1, 1.0, timeline=2), ask(2, 3.0, answer=2, timeline=1))
    assert kinds(story, truth()) == {("two_writers", "older_timeline_acknowledged")}
    # Asked before the newer one was heard of: both may be true.
    story[0] = asker(ask(1, 2.9, answer=2, timeline=2, took=0.3), ask(2, 3.0, answer=2, timeline=1))
    assert kinds(story, truth()) == set()
    # Another cell has timelines of its own.
    story[0] = asker(ask(1, 1.0, timeline=1), ask(2, 3.0, answer=2, timeline=1))
    story[1] = giver([REPLACE(entry, timeline=5) for entry in story[1].entries])
    assert kinds(story, truth()) == set()


def test_an_agency_that_moved_is_told_by_another_cells_leader() -> None:
    west = [REPLACE(entry, timeline=5, leader="w1") for entry in good()[1].entries]
    # In the west its questions are acknowledged under that cell's timeline, and at home again under its own.
    moved = asker(
        ask(1, 1.0, timeline=5, leader="w1"), ask(2, 3.0, answer=2, timeline=1, leader="e1"),
        ask(3, 3.5, answer=2, timeline=1, leader="e1"),
    )  # fmt: skip
    assert kinds([moved, giver(west)], truth(1, 2, 3)) == set()
    # The leader of its own cell cannot go back, wherever else its agencies have been.
    moved = asker(
        ask(1, 1.0, timeline=2, leader="e1"), ask(2, 3.0, answer=2, timeline=1, leader="e1"),
        ask(3, 3.5, answer=2, timeline=5, leader="w1"),
    )  # fmt: skip
    assert kinds([moved, giver(west)], truth(1, 2, 3)) == {("two_writers", "older_timeline_acknowledged")}


@pytest.mark.requirement("PLT-03")
def test_a_replaced_copy_read_back_is_a_second_writer() -> None:
    story = good()
    story[1] = giver(register(11, 0.5, 1), register(12, 2.0, 2), search(13, 2.5, 1), register(14, 4.0, 3))
    assert kinds(story, truth()) == {("two_writers", "replaced_copy_read")}
    # While the later registration was on its way, either may be read.
    story[1] = giver(register(11, 0.5, 1), register(12, 2.0, 2, took=0.8), search(13, 2.5, 1), register(14, 4.0, 3))
    assert kinds(story, truth()) == set()


def test_an_acknowledged_query_that_is_not_shown_for_a_while_is_told() -> None:
    sent = Entry("sending", 5.0, 5, "look", after=str(line_id(1)))
    story = good()
    story[0] = asker(list(story[0].entries), [sent, REPLACE(sent, event="refused", at=5.1, status=404)])
    assert kinds(story, truth()) == {("two_writers", "acknowledged_query_not_shown")}


def test_an_acknowledged_query_that_is_not_listed_is_told() -> None:
    sent = Entry("sending", 5.0, 5, "list", after=str(line_id(1)))
    story = good()
    empty = [sent, REPLACE(sent, event="told", at=5.1, status=200)]
    story[0] = asker(list(story[0].entries), empty)
    assert kinds(story, truth()) == {("two_writers", "acknowledged_query_not_listed")}
    # A line beyond the end of a page that has another one is not missing.
    story[0] = asker(list(story[0].entries)[:-2], [sent, REPLACE(empty[1], next=True)])
    assert kinds(story, truth()) == set()


# ---------------------------------------------------------------- answers


def test_an_answer_that_equals_no_registration_is_wrong() -> None:
    story = good()
    story[0] = asker(ask(1, 1.0, answer=9), ask(2, 3.0, answer=2))
    assert kinds(story, truth()) == {("wrong_answers", "answer_of_no_registration")}


def test_an_answer_of_a_registration_that_was_replaced_before_is_wrong() -> None:
    story = good()
    story[0] = asker(ask(1, 1.0), ask(2, 3.0, answer=1))
    assert kinds(story, truth()) == {("wrong_answers", "answer_of_no_registration")}


def test_an_answer_may_leave_out_what_was_not_registered_but_invent_nothing() -> None:
    story = good()
    sent, told = ask(2, 3.0, answer=2)
    with_gap = REPLACE(told.lines[0], marks={**marks(2), "more": "gap"})
    story[0] = asker(ask(1, 1.0), [sent, REPLACE(told, lines=[with_gap])])
    assert kinds(story, truth()) == set()
    invented = REPLACE(told.lines[0], marks={**marks(2), "more": "x"})
    story[0] = asker(ask(1, 1.0), [sent, REPLACE(told, lines=[invented])])
    assert kinds(story, truth()) == {("wrong_answers", "answer_of_no_registration")}


def test_content_that_changes_is_wrong() -> None:
    evidence = REPLACE(truth(), contents=[Line(line_id(1), "collected", "provided", marks(2))])
    assert ("wrong_answers", "content_differs") in kinds(good(), evidence)


# ---------------------------------------------------------------- outage


def test_an_outage_is_the_longest_time_without_an_acknowledgement() -> None:
    at = [1.0, 1.2, 6.2, 6.4]
    assert [gap.seconds for gap in outage.gaps(at, 0.0, 7.0)] == pytest.approx([1.0, 0.2, 5.0, 0.2, 0.6])
    assert outage.gaps([], 2.0, 9.0) == [(2.0, 9.0)]
    assert outage.after(at, 2.0, 9.0) == pytest.approx(4.2)
    assert outage.after(at, 6.5, 9.0) == pytest.approx(2.5)


def test_questions_that_all_fail_are_an_outage_though_registrations_go_on() -> None:
    story = [asker(ask(1, 1.0), ask(2, 21.0), *(register(10 + n, 0.5 * n, n) for n in range(1, 60)))]
    (found,) = outage.outages(story, 0.0, 30.0).values()
    assert max(gap.seconds for gap in found) == pytest.approx(18.0)
    assert max(found, key=lambda gap: gap.seconds) == pytest.approx((3.0, 21.0))


def test_the_time_between_two_questions_is_none() -> None:
    story = [asker(*(ask(n, 1.5 * n) for n in range(1, 9)), *(register(10 + n, 0.5 * n, n) for n in range(1, 26)))]
    (found,) = outage.outages(story, 0.0, 13.0).values()
    assert max(gap.seconds for gap in found) < 1.0


def test_only_acknowledged_writes_count_for_an_outage() -> None:
    story = [asker(ask(1, 1.0)), giver(register(11, 0.5, 1, event="in_doubt"), search(12, 2.0, 1))]
    assert outage.acknowledged_at(story) == {"home-east-near": [1.1], "home-west-near": []}
