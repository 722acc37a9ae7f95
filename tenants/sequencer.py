"""The sequencer's driver: gives every new record its place in its agency's log, one driver at work per cell.

The work is one set function (``sequence``): under the cell's advisory lock it numbers up to ``BATCH`` waiting records
in one commit. This driver calls it whenever it is woken, and each half second without, again at once while batches come
back full. Another exchange's driver may hold the lock: then this one stands by, ready to take over.

Invariant: a stuck or failing sequencer harms no request and cannot hide: the age of the oldest unnumbered record is
measured by a task of its own and goes on growing by the clock while nothing can be measured.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem

BATCH: Final = 1_000
SWEEP_S: Final = 0.5
"""Longest time without a look when nobody wakes the driver."""
STANDBY_S: Final = 2.0
"""Pause after finding that another driver holds the lock."""
FAILED_S: Final = 1.0
"""Pause after a failure."""
MEASURE_S: Final = 1.0

_BUSY_ELSEWHERE: Final = -1
_log = log.get("sequencer")


class SequencerSets(Protocol):
    """What the driver needs of a cell's set functions; each call has its own deadline."""

    async def sequence(self, owner: str, limit: int) -> int:
        """Number up to ``limit`` records and return how many; -1 when another owner holds the lock."""
        ...

    async def sequencer_age(self) -> float:
        """Return the age in seconds of the oldest record that has no place yet, 0.0 when there is none."""
        ...


class Sequencer:
    """Drives one cell's sequencing. ``on_age`` receives the age in seconds about once a second."""

    def __init__(self, sets: SequencerSets, owner: str, clock: Clock, on_age: Callable[[float], None]) -> None:
        self._sets = sets
        self._owner = owner
        self._clock = clock
        self._on_age = on_age
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._age_s = 0.0
        self._measured_at = clock.monotonic()

    def wake(self) -> None:
        """Say that there are new records; cheap, and safe to call at any time."""
        self._woken.set()

    def stop(self) -> None:
        """Let ``run`` return after the batch in flight."""
        self._stopping.set()
        self._woken.set()

    def age_s(self) -> float:
        """Return the age of the oldest unnumbered record: as measured last, and since then as time passes."""
        behind = self._clock.monotonic() - self._measured_at
        return self._age_s + behind if self._age_s > 0 or behind > 2 * MEASURE_S else 0.0

    async def run(self) -> None:
        """Work until ``stop``; returns only then, or when cancelled."""
        measuring = asyncio.create_task(self._measure())
        try:
            while not self._stopping.is_set():
                await self._pause(await self._drain())
        finally:
            measuring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await measuring

    async def _drain(self) -> float:
        """Sequence until nothing waits; return the seconds to pause."""
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                done = await self._sets.sequence(self._owner, BATCH)
            except Exception as error:  # noqa: BLE001 - a task's boundary: whatever failed, it is tried again and seen by its age
                if isinstance(error, Problem) and error.code == "cell_restored":
                    return STANDBY_S
                _log.warning("sequencing failed", owner=self._owner, exc_info=error)
                return FAILED_S
            if done == _BUSY_ELSEWHERE:
                return STANDBY_S
            if done < BATCH:
                return SWEEP_S
        return 0.0

    async def _pause(self, seconds: float) -> None:
        # Only an idle driver is woken by new records; one that stands by or failed waits its time, or for the stop.
        event = self._woken if seconds == SWEEP_S else self._stopping
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    async def _measure(self) -> None:
        while not self._stopping.is_set():
            try:
                self._age_s = max(0.0, await self._sets.sequencer_age())
                self._measured_at = self._clock.monotonic()
            except Exception as error:  # noqa: BLE001 - a task's boundary: an age that cannot be measured grows by itself
                _log.warning("the age of the sequencer cannot be measured", owner=self._owner, exc_info=error)
            self._on_age(self.age_s())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MEASURE_S):
                    await self._stopping.wait()
