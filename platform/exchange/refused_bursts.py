"""Refused sign-ins that follow each other are one entry of the operations log, with their number (拒否の集約).

The first refusal of an actor is entered before it is told, as ever. Those of the same kind that follow within a minute
are counted, and entered together when the minute is over: so whoever keeps trying makes an entry a minute, not one a
try, and none of his tries is missing from the count.

Invariant: the first of a burst is durable before its reply. What was only counted is lost with the process, a minute's
at most; the account's own count of failures (the lock) is durable each time and does not depend on this. Never more
than ``KINDS_MAX`` bursts are held: beyond them each refusal is entered by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import Final

import msgspec

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.operations import Operation, OperationLog

BURST: Final = dt.timedelta(minutes=1)
EVERY_S: Final = 10.0
CLOSE_S: Final = 5.0
KINDS_MAX: Final = 10_000
_log = log.get("exchange.officers")


@dataclass(slots=True)
class _Burst:
    until: dt.datetime
    last: Operation
    more: int = 0
    """How many came after what was entered."""


class RefusedBursts:
    """Enters refusals through ``journal``; ``run`` enters what was counted."""

    def __init__(self, journal: OperationLog, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._bursts: dict[tuple[object, ...], _Burst] = {}

    async def enter(self, refusal: Operation) -> None:
        """Enter a refusal, or count it with those just before. Raises ``Problem`` as ``Journal.append``."""
        key = (refusal.agency, refusal.actor, refusal.kind, refusal.subject_class, refusal.code)
        burst = self._bursts.get(key)
        if burst is not None:
            burst.more += 1
            burst.last = refusal
            return
        full = len(self._bursts) >= KINDS_MAX
        if not full:
            self._bursts[key] = _Burst(refusal.at + BURST, refusal)
        try:
            await self._journal.append(refusal)
        except BaseException:
            # Nothing stands for those that were counted meanwhile; they are entered with the next look.
            if not full:
                self._bursts[key].until = refusal.at
            raise

    async def write(self, *, everything: bool = False) -> None:
        """Enter what was counted in bursts that are over, or in all. What could not be entered is kept."""
        now = self._clock.now()
        for key, burst in list(self._bursts.items()):
            if not everything and now < burst.until:
                continue
            counted = dataclasses.replace(burst)
            if counted.more:
                await self._journal.append(msgspec.structs.replace(counted.last, times=counted.more))
                # What was counted while that was written opens the next minute.
                burst.more -= counted.more
                burst.until = now + BURST
            if not burst.more and (everything or not counted.more):
                del self._bursts[key]

    async def run(self) -> None:
        """Write every ten seconds, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.write()
            except Problem as problem:
                _log.warning("refused sign-ins not entered", code=problem.code, count=len(self._bursts))

    async def close(self) -> None:
        """Write all that was counted; what cannot be written now is lost, and said."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.write(everything=True)
        except (Problem, TimeoutError):
            _log.error("refused sign-ins not entered", count=len(self._bursts))
