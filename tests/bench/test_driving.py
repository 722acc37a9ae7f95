"""Only a round trip whose answer is in the client's hands counts; any other ends the benchmark."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.ops.bench.driving import Driver, RoundTripError, check
from chukan.ops.bench.questions import Question, ask, evenly
from chukan.ops.bench.stand import Formed, carried
from chukan.ops.demo import cast
from chukan.ops.demo.population import Population
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.law import Law
from chukan.platform.metrics import Metrics
from chukan.platform.wire.agency import AnswerContent, Batch, Queries, QueryLineView

CONTENT = AnswerContent(kind="TM00000000000001", copies=[])
LAW = Law.load()
POPULATION = Population(400, 7, dt.date(2026, 11, 23))


def view(line: int = 0, **fields: Any) -> QueryLineView:
    given: dict[str, Any] = {"state": "collected", "outcome": "provided", "content": CONTENT, "id": uuid.UUID(int=line)}
    return QueryLineView(line=line, **{**given, **fields})


class Exchange:
    """An agency's client that answers at once: every line as ``answer`` says, from the ``good``-th on otherwise."""

    def __init__(self, good: int = 1000, **bad: Any) -> None:
        self.left, self.bad = good, bad
        self.asked: list[str] = []
        self.clock = SystemClock()

    async def query(self, body: Queries, *, wait_s: int = 0) -> Batch:
        del wait_s
        return self._batch(body.lines)

    async def collect(self, reference: uuid.UUID) -> Batch:
        return Batch(batch=reference, lines=self.lines)

    def _batch(self, lines: Sequence[Any]) -> Batch:
        self.asked += [line.addressee for line in lines]
        self.lines = []
        for number in range(len(lines)):
            self.left -= 1
            if self.left < 0 and "error" in self.bad:
                raise self.bad["error"]
            self.lines.append(view(number, **({} if self.left >= 0 else self.bad)))
        return Batch(batch=uuid.UUID(int=1), lines=self.lines)


def driver(exchange: Exchange) -> Driver:
    questions = {code: asked[:3] for code, asked in list(ask(POPULATION, LAW).items())[:2]}
    return Driver(dict.fromkeys(questions, exchange), questions)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "bad",
    [
        {"outcome": "provided_with_gaps"},
        {"outcome": "no_record"},
        {"state": "accepted", "outcome": None},
        {"state": "answered"},
        {"content": None},
    ],
)
def test_a_line_that_was_not_provided_is_never_counted(bad: dict[str, Any]) -> None:
    check([view(0), view(1)], 2)
    with pytest.raises(RoundTripError):
        check([view(0), view(1, **bad)], 2)


def test_a_line_that_is_missing_is_not_passed_over() -> None:
    with pytest.raises(RoundTripError, match="1 lines of 2"):
        check([view()], 2)


async def test_singles_count_what_came_back() -> None:
    exchange = Exchange(good=10**9)
    sample = await driver(exchange).singles(2, 0.05)
    assert sample.lines == len(sample.taken_s) == len(exchange.asked) > 2
    assert sample.elapsed_s >= 0.05


async def test_a_bad_answer_among_good_ones_ends_the_measurement() -> None:
    with pytest.raises(RoundTripError, match="no_record"):
        await driver(Exchange(good=5, outcome="no_record")).singles(2, 30)


async def test_a_call_that_is_turned_away_ends_the_measurement() -> None:
    with pytest.raises(RoundTripError, match="unreachable"):
        await driver(Exchange(good=5, error=ClientError(None))).singles(2, 30)


async def test_lists_are_sent_at_least_once_and_counted_by_lines() -> None:
    exchange = Exchange()
    sample = await driver(exchange).lists(1, 7, 0)
    assert (sample.lines, len(sample.taken_s), len(exchange.asked)) == (7, 1, 7)


async def test_one_bad_line_of_a_list_ends_the_measurement() -> None:
    with pytest.raises(RoundTripError, match="refused"):
        await driver(Exchange(good=6, outcome="refused")).lists(1, 7, 0)


def test_inquirers_of_both_cells_take_turns_and_the_law_permits_all() -> None:
    questions = ask(POPULATION, LAW)
    homes = [cast.home(code) for code in questions]
    assert homes == ["east", "west"] * (len(homes) // 2)
    assert set(questions) == {cast.head(body) for body in cast.HEADS}
    assert all(isinstance(asked[0], Question) and asked[0].line.provider != code for code, asked in questions.items())


def test_a_short_group_begins_again() -> None:
    assert evenly([[1, 2, 3], [9]]) == [1, 9, 2, 9, 3, 9]


def test_the_size_of_sets_is_what_the_exchanges_tell() -> None:
    metrics = Metrics()
    for name, size in (("provide_east", 10), ("work_inquirer_west", 6), ("accept_east", 500), ("lookup_west", 2)):
        metrics.stage(name, size, 0.1, failed=False)
    found = carried(metrics.render().decode())
    assert found == Formed(lines=18.0, sets=3.0)
    assert found.size_since(Formed(0.0, 0.0)) == 6
    assert found.size_since(found) == 1
