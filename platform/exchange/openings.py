"""Openings (開放): whether each cell is open for writes, and since when its permits count (DESIGN §7).

A restored cell stands as of some earlier moment. The settings name its new epoch before an administrator has opened it
in that epoch: until then it is *closed*. Everything is read there and nothing changed; agencies are told to come back,
and the network to push again. Settings that name an earlier epoch than the cell's are old: with them nothing is served.

The opening is read once for each leader, and each second while the cell is closed. It counts from a moment later: by
the skew of clocks that permits tolerate, so that a permit that replaces one of before is not of before again.

Invariant: no write is admitted to a cell whose opening is not known.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.sets import CellSets, Opening

LOOK_S: Final = 1.0
RETRY_S: Final = 30
"""When an agency is asked to come back to a closed cell: reconciling takes minutes."""

_log = log.get("exchange.openings")


class _Place:
    """What is known of one cell."""

    def __init__(self, name: str, sets: CellSets, epoch: int) -> None:
        self.name, self.sets, self.epoch = name, sets, epoch
        self.opening: Opening | None = None
        self.read_under: Hashable = None
        self.told: bool | None = None
        self.reading: asyncio.Task[None] | None = None


class Openings:
    """Knows how the cells are opened; ``run`` keeps looking until cancelled."""

    def __init__(
        self,
        sets: Mapping[str, CellSets],
        epochs: Mapping[str, int],
        leader: Callable[[str], Hashable],
        clock: Clock,
        skew: dt.timedelta,
    ) -> None:
        """Take the epochs that the settings name, and ``leader``, which tells who leads a cell, None for nobody."""
        self._places = {cell: _Place(cell, functions, epochs[cell]) for cell, functions in sets.items()}
        self._leader = leader
        self._clock = clock
        self._skew = skew

    def epoch(self, cell: str) -> int | None:
        """The epoch in which a cell was opened; None where that was not read yet."""
        opening = self._places[cell].opening
        return None if opening is None else opening.epoch

    def closed(self, cell: str) -> bool:
        """Whether a cell was restored and is not opened yet, as far as is known."""
        place = self._places[cell]
        return place.opening is not None and not self._is_open(place, place.opening)

    def opened_at(self, cell: str) -> dt.datetime:
        """Since when a cell is open in its epoch. Raises ``Problem`` cell_restored, unavailable."""
        place = self._places[cell]
        return self._admitted(place, place.opening).opened_at

    async def admit(self, cell: str) -> None:
        """Let a write pass. Raises ``Problem`` cell_restored, unavailable; no_primary where nobody can be asked."""
        place = self._places.get(cell)
        if place is None:
            raise Problem("no_primary", retry_after_s=5)
        if self._is_due(place):
            await self._read(place)
        self._admitted(place, place.opening)

    async def run(self) -> None:
        """Look at every cell, each by itself, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for place in self._places.values():
                group.create_task(self._watch(place), name=f"opening {place.name}")

    async def _watch(self, place: _Place) -> None:
        while True:
            try:
                if self._is_due(place) or self.closed(place.name):
                    await self._read(place)
            except Problem as problem:
                _log.warning("opening not read", cell=place.name, code=problem.code)
            await asyncio.sleep(LOOK_S)

    # ------------------------------------------------------------ inside

    def _is_due(self, place: _Place) -> bool:
        """Whether it was never read, or under another leader than the present one."""
        if place.opening is None:
            return True
        leader = self._leader(place.name)
        return leader is not None and leader != place.read_under

    async def _read(self, place: _Place) -> None:
        """Read it once for all who ask at the same time: who gives up does not take it from the others."""
        if place.reading is None:
            place.reading = asyncio.create_task(self._ask(place), name=f"opening of {place.name}")
        await asyncio.shield(place.reading)

    async def _ask(self, place: _Place) -> None:
        try:
            leader = self._leader(place.name)
            place.opening = await place.sets.opening()
            place.read_under = leader
        finally:
            place.reading = None
        is_open = self._is_open(place, place.opening)
        if is_open != place.told:
            place.told = is_open
            outcome = "open" if is_open else "closed"
            _log.warning("a cell's opening", cell=place.name, epoch=place.opening.epoch, outcome=outcome)

    def _is_open(self, place: _Place, opening: Opening) -> bool:
        if opening.epoch == 1 == place.epoch:
            return True
        return opening.epoch == place.epoch and self._clock.now() - opening.opened_at >= self._skew

    def _admitted(self, place: _Place, opening: Opening | None) -> Opening:
        if opening is None:
            raise Problem("no_primary", retry_after_s=1)
        if opening.epoch > place.epoch:
            raise Problem("unavailable", retry_after_s=RETRY_S)
        if not self._is_open(place, opening):
            raise Problem("cell_restored", retry_after_s=RETRY_S if opening.epoch < place.epoch else 1)
        return opening
