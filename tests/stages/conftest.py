"""An event loop whose time is made of timers alone: it jumps to the next one, and notices when nothing can happen."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Nothing is ready and no timer runs: whoever waits now would wait for ever."""


class _Jumping(selectors.SelectSelector):
    """Moves the loop's clock by what it should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError
        self.now_s += max(0.0, timeout)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Deterministic: the same coroutines take the same steps in the same order, in no real time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass without a turn of the loop, as a busy process does."""
        self._jumping.now_s += seconds


class LoopClock:
    """The clock port on the simulated loop."""

    def now(self) -> Any:
        raise NotImplementedError

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


Simulate = Callable[[Callable[[], Coroutine[Any, Any, T]]], T]


def _simulate(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    loop = SimulatedLoop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    try:
        result = loop.run_until_complete(main())
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    finally:
        loop.close()
    assert not left, "a task was left behind"
    assert not faults, "the loop was told of a fault"
    return result


@pytest.fixture
def simulate() -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """Run a coroutine function on a fresh simulated loop; nothing may be left behind."""
    return _simulate


@pytest.fixture
def loop_clock() -> LoopClock:
    return LoopClock()
