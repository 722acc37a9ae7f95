"""Going out of service without losing anybody: who waits is answered now, who works finishes, nobody new comes in.

``Drain`` is a flag that can be awaited. Requests that only wait for an outcome race it; answers that leave while it is
set close their connection, so that clients go elsewhere by themselves.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Drain:
    """Set once, never unset."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether this exchange is going out of service."""
        return self._event.is_set()

    def begin(self) -> None:
        """Go out of service."""
        self._event.set()

    async def race(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        """Return what a waiting coroutine returns, or None when the drain begins first; then it is cancelled."""
        if self.begun:
            waiting.close()
            return None
        task = asyncio.ensure_future(waiting)
        drained = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((task, drained), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            drained.cancel()
            task.cancel()
