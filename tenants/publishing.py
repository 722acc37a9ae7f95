"""Publishing the common data (共通データ): the next signed snapshot into every cell, by the steward's login.

The next snapshot is derived from what stands in the cells, put into them in the order of their names, and refused by a
cell that has this number already: so of two operators at the same time the second one derives again, from what the
first one did. Whatever a crash leaves (a cell that is behind) the next call repairs, even one that changes nothing.

A kill switch may be published past a cell that is away. Two cells may then disagree for a while; what is derived from
them keeps every agency that any cell knows and **every stop that stands in any cell**: a stop ends only where it was
lifted everywhere.

Invariant: nothing is published that was not derived from verified snapshots, and signed. Makes its numbers from the
newest one, so a number never means two things in one cell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, bounded, translate
from chukan.tenants import births, directory
from chukan.tenants.changes import Changes
from chukan.tenants.directory import AgencyRow, SignedSnapshot, Snapshot, Stop
from chukan.tenants.sets import CellSets

READ_TIMEOUT_S: Final = 10.0
PUT_TIMEOUT_S: Final = 15.0
TURN_TIMEOUT_S: Final = 90.0
_TRIES_MAX: Final = 8

_log = log.get("publishing")

Ready = Callable[[Sequence[AgencyRow]], Awaitable[None]]
"""Makes what new agencies need before anybody is told of them."""


class Common(NamedTuple):
    """The common data as it stands in the cells."""

    snapshot: Snapshot | None
    """What holds, taken together; None when no cell has any."""
    numbers: dict[str, int | None]
    """The number in force in each cell that answered, None where there is none yet."""
    missing: tuple[str, ...]
    """Cells that did not answer."""
    settled: bool
    """Whether every cell has exactly ``snapshot`` in force."""


class Published(NamedTuple):
    """What was published, and where."""

    snapshot: Snapshot
    changed: bool
    """False when everything stood like this already, in every cell that answered."""
    missing: tuple[str, ...]
    """Cells that could not be told; only a kill switch is published past one."""


async def read_common(cells: Cells, public: Ed25519PublicKey, *, past_missing: bool = False) -> Common:
    """Read and verify the snapshot in force in every cell.

    Args:
        cells: the connection provider.
        public: the key that the common data must be signed with.
        past_missing: go on without cells that do not answer, as long as one does.

    Raises:
        Problem: no_primary, unavailable, busy of a cell; signature_invalid; other_environment.
    """
    found: dict[str, SignedSnapshot | None] = {}
    missing: list[str] = []
    for name in sorted(cells.names):
        try:
            found[name] = await _read(cells, name)
        except Problem:
            if not past_missing or len(missing) + 1 == len(cells.names):
                raise
            missing.append(name)
    opened = {name: directory.verify(each, public) for name, each in found.items() if each is not None}
    for each in opened.values():
        directory.require_environment(each, cells.environment)
    snapshot = merge(opened) if opened else None
    bodies = {None if each is None else each.body for each in found.values()}
    settled = not missing and snapshot is not None and bodies == {directory.canonical(snapshot)}
    numbers = {name: opened[name].number if name in opened else None for name in found}
    return Common(snapshot, numbers, tuple(missing), settled)


async def _read(cells: Cells, name: str) -> SignedSnapshot | None:
    row = await CellSets(cells.primary(name).broker, timeout_s=READ_TIMEOUT_S).snapshot()
    return None if row is None else SignedSnapshot(body=row.body, signature=row.signature, key=row.key)


def merge(found: Mapping[str, Snapshot]) -> Snapshot:
    """Return what holds when cells have these snapshots: the newest one, and what may not be lost of the others.

    ``found`` is by cell and not empty. Of two under one number, that of the cell whose name comes first counts.
    """
    newest = max((found[name] for name in sorted(found)), key=lambda each: each.number)  # the first of equals
    agencies = list(newest.agencies)
    stops: dict[tuple[str | None, str | None], Stop] = {}
    for snapshot in (newest, *found.values()):
        numbers, codes = {row.number for row in agencies}, {row.code for row in agencies}
        agencies += [row for row in snapshot.agencies if row.number not in numbers and row.code not in codes]
        stops.update({(stop.kind, stop.procedure): stop for stop in snapshot.stopped})
    if len(agencies) == len(newest.agencies) and len(stops) == len(newest.stopped):
        return newest
    return msgspec.structs.replace(newest, agencies=agencies, stopped=list(stops.values()))


class Publisher:
    """Publishes changes; holds the key that signs the common data."""

    def __init__(self, cells: Cells, key: Ed25519PrivateKey, clock: Clock, law_number: int | str) -> None:
        """``law_number`` goes into the very first snapshot."""
        self._cells = cells
        self._key = key
        self._clock = clock
        self._law_number = law_number

    async def publish(self, changes: Changes, *, ready: Ready | None = None, past_missing: bool = False) -> Published:
        """Put the snapshot that comes of the changes in force in every cell; safe to repeat after any failure.

        Args:
            changes: what must hold afterwards.
            ready: called with the agencies that are new, before anything is published, while no other operator adds
                any; called again when something else was published meanwhile.
            past_missing: publish to the cells that answer although others do not; for kill switches only.

        Raises:
            Problem: as ``read_common``, ``Changes.apply`` and ``ready`` say; busy when others keep publishing. Cells
                that were told before a failure keep what they were told: call again.
        """
        async with AsyncExitStack() as stack:
            alone = False
            for _ in range(_TRIES_MAX):
                common = await read_common(self._cells, self._key.public_key(), past_missing=past_missing)
                wanted = self._derive(changes, common)
                if wanted is common.snapshot:
                    for name in common.numbers:
                        await CellSets(self._cells.primary(name).broker).confirm()
                    return Published(wanted, changed=False, missing=())
                new = _new_agencies(common, wanted)
                if ready is not None and new and not alone:
                    await stack.enter_async_context(self._turn())
                    alone = True
                    continue  # somebody may have used the number while we waited
                if ready is not None:
                    await ready(new)
                missing = await self._put(wanted, past_missing=past_missing)
                if missing is not None:
                    return Published(wanted, changed=True, missing=missing)
        raise Problem("busy", retry_after_s=1)

    def _derive(self, changes: Changes, common: Common) -> Snapshot:
        """Return the snapshot to publish, or the very one that stands in every cell already."""
        at = self._clock.now()
        if common.snapshot is None:
            return changes.apply(directory.first(at, self._law_number, self._cells.environment), at)
        wanted = changes.apply(common.snapshot, at)
        if wanted is common.snapshot and not common.settled:
            # The cells differ: a new number makes them agree.
            return directory.set_law(wanted, at, wanted.law_number)
        return wanted

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until no other operator brings agencies into being; ``Problem`` busy after a minute."""
        async with self._cells.steward(min(self._cells.names)) as steward:
            try:
                await bounded(steward, steward.execute("SELECT chukan.arrival_turn()"), TURN_TIMEOUT_S)
            except DRIVER_ERRORS as error:
                raise translate(error) from None
            yield

    async def _put(self, snapshot: Snapshot, *, past_missing: bool) -> tuple[str, ...] | None:
        """Put a snapshot into the cells and return those that were away, or None when another one was quicker."""
        signed = directory.sign(snapshot, self._key)
        missing: list[str] = []
        for name in sorted(self._cells.names):
            try:
                await self._put_one(name, snapshot.number, signed)
            except Problem as problem:
                if problem.code == "common_data_stale":
                    return None
                _log.error("common data not published", cell=name, snapshot=snapshot.number, code=problem.code)
                if not past_missing or len(missing) + 1 == len(self._cells.names):
                    raise
                missing.append(name)
            else:
                _log.info("common data published", cell=name, snapshot=snapshot.number)
        return tuple(missing)

    async def _put_one(self, name: str, number: int, signed: SignedSnapshot) -> None:
        try:
            async with self._cells.steward(name) as steward:
                put = births.put_snapshot(steward, number, signed.body, signed.signature, signed.key)
                await bounded(steward, put, PUT_TIMEOUT_S)
        except DRIVER_ERRORS as error:
            raise translate(error) from None


def _new_agencies(common: Common, wanted: Snapshot) -> list[AgencyRow]:
    known = {row.number for row in common.snapshot.agencies} if common.snapshot is not None else set()
    return [row for row in wanted.agencies if row.number not in known]
