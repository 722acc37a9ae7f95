"""A stage: what is waiting is taken as one batch, done as one set, and committed once (group commit, 一括処理).

A batch forms while the previous ones are in flight; there is no timer. With nothing in flight an item leaves at once
(with whatever else was submitted in the same turn of the event loop), and under load batches grow by themselves up to
``cap``. At most ``flights`` batches are under way, at most ``queue_max`` items wait: past that a caller gets ``busy``.

Invariants: every item of a flight is settled exactly once, whatever happens to the work, the waiter or the stage. A
waiter that gives up takes nothing from anybody: its items that still wait are withdrawn, those in flight go on and
their results are dropped. A batch that fails is done again item by item, so that a poison row alone gets its error;
failures that are about whoever is asked and not about a row (``WHOLE_FAILURES``) are given to the whole batch, because
asking 256 times would only hurt a database or a network that is already down.

The work must bound its own time: a stage never abandons a flight before ``close``, since its commit may yet happen.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar, cast

from chukan import log
from chukan.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chukan.clock import Clock

WHOLE_FAILURES: Final = frozenset({"no_primary", "unavailable", "network_unavailable", "deadline_exceeded"})
_RETRY_AFTER_S: Final = 1
_CANCEL_S: Final = 5.0

I = TypeVar("I")  # noqa: E741 - the contract's names: items in, results out
R = TypeVar("R")


class Observe(Protocol):
    """Metrics hook, called after every call of the work; it must not raise."""

    def __call__(self, name: str, size: int, seconds: float, *, failed: bool) -> None:
        """``size`` items of the stage ``name`` took ``seconds``."""
        ...


class _Group(Generic[I, R]):
    """The items of one call; outcomes fill up in any order, and the last one wakes the waiter."""

    def __init__(self, items: Sequence[I]) -> None:
        self.entries = [_Entry(item, self, index) for index, item in enumerate(items)]
        self.outcomes: dict[int, R | Exception] = {}
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, index: int, outcome: R | Exception) -> None:
        self.outcomes[index] = outcome
        if len(self.outcomes) == len(self.entries) and not self.complete.done():
            self.complete.set_result(None)


class _Entry(Generic[I, R]):
    """One item on its way."""

    __slots__ = ("group", "index", "item", "settled")

    def __init__(self, item: I, group: _Group[I, R], index: int) -> None:
        self.item = item
        self.group = group
        self.index = index
        self.settled = False

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the outcome any more."""
        return self.group.complete.cancelled()

    def settle(self, outcome: R | Exception) -> None:
        if self.settled:
            raise AssertionError("an item has one outcome")
        self.settled = True
        self.group.put(self.index, outcome)


class Stage(Generic[I, R]):
    """Turns single submissions into batches of ``work``; one instance a stage, bound to one event loop.

    ``work`` gets 1…``cap`` items and returns as many results in order; a wrong number counts as its failure.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[I]], Awaitable[list[R]]],
        *,
        clock: Clock,
        cap: int = 256,
        flights: int = 2,
        queue_max: int = 4096,
        observe: Observe | None = None,
    ) -> None:
        if min(cap, flights, queue_max) < 1:
            raise ValueError("cap, flights and queue_max are at least 1")
        self.name = name
        self._work = work
        self._clock = clock
        self._cap = cap
        self._flights_max = flights
        self._queue_max = queue_max
        self._observe = observe
        self._queue: OrderedDict[_Entry[I, R], None] = OrderedDict()
        self._flights: set[asyncio.Task[None]] = set()
        self._pump_due = False
        self._closing = False
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Number of items that wait for a flight; a gauge."""
        return len(self._queue)

    async def submit(self, item: I, timeout_s: float) -> R:
        """Return the result of one item.

        Raises what the work raised for it, or ``Problem``: busy (queue full), unavailable (closing),
        deadline_exceeded (no result in time; it may still take effect).
        """
        return (await self.submit_many([item], timeout_s))[0]

    async def submit_many(self, items: Sequence[I], timeout_s: float) -> list[R]:
        """Return the results of all items in order; the first error in that order is raised once all are settled."""
        outcomes = await self.submit_each(items, timeout_s)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return cast("list[R]", outcomes)

    async def submit_each(self, items: Sequence[I], timeout_s: float) -> list[R | Exception]:
        """Return a result or an error for each item in order, at the latest after ``timeout_s``.

        All items are taken or none: raises ``Problem`` busy or unavailable. An item without an outcome in time has
        ``deadline_exceeded``.
        """
        if not items:
            return []
        group = self._enqueue(items)
        try:
            async with asyncio.timeout(timeout_s):
                # A waiter that is cancelled here cancels this future, and so marks its items as abandoned.
                await group.complete
        except TimeoutError:
            pass
        finally:
            for entry in group.entries:
                self._queue.pop(entry, None)
        return [
            group.outcomes[index] if index in group.outcomes else Problem("deadline_exceeded")
            for index in range(len(items))
        ]

    async def close(self, timeout_s: float = 10.0) -> None:
        """Take nothing new, finish what waits, and return; past ``timeout_s`` the rest gets ``unavailable``."""
        self._closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            self._drop_queue()
            for flight in self._flights:
                flight.cancel()
        if self._flights:
            await asyncio.wait(self._flights, timeout=_CANCEL_S)

    def _enqueue(self, items: Sequence[I]) -> _Group[I, R]:
        if self._closing:
            raise Problem("unavailable", retry_after_s=_RETRY_AFTER_S)
        if len(self._queue) + len(items) > self._queue_max:
            raise Problem("busy", retry_after_s=_RETRY_AFTER_S)
        group: _Group[I, R] = _Group(items)
        self._queue.update((entry, None) for entry in group.entries)
        self._idle.clear()
        if not self._pump_due:
            # Not at once: whoever submits in the same turn of the loop comes along.
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)
        return group

    def _pump(self) -> None:
        """Start flights while there are items and free flights."""
        self._pump_due = False
        loop = asyncio.get_running_loop()
        while self._queue and len(self._flights) < self._flights_max:
            size = min(self._cap, len(self._queue))
            batch = [self._queue.popitem(last=False)[0] for _ in range(size)]
            flight = loop.create_task(self._fly(batch), name=f"stage {self.name}")
            self._flights.add(flight)
            flight.add_done_callback(functools.partial(self._land, batch))
        if not self._queue and not self._flights:
            self._idle.set()

    def _land(self, batch: list[_Entry[I, R]], flight: asyncio.Task[None]) -> None:
        """Whatever ended the flight, nobody waits for it in vain, and the next one starts."""
        self._flights.discard(flight)
        _settle_rest(batch, Problem("unavailable", retry_after_s=_RETRY_AFTER_S))
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.get("stages").error("a flight broke", stage=self.name, exc_info=error)
        self._pump()

    async def _fly(self, batch: list[_Entry[I, R]]) -> None:
        outcome = await self._attempt([entry.item for entry in batch])
        if isinstance(outcome, list):
            for entry, result in zip(batch, outcome, strict=True):
                entry.settle(result)
        elif len(batch) == 1 or _is_whole(outcome):
            _settle_rest(batch, outcome)
        else:
            await self._fly_alone(batch)

    async def _fly_alone(self, batch: list[_Entry[I, R]]) -> None:
        for entry in batch:
            if entry.abandoned:
                continue
            outcome = await self._attempt([entry.item])
            if isinstance(outcome, list):
                entry.settle(outcome[0])
            elif _is_whole(outcome):
                _settle_rest(batch, outcome)
                return
            else:
                entry.settle(outcome)

    async def _attempt(self, items: list[I]) -> list[R] | Exception:
        started = self._clock.monotonic()
        outcome: list[R] | Exception
        try:
            outcome = await self._work(items)
            if len(outcome) != len(items):
                outcome = RuntimeError("the work of a stage returned a wrong number of results")
        except Exception as error:  # noqa: BLE001 - whatever the work raises belongs to those who wait for it
            outcome = error
        if self._observe is not None:
            seconds = self._clock.monotonic() - started
            self._observe(self.name, len(items), seconds, failed=isinstance(outcome, Exception))
        return outcome

    def _drop_queue(self) -> None:
        batch = list(self._queue)
        self._queue.clear()
        _settle_rest(batch, Problem("unavailable", retry_after_s=_RETRY_AFTER_S))


def _is_whole(error: Exception) -> bool:
    """Tell whether the failure concerns every item; an error may say that it is about the items after all."""
    return isinstance(error, Problem) and error.code in WHOLE_FAILURES and not getattr(error, "about_items", False)


def _settle_rest(batch: Sequence[_Entry[I, R]], error: Exception) -> None:
    """Give the error to every item that has no outcome yet; each gets its own copy, for raising one changes it."""
    for entry in batch:
        if not entry.settled:
            entry.settle(copy.copy(error) if isinstance(error, Problem) else error)
