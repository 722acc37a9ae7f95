"""The second half of the main job: queries single and in lists, answers collected, officers deciding what is held.

What is counted here is what the clients were told, line by line, in the replies that they got.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from chukan.ops.demo import cast
from chukan.ops.demo.questions import SHORT_LIVED, Planned
from chukan.ops.demo.screen import Advance
from chukan.ops.demo.systems import Systems, for_each
from chukan.ops.sandbox.counterparts import AskedView
from chukan.ops.sandbox.systems import OPEN_STATES, BusinessSystem
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.agency import QueryLineView, Review, ReviewPrepare

SINGLES: Final = 40
"""Queries that somebody at a counter asks one by one and waits for."""
LIST_LINES: Final = 200
COUNTER_WAIT_S: Final = 10
LATE_WAIT_S: Final = 30
_SETTLE_TIMEOUT_S: Final = 180.0
_UNDECIDED: Final = frozenset({"cancelled", "expired"})
_LOOK_S: Final = 0.3
_REFUSED_PROCEDURE: Final = "JTX0000000000007"
"""Requests under this procedure are what the demo's officers refuse."""


@dataclass(slots=True)
class Answers:
    """What came of the queries: the plan with the last view of each line, and what officers decided."""

    lines: list[tuple[Planned, QueryLineView]] = field(default_factory=list)
    national: list[AskedView] = field(default_factory=list)
    reviews: Counter[str] = field(default_factory=Counter)

    def outcomes(self) -> dict[str, int]:
        """Return how many lines had each final outcome; ``open`` for one that has none."""
        told: list[QueryLineView | AskedView] = [*(view for _, view in self.lines), *self.national]
        return dict(sorted(Counter(view.outcome or "open" for view in told).items()))

    def crossing(self) -> int:
        """Return how many lines went from an agency of one cell to one of another."""
        homes = [(cast.home(query.inquirer), cast.home(query.line.provider)) for query, _ in self.lines]
        return sum(1 for inquirer, provider in homes if provider is not None and provider != inquirer)

    def missed(self) -> Counter[str]:
        """Return the aims of the plan that the answers did not show, with how many lines each."""
        return Counter(query.aim for query, view in self.lines if (view.outcome or "open") not in _SHOWS[query.aim])


_SHOWS: Final = {
    "answered": {"provided", "provided_with_gaps", "no_record"},
    "withheld": {"provided", "provided_with_gaps"},
    "no_record": {"no_record"},
    "no_code": {"no_code"},
    "not_permitted": {"not_permitted"},
    "stopped": {"stopped"},
    "released": {"provided", "provided_with_gaps"},
    "refused": {"refused"},
    "expired": {"expired"},
    "cancelled": {"cancelled"},
    "bad_request": {"bad_request"},
}


class Asking:
    """Sends planned queries for all agencies."""

    def __init__(self, systems: Systems, planned: Sequence[Planned]) -> None:
        """Divide the plan into counter queries and lists of each agency."""
        self._systems = systems
        self.answers = Answers()
        counter = [query for query in planned if query.aim == "answered"][:SINGLES]
        self.undecided = sorted((query for query in planned if query.aim in _UNDECIDED), key=lambda query: query.aim)
        """Queries about which no officer decides: those that are taken back come first."""
        single = {id(query) for query in (*counter, *self.undecided)}
        lists: dict[str, list[Planned]] = defaultdict(list)
        for query in planned:
            if id(query) not in single:
                lists[query.inquirer].append(query)
        self.counter = counter
        self.lists = [
            queries[start : start + LIST_LINES]
            for queries in lists.values()
            for start in range(0, len(queries), LIST_LINES)
        ]

    async def first(self) -> str | None:
        """Ask the first counter query of all, alone; returns its outcome, None when it has none yet."""
        await self._ask_one(self.counter[0])
        return self.answers.lines[0][1].outcome

    async def at_counters(self, advance: Advance) -> None:
        """Ask the other counter queries one by one at each agency; ``advance`` counts lines."""

        async def one(query: Planned) -> None:
            await self._ask_one(query)
            advance(1)

        await for_each(self.counter[1:], one)

    async def _ask_one(self, query: Planned) -> None:
        system = BusinessSystem(self._systems.agencies[query.inquirer])
        self.answers.lines.append((query, await system.ask(query.line, wait_s=COUNTER_WAIT_S)))

    async def settle(self) -> None:
        """Look again for the counter queries that had no final outcome while somebody waited for them."""

        async def one(number: int) -> None:
            query, view = self.answers.lines[number]
            if view.id is not None:
                batch = await self._systems.agencies[query.inquirer].view(view.id, wait_s=LATE_WAIT_S)
                self.answers.lines[number] = (query, batch.lines[0])

        late = [number for number, (_, view) in enumerate(self.answers.lines) if view.state in OPEN_STATES]
        await for_each(late, one)

    async def in_lists(self, advance: Advance) -> None:
        """Send the lists, and collect their answers while officers decide what is held; ``advance`` counts lines."""
        done = asyncio.Event()
        officers = asyncio.ensure_future(self._decide_until(done))

        async def one(queries: list[Planned]) -> None:
            system = BusinessSystem(self._systems.agencies[queries[0].inquirer])
            batch = await system.ask_batch([query.line for query in queries])
            batch = await system.collect(await system.settle(batch, timeout_s=_SETTLE_TIMEOUT_S))
            self.answers.lines += [(queries[view.line], view) for view in batch.lines]
            advance(len(queries))

        sending = asyncio.ensure_future(for_each(self.lists, one))
        try:
            # The officers end by themselves only when something failed.
            await asyncio.wait({officers, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            done.set()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await officers

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Meanwhile, leave some queries undecided; at the end, wait until they are over too."""
        waiting = asyncio.ensure_future(for_each(self.undecided, self._leave_undecided))
        try:
            yield
            await waiting
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _leave_undecided(self, query: Planned) -> None:
        """Ask what officers would have to decide, and take it back (中断) or wait until its permit has lapsed."""
        client = self._systems.agencies[query.inquirer]
        system = BusinessSystem(client)
        batch = await system.ask_batch([query.line])
        if query.aim == "cancelled":
            try:
                await client.cancel(batch.batch)
            except ClientError as error:
                # It was over before, as where an exchange was killed meanwhile; what came of it is what counts.
                if error.code != "already_final":
                    raise
        batch = await system.settle(batch, timeout_s=_SETTLE_TIMEOUT_S)
        self.answers.lines.append((query, batch.lines[0]))

    # ------------------------------------------------------------ officers

    async def _decide_until(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await for_each([cast.head(body) for body in cast.HEADS], self._decide_at)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await done.wait()

    async def _decide_at(self, agency: str) -> None:
        """Two officers of one agency work off what is held there: the first proposes, the second carries it out."""
        first, second = self._systems.officers[agency]
        for review in (await first.reviews()).reviews:
            if review.procedure in SHORT_LIVED:
                continue
            refuses = _is_refused(review)
            try:
                await first.prepare_review(review.id, ReviewPrepare(decision="refuse" if refuses else "provide"))
                await second.approve_review(review.id)
            except ClientError as error:
                # The reply to the first try was lost with its exchange, but not the decision.
                if error.code != "already_final":
                    raise
            self.answers.reviews["refused" if refuses else "released"] += 1


def _is_refused(review: Review) -> bool:
    return review.procedure == _REFUSED_PROCEDURE
