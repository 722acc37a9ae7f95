"""Hears what the database says the links shall be, apart from the passes: no pass ever waits for a database.

It asks when a hint came, when the connection came back, and by a timer; what it hears it hands over. While the cell is
away what was known last stays in force, and its age is a metric.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.links import Desired

AGAIN_S: Final = 2.0
"""How soon after a failure it is asked again."""

_log = log.get("vpn.gateway.learning")


class Source(Protocol):
    """Where the desired state is; ``tenants.links.LinkController`` is one."""

    async def desired(self, centre: str) -> Desired:
        """Return what a centre's gateway shall have. Raises ``Problem``."""
        ...

    async def hear(self, heard: Callable[[], None]) -> None:
        """Call ``heard()`` whenever it may have changed, until cancelled."""
        ...


class Learner:
    """Asks on time; ``learnt`` is called with each state that was heard, ``age_s`` says how old the last one is."""

    def __init__(
        self,
        source: Source,
        centre: str,
        learnt: Callable[[Desired], None],
        clock: Clock,
        *,
        every_s: float,
        read_s: float,
    ) -> None:
        self._source = source
        self._centre = centre
        self._learnt = learnt
        self._clock = clock
        self._every_s = every_s
        self._read_s = read_s
        self._due = asyncio.Event()
        self._first = asyncio.Event()
        self._away = False

    @property
    def away(self) -> bool:
        """Whether the last question was not answered."""
        return self._away

    def ask(self) -> None:
        """Ask as soon as possible."""
        self._due.set()

    async def first(self, timeout_s: float) -> None:
        """Wait until the first question was answered or failed, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._first.wait()

    async def run(self) -> None:
        """Listen and ask until cancelled, first of all at once."""
        self._due.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="links hear")
            group.create_task(self._ask_on_time(), name="links ask")

    async def _listen(self) -> None:
        while True:
            try:
                await self._source.hear(self._due.set)
            except Problem as problem:
                _log.warning("hints of links are not heard", code=problem.code)
            await asyncio.sleep(AGAIN_S)

    async def _ask_on_time(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._away else self._every_s):
                    await self._due.wait()
            self._due.clear()
            await self.once()

    async def once(self) -> None:
        """Ask once; a failure is remembered and told once."""
        try:
            async with asyncio.timeout(self._read_s):
                heard = await self._source.desired(self._centre)
        except (Problem, TimeoutError) as error:
            if not self._away:
                _log.error("the desired state of links cannot be read: the last known one holds", exc_info=error)
            self._away = True
        else:
            if self._away:
                _log.warning("the desired state of links is read again", count=len(heard.peers))
            self._away = False
            self._learnt(heard)
        self._first.set()
