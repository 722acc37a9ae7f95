"""Admission: who may work now, who waits a moment, and who is told to come back (DESIGN §11).

Four bounds stand between a flood and everybody else's counter (invariant 11):

- *share*: an agency may have only so many requests at work and so many lines a second, by priority; beyond it
  ``rate_limited`` (429) with the seconds after which it is worth trying again;
- *place*: the exchange works on so many requests at once, and the lower priorities may hold only a part of the places,
  so that a place for the counter is always near;
- *queue*: who finds no place waits in a short queue with a deadline. Places go to the priorities by weight and, within
  a priority, to the agencies in turn; past the queue or the deadline ``busy`` (503) with ``Retry-After``.

A request whose body is still coming in holds its agency's share and part of a budget of bytes, but no place: a slow
link holds up nobody else. Who finds no room in the budget waits for it in a queue of the same kind, unread; a body that
does not announce its length may turn out to be as long as bodies may be, and is counted like that.

A request that only waits for an outcome (long poll, ``Prefer: wait``) holds no place: it is *parked*, under a cap of
its own, and where the cap is reached it is answered at once instead of refused.

Everything here is bounded by the number of agencies in the directory. It must never look into a request.
"""

import asyncio
import enum
import functools
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.metrics import Metrics


class Priority(enum.IntEnum):
    """What a request is for; a lower number is served first."""

    COUNTER = 0
    """Somebody stands at a counter: single queries, looking up, collecting, reviews."""
    BATCH = 1
    """Lists of queries and codes."""
    REGISTRATION = 2
    """Copies and loads (副本登録)."""

    @property
    def word(self) -> str:
        """The name that metrics carry."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Share:
    """What one agency may use of one priority."""

    at_once: int
    lines_per_s: float
    burst_lines: int


@dataclass(frozen=True, slots=True)
class Limits:
    """All bounds of admission; ``in_flight_max`` comes from the settings, the others are named here."""

    in_flight_max: int = 256
    queue_max: int = 512
    queue_wait_s: float = 2.0
    reading_bytes_max: int = 256 * 1024 * 1024
    """Bytes of bodies that may be on their way into memory at once."""
    reading_wait_s: float = 10.0
    """How long a body may wait for room in that budget: a file takes seconds to come in and be staged."""
    parked_max: int = 4096
    parked_per_agency: int = 128
    shares: tuple[Share, Share, Share] = (
        Share(at_once=64, lines_per_s=2_000.0, burst_lines=10_000),
        Share(at_once=16, lines_per_s=5_000.0, burst_lines=100_000),
        Share(at_once=8, lines_per_s=10_000.0, burst_lines=100_000),
    )
    weights: tuple[int, int, int] = (8, 3, 1)
    places: tuple[float, float, float] = (1.0, 0.75, 0.5)
    """Part of all places, and of the bytes, that a priority may hold."""

    def divided_by(self, fraction: int) -> "Limits":
        """Return what an environment of 1/N grants: shares, queue and waiting room divided, one at least.

        Not divided are waits, the size of a body (it is a form and no volume), and ``in_flight_max``, which is a
        setting of its own.
        """
        first, second, third = (
            replace(
                share,
                at_once=max(1, share.at_once // fraction),
                lines_per_s=share.lines_per_s / fraction,
                burst_lines=max(1, share.burst_lines // fraction),
            )
            for share in self.shares
        )
        return replace(
            self,
            queue_max=max(1, self.queue_max // fraction),
            parked_max=max(1, self.parked_max // fraction),
            parked_per_agency=max(1, self.parked_per_agency // fraction),
            shares=(first, second, third),
        )

    def places_of(self, priority: Priority) -> int:
        """Return how many requests of a priority may be at work at once (never none)."""
        return max(1, int(self.in_flight_max * self.places[priority]))


_RETRY_BUSY_S: Final = 1
_RETRY_SHARE_S: Final = 1


@dataclass(slots=True)
class _Bucket:
    """Lines an agency may still send; filled as time passes."""

    lines: float
    at: float

    def take(self, share: Share, lines: int, now: float) -> float:
        """Take lines and return 0, or return the seconds until they are there; no list costs more than a bucket."""
        cost = min(lines, share.burst_lines)
        filled = min(float(share.burst_lines), self.lines + (now - self.at) * share.lines_per_s)
        self.at = now
        if filled >= cost:
            self.lines = filled - cost
            return 0.0
        self.lines = filled
        return (cost - filled) / share.lines_per_s


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request that waits for its turn, and how much it asks for."""

    turn: "asyncio.Future[None]"
    amount: int


class _Line:
    """The waiting requests of one priority: a queue per agency, and the agencies in turn."""

    def __init__(self) -> None:
        self._agencies: OrderedDict[int, deque[_Waiting]] = OrderedDict()
        self.size = 0

    def add(self, agency: int, waiting: _Waiting) -> None:
        self._agencies.setdefault(agency, deque()).append(waiting)
        self.size += 1

    def drop(self, agency: int, waiting: _Waiting) -> None:
        """Forget a request that gave up; it may have been served already."""
        queue = self._agencies.get(agency)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            self.size -= 1
            if not queue:
                del self._agencies[agency]

    def amount(self) -> int:
        """Return what the request whose turn it is asks for."""
        return next(iter(self._agencies.values()))[0].amount

    def next(self) -> _Waiting:
        """Take the oldest request of the agency whose turn it is, and send that agency to the end."""
        agency, queue = next(iter(self._agencies.items()))
        waiting = queue.popleft()
        self.size -= 1
        if queue:
            self._agencies.move_to_end(agency)
        else:
            del self._agencies[agency]
        return waiting


class _Queue:
    """Hands out something scarce, and lets those wait a moment who find none of it.

    It goes to the priorities by weight (stride scheduling) and, within a priority, to the agencies in turn.
    """

    def __init__(self, limits: Limits, fits: Callable[[Priority, int], bool]) -> None:
        """``fits`` says whether so much more may go to a priority now."""
        self._limits = limits
        self._fits = fits
        self.held = dict.fromkeys(Priority, 0)
        self.lines = {priority: _Line() for priority in Priority}
        self._passes = dict.fromkeys(Priority, 0.0)

    async def take(self, agency: int, priority: Priority, amount: int, wait_s: float) -> bool:
        """Take an amount, after waiting where need be; False when the queue is full or the wait was in vain."""
        line = self.lines[priority]
        if not amount or (not line.size and self._fits(priority, amount)):
            self.held[priority] += amount
            return True
        if sum(each.size for each in self.lines.values()) >= self._limits.queue_max:
            return False
        waiting = _Waiting(asyncio.get_running_loop().create_future(), amount)
        line.add(agency, waiting)
        try:
            async with asyncio.timeout(wait_s):
                await waiting.turn
        except TimeoutError:
            self._give_up(agency, priority, waiting)
            return False
        except asyncio.CancelledError:
            self._give_up(agency, priority, waiting)
            raise
        return True

    def give_back(self, priority: Priority, amount: int) -> None:
        """Give back what was taken; it goes to those who wait."""
        self.held[priority] -= amount
        self._give_on()

    def _give_up(self, agency: int, priority: Priority, waiting: _Waiting) -> None:
        # What was handed over in the same turn of the loop in which the wait ended must not be lost.
        if waiting.turn.done() and not waiting.turn.cancelled():
            self.give_back(priority, waiting.amount)
        else:
            self.lines[priority].drop(agency, waiting)
            # Behind one that asked for much, others may have waited that ask for less.
            self._give_on()

    def _give_on(self) -> None:
        """Hand out what is free: to the priority with the smallest pass first."""
        while True:
            able = [p for p in Priority if self.lines[p].size and self._fits(p, self.lines[p].amount())]
            if not able:
                return
            chosen = min(able, key=lambda priority: (self._passes[priority], priority))
            floor = self._passes[chosen]
            self._passes[chosen] = floor + 1 / self._limits.weights[chosen]
            # Who was idle must not have saved up turns.
            for priority in Priority:
                if not self.lines[priority].size:
                    self._passes[priority] = max(self._passes[priority], floor)
            waiting = self.lines[chosen].next()
            if not waiting.turn.done():
                self.held[chosen] += waiting.amount
                waiting.turn.set_result(None)


class Admission:
    """Hands out places. One object serves one exchange and lives on its event loop."""

    def __init__(self, limits: Limits, clock: Clock, metrics: Metrics) -> None:
        self.limits = limits
        self._clock = clock
        self._metrics = metrics
        self._places = _Queue(limits, self._has_place)
        self._bytes = _Queue(limits, self._has_room)
        self._at_work: dict[tuple[int, Priority], int] = {}
        self._buckets: dict[tuple[int, Priority], _Bucket] = {}
        self._parked: dict[int, int] = {}
        self._parked_all = 0
        for priority in Priority:
            metrics.follow(
                priority.word,
                in_flight=functools.partial(self._places.held.__getitem__, priority),
                queued=functools.partial(self._queued, priority),
            )
        metrics.follow_parked(lambda: self._parked_all)

    @asynccontextmanager
    async def reading(self, agency: int, priority: Priority, size_bytes: int) -> AsyncIterator[None]:
        """Hold the agency's share and memory for a body of at most ``size_bytes`` while it comes in.

        Raises ``Problem`` rate_limited or busy, both with ``retry_after_s``.
        """
        with self._share(agency, priority, 0):
            if not await self._bytes.take(agency, priority, size_bytes, self.limits.reading_wait_s):
                raise self._refuse(priority, Problem("busy", retry_after_s=_RETRY_BUSY_S))
            try:
                yield
            finally:
                self._bytes.give_back(priority, size_bytes)

    @asynccontextmanager
    async def work(
        self, agency: int, priority: Priority, lines: int = 1, *, reading: bool = False
    ) -> AsyncIterator[None]:
        """Hold a place while the block runs; ``lines`` is what the request costs of the agency's share.

        ``reading`` says that the request already holds its agency's share by ``reading``.
        Raises ``Problem`` rate_limited or busy, both with ``retry_after_s``.
        """
        with nullcontext() if reading else self._share(agency, priority, lines):
            if not await self._places.take(agency, priority, 1, self.limits.queue_wait_s):
                raise self._refuse(priority, Problem("busy", retry_after_s=_RETRY_BUSY_S))
            try:
                yield
            finally:
                self._places.give_back(priority, 1)

    @contextmanager
    def park(self, agency: int) -> Iterator[bool]:
        """Say whether the request may wait for an outcome; it holds no place while it does."""
        limits = self.limits
        free = self._parked_all < limits.parked_max and self._parked.get(agency, 0) < limits.parked_per_agency
        if not free:
            yield False
            return
        self._parked_all += 1
        self._parked[agency] = self._parked.get(agency, 0) + 1
        try:
            yield True
        finally:
            self._parked_all -= 1
            self._parked[agency] -= 1
            if not self._parked[agency]:
                del self._parked[agency]

    @property
    def at_work(self) -> int:
        """How many requests hold a place."""
        return sum(self._places.held.values())

    @contextmanager
    def _share(self, agency: int, priority: Priority, lines: int) -> Iterator[None]:
        share = self.limits.shares[priority]
        key = (agency, priority)
        if self._at_work.get(key, 0) >= share.at_once:
            raise self._refuse(priority, Problem("rate_limited", retry_after_s=_RETRY_SHARE_S, limit=share.at_once))
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(key, _Bucket(float(share.burst_lines), now))
        wait_s = bucket.take(share, lines, now)
        if wait_s > 0:
            raise self._refuse(priority, Problem("rate_limited", retry_after_s=max(1, math.ceil(wait_s))))
        self._at_work[key] = self._at_work.get(key, 0) + 1
        try:
            yield
        finally:
            self._at_work[key] -= 1
            if not self._at_work[key]:
                del self._at_work[key]

    def _has_place(self, priority: Priority, amount: int) -> bool:
        held = self._places.held[priority]
        return self.at_work + amount <= self.limits.in_flight_max and held + amount <= self.limits.places_of(priority)

    def _has_room(self, priority: Priority, size_bytes: int) -> bool:
        """Tell whether a body may come in; one of any length may when there is no other."""
        held, budget = self._bytes.held, self.limits.reading_bytes_max
        others = sum(held.values())
        fits = others + size_bytes <= budget and held[priority] + size_bytes <= budget * self.limits.places[priority]
        return fits or not others

    def _queued(self, priority: Priority) -> int:
        return self._places.lines[priority].size + self._bytes.lines[priority].size

    def _refuse(self, priority: Priority, problem: Problem) -> Problem:
        self._metrics.refused(priority.word, problem.code)
        return problem
