"""The common data (共通データ) in this process: polled from every cell, verified, swapped in whole.

A snapshot is taken only when its signature holds and its number is higher than the one in force; a cell that is
behind is not an error for reading, but the set functions refuse provisions decided on another number than the
cell's own. Invariant: knowledge older than ten seconds stops provisions (``age_s``), because a kill switch may have
been thrown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.directory import Directory, SignedSnapshot, verify
from chukan.tenants.sets import CellSets

_log = log.get("exchange.common")
POLL_S = 1.0
READ_TIMEOUT_S = 5.0


class PolledCommonData:
    """Keeps the newest verified directory; ``run`` polls once a second until cancelled."""

    def __init__(
        self,
        sets: Mapping[str, CellSets],
        key: Ed25519PublicKey,
        clock: Clock,
        taken: Callable[[Directory], None] = lambda _: None,
    ) -> None:
        """``taken`` is told every directory that comes into force."""
        self._taken = taken
        self._sets = sets
        self._key = key
        self._clock = clock
        self._directory: Directory | None = None
        self._seen: dict[str, float] = {}
        self._refreshing = asyncio.Lock()

    @property
    def directory(self) -> Directory:
        """The newest verified directory."""
        if self._directory is None:
            raise Problem("common_data_stale", retry_after_s=2)
        return self._directory

    def age_s(self) -> float:
        """Seconds since the freshest confirmation by any cell."""
        if not self._seen:
            return float("inf")
        return self._clock.monotonic() - max(self._seen.values())

    async def refresh(self) -> None:
        """Read every cell once; a cell that does not answer keeps its last state."""
        async with self._refreshing:
            await asyncio.gather(*(self._read(cell) for cell in self._sets))

    async def _read(self, cell: str) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                row = await self._sets[cell].snapshot()
        except (Problem, TimeoutError) as problem:
            _log.warning("common data not read", cell=cell, code=getattr(problem, "code", "deadline_exceeded"))
            return
        self._seen[cell] = self._clock.monotonic()
        if row is None or (self._directory is not None and row.number <= self._directory.number):
            return
        try:
            snapshot = verify(SignedSnapshot(body=row.body, signature=row.signature, key=row.key), self._key)
        except Problem as problem:
            _log.error("common data refused", cell=cell, code=problem.code, snapshot=row.number)
            return
        self._directory = Directory(snapshot)
        self._taken(self._directory)
        _log.info("common data in force", cell=cell, snapshot=snapshot.number)

    async def run(self) -> None:
        """Poll until cancelled; the pause is a wait with a deadline, not work."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)
