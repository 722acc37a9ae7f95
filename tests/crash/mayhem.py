"""Kills at seeded moments: which process, after how many answered lines, and for how long it stays away.

The plan is made from the seed alone. A moment is an event, "so many more lines are closed at the network", no instant.
Databases and the network come back at once, an exchange at once or at the next moment. Two exchanges are never away at
the same time, for that would be another promise.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.tests.crash.evidence import Progress
from chukan.tests.crash.town import VICTIMS, Town

STAYS_AWAY_ONE_IN: Final = 2
"""Of the exchanges that are killed, so many stay away until the next moment."""

Number = Callable[[int, int], int]
"""Draws a whole number between two."""


class Kill(NamedTuple):
    """One moment: after so many more lines were closed since the last victim was back (or given up for a while)."""

    after: int
    victim: str
    stays_away: bool


def plan(number: Number, *, kills: int, pause_max: int) -> list[Kill]:
    """Return ``kills`` moments with at most ``pause_max`` lines in between; every victim is among them, evenly."""
    victims = [VICTIMS[n % len(VICTIMS)] for n in range(kills)]
    for n in range(kills - 1, 0, -1):  # Fisher-Yates
        other = number(0, n)
        victims[n], victims[other] = victims[other], victims[n]
    return [
        Kill(number(1, pause_max), victim, victim in EXCHANGES and number(1, STAYS_AWAY_ONE_IN) == 1)
        for victim in victims
    ]


class Mayhem:
    """Carries a plan out, and leaves everything running."""

    def __init__(self, town: Town, progress: Progress) -> None:
        self._town = town
        self._progress = progress
        self._away: str | None = None
        self.done: list[Kill] = []
        self.finished = False

    async def run(self, plan: Sequence[Kill]) -> None:
        """Kill at each moment until the plan is worked off."""
        try:
            for kill in plan:
                await self._progress.reach(self._progress.closed + kill.after)
                await self._back()
                await self._carry_out(kill)
        finally:
            self.finished = True
            await self._back()

    async def _carry_out(self, kill: Kill) -> None:
        started = asyncio.get_running_loop().time()
        await self._town.kill(kill.victim)
        if kill.stays_away:
            self._away = kill.victim
        else:
            await self._town.again(kill.victim)
        self.done.append(kill)
        seconds = asyncio.get_running_loop().time() - started
        then = "away until the next moment" if kill.stays_away else f"back after {seconds:.1f} s"
        sys.stderr.write(f"{len(self.done):3} kill -9 {kill.victim} at {self._progress.closed} lines, {then}\n")

    async def _back(self) -> None:
        if self._away is not None:
            away, self._away = self._away, None
            await self._town.again(away)
