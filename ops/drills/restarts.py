"""Restarts in good order (順次再起動), one process after the other, as an upgrade does them: exchanges, then nodes.

An exchange lets its clients go first and is started again at once. Of a cell the standbys are restarted first, each
only when the one before follows again as wanted; the leader hands over to a peer at home before its own restart, and is
handed the cell back afterwards, so that the site stands as before.

Invariant: there is never more than one process of a cell, and never more than one exchange, away at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from chukan.errors import Problem
from chukan.ops.drills.ports import Installation
from chukan.ops.drills.vocabulary import Step
from chukan.ops.drills.waits import LOOK_S, Clients, Sight

NODE_S: Final = 90.0
"""How long a node may take until it follows again as wanted, and a new leader until it leads."""

Candidate = Callable[..., Awaitable[str]]
Note = Callable[[str, str, str], None]


class Restarts:
    """The sentences that restart, by verb."""

    def __init__(
        self, installation: Installation, clients: Clients, sight: Sight, candidate: Candidate, note: Note
    ) -> None:
        """``candidate(cell, leader, home=True)`` waits for a synchronous standby; ``note`` keeps an event."""
        self._installation, self._clients, self._sight = installation, clients, sight
        self._candidate, self._note = candidate, note
        self.nodes_from: float | None = None
        """When the first node was about to be restarted; None before."""
        self.verbs: Mapping[str, Callable[[Step], Awaitable[None]]] = {
            "restart": self._process,
            "restart_nodes": self._nodes,
        }

    async def _process(self, step: Step) -> None:
        await self._again(step.words["process"])

    async def _nodes(self, step: Step) -> None:
        cell = step.words["cell"]
        leader = (await self._sight.primary(cell)).name
        standbys = [node.name for node in (await self._sight.view()).nodes if node.cell == cell and node.name != leader]
        if self.nodes_from is None:
            self.nodes_from = self._clients.now()
        for name in standbys:
            await self._node(name)
        peer = await self._candidate(cell, leader, home=True)
        await self._hand_over(cell, leader, peer)
        await self._node(leader)
        await self._synchronous(cell, leader)
        await self._hand_over(cell, peer, leader)

    async def _node(self, name: str) -> None:
        self._note(f"ノード{name}を再起動する", f"node {name} is restarted", "restart")
        # Patroni stops its server with it, and starts it again.
        await self._again(f"patroni-{name}")
        await self._settled()

    async def _again(self, name: str) -> None:
        # What is stopped here and not started, whatever happens in between, the stage itself starts when it heals.
        await self._installation.stage.stop(name)
        await self._installation.stage.start(name)

    async def _hand_over(self, cell: str, leader: str, candidate: str) -> None:
        self._note(
            f"セル{cell}: {leader}から{candidate}へ計画切替",
            f"cell {cell}: {leader} hands over to {candidate}",
            "restart",
        )
        await self._installation.steering.switchover(cell, leader, candidate)
        await self._until(lambda role, name: role == "primary" and name == candidate, f"{candidate} leads")
        await self._settled()

    async def _synchronous(self, cell: str, name: str) -> None:
        del cell
        await self._until(lambda role, each: role == "sync" and each == name, f"{name} is a synchronous standby")

    async def _until(self, holds: Callable[[str, str], bool], words: str) -> None:
        try:
            async with asyncio.timeout(NODE_S):
                while True:
                    try:
                        nodes = (await self._sight.view()).nodes
                    except (Problem, TimeoutError):
                        nodes = ()  # nobody tells just now
                    if any(holds(node.role, node.name) for node in nodes):
                        return
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Problem("site_not_settled", expected=words) from None

    async def _settled(self) -> None:
        try:
            await self._installation.stage.settled(NODE_S)
        except TimeoutError:
            raise Problem("site_not_settled", expected=f"a settled site within {NODE_S:.0f} s") from None
