"""Watches who says that it leads, for the picture of a report; only changes are kept.

What a node says of itself is one node's word; a checker never looks at it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from chukan import log
from chukan.errors import Problem
from chukan.ops.drills.ports import Installation, View

LOOK_S: Final = 1.0
VIEW_S: Final = 4.0
KEPT_MAX: Final = 20_000

_log = log.get("drills.watch")


class Change(msgspec.Struct, frozen=True):
    """From an instant on, somebody said this of themselves; ``cell`` is empty for an exchange or a voter."""

    at: float
    cell: str
    name: str
    state: str
    timeline: int = 0


class Watch:
    """Keeps changes while ``run`` runs."""

    def __init__(self, installation: Installation, now: Callable[[], float]) -> None:
        self._installation, self._now = installation, now
        self._last: dict[str, tuple[str, int]] = {}
        self.changes: list[Change] = []

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with asyncio.timeout(VIEW_S):
                    view = await self._installation.view()
            except (Problem, TimeoutError):
                _log.debug("nobody tells who leads")
            else:
                self.note(view)
            await asyncio.sleep(LOOK_S)

    def note(self, view: View) -> None:
        """Keep what is new in a view."""
        for node in view.nodes:
            self._keep(node.cell, node.name, node.role, node.timeline)
        for name, answers in (*view.exchanges.items(), *view.etcd.items()):
            self._keep("", name, "up" if answers else "gone", 0)

    def leaders(self) -> dict[str, list[str]]:
        """Return who led each cell, one after the other."""
        found: dict[str, list[str]] = {}
        for change in self.changes:
            if change.state == "primary":
                order = found.setdefault(change.cell, [])
                if change.name not in order[-1:]:
                    order.append(change.name)
        return found

    def _keep(self, cell: str, name: str, state: str, timeline: int) -> None:
        if self._last.get(name) != (state, timeline) and len(self.changes) < KEPT_MAX:
            self._last[name] = (state, timeline)
            self.changes.append(Change(self._now(), cell, name, state, timeline))
