"""Reconciliation: three parties who agree, every way of disagreeing, and what is no disagreement at all."""

import datetime as dt
import json
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops.reconcile import Report, reconcile
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.platform.wire.agency import Record

ASKS, GIVES = "9901011002000001", "9901131016000001"
NOW = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
BEFORE = NOW - dt.timedelta(minutes=10)
CHANCE = SystemChance(SystemClock())


class Books:
    """Three parties' records of exchanges that all went well, to be spoilt by a test."""

    def __init__(self, count: int = 3, outcome: str = "provided") -> None:
        self.network: list[NetworkRecord] = []
        self.agencies: dict[str, list[Record]] = {ASKS: [], GIVES: []}
        for position in range(1, count + 1):
            self.add(position, outcome)

    def add(self, position: int, outcome: str | None, *, permitted: bool = True, **changes: Any) -> NetworkRecord:
        record = NetworkRecord(
            position=position, reference=CHANCE.uuid7(), request=CHANCE.uuid7(), inquirer=ASKS, inquirer_name="a",
            provider=GIVES, provider_name="b", department="d", affair="a", procedure="p", kind="k", items=["i1", "i2"],
            asked_at=BEFORE, decided_at=BEFORE, outcome=outcome, closed_at=BEFORE, delivered_at=BEFORE,
            notified_at=BEFORE, expires_at=BEFORE + dt.timedelta(minutes=15) if permitted else None,
        )  # fmt: skip
        record = msgspec.structs.replace(record, **changes)
        self.network.append(record)
        self.agencies[ASKS].append(self.side("inquirer", record))
        if permitted:
            self.agencies[GIVES].append(self.side("provider", record))
        return record

    @staticmethod
    def side(side: str, record: NetworkRecord, **changes: Any) -> Record:
        base = Record(
            id=record.request if side == "inquirer" else CHANCE.uuid7(),
            side=side,  # type: ignore[arg-type]
            inquirer=record.inquirer, provider=record.provider, department="d", affair="a", procedure="p", kind="k",
            items=["i2", "i1"], outcome=record.outcome or "", asked_at=BEFORE, closed_at=BEFORE,
            withheld=record.withheld, reference=str(record.reference),
        )  # fmt: skip
        return msgspec.structs.replace(base, **changes)

    def change(self, agency: str, place: int, **changes: Any) -> None:
        self.agencies[agency][place] = msgspec.structs.replace(self.agencies[agency][place], **changes)

    def amend(self, agency: str, place: int, **changes: Any) -> None:
        base = self.agencies[agency][place]
        later = msgspec.structs.replace(base, id=CHANCE.uuid7(), amends=base.id, closed_at=NOW, **changes)
        self.agencies[agency].append(later)

    def report(self) -> Report:
        return reconcile(self.agencies, self.network, as_of=NOW)


@pytest.mark.requirement("REC-05")
def test_three_parties_who_agree_have_no_differences() -> None:
    report = Books(5).report()

    assert (report.exchanges, report.agreed, report.pending, report.agencies) == (5, 5, 0, 2)
    assert report.differences == []
    assert report.counts == {}


@pytest.mark.requirement("REC-05")
@pytest.mark.parametrize(
    ("spoil", "kind", "agency"),
    [
        (lambda b: b.agencies[ASKS].pop(1), "missing_at_inquirer", ASKS),
        (lambda b: b.agencies[GIVES].pop(1), "missing_at_provider", GIVES),
        (lambda b: b.change(ASKS, 1, outcome="no_record"), "outcome_differs", ASKS),
        (lambda b: b.change(GIVES, 1, outcome="refused"), "outcome_differs", GIVES),
        (lambda b: b.change(GIVES, 1, items=["i1"]), "items_differ", GIVES),
        (lambda b: b.change(ASKS, 1, items=["i1", "i2", "i3"]), "items_differ", ASKS),
        (lambda b: b.change(ASKS, 1, withheld=True), "withheld_differs", ASKS),
        (lambda b: b.change(ASKS, 1, outcome="failed"), "outcome_differs", ASKS),
        (lambda b: b.agencies[GIVES].append(msgspec.structs.replace(b.agencies[GIVES][1], id=uuid.UUID(int=1))),
         "recorded_twice", GIVES),
        (lambda b: b.amend(GIVES, 1, outcome="expired"), "outcome_differs", GIVES),
        (lambda b: b.agencies[ASKS].append(
            msgspec.structs.replace(b.agencies[ASKS][1], id=uuid.UUID(int=2), amends=uuid.UUID(int=3))),
         "amends_nothing", ASKS),
    ],
)  # fmt: skip
def test_a_difference_is_found_and_named(spoil: Callable[[Books], object], kind: str, agency: str) -> None:
    books = Books(3)
    spoil(books)
    report = books.report()

    assert [(found.kind, found.agency) for found in report.differences] == [(kind, agency)]
    assert report.counts == {kind: 1}
    assert report.agreed + report.pending >= 2


@pytest.mark.requirement("REC-05")
def test_a_record_that_the_network_does_not_have_is_found_on_both_sides() -> None:
    books = Books(3)
    lost = books.network.pop(1)
    report = books.report()

    assert {(found.kind, found.agency, found.reference) for found in report.differences} == {
        ("missing_at_network", ASKS, str(lost.reference)), ("missing_at_network", GIVES, str(lost.reference))
    }  # fmt: skip


def test_a_line_that_was_closed_before_it_reached_the_network_is_right_alone() -> None:
    books = Books(1)
    books.agencies[ASKS].append(
        msgspec.structs.replace(books.agencies[ASKS][0], id=CHANCE.uuid7(), reference=None, outcome="not_permitted")
    )
    report = books.report()

    assert (report.closed_before_network, report.differences) == (1, [])


def test_a_line_that_never_learnt_its_reference_is_found_by_its_own_id() -> None:
    books = Books(0)
    books.add(1, "expired", delivered_at=None, closed_at=NOW - dt.timedelta(minutes=5))
    books.change(ASKS, 0, reference=None)
    report = books.report()

    assert (report.agreed, report.closed_before_network, report.differences) == (1, 0, [])


@pytest.mark.parametrize("word", ["cancelled", "expired"])
def test_the_last_word_counts_where_an_answer_came_after_the_line_was_closed(word: str) -> None:
    books = Books(1)
    books.change(ASKS, 0, outcome=word)
    assert books.report().counts == {"outcome_differs": 1}
    books.amend(ASKS, 0, outcome="provided")
    report = books.report()

    assert (report.agreed, report.amended, report.differences) == (1, 1, [])


@pytest.mark.requirement("PRV-03", "REC-05")
def test_a_lapsed_answer_agrees_once_the_provider_has_amended_its_record() -> None:
    books = Books(0)
    books.add(1, "expired")
    books.change(GIVES, 0, outcome="provided")
    assert books.report().counts == {"outcome_differs": 1}
    books.amend(GIVES, 0, outcome="expired")

    assert books.report().differences == []


def test_the_last_of_several_amendments_counts() -> None:
    books = Books(1)
    books.amend(ASKS, 0, outcome="no_record")
    books.amend(ASKS, 0, outcome="provided")
    books.agencies[ASKS][-1] = msgspec.structs.replace(
        books.agencies[ASKS][-1], closed_at=NOW + dt.timedelta(seconds=1)
    )

    assert books.report().differences == []


@pytest.mark.parametrize(
    ("outcome", "here"),
    [("bad_request", "failed"), ("no_code", "no_code"), ("not_permitted", "not_permitted"), ("stopped", "stopped")],
)
def test_what_the_network_refused_concerns_the_inquirer_alone(outcome: str, here: str) -> None:
    books = Books(0)
    books.add(1, outcome, permitted=False, notified_at=None, delivered_at=None)
    books.change(ASKS, 0, outcome=here)

    assert books.report().agreed == 1
    books.agencies[ASKS].clear()
    assert books.report().counts == {"missing_at_inquirer": 1}


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"outcome": None, "closed_at": None}, (ASKS, GIVES)),
        ({"closed_at": NOW + dt.timedelta(seconds=1)}, (ASKS, GIVES)),
        ({"delivered_at": None}, (ASKS,)),
        ({"delivered_at": NOW + dt.timedelta(seconds=1)}, (ASKS,)),
        ({"outcome": "expired", "expires_at": NOW - dt.timedelta(seconds=30)}, (ASKS, GIVES)),
    ],
)
def test_what_is_still_on_its_way_is_pending_and_no_difference(changes: dict[str, Any], lost: tuple[str, ...]) -> None:
    books = Books(0)
    books.add(1, **{"outcome": "provided", **changes})
    for agency in lost:
        books.agencies[agency].clear()
    report = books.report()

    assert (report.pending, report.agreed, report.differences) == (1, 0, [])


def test_a_line_that_the_inquirer_closed_early_waits_for_the_answer() -> None:
    books = Books(0)
    books.add(1, "provided", delivered_at=None)
    books.change(ASKS, 0, outcome="cancelled")

    assert (books.report().pending, books.report().differences) == (1, [])


def test_a_cancelled_line_whose_permit_lapsed_agrees() -> None:
    books = Books(0)
    books.add(1, "expired")
    books.change(ASKS, 0, outcome="cancelled")

    assert books.report().agreed == 1


def test_a_provider_that_never_heard_of_a_lapsed_permit_has_no_record_rightly() -> None:
    books = Books(0)
    books.add(1, "expired", notified_at=None)
    books.agencies[GIVES].clear()

    assert books.report().agreed == 1


def test_agencies_that_were_not_read_are_not_compared() -> None:
    books = Books(2)
    del books.agencies[GIVES]
    report = books.report()

    assert (report.agreed, report.agencies, report.differences) == (2, 1, [])


def test_one_agency_on_both_sides_of_different_exchanges_is_not_mixed_up() -> None:
    books = Books(1)
    back = msgspec.structs.replace(
        books.network[0], position=2, reference=CHANCE.uuid7(), request=CHANCE.uuid7(), inquirer=GIVES, provider=ASKS
    )
    books.network.append(back)
    books.agencies[GIVES].append(books.side("inquirer", back))
    books.agencies[ASKS].append(books.side("provider", back))

    assert (books.report().agreed, books.report().differences) == (2, [])
    books.agencies[ASKS].pop()
    assert books.report().counts == {"missing_at_provider": 1}


def test_the_report_names_no_person_and_survives_json() -> None:
    books = Books(1)
    books.change(ASKS, 0, outcome="failed")
    document = json.loads(msgspec.json.encode(books.report()))

    assert document["differences"] == [
        {
            "kind": "outcome_differs", "agency": ASKS, "reference": str(books.network[0].reference),
            "side": "inquirer", "here": "failed", "network": "provided",
        }
    ]  # fmt: skip
