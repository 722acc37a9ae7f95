"""Virtual time, a seeded order of events, and processes that can freeze and die.

``SimulatedLoop`` is an asyncio loop whose time is made of timers alone: when nothing is ready it jumps to the next
one. What is ready at the same instant runs in an order drawn from the seed. Every callback belongs to the ``Process``
in whose context it was made: a frozen process's callbacks are kept aside until it goes on, a dead one's tasks are
cancelled and its ports do nothing any more.

Invariant: the same seed takes the same steps. Nothing here may look at the machine's clock or draw other randomness.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from chukan.errors import Problem

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
START: Final = dt.datetime(2026, 11, 23, 1, 0, tzinfo=dt.UTC)
TASKS_KEPT: Final = 200
TURN_S: Final = 1e-6
"""What a turn of the loop takes: where code waits for the last rounding error of its deadline, time must go on."""
STEPS_MAX: Final = 400_000
"""Turns of the loop in one run; a run that needs more turns in a circle."""


class DeadlockError(Exception):
    """Nothing is ready and no timer runs: whoever waits now would wait for ever."""


class Gone(Exception):  # noqa: N818 - a state of the other side, not an error of the program
    """The process that was asked is not there any more, or the connection to it was lost."""


class Process:
    """One process of the world. Its volatile state is whatever its tasks hold."""

    def __init__(self, name: str, *, skew_s: float = 0.0, drift: float = 0.0) -> None:
        self.name = name
        self.skew_s = skew_s
        self.drift = drift
        self.paused = False
        self.dead = False
        self.held_up_s = 0.0
        """Virtual seconds for which it was frozen so far."""
        self._paused_at_s = 0.0
        self.parked: list[asyncio.Handle] = []
        self.tasks: list[NumberedTask] = []
        self.context = contextvars.Context()
        self.context.run(PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run a coroutine as a task of this process."""
        return asyncio.get_running_loop().create_task(work, name=name, context=self.context)

    async def serve(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do what another party asked for over the wire; raises what the work raises, ``Gone`` when it dies meanwhile.

        Whoever stops waiting ends nothing here: the request was received.
        """
        if self.dead:
            raise Gone
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(task: asyncio.Task[T]) -> None:
            error = None if task.cancelled() else task.exception()
            if reply.done():
                return
            if task.cancelled():
                reply.set_exception(Gone())
            elif error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(task.result())

        self.spawn(work()).add_done_callback(done)
        return await reply

    def pause(self, loop: SimulatedLoop) -> None:
        """Freeze: nothing of it runs until ``resume``."""
        self.paused = True
        self._paused_at_s = loop.now_s

    def resume(self, loop: SimulatedLoop) -> None:
        """Go on with everything that came up meanwhile."""
        if self.paused:
            self.held_up_s += loop.now_s - self._paused_at_s
        self.paused = False
        loop.put_back(self.parked)
        self.parked = []

    def kill(self, loop: SimulatedLoop) -> None:
        """Die: all volatile state is lost; its tasks may still unwind, but no port does anything for them."""
        self.dead = True
        self.resume(loop)
        for task in self.tasks:
            task.cancel()
        self.tasks = []

    def own(self, task: NumberedTask) -> None:
        """Remember a task for as long as it is not done."""
        self.tasks.append(task)
        if len(self.tasks) > TASKS_KEPT:
            self.tasks = [task for task in self.tasks if not task.done()]

    def check_alive(self) -> None:
        """Asked by every port: a dead process does nothing to the world."""
        if self.dead:
            raise asyncio.CancelledError


PROCESS: Final[contextvars.ContextVar[Process | None]] = contextvars.ContextVar("process", default=None)


class NumberedTask(asyncio.Task[Any]):
    """A task with its place in the order of creation.

    Sets of events and tasks are walked in the order of their addresses, which no seed governs; so what becomes ready at
    one instant is put in this order before it is shuffled.
    """

    number = 0


class ProcessClock:
    """A process's own clock: off by a fixed skew, and drifting."""

    def __init__(self, process: Process, loop: SimulatedLoop) -> None:
        self._process = process
        self._loop = loop

    def now(self) -> dt.datetime:
        """Return what the process takes for the present instant, in UTC."""
        process = self._process
        return START + dt.timedelta(seconds=self._loop.now_s * (1.0 + process.drift) + process.skew_s)

    def monotonic(self) -> float:
        """Return the process's own seconds."""
        return self._loop.now_s * (1.0 + self._process.drift)


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop; ``run`` does one coroutine and everything that goes with it."""

    _ready: deque[asyncio.Handle]

    def __init__(self, draw: Random) -> None:
        self.now_s = 0.0
        self.steps = 0
        self.made = 0
        self.faults: list[str] = []
        self._draw = draw
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        super().__init__()
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Return the virtual seconds since the world began."""
        return self.now_s

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Make a callback ready; without the checks that a loop of many threads needs."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer; the heap compares numbers and never handles, which is half of what timers cost."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Make handles ready again that were kept aside."""
        self._ready.extend(handles)

    def leap(self, seconds: float) -> None:
        """Let time pass in which nobody runs: as if every machine had stood still."""
        self.now_s += seconds

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, then cancel and unwind whatever is left."""
        try:
            return self.run_until_complete(main)
        finally:
            self.steps = 0
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.close()

    def _run_once(self) -> None:
        """Move time where nothing is ready, then run what is ready in a drawn order."""
        self.steps += 1
        self.now_s += TURN_S
        if self.steps > STEPS_MAX:
            raise DeadlockError("the simulation does not come to an end")
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise DeadlockError("nothing can happen any more")
            self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            ready.append(heapq.heappop(timers)[2])
        batch: list[Any] = list(ready)
        ready.clear()
        if len(batch) > 1:
            batch.sort(key=_number)
            self._draw.shuffle(batch)
        for handle in batch:
            if handle.cancelled():
                continue
            process: Process | None = handle._context.get(PROCESS)  # noqa: SLF001 - whose callback it is stands there
            if process is not None and process.paused:
                process.parked.append(handle)
            else:
                handle._run()  # noqa: SLF001 - what a loop does with a handle

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Problem | Gone):
            self.faults.append(f"the loop was told of a fault: {context.get('message')}: {error!r}")

    def _write_to_self(self) -> None:
        """Nobody else's thread wakes this loop."""


def _make_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    *,
    context: contextvars.Context | None = None,
) -> asyncio.Task[T]:
    assert isinstance(loop, SimulatedLoop)  # noqa: S101 - the only loop that has this factory
    task = NumberedTask(work, loop=loop, context=context)
    loop.made += 1
    task.number = loop.made
    process = PROCESS.get() if context is None else context.get(PROCESS)
    if process is not None:
        process.own(task)
    return task


def _number(handle: Any) -> int:  # noqa: ANN401 - private fields of the handle
    """The task that a handle goes on with, 0 for any other callback."""
    task = getattr(handle._callback, "__self__", None)  # noqa: SLF001 - whose step it is stands there
    return task.number if type(task) is NumberedTask else 0
