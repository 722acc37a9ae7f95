"""What the gate refused, gathered in memory and written to the cell that has the links (接続の拒否記録).

The gate tells it synchronously, in constant time and memory: the same (peer, body, tunnel, code) is one line with a
count, ``KINDS_MAX`` are told apart, and all beyond them is one line with empty fields, so that a flood costs a number.
What could not be written is kept, with its ids, and written again: a line is entered once, come what may. Never more
is kept than twice what may be gathered.

Invariant: no request waits for any of this, none fails by it, and nothing that a caller said of itself is kept.
"""

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chukan import log
from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.link_refusals import SET_MAX, Refusal

EVERY_S: Final = 5.0
KINDS_MAX: Final = 500
_TIMES_MAX: Final = 2**31 - 1
_WIDTHS: Final = (200, 6, 5, 64)
"""What the columns hold: a line that does not fit must not keep all others out."""
_REST: Final = ("", "", "", "")
_log = log.get("http.refusals")

Enter = Callable[[Sequence[Refusal]], Awaitable[int]]
"""Enters at most ``SET_MAX`` lines in one commit; raises ``Problem``. What has been entered may be entered again."""


@dataclass(slots=True)
class _Count:
    first: dt.datetime
    last: dt.datetime
    times: int = 0


class Refusals:
    """Gathers what ``tell`` is told, and writes it while ``run`` runs."""

    def __init__(self, exchange: str, enter: Enter, clock: Clock, chance: Chance) -> None:
        self._exchange = exchange
        self._enter = enter
        self._clock = clock
        self._chance = chance
        self._gathered: dict[tuple[str, ...], _Count] = {}
        self._leaving: deque[Refusal] = deque()

    def tell(self, peer: str, body: str, tunnel: str, code: str) -> None:
        """Count one refusal; see ``Refusal`` for the fields. Never raises, and waits for nothing."""
        key: tuple[str, ...] = tuple(
            text[:width] for text, width in zip((peer, body, tunnel, code), _WIDTHS, strict=True)
        )
        if key not in self._gathered and len(self._gathered) >= KINDS_MAX:
            key = _REST
        now = self._clock.now()
        count = self._gathered.setdefault(key, _Count(now, now))
        count.last = max(count.last, now)
        count.times = min(count.times + 1, _TIMES_MAX)

    async def run(self) -> None:
        """Write every five seconds, until cancelled; what a call was cut off from is still kept."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.write()

    async def write(self) -> bool:
        """Write what there is; False where something had to be kept for the next time."""
        try:
            await self._send()  # what was kept has its ids, and goes first
            self._leave()
            await self._send()
        except Problem as problem:
            _log.warning("refusals not written", code=problem.code, count=len(self._leaving) + len(self._gathered))
            return False
        return True

    def _leave(self) -> None:
        for (peer, body, tunnel, code), count in self._gathered.items():
            line = Refusal(
                id=self._chance.uuid7(),
                at=count.first,
                until=count.last,
                exchange=self._exchange,
                peer=peer,
                body=body,
                tunnel=tunnel,
                code=code,
                times=count.times,
            )
            self._leaving.append(line)
        self._gathered = {}

    async def _send(self) -> None:
        while self._leaving:
            part = [self._leaving[place] for place in range(min(SET_MAX, len(self._leaving)))]
            await self._enter(part)
            for _ in part:
                self._leaving.popleft()
