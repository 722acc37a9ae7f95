"""Kills at seeded moments: which process, after how many answered lines, and for how long it stays away.

The plan is made from the seed alone. A moment is an event, "so many more lines are closed at the network" or "so many
more rows of a result have come", no instant.
Databases and the network come back at once, an exchange at once or at the next moment. While one starts, one of another
sort may be killed under it; but two exchanges, or two databases, are never away at the same time.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.tests.crash.evidence import Count
from chukan.tests.crash.town import DATABASES, VICTIMS, Town

STAYS_AWAY_ONE_IN: Final = 2
"""Of the exchanges that are killed, so many stay away until the next moment."""

_SORTS: Final = (frozenset(EXCHANGES), frozenset(DATABASES), frozenset({"network"}))
Number = Callable[[int, int], int]
"""Draws a whole number between two."""


class Kill(NamedTuple):
    """One moment: after so much more of what is counted since the last kill."""

    after: int
    victim: str
    stays_away: bool


def plan(number: Number, *, kills: int, pause_max: int) -> list[Kill]:
    """Return ``kills`` moments with at most ``pause_max`` in between; each round of them spares nobody."""
    victims = [victim for _ in range(0, kills, len(VICTIMS)) for victim in _mixed(number)]
    return [
        Kill(number(1, pause_max), victim, victim in EXCHANGES and number(1, STAYS_AWAY_ONE_IN) == 1)
        for victim in victims[:kills]
    ]


def _mixed(number: Number) -> list[str]:
    """Return all victims in an order that was drawn (Fisher-Yates)."""
    victims = list(VICTIMS)
    for n in range(len(victims) - 1, 0, -1):
        other = number(0, n)
        victims[n], victims[other] = victims[other], victims[n]
    return victims


class Mayhem:
    """Carries plans out, and leaves everything running."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._away: str | None = None
        self._returning: dict[int, asyncio.Task[None]] = {}
        self.done: list[Kill] = []

    async def run(self, plan: Sequence[Kill], count: Count, what: str) -> None:
        """Kill at each moment until the plan is worked off, or nothing is counted any more."""
        killed = count.number
        try:
            for kill in plan:
                if not await count.reach(killed + kill.after):
                    break
                killed = count.number
                await self._carry_out(kill, f"{killed} {what}")
        finally:
            self._call_back()
            await self._back(*range(len(_SORTS)))

    async def _carry_out(self, kill: Kill, moment: str) -> None:
        self._call_back()
        await self._back(_sort(kill.victim))
        await self._town.kill(kill.victim)
        self._away = kill.victim
        if not kill.stays_away:
            self._call_back()
        self.done.append(kill)
        then = "away until the next moment" if kill.stays_away else "started again"
        sys.stderr.write(f"{len(self.done):3} kill -9 {kill.victim} at {moment}, {then}\n")

    def _call_back(self) -> None:
        """Start who is away; meanwhile anything of another sort may be killed."""
        if self._away is not None:
            away, self._away = self._away, None
            self._returning[_sort(away)] = asyncio.create_task(self._town.again(away))

    async def _back(self, *sorts: int) -> None:
        for sort in sorts:
            returning = self._returning.pop(sort, None)
            if returning is not None:
                await returning


def _sort(victim: str) -> int:
    return next(n for n, sort in enumerate(_SORTS) if victim in sort)
