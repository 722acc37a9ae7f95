"""Those who use the exchanges: agencies' systems with a journal of their own, and officers who decide about holds.

A client asks one of the two exchanges at random, gives up after a while and asks again with the same Idempotency-Key:
it cannot know what became of a request whose reply was lost. What it was told is written into its journal, and the
checkers hold everything else against that.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from chukan.errors import Problem
from chukan.ops.simulation.loop import Gone
from chukan.ops.simulation.world import AFFAIR, KIND, OTHER_KIND, PROCEDURE, Server, World, addressee_of, items
from chukan.platform.wire.agency import Batch, Queries, QueryLine, ReviewDecision, ReviewPrepare
from chukan.tenants.directory import AgencyRow, ClientRow

T = TypeVar("T")
PATIENCE_S: Final = 6.0
TRIES_MAX: Final = 200
CALL_BOUND_S: Final = 8.0
"""What a look may add to the deadline of a wait: it is two calls to a cell, and each is slow at worst."""
OPEN: Final = frozenset({"accepted", "permit_requested", "permitted", "held"})


class Told(NamedTuple):
    """What an exchange told a client about a line."""

    at_s: float
    state: str
    outcome: str | None


@dataclass
class Line:
    """A line that was acknowledged."""

    id: uuid.UUID
    asked: QueryLine
    person: int
    told: list[Told] = field(default_factory=list)
    cancelled: bool = False
    """Its cancellation was acknowledged by its state."""
    contents: list[Any] = field(default_factory=list)


@dataclass
class Posted:
    """A list that was acknowledged, with the ids that it was given."""

    agency: str
    key: str
    batch: uuid.UUID
    lines: dict[int, Line]


class Waited(NamedTuple):
    """A wait that ended, however it did."""

    process: str
    timeout_s: float
    took_s: float
    frozen_s: float
    ended: str


@dataclass
class Journal:
    """What the clients and officers know."""

    posted: list[Posted] = field(default_factory=list)
    waits: list[Waited] = field(default_factory=list)
    decided: list[tuple[str, uuid.UUID, str]] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    """Repeats of a request that were not answered as the first one was."""
    strangers: list[str] = field(default_factory=list)
    """Lines that a client was shown and never posted."""
    waiting: int = 0


class Clients:
    """All clients and officers of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.journal = Journal()
        self._keys = 0

    async def ask(self, place: Server | None, work: Callable[[Server], Coroutine[Any, Any, T]]) -> tuple[T, Server]:
        """Send a request to an exchange; raises ``Gone``, ``TimeoutError`` or ``Problem`` as a client sees them."""
        draw = self.world.draw
        server = place or draw.choice(list(self.world.servers.values()))
        await asyncio.sleep(draw.uniform(0.0005, 0.02))
        if not server.up:
            await asyncio.sleep(0.1)
            raise Gone
        lost = not self.world.weather.clear and draw.random() < self.world.weather.reply_lost
        async with asyncio.timeout(PATIENCE_S):
            result = await server.process.serve(partial(work, server))
        if lost:
            self.world.tell(f"{server.name} → client", "the reply is lost")
            raise Gone
        return result, server

    # ------------------------------------------------------------ inquirers

    async def post(self, agency: AgencyRow, size: int) -> None:
        """Post one list until it is acknowledged, then watch it."""
        world, draw = self.world, self.world.draw
        people = [draw.choice(world.people) for _ in range(size)]
        lines = [self._line(agency, person) for person in people]
        body = Queries(lines=lines)
        raw = msgspec.json.encode(body)
        self._keys += 1
        key = f"key-{self._keys}"
        batch = await self._accepted(agency, body, key, raw)
        posted = Posted(agency.code, key, batch.batch, {})
        for view in batch.lines:
            if view.id is not None:
                posted.lines[view.line] = Line(view.id, lines[view.line], people[view.line])
        self.journal.posted.append(posted)
        self._note(posted, batch)
        if draw.random() < 0.3:  # noqa: PLR2004 - some clients lose the reply after all
            await self._again(agency, posted, body, key, raw)
        if draw.random() < 0.25:  # noqa: PLR2004 - some take their query back
            await asyncio.sleep(draw.uniform(0.0, 2.0))
            await self._cancel(agency, posted)
        await self._watch(agency, posted)

    def _line(self, agency: AgencyRow, person: int) -> QueryLine:
        draw = self.world.draw
        roll = draw.random()
        provider = draw.choice([row.code for row in self.world.agencies() if row.code != agency.code])
        return QueryLine(
            addressee=addressee_of(agency, person),
            kind=OTHER_KIND if roll < 0.04 else KIND,  # noqa: PLR2004 - one in 25 is not on the list
            provider=provider,
            affair="JM99999999999999" if roll > 0.98 else AFFAIR,  # noqa: PLR2004 - one in 50 is malformed
            procedure=PROCEDURE,
            department="給付課",
            items=None if draw.random() < 0.2 else draw.sample(items(), draw.randint(1, 3)),  # noqa: PLR2004
        )

    async def _accepted(self, agency: AgencyRow, body: Queries, key: str, raw: bytes) -> Batch:
        world = self.world
        for _ in range(TRIES_MAX):
            try:
                batch, server = await self.ask(
                    None, lambda at: at.exchange.inquiries.accept(self._row(agency), _caller(agency), body, key, raw)
                )
            except (Gone, TimeoutError, Problem) as error:
                world.tell(f"client of {agency.number}", f"{key}: {_word(error)}, again")
                await asyncio.sleep(world.draw.uniform(0.1, 0.6))
            else:
                world.tell(f"{server.name} → client of {agency.number}", f"{key}: accepted {len(body.lines)} lines")
                return batch
        raise TimeoutError

    def _row(self, agency: AgencyRow) -> AgencyRow:
        """The agency as the newest common data have it; the exchange's own may be older."""
        return next(row for row in self.world.agencies() if row.code == agency.code)

    async def _again(self, agency: AgencyRow, posted: Posted, body: Queries, key: str, raw: bytes) -> None:
        """Send the same list once more, or another one under the same key."""
        other = self.world.draw.random() < 0.2  # noqa: PLR2004 - one in five is another list
        sent = raw + b" " if other else raw
        row = self._row(agency)
        try:
            batch, _ = await self.ask(
                None, lambda at: at.exchange.inquiries.accept(row, _caller(agency), body, key, sent)
            )
        except Problem as problem:
            if problem.code == "idempotency_key_reused" and not other:
                self.journal.repeats.append(f"{key}: its own repeat was taken for another list")
        except (Gone, TimeoutError):
            return
        else:
            if other:
                self.journal.repeats.append(f"{key}: another list was accepted under the same key")
            ids = {view.line: view.id for view in batch.lines if view.id is not None}
            if batch.batch != posted.batch or ids != {n: line.id for n, line in posted.lines.items()}:
                self.journal.repeats.append(f"{key}: the repeat was not answered with the first batch")

    async def _cancel(self, agency: AgencyRow, posted: Posted) -> None:
        line = self.world.draw.choice(list(posted.lines.values())) if posted.lines else None
        reference = posted.batch if line is None or self.world.draw.random() < 0.5 else line.id  # noqa: PLR2004
        row = self._row(agency)
        try:
            batch, server = await self.ask(
                None, lambda at: at.exchange.inquiries.cancel(row, _caller(agency), reference)
            )
        except (Gone, TimeoutError, Problem) as error:
            self.world.tell(f"client of {agency.number}", f"{posted.key}: cancel: {_word(error)}")
        else:
            self.world.tell(f"{server.name} → client of {agency.number}", f"{posted.key}: cancelled")
            self._note(posted, batch)

    async def _watch(self, agency: AgencyRow, posted: Posted) -> None:
        """Wait a few times, as long polls do, and collect what there is."""
        draw = self.world.draw
        for _ in range(draw.randint(1, 2)):
            timeout_s = draw.choice((0.3, 1.0, 3.0))
            batch = await self._waited(agency, posted, timeout_s)
            if batch is not None and all(view.state not in OPEN for view in batch.lines):
                break
        if draw.random() < 0.6:  # noqa: PLR2004 - most collect at once, the others at the end
            await self.collect(agency, posted)

    async def _waited(self, agency: AgencyRow, posted: Posted, timeout_s: float) -> Batch | None:
        world = self.world
        server = world.draw.choice(list(world.servers.values()))
        process = server.process
        if not server.up:
            return None
        began, frozen, row = world.loop.now_s, process.held_up_s, self._row(agency)
        self.journal.waiting += 1
        ended, batch = "answered", None
        try:
            batch = await process.serve(lambda: server.exchange.inquiries.wait(row, posted.batch, timeout_s))
            self._note(posted, batch)
        except Problem as problem:
            ended = problem.code
        except Gone:
            ended = "gone"
        finally:
            self.journal.waiting -= 1
        took_s = world.loop.now_s - began
        self.journal.waits.append(Waited(server.name, timeout_s, took_s, process.held_up_s - frozen, ended))
        return batch

    async def collect(self, agency: AgencyRow, posted: Posted) -> bool:
        """Collect a batch; whether there was an answer."""
        row = self._row(agency)
        try:
            batch, _ = await self.ask(None, lambda at: at.exchange.inquiries.collect(row, posted.batch))
        except (Gone, TimeoutError, Problem):
            return False
        self._note(posted, batch)
        return True

    def _note(self, posted: Posted, batch: Batch) -> None:
        """Write down what the exchange says about each line."""
        by_id = {line.id: line for line in posted.lines.values()}
        for view in batch.lines:
            if view.id is None:
                continue
            line = by_id.get(view.id)
            if line is None:
                self.journal.strangers.append(f"{posted.key}: was shown a line that it never posted")
                continue
            line.told.append(Told(self.world.loop.now_s, view.state, view.outcome))
            if view.content is not None:
                line.contents.append(view.content)

    # ------------------------------------------------------------ officers

    async def review(self, agency: AgencyRow, until_s: float) -> None:
        """Look at what is held, and decide about some of it, two officers for each."""
        draw, loop = self.world.draw, self.world.loop
        while loop.now_s < until_s:
            await asyncio.sleep(draw.uniform(0.4, 1.5))
            try:
                await self._review_once(agency)
            except (Gone, TimeoutError, Problem) as error:
                self.world.tell(f"officers of {agency.number}", _word(error))

    async def _review_once(self, agency: AgencyRow) -> None:
        draw, row = self.world.draw, self._row(agency)
        found, _ = await self.ask(None, lambda at: at.exchange.reviews.list(row))
        for review in found.reviews[:3]:
            decision = "provide" if draw.random() < 0.6 else "refuse"  # noqa: PLR2004 - most are provided
            if draw.random() < 0.3:  # noqa: PLR2004 - some are left for later, or for ever
                continue
            prepare = msgspec.convert({"decision": decision}, ReviewPrepare)
            await self.ask(
                None,
                lambda at: at.exchange.reviews.prepare(row, _officer(agency, "first"), review.id, prepare),  # noqa: B023
            )
            second = _officer(agency, "second")
            body = ReviewDecision()
            if decision == "provide" and draw.random() < 0.9:  # noqa: PLR2004 - the second officer may say no
                await self.ask(None, lambda at: at.exchange.reviews.approve(row, second, review.id, body))  # noqa: B023
                said = "approved"
            else:
                await self.ask(None, lambda at: at.exchange.reviews.refuse(row, second, review.id, body))  # noqa: B023
                said = "refused"
            self.world.tell(f"officers of {agency.number}", f"{said} a provision")
            self.journal.decided.append((agency.code, review.id, said))


def _caller(agency: AgencyRow) -> ClientRow:
    return ClientRow(
        id=f"system-{agency.number}", body=agency.body, kind="system", name="業務", agencies=[agency.code], functions=[]
    )


def _officer(agency: AgencyRow, name: str) -> ClientRow:
    return ClientRow(
        id=f"officer-{name}", body=agency.body, kind="officer", name=name, agencies=[agency.code], functions=[]
    )


def _word(error: Exception) -> str:
    if isinstance(error, Problem):
        return error.code
    return "no reply" if isinstance(error, TimeoutError) else "the connection was lost"
