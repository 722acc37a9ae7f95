"""The checker of crash tests finds nothing in a good story, and each planted fault in a bad one."""

import datetime as dt
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.ops.sandbox.admin import NetworkRecord
from chukan.platform.wire.agency import Record
from chukan.tests.crash.checker import Evidence, Fault, check
from chukan.tests.crash.journal import Entry, Journal, Told

ASKS, GIVES, OUTSIDE = "1310100000000001", "2710000000000003", "9909000000000010"
AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
BATCH = uuid.UUID(int=1)
REPLACE = msgspec.structs.replace


def _id(n: int) -> uuid.UUID:
    return uuid.UUID(int=n)


PROVIDED, NO_RECORD, LOCAL, REFUSED_THERE, EXPIRED = (_id(n) for n in range(11, 16))
OUTCOME = {
    PROVIDED: "provided",
    NO_RECORD: "no_record",
    LOCAL: "not_permitted",
    REFUSED_THERE: "no_code",
    EXPIRED: "expired",
}
STATE = {"provided": "collected", "no_record": "answered"}


def _reference(line: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(int=line.int + 1000)


def _told(line: uuid.UUID, content: str | None = None) -> Told:
    outcome = OUTCOME[line]
    return Told(line.int - 11, STATE.get(outcome, outcome), outcome, line, content)


def _record(side: str, line: uuid.UUID, outcome: str, **changes: Any) -> Record:
    at_network = line is not LOCAL
    record = Record(
        id=line if side == "inquirer" else uuid.UUID(int=line.int + 2000),
        side="inquirer" if side == "inquirer" else "provider",
        inquirer=ASKS,
        provider=GIVES,
        department="福祉課",
        affair="JM",
        procedure="JT",
        kind="TM",
        items=[],
        outcome=outcome,
        asked_at=AT,
        closed_at=AT,
        withheld=False,
        reference=str(_reference(line)) if at_network else None,
    )
    return REPLACE(record, **changes)


def _at_network(line: uuid.UUID, outcome: str, *, permitted: bool = True, notified: bool = True) -> NetworkRecord:
    return NetworkRecord(
        position=line.int,
        reference=_reference(line),
        request=line,
        inquirer=ASKS,
        inquirer_name="",
        provider=GIVES,
        provider_name="",
        department="",
        affair="JM",
        procedure="JT",
        kind="TM",
        items=[],
        asked_at=AT,
        decided_at=AT,
        outcome=outcome,
        expires_at=AT if permitted else None,
        notified_at=AT if notified else None,
    )


class Story:
    """One list of five lines that went well; tests spoil one thing of it."""

    def __init__(self) -> None:
        lines = list(OUTCOME)
        first = [Told(n, "accepted", None, line) for n, line in enumerate(lines)]
        first[2] = _told(LOCAL)
        bad = Told(5, "refused_before_acceptance", "bad_request")
        self.journal = [
            Entry("sending", "k1", ASKS, count=6),
            Entry("accepted", "k1", ASKS, batch=BATCH, lines=[*first, bad]),
            Entry("told", "k1", ASKS, batch=BATCH, lines=[_told(line) for line in lines]),
            Entry("collected", "k1", ASKS, batch=BATCH, lines=[_told(PROVIDED, "c0ffee")]),
        ]
        self.views = {ASKS: [_told(line) for line in lines]}
        self.asks = [_record("inquirer", line, OUTCOME[line]) for line in lines]
        self.gives = [_record("provider", line, OUTCOME[line]) for line in (PROVIDED, NO_RECORD)]
        self.network = [
            _at_network(PROVIDED, "provided"),
            _at_network(NO_RECORD, "no_record"),
            _at_network(REFUSED_THERE, "no_code", permitted=False),
            # The permit lapsed before the provider was ever told.
            _at_network(EXPIRED, "expired", notified=False),
        ]

    def add(self, line: uuid.UUID) -> None:
        """Have all parties record a line that no client sent."""
        self.asks.append(_record("inquirer", line, "provided"))
        self.gives.append(_record("provider", line, "provided"))
        self.network.append(_at_network(line, "provided"))

    def by_file(self) -> None:
        """Tell of the same lines as of a file: counted when it was taken, each once in its result."""
        said = [Told(line.line, line.state, line.outcome, line.id) for line in self.journal[2].lines]
        refused = Told(5, "refused_before_acceptance", "bad_request")
        self.journal = [
            Entry("sending", "F1", ASKS, count=6),
            Entry("accepted", "F1", ASKS, count=6, batch=BATCH),
            Entry("told", "F1", ASKS, lines=said),
            Entry("collected", "F1", ASKS, count=6, lines=[_told(PROVIDED, "c0ffee"), *said[1:], refused]),
        ]

    def faults(self) -> list[Fault]:
        """Judge it."""
        records = {ASKS: self.asks, GIVES: self.gives}
        return check(self.journal, Evidence(self.views, records, self.network))

    def kinds(self) -> set[str]:
        """The kinds of faults found."""
        return {fault.kind for fault in self.faults()}


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_good_story_has_no_fault(story: Story) -> None:
    assert story.faults() == []


def test_an_amended_record_counts_by_its_last_word(story: Story) -> None:
    # The provider answered too late: it learned of the lapse afterwards, and so did nobody else.
    story.network[1] = _at_network(NO_RECORD, "expired")
    assert story.kinds() == {"outcome_differs"}
    later = AT + dt.timedelta(seconds=1)
    story.gives.append(_record("provider", NO_RECORD, "expired", id=_id(31), amends=story.gives[1].id, closed_at=later))
    story.asks.append(_record("inquirer", NO_RECORD, "expired", id=_id(32), amends=NO_RECORD, closed_at=later))
    assert story.faults() == []


def test_the_other_sides_words_for_the_same_thing_are_no_fault(story: Story) -> None:
    story.asks[1] = _record("inquirer", NO_RECORD, "cancelled")
    story.views[ASKS][1] = Told(1, "cancelled", "cancelled", NO_RECORD)
    story.journal[2].lines[1] = story.views[ASKS][1]
    story.network[1] = _at_network(NO_RECORD, "expired")
    story.gives[1] = _record("provider", NO_RECORD, "expired")
    assert story.faults() == []


def test_lines_of_agencies_outside_do_not_matter_but_their_records_do(story: Story) -> None:
    foreign = REPLACE(_at_network(_id(41), "provided"), inquirer=OUTSIDE)
    story.network.append(foreign)
    story.gives.append(_record("provider", _id(41), "provided"))
    assert story.faults() == []
    story.gives.append(_record("provider", _id(41), "provided", id=_id(43)))
    assert story.kinds() == {"recorded_twice"}


# Each spoils one thing, and names the fault that must be found.
SPOILED: dict[str, tuple[Callable[[Story], object], set[str]]] = {
    "a lost line": (
        lambda s: (s.views[ASKS].pop(0), s.asks.pop(0), s.gives.pop(0), s.network.pop(0)),
        {"lost", "not_recorded"},
    ),
    "a line that is only gone from the list": (lambda s: s.views[ASKS].pop(0), {"lost"}),
    "a list that was never acknowledged": (
        lambda s: s.journal.append(Entry("sending", "k2", ASKS, count=1)),
        {"never_acknowledged"},
    ),
    "a list that was acknowledged twice": (
        lambda s: s.journal.append(REPLACE(s.journal[1], batch=_id(2))),
        {"acknowledged_twice"},
    ),
    "a reply that leaves a line out": (lambda s: s.journal[1].lines.pop(), {"lines_missing_in_reply"}),
    "an effect that nobody asked for": (
        lambda s: s.add(_id(51)),
        {"nobody_asked"},
    ),
    "a view that nobody was told of": (
        lambda s: s.views[ASKS].append(REPLACE(s.views[ASKS][0], id=_id(52))),
        {"nobody_asked"},
    ),
    "a line left open": (lambda s: s.views[ASKS].__setitem__(4, Told(4, "permitted", None, EXPIRED)), {"open"}),
    "an exchange left open at the network": (
        lambda s: s.network.__setitem__(3, REPLACE(s.network[3], outcome=None)),
        {"open"},
    ),
    "an outcome that changed after it was told": (
        lambda s: s.views[ASKS].__setitem__(1, Told(1, "expired", "expired", NO_RECORD)),
        {"told_differently"},
    ),
    "two outcomes told": (
        lambda s: s.journal.append(
            Entry("told", "k1", ASKS, batch=BATCH, lines=[Told(1, "expired", "expired", NO_RECORD)])
        ),
        {"told_differently"},
    ),
    "content that differs when it is collected again": (
        lambda s: s.journal.append(REPLACE(s.journal[3], lines=[_told(PROVIDED, "bad")])),
        {"content_differs"},
    ),
    "content that is not handed out": (
        lambda s: s.journal.__setitem__(3, REPLACE(s.journal[3], lines=[_told(PROVIDED)])),
        {"content_missing"},
    ),
    "content without a provision": (
        lambda s: s.journal[3].lines.append(_told(EXPIRED, "c0ffee")),
        {"content_without_provision"},
    ),
    "a record missing at the inquirer": (lambda s: s.asks.pop(4), {"not_recorded"}),
    "a record missing at the provider": (lambda s: s.gives.pop(1), {"not_recorded"}),
    "a record missing at the network": (lambda s: s.network.pop(2), {"not_recorded"}),
    "a second record at the inquirer": (lambda s: s.asks.append(s.asks[0]), {"recorded_twice"}),
    "a second provision of the same permit": (
        lambda s: s.gives.append(REPLACE(s.gives[0], id=_id(61))),
        {"recorded_twice"},
    ),
    "a second exchange of the same request": (
        lambda s: s.network.append(REPLACE(s.network[2], reference=_id(62))),
        {"recorded_twice"},
    ),
    "a provision under a permit that the network never gave": (
        lambda s: s.gives.append(REPLACE(s.gives[0], id=_id(63), reference=str(_id(64)))),
        {"nobody_asked"},
    ),
    "an amendment of nothing": (
        lambda s: s.gives.append(_record("provider", PROVIDED, "expired", id=_id(65), amends=_id(66))),
        {"amends_nothing"},
    ),
    "an inquirer's record with another outcome than the client was told": (
        lambda s: s.asks.__setitem__(1, REPLACE(s.asks[1], outcome="provided")),
        {"outcome_differs"},
    ),
    "a network's record with another outcome": (
        lambda s: s.network.__setitem__(0, REPLACE(s.network[0], outcome="no_record")),
        {"outcome_differs"},
    ),
    "a provider's record with another outcome": (
        lambda s: s.gives.__setitem__(0, REPLACE(s.gives[0], outcome="no_record")),
        {"outcome_differs"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_a_planted_fault_is_found(story: Story, name: str) -> None:
    spoil, expected = SPOILED[name]
    spoil(story)
    assert story.kinds() == expected


# The same for a file; each spoils one thing of its replies.
SPOILED_FILES: dict[str, tuple[Callable[[Story], object], set[str]]] = {
    "a file of which a line is missing": (
        lambda s: s.journal.__setitem__(1, REPLACE(s.journal[1], count=5)),
        {"lines_missing_in_reply"},
    ),
    "a file that got a second id": (
        lambda s: s.journal.append(REPLACE(s.journal[1], batch=_id(2))),
        {"acknowledged_twice"},
    ),
    "a result without one of the lines": (lambda s: s.journal[3].lines.pop(), {"not_once_in_result"}),
    "a result with a line twice": (lambda s: s.journal[3].lines.append(s.journal[3].lines[1]), {"not_once_in_result"}),
    "a result with one more line": (
        lambda s: s.journal[3].lines.append(REPLACE(s.journal[3].lines[5], line=6)),
        {"not_once_in_result"},
    ),
    "a result with a line that is open": (
        lambda s: s.journal[3].lines.__setitem__(1, Told(1, "permitted", None, NO_RECORD)),
        {"open"},
    ),
    "a result that refuses a line which was taken": (
        lambda s: s.journal[3].lines.__setitem__(1, Told(1, "refused_before_acceptance", "bad_request", NO_RECORD)),
        {"open", "told_differently", "outcome_differs"},
    ),
    "a result with an outcome of a line that nobody has heard of": (
        lambda s: s.journal[3].lines.__setitem__(5, Told(5, "answered", "provided")),
        {"open"},
    ),
}


def test_a_good_file_has_no_fault(story: Story) -> None:
    story.by_file()
    assert story.faults() == []


@pytest.mark.parametrize("name", SPOILED_FILES)
def test_a_fault_planted_in_the_replies_to_a_file_is_found(story: Story, name: str) -> None:
    spoil, expected = SPOILED_FILES[name]
    story.by_file()
    spoil(story)
    assert expected & story.kinds()
    assert story.kinds() <= expected


def test_the_journal_gives_back_what_was_written(tmp_path: Path, story: Story) -> None:
    journal = Journal(tmp_path / "journal.ndjson")
    assert journal.read() == []
    for entry in story.journal:
        journal.write(entry)
    assert journal.read() == story.journal
