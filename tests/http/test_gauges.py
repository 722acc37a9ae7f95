"""What stands in the cells becomes figures: all states, all agencies in turns, and nothing when a cell is silent."""

import datetime as dt
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.flows.provision import ESCALATED_BEFORE_END
from chukan.platform.http.gauges import PAGE_AGENCIES, PAGES_MAX, Gauges
from chukan.platform.metrics import Metrics
from chukan.tenants.directory import AgencyRow, Directory, Snapshot
from chukan.tenants.sets.common import Backlog, CopyAge
from chukan.tenants.states import InquiryState, ProvisionState, Side

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
KIND = "TM00000000000002"
AGENCIES = 3 * PAGES_MAX * PAGE_AGENCIES + 7


class Cell:
    """A cell's figures."""

    def __init__(self) -> None:
        self.rows: list[Backlog] = []
        self.asked: list[tuple[int, int]] = []
        self.silent = False
        self.by_agency = {1: 4, 5: 2}
        self.reviews: dict[int, dt.datetime] = {}

    async def agency_backlog(self) -> dict[int, int]:
        return dict(self.by_agency)

    async def backlog(self) -> list[Backlog]:
        if self.silent:
            raise Problem("no_primary")
        return self.rows

    async def sequencer_age(self) -> float:
        return 1.5

    async def reviews_lapsing(self, until: dt.datetime) -> dict[int, int]:
        return {agency: 1 for agency, ends in self.reviews.items() if ends <= until}

    async def logs_aside(self) -> int:
        return 2

    async def copy_ages(self, after: int, agencies: int) -> list[CopyAge]:
        self.asked.append((after, agencies))
        numbers = [number for number in range(after + 1, after + 1 + agencies * 2) if number % 2][:agencies]
        return [CopyAge(number, KIND, NOW - dt.timedelta(hours=number)) for number in numbers if number > 4]


def _directory() -> Directory:
    rows = [
        AgencyRow(
            number=2 * n + 1,
            code=f"{n:016d}",
            body="131016",
            name="x",
            cell="east",
            generation=1,
            state="closed" if n == 3 else "open",
        )
        for n in range(AGENCIES)
    ]
    return Directory(Snapshot(number=1, made_at=NOW, agencies=rows, clients=[], stopped=[], law_number=1))


def _series(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


@pytest.fixture
def world() -> Any:
    cells = {"east": Cell(), "west": Cell()}
    metrics = Metrics()
    found = _directory()
    return cells, metrics, Gauges(cells, lambda: found, metrics, ManualClock(NOW))  # type: ignore[arg-type]


@pytest.mark.requirement("OPS-02", "CON-05")
async def test_backlog_and_its_age_are_told_by_state(world: Any) -> None:
    cells, metrics, gauges = world
    due = NOW - dt.timedelta(seconds=90)
    cells["east"].rows = [
        Backlog(Side.INQUIRER, InquiryState.PERMIT_REQUESTED, 700_000, due),
        Backlog(Side.PROVIDER, ProvisionState.HELD, 2, NOW + dt.timedelta(seconds=5)),
    ]
    await gauges.look("east")
    lines, ages = _series(metrics, "chukan_backlog_lines"), _series(metrics, "chukan_queue_age_seconds")
    waiting, held = ("east", "inquirer", "permit_requested"), ("east", "provider", "held")
    assert (lines[waiting], ages[waiting]) == (700_000, 90)
    assert (lines[held], ages[held]) == (2, 0)
    assert _series(metrics, "chukan_sequencer_age_seconds") == {("east",): 1.5}
    cells["east"].rows = []
    await gauges.look("east")
    assert _series(metrics, "chukan_backlog_lines")[waiting] == 0
    assert _series(metrics, "chukan_queue_age_seconds")[waiting] == 0


@pytest.mark.requirement("PRV-05")
async def test_reviews_that_are_about_to_lapse_are_told_for_their_agency(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, metrics, gauges = world
    cells["east"].reviews = {5: NOW + ESCALATED_BEFORE_END, 7: NOW + ESCALATED_BEFORE_END + dt.timedelta(seconds=1)}
    cells["west"].reviews = {9: NOW}
    for cell in ("east", "west", "east"):
        await gauges.look(cell)
    gauges.tell()
    assert _series(metrics, "chukan_agency_reviews_lapsing") == {("5",): 1, ("9",): 1}
    assert capsys.readouterr().err.count("reviews are about to lapse") == 2, "once for each, not at every look"
    cells["east"].reviews = {}
    await gauges.look("east")
    gauges.tell()
    assert _series(metrics, "chukan_agency_reviews_lapsing") == {("9",): 1}


@pytest.mark.requirement("REP-05")
async def test_the_ages_of_copies_go_through_all_agencies_in_turns(world: Any) -> None:
    cells, metrics, gauges = world
    for _ in range(4):
        await gauges.look("east")
    gauges.tell()
    ages = _series(metrics, "chukan_copy_age_seconds")
    assert ages["5", KIND] == 5 * 3600
    assert ("1", KIND) not in ages
    assert len(ages) == AGENCIES - 3  # the first two have no copies, and a closed agency is not asked for
    assert all(count <= PAGE_AGENCIES for _, count in cells["east"].asked)
    before = len(cells["east"].asked)
    await gauges.look("east")
    assert cells["east"].asked[before][0] == 0
    assert cells["west"].asked == []


async def test_a_silent_cell_is_passed_over(world: Any) -> None:
    cells, metrics, gauges = world
    cells["east"].silent = True
    await gauges._look("east")
    await gauges._look("west")
    assert _series(metrics, "chukan_sequencer_age_seconds") == {("west",): 1.5}


@pytest.mark.requirement("CON-05")
async def test_the_backlog_of_each_agency_is_told_for_all_cells() -> None:
    metrics = Metrics()
    west = Cell()
    west.by_agency = {7: 9}
    gauges = Gauges({"east": Cell(), "west": west}, _directory, metrics, ManualClock(NOW))
    for cell in ("east", "west"):
        await gauges.look(cell)
    gauges.tell()
    assert _series(metrics, "chukan_agency_backlog_lines") == {("1",): 4.0, ("5",): 2.0, ("7",): 9.0}


@pytest.mark.requirement("OPS-02")
async def test_logs_that_wait_for_a_record_are_told_and_said_loudly_once(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, metrics, gauges = world
    said: list[int] = []
    monkeypatch.setattr("chukan.platform.http.gauges._log.critical", lambda *_, **words: said.append(words["count"]))
    for _ in "12":
        await gauges.look("east")
    assert _series(metrics, "chukan_evidence_broken_logs")["east", "sequencing"] == 2
    assert said == [2]
