"""Breaks the gateways of a lab with links and mends them, alone or together with their centres.

A tunnel in user space is a process of its own that outlives its controller: a gateway is lost only with both.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from chukan.errors import Problem
from chukan.ops.centres.link_wires import LinkWires, gateway_name
from chukan.ops.centres.processes import Processes
from chukan.ops.centres.wires import CENTRES


class GatewayStage(ABC):
    """The part of a stage that knows gateways; in a lab without links it has none."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.links: LinkWires | None = None
        """The network of the links, where the lab has any."""
        self.devices_at_home: Callable[[], bool] = lambda: True
        """Whether every device sends by its home; a lab with links knows."""
        self.gateways_down: set[str] = set()
        """Centres whose gateway alone was lost."""

    @abstractmethod
    async def start(self, name: str) -> None:
        """Start what was ended; returns when it answers. Raises ``Problem`` process_failed, naming its log."""

    async def lose_gateway(self, centre: str) -> None:
        """Kill a centre's gateway and its tunnels, and keep them down. Raises ``Problem`` not_possible_here."""
        links = self._links()
        self.gateways_down.add(centre)
        await self._processes.kill([gateway_name(centre)])
        await asyncio.to_thread(links.end_tunnels, centre)

    async def return_gateway(self, centre: str) -> None:
        """Start it again; its links come back by themselves. Raises ``Problem`` process_failed, naming its log."""
        self._links()
        await self.start(gateway_name(centre))
        self.gateways_down.discard(centre)

    async def _lose_with(self, centre: str) -> None:
        """Lose what is left of a gateway with its centre, whose processes are dead: its tunnels and its cable."""
        if self.links is not None and centre in CENTRES:
            await asyncio.to_thread(self.links.lose, centre)
            self.gateways_down.discard(centre)

    async def _return_with(self, centre: str) -> None:
        if self.links is not None and centre in CENTRES:
            await asyncio.to_thread(self.links.bring_back, centre)

    def _links(self) -> LinkWires:
        if self.links is None:
            raise Problem("not_possible_here", expected="links: chukan demo --links")
        return self.links
