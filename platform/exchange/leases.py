"""Leases (リース): which shards of one side of one cell this process works on, and with which epoch.

A lease is per (side, shard), never per line; any worker in any centre takes over what another let lapse, and a
worker whose lease was taken is refused by the cell itself (``stale_lease``), whatever it still believes. Renewed
every 2 s for 10 s. A process that starts takes over at once from the one that bore its name before: one that was killed
gives nothing back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from chukan import log
from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.tenants.rows import Grant
from chukan.tenants.states import Side

_log = log.get("exchange.leases")
RENEW_S: Final = 2.0
TTL_S: Final = 10.0
AGAIN_S: Final = 0.25
"""Least pause between two renewals, and the pause after one that failed."""


class Leases:
    """Holds this process's grants for one side of one cell; ``gained`` is called when there are new ones."""

    def __init__(self, context: Context, cell: str, side: Side, owner: str, gained: Callable[[], None]) -> None:
        self._context = context
        self._cell = cell
        self._side = side
        self._owner = owner
        self._gained = gained
        self._grants: Mapping[int, Grant] = {}
        self._until = 0.0
        self._succeeded = False
        self._again = asyncio.Event()

    def grants(self) -> list[Grant]:
        """The grants that still stand by our own clock; none once renewal has failed for the whole term."""
        if self._context.clock.monotonic() >= self._until:
            return []
        return list(self._grants.values())

    def holds(self, shard: int) -> bool:
        """Tell whether a shard is ours, by our own clock."""
        return shard in self._grants and self._context.clock.monotonic() < self._until

    def lost(self) -> None:
        """The cell said ``stale_lease``: nothing is ours until the next renewal, which is now.

        A new leader of the cell has voided all grants; work must not wait for the rhythm of before.
        """
        self._grants = {}
        self._again.set()

    async def renew(self) -> bool:
        """Renew what is ours, up to the fair share of those who are alive; take what is free.

        False in trouble that may be over in a moment.
        """
        before = self._context.clock.monotonic()
        sets = self._context.sets[self._cell]
        try:
            await self._succeed()
            share = await sets.worker_share(self._owner, self._side, TTL_S)
            granted = await sets.lease(self._owner, self._side, share, TTL_S)
        except Problem as problem:
            _log.warning("lease not renewed", cell=self._cell, code=problem.code)
            return problem.code == "cell_restored"  # no trouble that is over in a moment
        fresh = {grant.shard: grant for grant in granted}
        new = fresh.keys() - self._grants.keys()
        self._grants = fresh
        self._until = before + TTL_S
        self._context.meter.leases(self._cell, self._side, len(fresh))
        if new:
            self._gained()
        return True

    async def _succeed(self) -> None:
        """Once, before the first lease: give back what former processes of this exchange still hold."""
        if self._succeeded:
            return
        freed = await self._context.sets[self._cell].succeed(self._owner, self._side)
        self._succeeded = True
        if freed:
            _log.info("predecessor succeeded", cell=self._cell, stage=self._side.name, count=freed)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            self._again.clear()
            renewed = await self.renew()
            await asyncio.sleep(AGAIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S - AGAIN_S if renewed else 0.0):
                    await self._again.wait()
