"""The desk for load sessions (副本登録): law before storage, and every refused line by its number and code (REP-02).

A load says at its commit what it does with refused lines: ``reject_line`` leaves them out, ``reject_file`` refuses the
whole. Until then both are told which lines they are. Opening is idempotent by its key; parts, commit, release and abort
are idempotent by themselves.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from chukan.clock import Clock, today_jst
from chukan.errors import Problem
from chukan.platform.http import problems
from chukan.platform.http.desks.door import Door, Keys
from chukan.platform.http.desks.lines import checked_copy
from chukan.platform.wire.agency import Load
from chukan.platform.wire.compare import CopyDifference, DifferenceCounts, LoadDifferences
from chukan.tenants import idempotency, load_compare, loads

if TYPE_CHECKING:
    from chukan.chance import Chance
    from chukan.platform.http.ports import PartLine, PartSource, RequestKey
    from chukan.platform.law import Law
    from chukan.platform.metrics import Metrics
    from chukan.platform.wire.agency import LoadCommit, LoadOpen
    from chukan.platform.wire.compare import LoadCompare
    from chukan.tenants.copies import Copy
    from chukan.tenants.directory import AgencyRow, ClientRow
    from chukan.tenants.partition import Partition


BULK_MAX: Final = 2
"""Parts and commits at work at once in one cell: the other connections of door 1 are for the counters (TEN-04)."""
BULK_WAIT_S: Final = 10.0
STAGE_TIMEOUT_S: Final = 120.0
COMMIT_TIMEOUT_S: Final = 1_740.0
"""Deadlines of single statements: staging one part, and merging up to five million rows."""


class PartitionLoads:
    """Implements ``ports.LoadDesk``; ``bulk_max`` parts and commits work at once in one cell."""

    def __init__(
        self,
        door: Door,
        keys: Keys,
        law: Law,
        clock: Clock,
        chance: Chance,
        metrics: Metrics,
        *,
        bulk_max: int = BULK_MAX,
    ) -> None:
        self._bulk_max = bulk_max
        self._bulk: dict[str, asyncio.Semaphore] = {}
        self._door = door
        self._keys = keys
        self._law = law
        self._clock = clock
        self._chance = chance
        self._metrics = metrics

    @asynccontextmanager
    async def _bulky(self, agency: AgencyRow, timeout_s: float) -> AsyncIterator[Partition]:
        """Open the partition for bulk work, in turn. Raises ``Problem`` busy when the turn does not come soon."""
        turn = self._bulk.setdefault(agency.cell, asyncio.Semaphore(self._bulk_max))
        try:
            async with asyncio.timeout(BULK_WAIT_S):
                await turn.acquire()
        except TimeoutError:
            raise Problem("busy", retry_after_s=5) from None
        try:
            async with self._door(agency, timeout_s=timeout_s) as partition:
                yield partition
        finally:
            turn.release()

    async def open(self, agency: AgencyRow, body: LoadOpen, key: RequestKey) -> Load:
        """Begin a session for a kind, a layout and a period that exist."""
        self._law.validate_period(body.kind, body.period)
        if self._law.layout(body.kind, body.layout) is None:
            raise Problem("unknown_layout", pointer="/layout")
        spec = loads.LoadSpec(
            kind=body.kind,
            layout=body.layout,
            mode=body.mode,
            expected=body.expected,
            period=body.period,
            on_error=body.on_error,
            source=body.source,
        )
        keys = self._keys(agency.number)
        async with self._door(agency) as partition:
            claim = await idempotency.claim(partition, keys, key.key, key.content, self._chance.uuid7())
            return _view(await loads.open_load(partition, spec, load=claim.outcome, at=self._clock.now()))

    async def get(self, agency: AgencyRow, load: uuid.UUID) -> Load:
        """Return a session."""
        async with self._door(agency) as partition:
            return _view(await loads.get(partition, load))

    async def part(self, agency: AgencyRow, load: uuid.UUID, part: int, source: PartSource) -> Load:
        """Check a part line by line and stage what may be stored."""
        refused: list[loads.Refused] = []
        keys = self._keys(agency.number)
        async with self._bulky(agency, STAGE_TIMEOUT_S) as partition:
            spec = (await loads.get(partition, load)).spec
            # The refusals grow while the lines are staged, and are noted after the last one.
            staged = await loads.put_part(
                partition,
                keys,
                load,
                part,
                self._copies(spec, source, refused),
                digest=source.digest,
                refused=refused,
            )
        self._metrics.load_lines(taken=staged.staged, refused=len(refused))
        return _view(staged)

    async def _copies(
        self, spec: loads.LoadSpec, source: PartSource, refused: list[loads.Refused]
    ) -> AsyncIterator[Copy]:
        for bunch in source.bunches():
            for line in bunch:
                try:
                    yield self._checked(spec, line)
                except Problem as problem:
                    refused.append(loads.Refused(line.number, problem.code))

    def _checked(self, spec: loads.LoadSpec, line: PartLine) -> Copy:
        if line.problem is not None or line.effective_from is None or line.items is None:
            raise line.problem or Problem("bad_line")
        return checked_copy(
            self._law,
            today_jst(self._clock),
            addressee=line.addressee,
            kind=spec.kind,
            layout=spec.layout,
            period=spec.period,
            effective_from=line.effective_from,
            items=line.items,
            review=line.review,
        )

    async def commit(self, agency: AgencyRow, load: uuid.UUID, body: LoadCommit) -> Load:
        """Put a session into force. Raises ``Problem`` load_held_for_officer where it would drop too many persons."""
        return await self._commit(agency, load, body, released=False)

    async def release(self, agency: AgencyRow, officer: ClientRow, load: uuid.UUID, body: LoadCommit) -> Load:
        """Put a held session into force; the officer names by its digest what was looked at."""
        _ = officer
        return await self._commit(agency, load, body, released=True)

    async def _commit(self, agency: AgencyRow, load: uuid.UUID, body: LoadCommit, *, released: bool) -> Load:
        async with self._bulky(agency, COMMIT_TIMEOUT_S) as partition:
            merged = await loads.commit(
                partition,
                load,
                digest=bytes.fromhex(body.digest),
                at=self._clock.now(),
                officer_released=released,
            )
        # Only now, for the hold itself had to be committed.
        if merged.state == "held":
            raise Problem("load_held_for_officer")
        return _view(merged)

    async def compare(self, agency: AgencyRow, load: uuid.UUID, body: LoadCompare) -> LoadDifferences:
        """Say what an open load, once all of it is there, says otherwise than the copies in force (原本照合)."""
        keys = self._keys(agency.number)
        counts = None
        async with self._bulky(agency, STAGE_TIMEOUT_S) as partition:
            found = await loads.get(partition, load)
            if found.state not in {"open", "held"}:
                raise Problem("load_not_open")
            if found.staged + found.refused != found.spec.expected:
                # What has not come yet would pass for missing in the original.
                raise Problem("load_count_mismatch")
            if body.after is None:
                counts = DifferenceCounts(**(await load_compare.count(partition, load, found.spec))._asdict())
            page = await load_compare.page(partition, keys, load, found.spec, after=body.after, limit=body.limit)
        return LoadDifferences(
            load=load, counts=counts, differences=[_difference(each) for each in page.differences], next=page.next
        )

    async def abort(self, agency: AgencyRow, load: uuid.UUID) -> Load:
        """Drop what was staged."""
        async with self._door(agency) as partition:
            return _view(await loads.abort(partition, load))


def _difference(found: load_compare.Difference) -> CopyDifference:
    return CopyDifference(
        difference=found.kind,
        addressee=found.addressee,
        effective_from=found.effective_from,
        items=list(found.items),
        review=found.review,
    )


def _view(load: loads.Load) -> Load:
    spec = load.spec
    refused = [Problem(line.code, line=line.line, pointer=f"/parts/{line.part}") for line in load.problems]
    return Load(
        id=load.id,
        kind=spec.kind,
        layout=spec.layout,
        mode=spec.mode,
        period=spec.period,
        state=load.state,
        expected=spec.expected,
        staged=load.staged,
        refused=load.refused,
        parts=load.parts,
        problems=tuple(problems.body_of(problem) for problem in refused),
        inserted=load.inserted,
        updated=load.updated,
        unchanged=load.unchanged,
        deleted=load.deleted,
    )
