"""Reading the common data (共通データ) in every cell: what is in force, what waits, and what holds taken together.

Two cells may disagree after a kill switch went past one of them; what is derived from them keeps every agency that any
cell knows and **every stop that stands in any cell**: a stop ends only where it was lifted everywhere.

Invariant: nothing is believed that was not verified. It must never write.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants import directory
from chukan.tenants.directory import SignedSnapshot, Snapshot, Stop
from chukan.tenants.sets import CellSets, CommonRow

READ_TIMEOUT_S: Final = 10.0


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
            held[name] = await read_rows(cells, name)
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


async def read_rows(cells: Cells, name: str) -> tuple[CommonRow, ...]:
    """Return what one cell has; what is due comes into force by it. Raises ``Problem`` as a cell says that is away."""
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
