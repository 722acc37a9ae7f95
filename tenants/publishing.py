"""Publishing the common data (共通データ): the next signed snapshot into every cell, by the steward's login.

A change takes effect at a stated time (DESIGN §7): it is put into every cell as one that waits, read back from every
cell, and only then confirmed in each; from then on it comes into force by itself, in every cell at the same time. While
a cell is away nothing new is confirmed: the change waits. A kill switch goes at once, and may go past a cell that is
away; what waits is then derived anew on top of it, and keeps its time. So is what waits for a time far ahead (master
data that changes at a midnight to come) when an ordinary change overtakes it.

Whatever a crash leaves the next call repairs, even one that changes nothing: what no cell has confirmed is withdrawn,
what one has confirmed is confirmed in all (exchanges do that as well), and a cell that is behind catches up.

Two cells may disagree after a kill switch went past one of them; what is derived from them keeps every agency that any
cell knows and **every stop that stands in any cell**: a stop ends only where it was lifted everywhere.

Invariant: nothing is published that was not derived from verified snapshots, and signed. Makes its numbers from the
newest one, so a number never means two things in one cell. Of those who publish for a stated time one has the turn.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, bounded, translate
from chukan.settings import LEAD_MIN_S
from chukan.tenants import births, directory
from chukan.tenants.births import PlannedSnapshot
from chukan.tenants.changes import Changes
from chukan.tenants.directory import AgencyRow, SignedSnapshot, Snapshot, Stop
from chukan.tenants.sets import CellSets, CommonRow

READ_TIMEOUT_S: Final = 10.0
PUT_TIMEOUT_S: Final = 15.0
TURN_TIMEOUT_S: Final = 90.0
STAGING_S: Final = 10.0
"""What putting, reading back and confirming may take, on top of the lead: later than that it is done anew."""
OVERTAKEN_AFTER: Final = dt.timedelta(minutes=15)
"""What waits for longer than this is overtaken by other changes; what is due sooner they wait for."""
_TRIES_MAX: Final = 8

_log = log.get("publishing")

Ready = Callable[[Sequence[AgencyRow]], Awaitable[None]]
"""Makes what new agencies need before anybody is told of them."""


class Waiting(NamedTuple):
    """Common data that every cell has confirmed, and when it comes into force."""

    snapshot: Snapshot
    effective_at: dt.datetime


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
    waiting: tuple[Waiting, ...]
    """What will come into force, in order."""
    whole: bool
    """Whether exactly this waits in every cell that answered, confirmed: nothing is half done."""
    held: Mapping[str, tuple[CommonRow, ...]]
    """Everything in each cell that answered: what is in force, and what waits, confirmed or not."""

    @property
    def coming(self) -> Snapshot | None:
        """What will hold once everything that waits is in force."""
        return self.waiting[-1].snapshot if self.waiting else self.snapshot

    @property
    def newest(self) -> int:
        """The highest number that any cell has for anything, 0 when there is none."""
        return max((row.number for rows in self.held.values() for row in rows), default=0)


class Published(NamedTuple):
    """What was published, and where."""

    snapshot: Snapshot
    changed: bool
    """False when everything stood like this already, in every cell that answered."""
    missing: tuple[str, ...]
    """Cells that could not be told; only a kill switch is published past one."""
    effective_at: dt.datetime | None = None
    """When it comes into force; None for what is in force already."""


class _Plan(NamedTuple):
    """What every cell is to have: ``now`` in force at once if given, ``waiting`` confirmed, ``staged`` not yet."""

    now: Snapshot | None
    waiting: tuple[Waiting, ...]
    staged: Waiting | None
    known: tuple[int, ...]
    """Numbers of confirmed ones that were seen waiting and may go."""


async def read_common(cells: Cells, public: Ed25519PublicKey, *, past_missing: bool = False) -> Common:
    """Read and verify the common data in every cell: in force, and waiting. What is due comes into force by it.

    Args:
        cells: the connection provider.
        public: the key that the common data must be signed with.
        past_missing: go on without cells that do not answer, as long as one does.

    Raises:
        Problem: no_primary, unavailable, busy of a cell; signature_invalid; other_environment.
    """
    held: dict[str, tuple[CommonRow, ...]] = {}
    missing: list[str] = []
    for name in sorted(cells.names):
        try:
            held[name] = await _read(cells, name)
        except Problem:
            if not past_missing or len(missing) + 1 == len(cells.names):
                raise
            missing.append(name)
    opened: dict[tuple[str, int], Snapshot] = {}
    for name, rows in held.items():
        for row in rows:
            opened[name, row.number] = _open(row, public, cells)
    in_force = {name: opened[name, row.number] for name, rows in held.items() for row in rows if row.in_force}
    snapshot = merge(in_force) if in_force else None
    settled = snapshot is not None and len(in_force) == len(cells.names)
    settled = settled and len({directory.canonical(each) for each in (snapshot, *in_force.values()) if each}) == 1
    numbers = {name: in_force[name].number if name in in_force else None for name in held}
    waiting = _waiting(held, opened, 0 if snapshot is None else snapshot.number)
    wanted = [(each.snapshot.number, directory.canonical(each.snapshot), each.effective_at, True) for each in waiting]
    whole = all(
        [(row.number, row.body, row.effective_at, row.confirmed) for row in rows if not row.in_force] == wanted
        for rows in held.values()
    )
    return Common(snapshot, numbers, tuple(missing), settled, waiting, whole, held)


def _waiting(
    held: Mapping[str, Sequence[CommonRow]], opened: Mapping[tuple[str, int], Snapshot], in_force: int
) -> tuple[Waiting, ...]:
    """Return what any cell has as confirmed, above what is in force anywhere, by number."""
    found: dict[int, Waiting] = {}
    for name, rows in held.items():
        for row in rows:
            if row.confirmed and not row.in_force and row.effective_at is not None and row.number > in_force:
                found.setdefault(row.number, Waiting(opened[name, row.number], row.effective_at))
    return tuple(found[number] for number in sorted(found))


async def _read(cells: Cells, name: str) -> tuple[CommonRow, ...]:
    return tuple(await CellSets(cells.primary(name).broker, timeout_s=READ_TIMEOUT_S).take_snapshots())


def _open(row: CommonRow, public: Ed25519PublicKey, cells: Cells) -> Snapshot:
    signed = SignedSnapshot(body=row.body or b"", signature=row.signature, key=row.key)
    snapshot = directory.verify(signed, public)
    if snapshot.number != row.number:
        raise Problem("signature_invalid")
    directory.require_environment(snapshot, cells.environment)
    return snapshot


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

    def __init__(
        self, cells: Cells, key: Ed25519PrivateKey, clock: Clock, law_number: int | str, *, lead_s: float = LEAD_MIN_S
    ) -> None:
        """``law_number`` goes into the very first snapshot; ``lead_s`` is how far ahead changes take effect."""
        self._cells = cells
        self._key = key
        self._clock = clock
        self._law_number = law_number
        self._lead = dt.timedelta(seconds=lead_s)

    @property
    def public(self) -> Ed25519PublicKey:
        """The half that everybody verifies with."""
        return self._key.public_key()

    async def publish(
        self,
        changes: Changes,
        *,
        ready: Ready | None = None,
        at_once: bool = False,
        past_missing: bool = False,
        effective_at: dt.datetime | None = None,
    ) -> Published:
        """Have the snapshot that comes of the changes take effect in every cell; safe to repeat after any failure.

        Args:
            changes: what must hold afterwards.
            ready: called with the agencies that are new, before anything is published, while no other operator adds
                any; called again when something else was published meanwhile. Not for ``at_once``.
            at_once: in force at once in each cell, and in everything that waits: for kill switches and moves.
            past_missing: publish at once to the cells that answer although others do not; for kill switches only.
            effective_at: when it takes effect, if that is later than what the lead demands. Not for ``at_once``.

        Raises:
            Problem: as ``read_common``, ``Changes.apply`` and ``ready`` say; busy when others keep publishing. Cells
                that were told before a failure keep what they were told: call again.
        """
        repaired = False
        async with AsyncExitStack() as stack:
            if not at_once:
                await stack.enter_async_context(self.turn())
            for _ in range(_TRIES_MAX):
                common = await read_common(self._cells, self.public, past_missing=past_missing)
                if not at_once and common.snapshot is not None and not common.settled:
                    # The cells differ: a new number makes them agree, before anything else is built upon it.
                    repaired = await self._carry_out(self._at_once(Changes(), common), past_missing=False) is not None
                    continue
                plan = self._at_once(changes, common) if at_once else self._for_later(changes, common, effective_at)
                if plan is None:
                    return await self._unchanged(common, changes, changed=repaired)
                result = (plan.staged.snapshot if plan.staged else plan.now) or common.coming
                if ready is not None and not at_once and result is not None:
                    await ready(_new_agencies(common, result))
                missing = await self._carry_out(plan, past_missing=past_missing)
                if missing is not None and result is not None:
                    return Published(result, changed=True, missing=missing, effective_at=self._later(plan.staged))
        raise Problem("busy", retry_after_s=1)

    async def _unchanged(self, common: Common, changes: Changes, *, changed: bool) -> Published:
        for name in common.numbers:
            await CellSets(self._cells.primary(name).broker).confirm()
        if common.coming is None:
            raise AssertionError("without any common data there is always something to publish")
        held = [Waiting(common.snapshot, self._clock.now())] if common.snapshot is not None else []
        found = (*held, *common.waiting)[-1]
        for each in reversed([*held, *common.waiting]):
            if not self._stands(changes, each.snapshot):
                break
            found = each
        return Published(found.snapshot, changed=changed, missing=(), effective_at=self._later(found))

    def _stands(self, changes: Changes, snapshot: Snapshot) -> bool:
        """Whether the changes hold in a snapshot already."""
        try:
            return changes.apply(snapshot, self._clock.now()) is snapshot
        except Problem:
            return False

    def _later(self, waiting: Waiting | None) -> dt.datetime | None:
        """When it comes into force, None where that is not in the future."""
        if waiting is None or waiting.effective_at <= self._clock.now():
            return None
        return waiting.effective_at

    # ------------------------------------------------------------ plans

    def _at_once(self, changes: Changes, common: Common) -> _Plan | None:
        """Return what puts the changes in force at once, under what waits; None when they stand everywhere."""
        at = self._clock.now()
        base = common.snapshot or directory.first(at, self._law_number, self._cells.environment)
        now = changes.apply(base, at)
        waiting = [Waiting(changes.apply(each.snapshot, at), each.effective_at) for each in common.waiting]
        pairs = zip(waiting, common.waiting, strict=True)
        same = now is base and all(new.snapshot is old.snapshot for new, old in pairs)
        if same and common.settled and common.whole:
            return None
        number = max(common.newest + 1, now.number)
        numbered = [directory.renumber(now, number, at)]
        numbered += [directory.renumber(each.snapshot, number + n, at) for n, each in enumerate(waiting, 1)]
        later = tuple(Waiting(new, old.effective_at) for new, old in zip(numbered[1:], waiting, strict=True))
        return _Plan(numbered[0], later, None, _numbers(common))

    def _for_later(self, changes: Changes, common: Common, effective_at: dt.datetime | None) -> _Plan | None:
        """Return what has the changes take effect at a stated time; None when nothing is left to do."""
        at = self._clock.now()
        if common.coming is None:
            # Nothing is in force yet that anybody could go by until then.
            return self._at_once(changes, common)
        when = at + self._lead + (dt.timedelta(seconds=STAGING_S) if self._lead else dt.timedelta())
        when = when if effective_at is None else max(when, effective_at)
        before, after = _divide(common, max(when, at + OVERTAKEN_AFTER))
        base = before[-1].snapshot if before else common.snapshot
        if base is None:
            raise AssertionError("what waits alone is not divided")
        wanted = changes.apply(base, at)
        derived = [changes.apply(each.snapshot, at) for each in after]
        if wanted is base and all(new is old.snapshot for new, old in zip(derived, after, strict=True)):
            return None if common.whole else _Plan(None, common.waiting, None, _numbers(common))
        if before:
            when = max(when, before[-1].effective_at)
        number = common.newest + 1
        later = tuple(
            Waiting(directory.renumber(new, number + n, at), old.effective_at)
            for n, (new, old) in enumerate(zip(derived, after, strict=True), 1)
        )
        staged = None if wanted is base else Waiting(directory.renumber(wanted, number, at), when)
        return _Plan(None, (*before, *later), staged, _numbers(common))

    # ------------------------------------------------------------ carrying out

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn to publish for a stated time, or to move an agency; ``Problem`` busy after a minute."""
        async with self._cells.steward(min(self._cells.names)) as steward:
            try:
                await bounded(steward, steward.execute("SELECT chukan.arrival_turn()"), TURN_TIMEOUT_S)
            except DRIVER_ERRORS as error:
                raise translate(error) from None
            yield

    async def _carry_out(self, plan: _Plan | None, *, past_missing: bool) -> tuple[str, ...] | None:
        """Bring every cell to the plan; return those that were away, or None when somebody else was quicker."""
        if plan is None:
            return ()
        rows = self._rows(plan)
        number = rows[-1].number if rows else 0
        missing: list[str] = []
        for name in sorted(self._cells.names):
            try:
                await self._put(name, rows, plan.known)
            except Problem as problem:
                if problem.code == "common_data_stale":
                    return None
                _log.error("common data not published", cell=name, snapshot=number, code=problem.code)
                if not past_missing or len(missing) + 1 == len(self._cells.names):
                    raise
                missing.append(name)
            else:
                _log.info("common data published", cell=name, snapshot=number)
        if plan.staged is not None and not await self._confirm(rows[-1], plan.staged):
            return None
        return tuple(missing)

    def _rows(self, plan: _Plan) -> list[PlannedSnapshot]:
        rows = []
        given: list[tuple[Snapshot, dt.datetime | None, bool]] = [] if plan.now is None else [(plan.now, None, True)]
        given += [(each.snapshot, each.effective_at, True) for each in plan.waiting]
        if plan.staged is not None:
            given.append((plan.staged.snapshot, plan.staged.effective_at, False))
        for snapshot, effective_at, confirmed in given:
            signed = directory.sign(snapshot, self._key)
            rows.append(
                PlannedSnapshot(snapshot.number, signed.body, signed.signature, signed.key, effective_at, confirmed)
            )
        return rows

    async def _put(self, name: str, rows: Sequence[PlannedSnapshot], known: Sequence[int]) -> None:
        try:
            async with self._cells.steward(name) as steward:
                await bounded(steward, births.plan_snapshots(steward, rows, known), PUT_TIMEOUT_S)
        except DRIVER_ERRORS as error:
            raise translate(error) from None

    async def _confirm(self, row: PlannedSnapshot, staged: Waiting) -> bool:
        """Read the staged snapshot back from every cell, and only then confirm it in each; False to do all anew."""
        for name in sorted(self._cells.names):
            found = [each for each in await _read(self._cells, name) if each.number == row.number]
            if [(each.body, each.signature) for each in found] != [(row.body, row.signature)]:
                return False
        if self._lead and self._clock.now() > staged.effective_at - self._lead:
            _log.warning("common data not confirmed in time", snapshot=row.number)
            return False
        for name in sorted(self._cells.names):
            try:
                async with self._cells.steward(name) as steward:
                    confirm = births.confirm_snapshot(steward, row.number, row.signature)
                    await bounded(steward, confirm, PUT_TIMEOUT_S)
            except Problem as problem:
                if problem.code == "common_data_stale":
                    return False
                raise
            except DRIVER_ERRORS as error:
                raise translate(error) from None
        _log.info("common data confirmed", snapshot=row.number)
        if self._later(staged) is None:
            for name in sorted(self._cells.names):
                await _read(self._cells, name)  # takes it
        return True


def _divide(common: Common, until: dt.datetime) -> tuple[tuple[Waiting, ...], tuple[Waiting, ...]]:
    """Return what waits and is due until then, and what is due after that."""
    if common.snapshot is None:
        return common.waiting, ()
    before = tuple(each for each in common.waiting if each.effective_at <= until)
    return before, tuple(each for each in common.waiting if each.effective_at > until)


def _numbers(common: Common) -> tuple[int, ...]:
    return tuple(each.snapshot.number for each in common.waiting)


def _new_agencies(common: Common, wanted: Snapshot) -> list[AgencyRow]:
    known = {row.number for row in common.coming.agencies} if common.coming is not None else set()
    return [row for row in wanted.agencies if row.number not in known]
