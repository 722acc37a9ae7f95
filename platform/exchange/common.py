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
from chukan.settings import Environment
from chukan.tenants.directory import Directory, SignedSnapshot, require_environment, verify
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
        environment: Environment,
        taken: Callable[[Directory], None] = lambda _: None,
    ) -> None:
        """``taken`` is told every directory that comes into force."""
        self._environment = environment
        self._taken = taken
        self._sets = sets
        self._key = key
        self._clock = clock
        self._directory: Directory | None = None
        self._seen: dict[str, float] = {}
        self._refreshing = {cell: asyncio.Lock() for cell in sets}

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
        """Read every cell once; a cell that does not answer keeps its last state.

        ``Problem`` other_environment for a cell or common data of another environment: there is nothing to go on with.
        """
        await asyncio.gather(*(self._read_alone(cell) for cell in self._sets))

    async def _read_alone(self, cell: str) -> None:
        async with self._refreshing[cell]:
            await self._read(cell)

    async def _read(self, cell: str) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                row = await self._sets[cell].snapshot()
        except (Problem, TimeoutError) as problem:
            code = getattr(problem, "code", "deadline_exceeded")
            _log.warning("common data not read", cell=cell, code=code)
            if code == "other_environment":
                raise
            return
        self._seen[cell] = self._clock.monotonic()
        if row is None or (self._directory is not None and row.number <= self._directory.number):
            return
        try:
            snapshot = verify(SignedSnapshot(body=row.body, signature=row.signature, key=row.key), self._key)
        except Problem as problem:
            _log.error("common data refused", cell=cell, code=problem.code, snapshot=row.number)
            return
        require_environment(snapshot, self._environment)
        self._directory = Directory(snapshot)
        self._taken(self._directory)
        _log.info("common data in force", cell=cell, snapshot=snapshot.number)

    async def run(self) -> None:
        """Poll until cancelled, each cell by itself: one that does not answer makes no other's data old.

        The pause is a wait with a deadline, not work.
        """
        async with asyncio.TaskGroup() as group:
            for cell in self._sets:
                group.create_task(self._poll(cell), name=f"common data {cell}")

    async def _poll(self, cell: str) -> None:
        while True:
            await self._read_alone(cell)
            await asyncio.sleep(POLL_S)
