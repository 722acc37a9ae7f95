"""Which exchange a client asks: the choice that a body's device makes (DESIGN §8), from health checks alone.

``/readyz?cell=C`` of each exchange is asked every half second; one that says no, or does not answer twice, is left, and
taken again as soon as it says yes. A request that is under way is never moved and never repeated. Where the clients
stand behind real devices (``routed``) nothing is asked here, for those choose.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import aiohttp

from chukan.ops.drills.ports import Exchange

LOOK_S: Final = 0.5
TIMEOUT_S: Final = 0.5
MISSES_MAX: Final = 2
_OK: Final = 200


class Routes:
    """The health of the exchanges for each cell; ``run`` looks until cancelled."""

    def __init__(self, exchanges: Mapping[str, Exchange], cells: Sequence[str], *, routed: bool = False) -> None:
        self._exchanges, self._routed = exchanges, routed
        self._misses = {(name, cell): 0 for name in exchanges for cell in cells}

    @property
    def names(self) -> list[str]:
        """The exchanges."""
        return list(self._exchanges)

    def choose(self, preferred: str, cell: str) -> str:
        """Return the preferred exchange while it serves the cell, else one that does, else the preferred."""
        names = [preferred, *(name for name in self._exchanges if name != preferred)]
        return next((name for name in names if self._misses[name, cell] < MISSES_MAX), preferred)

    def note(self, name: str, cell: str, status: int | None) -> None:
        """Take one look: a status, or None where nobody answered in time."""
        if status == _OK:
            self._misses[name, cell] = 0
        elif status is not None:
            self._misses[name, cell] = MISSES_MAX
        else:
            self._misses[name, cell] += 1

    async def run(self) -> None:
        """Look at everything until cancelled."""
        if self._routed:
            return
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for name, cell in self._misses:
                group.create_task(self._look(session, name, cell))

    async def _look(self, session: aiohttp.ClientSession, name: str, cell: str) -> None:
        url = f"{self._exchanges[name].health_url}/readyz"
        while True:
            status: int | None = None
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.get(url, params={"cell": cell}) as reply:
                    status = reply.status
            self.note(name, cell, status)
            await asyncio.sleep(LOOK_S)
