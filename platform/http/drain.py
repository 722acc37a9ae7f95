"""Going out of service without losing anybody, in two steps.

``begin`` is the notice: ``/readyz`` says no, and every answer closes its connection, so that clients and devices go
elsewhere by themselves; whoever still comes is served as before. ``close`` is the end: who only waits for an outcome is
answered now, as things stand.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Drain:
    """Begun once and closed once, never taken back."""

    def __init__(self) -> None:
        self._begun = False
        self._closed = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether this exchange is going out of service."""
        return self._begun

    def begin(self) -> None:
        """Go out of service: tell everybody."""
        self._begun = True

    def close(self) -> None:
        """End all waiting."""
        self._begun = True
        self._closed.set()

    async def race(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        """Return what a waiting coroutine returns, or None when the drain closes first; then it is cancelled."""
        if self._closed.is_set():
            waiting.close()
            return None
        task = asyncio.ensure_future(waiting)
        drained = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((task, drained), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            drained.cancel()
            task.cancel()
