"""Every transition of the table, and that nothing outside it can happen (INQ-12, PRV-09)."""

import itertools

import pytest

from chukan.platform.flows.transitions import TABLE, Event, Writes, allowed, find
from chukan.tenants.states import (
    OPEN_INQUIRY,
    STATE_OF_OUTCOME,
    InquiryState,
    Outcome,
    ProvisionState,
    Side,
)

STATES = {Side.INQUIRER: [None, *InquiryState], Side.PROVIDER: [None, *ProvisionState]}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.side.name}-{row.source and row.source.name}-{row.event}")
def test_every_row_is_allowed_to_each_of_its_targets(row):
    for target in row.targets:
        assert allowed(row.side, row.source, row.event, target) is row


def test_a_move_that_is_not_in_the_table_is_refused():
    rows = {(row.side, row.source, row.event): row for row in TABLE}
    refused = 0
    for side in Side:
        for source, event, target in itertools.product(STATES[side], Event, STATES[side][1:]):
            row = rows.get((side, source, event))
            if row is None or target not in row.targets:
                with pytest.raises(ValueError, match="no transition"):
                    allowed(side, source, event, target)
                refused += 1
    assert refused > len(TABLE)


def test_a_pair_of_state_and_event_stands_once():
    keys = [(row.side, row.source, row.event) for row in TABLE]
    assert len(keys) == len(set(keys))


@pytest.mark.requirement("PRV-09", "REC-01")
def test_a_final_outcome_always_writes_a_record_and_an_open_one_never_does():
    for row in TABLE:
        final = [outcome for outcome in row.outcomes if outcome is not Outcome.UNDER_REVIEW]
        if final and row.writes is not Writes.AMENDMENT:
            assert row.writes is Writes.RECORD, row
        if not final and row.writes is Writes.RECORD:
            pytest.fail(f"a record without an outcome: {row}")


def test_no_line_leaves_a_final_state_for_another_outcome():
    final = set(InquiryState) - OPEN_INQUIRY
    after = {InquiryState.COLLECTED, InquiryState.PURGED}
    for row in TABLE:
        if row.side is Side.INQUIRER and row.source in final:
            assert set(row.targets) <= {row.source} | after


@pytest.mark.requirement("INQ-12")
def test_every_state_can_be_reached_from_the_start():
    for side in Side:
        reached = {None}
        while True:
            following = {t for row in TABLE if row.side is side and row.source in reached for t in row.targets}
            if following <= reached:
                break
            reached |= following
        unreached = set(STATES[side]) - reached
        assert unreached <= {ProvisionState.PURGED}, unreached


def test_every_open_state_has_a_deadline_event():
    for state in OPEN_INQUIRY:
        assert find(Side.INQUIRER, state, Event.DEADLINE) is not None


def test_every_answer_kind_but_bad_request_has_a_state():
    assert set(Outcome) - set(STATE_OF_OUTCOME) == {Outcome.NONE, Outcome.BAD_REQUEST}
