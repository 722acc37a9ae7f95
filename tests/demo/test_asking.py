"""Sending the demo's queries and counting what came of them, against agencies that say what a test wants."""

import asyncio
import datetime as dt
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.ops.demo import cast
from chukan.ops.demo.asking import LIST_LINES, SINGLES, Answers, Asking
from chukan.ops.demo.national import NationalInquirer
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import Planned, plan
from chukan.ops.demo.tally import Recorded, tally
from chukan.ops.reconcile import Report
from chukan.ops.sandbox.counterparts import AskedView
from chukan.ops.sandbox.people import addressee_number
from chukan.platform.law import Law, Verdict
from chukan.platform.wire.agency import Batch, Queries, QueryLineView, Review, ReviewPrepare, Reviews

DAY = dt.date(2026, 11, 23)
NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
DEADLINE_S = 20.0
SHOWN = {
    "answered": "provided",
    "no_record": "no_record",
    "no_code": "no_code",
    "not_permitted": "not_permitted",
    "stopped": "stopped",
    "withheld": "provided",
    "expired": "expired",
    "cancelled": "cancelled",
    "released": "provided",
    "refused": "refused",
    "bad_request": "bad_request",
}


class Platform:
    """What all fake agencies stand on: which outcome a line gets, and who is held until officers decide."""

    def __init__(self, planned: list[Planned]) -> None:
        self.aims = {self.key(query.inquirer, query.line): query.aim for query in planned}
        self.held: dict[uuid.UUID, Review] = {}
        self.decided: list[tuple[str, str]] = []
        self.lapsing: list[Review] = []
        self.changed = asyncio.Event()
        self.fails_at: str | None = None

    @staticmethod
    def key(agency: str, line: Any) -> tuple[str, ...]:
        return (agency, line.addressee, line.provider, line.procedure, line.kind, str(line.condition))


class Agency:
    """One agency's system or officer."""

    def __init__(self, platform: Platform, agency: str, officer: str = "") -> None:
        self.agency, self.clock = agency, SystemClock()
        self._platform, self._officer = platform, officer
        self._batches: dict[uuid.UUID, Batch] = {}

    async def query(self, body: Queries, *, wait_s: int = 0) -> Batch:
        del wait_s
        if self._platform.fails_at == self.agency:
            raise ConnectionError("the exchange is gone")
        batch = Batch(batch=uuid.uuid5(uuid.NAMESPACE_URL, f"{self.agency} {len(self._batches)}"), lines=[])
        for number, line in enumerate(body.lines):
            batch.lines.append(self._view(number, line, uuid.uuid5(batch.batch, str(number))))
        self._batches[batch.batch] = batch
        return batch

    def _view(self, number: int, line: Any, own: uuid.UUID) -> QueryLineView:
        aim = self._platform.aims[self._platform.key(self.agency, line)]
        if aim in {"released", "refused"}:
            self._platform.held[own] = self._review(own, line)
            return QueryLineView(line=number, state="held", id=own)
        if aim in {"cancelled", "expired"}:
            self._platform.lapsing.append(self._review(own, line))
            return QueryLineView(line=number, state="held", id=own)
        return QueryLineView(line=number, state="answered", outcome=SHOWN[aim], id=own)

    def _review(self, own: uuid.UUID, line: Any) -> Review:
        return Review(
            id=own, inquirer=self.agency, affair=line.affair, procedure=line.procedure, kind=line.kind,
            items=[], asked_at=NOW, expires_at=NOW, state="held", addressee=line.provider,
        )  # fmt: skip

    async def cancel(self, reference: uuid.UUID) -> Batch:
        for line in self._batches[reference].lines:
            self._platform.decided.append((str(line.id), "cancelled"))
        return await self.view(reference)

    async def view(self, reference: uuid.UUID, *, wait_s: int = 0) -> Batch:
        del wait_s
        held = self._platform.held
        while any(line.id in held for line in self._batches[reference].lines):
            self._platform.changed.clear()
            await self._platform.changed.wait()
        decided = dict(self._platform.decided)
        lines = [
            QueryLineView(line=line.line, state="answered", outcome=decided.get(str(line.id), "expired"), id=line.id)
            if line.state == "held"
            else line
            for line in self._batches[reference].lines
        ]
        return Batch(batch=reference, lines=lines)

    async def collect(self, reference: uuid.UUID) -> Batch:
        return await self.view(reference)

    async def reviews(self) -> Reviews:
        waiting = [*self._platform.held.values(), *self._platform.lapsing]
        return Reviews(reviews=[one for one in waiting if one.addressee == self.agency])

    async def prepare_review(self, review: uuid.UUID, body: ReviewPrepare) -> None:
        assert self._officer == "first"
        self._platform.held[review].items.append(body.decision)

    async def approve_review(self, review: uuid.UUID) -> None:
        assert self._officer == "second"
        (decision,) = self._platform.held.pop(review).items
        self._platform.decided.append((str(review), "refused" if decision == "refuse" else "provided"))
        self._platform.changed.set()


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(900, 7, DAY)


@pytest.fixture(scope="module")
def planned(population: Population) -> list[Planned]:
    return plan(population, Law.load(), 1000, run=0)


@pytest.fixture
async def platform(planned: list[Planned]) -> Platform:
    return Platform(planned)


def _systems(platform: Platform) -> Any:
    codes = [agency.code for agency in cast.agencies()]
    return SimpleNamespace(
        agencies={code: Agency(platform, code) for code in codes},
        officers={code: (Agency(platform, code, "first"), Agency(platform, code, "second")) for code in codes},
    )


async def _run(asking: Asking) -> list[int]:
    counted: list[int] = []
    assert await asking.first() == "provided"
    async with asking.aside():
        await asking.at_counters(counted.append)
        await asking.in_lists(counted.append)
        await asking.settle()
    return counted


async def test_every_query_is_asked_once_and_every_aim_is_shown(platform: Platform, planned: list[Planned]) -> None:
    asking = Asking(_systems(platform), planned)
    assert len(asking.counter) == SINGLES
    assert max(map(len, asking.lists)) <= LIST_LINES
    async with asyncio.timeout(DEADLINE_S):
        counted = await _run(asking)
    assert sum(counted) + 1 + len(asking.undecided) == len(asking.answers.lines) == len(planned)
    assert {id(query) for query, _ in asking.answers.lines} == {id(query) for query in planned}
    assert not asking.answers.missed()
    aims = [query.aim for query in planned]
    assert asking.answers.reviews == {"released": aims.count("released"), "refused": aims.count("refused")}
    for outcome in ("refused", "expired", "cancelled"):
        assert asking.answers.outcomes()[outcome] == aims.count(outcome) > 0


async def test_a_failing_agency_ends_the_run_with_its_failure(platform: Platform, planned: list[Planned]) -> None:
    asking = Asking(_systems(platform), planned)
    platform.fails_at = asking.lists[-1][0].inquirer
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(DEADLINE_S):
            await asking.in_lists(lambda _: None)


async def test_failing_officers_end_the_run_too(
    platform: Platform, planned: list[Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_agency: Agency) -> Reviews:
        raise ConnectionError("no list of reviews")

    monkeypatch.setattr(Agency, "reviews", broken)
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(DEADLINE_S):
            await Asking(_systems(platform), planned).in_lists(lambda _: None)


def test_what_came_out_differently_is_counted_by_aim(planned: list[Planned]) -> None:
    answers = Answers()
    answers.lines = [(query, QueryLineView(line=0, state="answered", outcome="provided")) for query in planned]
    missed = answers.missed()
    assert set(missed) == {query.aim for query in planned} - {"answered", "withheld", "released"}
    answers.lines[0] = (answers.lines[0][0], QueryLineView(line=0, state="permitted"))
    assert answers.outcomes() == {"open": 1, "provided": len(planned) - 1}


def test_the_result_counts_lines_and_nothing_from_the_plan(planned: list[Planned]) -> None:
    answers = Answers()
    answers.lines = [(query, QueryLineView(line=0, state="answered", outcome="provided")) for query in planned[:10]]
    answers.national = [AskedView(id=uuid.UUID(int=1), state="closed", outcome="no_record")]
    answers.reviews.update(released=2)
    report = Report(
        as_of=NOW, exchanges=9, agreed=8, pending=0, closed_before_network=0, amended=0, agencies=1, differences=[]
    )
    recorded = Recorded(inquirer=11, provider=8, network=9, amendments=1, report=report)
    result = tally(answers, recorded, copies=5, codes=4, seconds=1.234)
    assert (result.queries, result.copies, result.codes, result.seconds) == (11, 5, 4, 1.2)
    assert result.outcomes == {"no_record": 1, "provided": 10, "under_review": 2}
    assert (result.records_network, result.records_reconciled, result.amendments) == (9, 8, 1)
    crossing = [
        query for query in planned[:10] if cast.home(query.line.provider) not in {None, cast.home(query.inquirer)}
    ]
    assert result.cross_cell == len(crossing)


def test_the_national_counterpart_asks_what_the_law_allows_about_people_it_knows(population: Population) -> None:
    inquirer = NationalInquirer(SimpleNamespace(), "http://127.0.0.1:1")  # type: ignore[arg-type]
    questions = inquirer.questions(population, 20, run=0)
    known = {
        addressee_number(person, cast.NATIONAL_INQUIRER)
        for resident in population.residents
        if (person := resident.before or resident.now).body_code == cast.INQUIRER_KNOWS
    }
    assert {question.person for question in questions} <= known
    assert {question.person for question in questions} != {q.person for q in inquirer.questions(population, 20, run=1)}
    for question in questions:
        decision = Law.load().decide(
            inquirer=cast.NATIONAL_INQUIRER, provider=question.provider, affair=question.affair,
            procedure=question.procedure, kind=question.kind, day=DAY,
        )  # fmt: skip
        assert decision.verdict is Verdict.YES
