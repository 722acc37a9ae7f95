"""Kills at seeded moments: which process, after how many answered lines, and for how long it stays away.

The plan is made from the seed alone; a moment is an event ("so many lines are closed at the network"), never an instant.
Databases and the network come back at once, an exchange at once or at the next moment. Two exchanges are never away at
the same time, for that would be another promise.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from chukan.tests.crash.evidence import Progress
from chukan.tests.crash.town import EXCHANGES, VICTIMS, Town

STAYS_AWAY_ONE_IN: Final = 2
"""Of the exchanges that are killed, so many stay away until the next moment."""

Number = Callable[[int, int], int]
"""Draws a whole number between two."""


class Kill(NamedTuple):
    """One moment."""

    after: int
    victim: str
    stays_away: bool


def plan(number: Number, *, kills: int, first: int, last: int) -> list[Kill]:
    """Return ``kills`` moments between two numbers of answered lines, every victim among them."""
    moments = sorted(number(first, last) for _ in range(kills))
    victims = [VICTIMS[n % len(VICTIMS)] for n in range(kills)]
    for n in range(kills - 1, 0, -1):  # Fisher-Yates
        other = number(0, n)
        victims[n], victims[other] = victims[other], victims[n]
    return [
        Kill(after, victim, victim in EXCHANGES and number(1, STAYS_AWAY_ONE_IN) == 1)
        for after, victim in zip(moments, victims, strict=True)
    ]


class Mayhem:
    """Carries a plan out, and leaves everything running."""

    def __init__(self, town: Town, progress: Progress) -> None:
        self._town = town
        self._progress = progress
        self._away: str | None = None
        self.done: list[Kill] = []

    async def run(self, plan: Sequence[Kill], over: asyncio.Event) -> None:
        """Kill at each moment until the plan is worked off; when all lines are answered before, the rest is left."""
        try:
            for kill in plan:
                if not await self._reached(kill.after, over):
                    break
                await self._back()
                await self._carry_out(kill)
        finally:
            await self._back()

    async def _reached(self, after: int, over: asyncio.Event) -> bool:
        reaching = asyncio.ensure_future(self._progress.reach(after))
        ending = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait((reaching, ending), return_when=asyncio.FIRST_COMPLETED)
            if reaching.done():
                reaching.result()
            return not ending.done()
        finally:
            reaching.cancel()
            ending.cancel()

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
