"""Publishing the common data (共通データ): the next signed snapshot into every cell, by the steward's login.

A change takes effect at a stated time (DESIGN §7): it is put into every cell as one that waits, read back from every
cell, and only then confirmed in each; from then on it comes into force by itself, in every cell at the same time. While
a cell is away nothing new is confirmed: the change waits. A kill switch goes at once, and may go past a cell that is
away; what waits is then derived anew on top of it, and keeps its time. So is what waits for a time far ahead (master
data that changes at a midnight to come) when an ordinary change overtakes it.

Whatever a crash leaves the next call repairs, even one that changes nothing: what no cell has confirmed is withdrawn,
what one has confirmed is confirmed in all (exchanges do that as well), and a cell that is behind catches up.

What is derived from cells that disagree, ``common_reading`` says.

Invariant: nothing is published that was not derived from verified snapshots, and signed. Makes its numbers from the
newest one, so a number never means two things in one cell. Of those who publish for a stated time one has the turn.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chukan import log
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Cells, bounded, translate
from chukan.settings import LEAD_MIN_S
from chukan.tenants import births, common_reading, directory
from chukan.tenants.births import PlannedSnapshot
from chukan.tenants.changes import Changes
from chukan.tenants.common_reading import Common, Waiting, read_common
from chukan.tenants.directory import AgencyRow, Snapshot
from chukan.tenants.sets import CellSets

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
            found = [each for each in await common_reading.read_rows(self._cells, name) if each.number == row.number]
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
                await common_reading.read_rows(self._cells, name)  # takes it
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
