"""The common data (共通データ) in this process: polled from every cell, verified, swapped in whole.

A snapshot is taken only when its signature holds and its number is higher than the one in force; a cell that is
behind is not an error for reading, but the set functions refuse provisions decided on another number than the
cell's own. Invariant: knowledge older than ten seconds stops provisions (``age_s``), because a kill switch may have
been thrown.

What waits for its time is verified as soon as it is seen, and asked for at the very instant at which it is due (by the
cell's clock), so that the cells and this process change over together. What one cell has as confirmed is confirmed in
one that has the same snapshot unconfirmed: its publisher crashed in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.platform.exchange.masters import MastersInForce
from chukan.settings import Environment
from chukan.tenants.directory import Directory, SignedSnapshot, require_environment, verify
from chukan.tenants.sets import CellSets, CommonRow

_log = log.get("exchange.common")
POLL_S: Final = 1.0
READ_TIMEOUT_S: Final = 5.0
DUE_PAUSE_S: Final = 0.02
"""After the instant at which something is due: asked a moment too early, it would be seen a second later."""


class PolledCommonData:
    """Keeps the newest verified directory; ``run`` polls once a second until cancelled."""

    def __init__(
        self,
        sets: Mapping[str, CellSets],
        key: Ed25519PublicKey,
        clock: Clock,
        environment: Environment,
        taken: Callable[[Directory], None] = lambda _: None,
        masters: MastersInForce | None = None,
    ) -> None:
        """``taken`` is told every directory that comes into force; ``masters`` fetches what directories name."""
        self._masters = masters
        self._environment = environment
        self._taken = taken
        self._sets = sets
        self._key = key
        self._clock = clock
        self._directory: Directory | None = None
        self._coming: dict[tuple[int, bytes], Directory] = {}
        self._seen: dict[str, float] = {}
        self._held: dict[str, Sequence[CommonRow]] = {}
        self._refreshing = {cell: asyncio.Lock() for cell in sets}

    @property
    def directory(self) -> Directory:
        """The newest verified directory."""
        if self._directory is None:
            raise Problem("common_data_stale", retry_after_s=2)
        return self._directory

    def age_s(self) -> float:
        """Seconds since the freshest confirmation by any cell."""
        if not self._seen or self._lacks_masters():
            return float("inf")
        return self._clock.monotonic() - max(self._seen.values())

    def _lacks_masters(self) -> bool:
        """Whether what is in force is to be judged by data that is not held here: then it is not known well enough."""
        return self._masters is not None and self._directory is not None and self._masters.lacks(self._directory)

    def cell_age_s(self, cell: str) -> float:
        """Seconds since one cell was read; infinity where it never was."""
        seen = self._seen.get(cell)
        return float("inf") if seen is None else self._clock.monotonic() - seen

    async def refresh(self) -> None:
        """Read every cell once; a cell that does not answer keeps its last state.

        ``Problem`` other_environment for a cell or common data of another environment: there is nothing to go on with.
        """
        await asyncio.gather(*(self._read_alone(cell) for cell in self._sets))

    async def _read_alone(self, cell: str) -> float:
        """Read a cell; return after how many seconds to read it again."""
        async with self._refreshing[cell]:
            return await self._read(cell)

    async def _read(self, cell: str) -> float:
        have = [number for number, _ in self._coming]
        if self._directory is not None:
            have.append(self._directory.number)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                rows = await self._sets[cell].take_snapshots(have)
        except (Problem, TimeoutError) as problem:
            code = getattr(problem, "code", "deadline_exceeded")
            _log.warning("common data not read", cell=cell, code=code)
            if code == "other_environment":
                raise
            return POLL_S
        self._seen[cell] = self._clock.monotonic()
        self._held[cell] = rows
        for row in rows:
            if row.in_force:
                self._take(cell, row)
            elif row.confirmed:
                self._prepare(cell, row)
        await self._fetch_masters(cell)
        await self._confirm(cell)
        waits = [row.wait_s + DUE_PAUSE_S for row in rows if row.wait_s is not None]
        return min([POLL_S, *waits])

    async def _fetch_masters(self, cell: str) -> None:
        """Have at hand what the common data in force and the waiting ones are judged by."""
        if self._masters is None:
            return
        for found in [*self._coming.values(), *([] if self._directory is None else [self._directory])]:
            await self._masters.fetch(cell, self._sets[cell], found)

    def _take(self, cell: str, row: CommonRow) -> None:
        if self._directory is not None and row.number <= self._directory.number:
            return
        found = self._coming.get((row.number, row.signature)) or self._open(cell, row)
        if found is None:
            return
        self._directory = found
        self._coming = {key: each for key, each in self._coming.items() if key[0] > row.number}
        self._taken(found)
        _log.info("common data in force", cell=cell, snapshot=row.number)

    def _prepare(self, cell: str, row: CommonRow) -> None:
        """Verify what waits, so that it is at hand when it is due."""
        if (row.number, row.signature) in self._coming:
            return
        found = self._open(cell, row)
        if found is not None:
            self._coming[row.number, row.signature] = found
            _log.info("common data waits", cell=cell, snapshot=row.number, seconds=row.wait_s)

    def _open(self, cell: str, row: CommonRow) -> Directory | None:
        if row.body is None:
            # Left out for another one of this number, which is forgotten now: it comes the next time.
            self._coming = {key: each for key, each in self._coming.items() if key[0] != row.number}
            return None
        try:
            snapshot = verify(SignedSnapshot(body=row.body, signature=row.signature, key=row.key), self._key)
        except Problem as problem:
            _log.error("common data refused", cell=cell, code=problem.code, snapshot=row.number)
            return None
        require_environment(snapshot, self._environment)
        return Directory(snapshot)

    async def _confirm(self, cell: str) -> None:
        """Confirm in this cell what another one has as confirmed: every cell has it, or nobody had confirmed it."""
        sure = {
            (row.number, row.signature)
            for other, rows in self._held.items()
            for row in rows
            if other != cell and row.confirmed and row.effective_at is not None
        }
        for row in self._held[cell]:
            if row.confirmed or (row.number, row.signature) not in sure:
                continue
            try:
                await self._sets[cell].confirm_snapshot(row.number, row.signature)
            except Problem as problem:
                _log.warning("common data not confirmed", cell=cell, snapshot=row.number, code=problem.code)
            else:
                _log.info("common data confirmed", cell=cell, snapshot=row.number)

    async def run(self) -> None:
        """Poll until cancelled, each cell by itself: one that does not answer makes no other's data old.

        The pause is a wait with a deadline, not work.
        """
        async with asyncio.TaskGroup() as group:
            for cell in self._sets:
                group.create_task(self._poll(cell), name=f"common data {cell}")

    async def _poll(self, cell: str) -> None:
        while True:
            pause_s = await self._read_alone(cell)
            await asyncio.sleep(pause_s)
