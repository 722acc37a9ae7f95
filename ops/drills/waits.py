"""The waiting sentences of a scenario, and whom the others are about: who leads a cell now, as everybody tells.

A wait names its own time. What it waits for happens in other processes, so it looks again and again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from chukan.errors import Problem
from chukan.ops.drills.ports import Installation, Node, View
from chukan.ops.drills.vocabulary import Step

LOOK_S: Final = 0.5
VIEW_S: Final = 5.0
SETTLE_S: Final = 120.0


class Clients(Protocol):
    """What the hands must know of the clients: how they fare."""

    def served(self, cell: str, since: float) -> bool:
        """Whether every group of agencies of a home had a write acknowledged since an instant."""
        ...

    async def sequenced(self, since: float) -> bool:
        """Whether a query acknowledged since an instant has a record with its place."""
        ...

    def agency_of(self, cell: str) -> str:
        """Return an agency of a home that works in this drill."""
        ...

    def home_of(self, agency: str) -> str | None:
        """Return the home of an agency that works in this drill, None for any other."""
        ...

    def now(self) -> float:
        """Seconds since the drill began."""
        ...


class Sight:
    """Who leads now, and who led when a cell was last hit."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._hit: dict[str, str] = {}

    async def view(self) -> View:
        """Return the roles as they are told. Raises ``Problem``, ``TimeoutError``."""
        async with asyncio.timeout(VIEW_S):
            return await self._installation.view()

    async def primary(self, cell: str) -> Node:
        """Return the leader of a cell, which is about to be hit. Raises ``Problem`` site_not_settled."""
        node = (await self.view()).leader(cell)
        if node is None:
            raise Problem("site_not_settled", expected=f"a leader of cell {cell}")
        # Whom a later sentence means by another one.
        self._hit[cell] = node.name
        return node

    async def leader(self, cell: str) -> Node | None:
        """Return the leader of a cell, None where there is none or nobody tells."""
        try:
            return (await self.view()).leader(cell)
        except (Problem, TimeoutError):
            return None

    def was_hit(self, node: Node) -> bool:
        """Tell whether a node is the one that led its cell when that was last hit."""
        return self._hit.get(node.cell) == node.name


class Waits:
    """The sentences that wait, by verb."""

    def __init__(self, installation: Installation, clients: Clients, sight: Sight) -> None:
        self._installation, self._clients, self._sight = installation, clients, sight
        self.verbs: Mapping[str, Callable[[Step], Awaitable[None]]] = {
            "settled": self._settle,
            "settle": self._settle,
            "warm": self._work,
            "work": self._work,
            "another_leader": self._another_leader,
            "away": self._away,
            "served": self._served,
            "sequenced": self._sequenced,
        }

    async def _until(self, holds: Callable[[], Awaitable[bool]], step: Step) -> None:
        try:
            async with asyncio.timeout(step.limit_s):
                while not await holds():  # noqa: ASYNC110 - what is waited for happens in other processes
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Problem("drill_step_failed", expected=step.en) from None

    async def _settle(self, step: Step) -> None:
        try:
            await self._installation.stage.settled(step.limit_s or SETTLE_S)
        except TimeoutError:
            raise Problem("site_not_settled", expected=step.en) from None

    async def _work(self, step: Step) -> None:
        await asyncio.sleep(step.limit_s)

    async def _another_leader(self, step: Step) -> None:
        cell = step.words["cell"]

        async def holds() -> bool:
            node = await self._sight.leader(cell)
            return node is not None and not self._sight.was_hit(node)

        await self._until(holds, step)

    async def _away(self, step: Step) -> None:
        cell = step.words["cell"]

        async def holds() -> bool:
            node = await self._sight.leader(cell)
            return node is not None and node.centre != self._installation.home(cell)

        await self._until(holds, step)

    async def _served(self, step: Step) -> None:
        async def holds() -> bool:
            return self._clients.served(step.words["cell"], self._clients.now() - 1.0)

        await self._until(holds, step)

    async def _sequenced(self, step: Step) -> None:
        since = self._clients.now()
        await self._until(lambda: self._clients.sequenced(since), step)
