"""What the set functions of a simulated cell share (``0010``, ``0017``–``0019``, ``0041``, ``0045``): checks.

Each function takes the cell and the running transaction, and is the model of the SQL function of the same name. A
``Problem`` raised here undoes the whole call. Model and SQL are compared by tests/sim on random scripts of calls.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence

from chukan.errors import Problem
from chukan.ops.simulation.tables import (
    AgencyTables,
    CellTables,
    Counted,
    Event,
    InquiryLine,
    Leaf,
    Lease,
    LineKey,
    ProvisionLine,
    Transaction,
    Waiting,
)
from chukan.tenants.rows import Grant, RecordRow
from chukan.tenants.sets import CommonRow, SnapshotRow
from chukan.tenants.states import SHARDS, Side, shard_of

_NUMBERED = re.compile(r"-[0-9a-f]{8}\Z")
_NUMBER_LENGTH = 9
"""An owner ends with a hyphen and eight digits."""


def defect() -> Problem:
    """The problem that stands for a caller's mistake or a broken key."""
    return Problem("internal")


def check_generation(cell: CellTables, agencies: Iterable[int], generations: Iterable[int] | None = None) -> None:
    """Every agency must be open here, in the generation given."""
    numbers = list(agencies)
    wanted: Iterable[int | None] = [None] * len(numbers) if generations is None else generations
    for number, generation in zip(numbers, wanted, strict=True):
        row = cell.agencies.get(number)
        if row is None or not row.open or (generation is not None and generation != row.generation):
            raise Problem("agency_moved", retry_after_s=1)


def check_leases(cell: CellTables, side: Side, grants: Sequence[Grant], agencies: Iterable[int]) -> None:
    """Every agency must lie in a granted shard whose epoch still stands."""
    epochs, leases = {grant.shard: grant.epoch for grant in grants}, cell.leases[side]
    for number in {shard_of(agency) for agency in agencies}:
        if leases[number].epoch != epochs.get(number):
            raise Problem("stale_lease", retry_after_s=1)


def check_grants(cell: CellTables, side: Side, grants: Sequence[Grant]) -> None:
    """Every grant must still stand."""
    leases = cell.leases[side]
    for grant in grants:
        if leases[grant.shard].epoch != grant.epoch:
            raise Problem("stale_lease", retry_after_s=1)


def same_link(cell: CellTables, agency: int, person: bytes | None, version: int) -> bool:
    """Whether the link still has the version that a line was decided on."""
    if person is None:
        return True
    link = cell.agency(agency).codes.get(person)
    return link is not None and link.version == version


def put_inbox(tx: Transaction, table: AgencyTables, message: uuid.UUID) -> bool:
    """Write an inbox key; whether it is new."""
    tries = table.inbox.get(message, 0)
    tx.put(table.inbox, message, tries + 1)
    return tries == 0


def put_record(
    cell: CellTables,
    tx: Transaction,
    side: Side,
    agency: int,
    line: uuid.UUID,
    outcome: int,
    record: RecordRow | None,
) -> None:
    """Insert a record, count it and queue it for the sequencer; its id is its line's, or it names what it amends."""
    if record is None:
        return
    table = cell.agency(agency)
    if line != (record.id if record.amends is None else record.amends) or record.id in table.records:
        raise defect()
    tx.put(table.records, record.id, record)
    count_record(tx, table, Counted(record.month, int(side), int(outcome), record.amends is not None, 1))
    cell.numbers += 1
    tx.put(cell.to_sequence, cell.numbers, Waiting(agency, record.id, tx.now))


def count_record(tx: Transaction, table: AgencyTables, counted: Counted) -> None:
    """Add a row to the statistics; nobody's row is ever touched by a set."""
    tx.append(table.statistics, counted)


def put_event(
    cell: CellTables, tx: Transaction, side: Side, agency: int, line: uuid.UUID, before: int | None, after: int
) -> None:
    """One event for a line whose state changed."""
    if before != after:
        tx.append(cell.agency(agency).events, Event(line, int(side), before, after))


def due_lines(
    lines: Mapping[LineKey, InquiryLine] | Mapping[LineKey, ProvisionLine],
    states: frozenset[int],
    grants: Sequence[Grant],
    limit: int,
    now: dt.datetime,
) -> list[LineKey]:
    """Lines that are due in the granted shards, each shard's share first."""
    shards = {grant.shard for grant in grants}
    due: dict[int, list[InquiryLine | ProvisionLine]] = {}
    for row in lines.values():
        if row.state in states and row.due <= now and shard_of(row.agency) in shards:
            due.setdefault(shard_of(row.agency), []).append(row)
    for rows in due.values():
        rows.sort(key=lambda row: (row.due, row.id))  # those of one commit lie in the order of their ids
    share = min(limit, 1 + 2 * limit // max(len(grants), 1))
    while True:
        placed = sorted(
            (place, row.due, row.agency, row.id) for rows in due.values() for place, row in enumerate(rows[:share])
        )[:limit]
        if share >= limit or len(placed) >= limit:
            return [(agency, line) for _, _, agency, line in placed]
        share = limit


# ---------------------------------------------------------------- leases


def worker_share(cell: CellTables, tx: Transaction, owner: str, side: Side, ttl_s: float) -> int:
    """Say that a worker is alive; its fair share of the shards."""
    ttl = dt.timedelta(seconds=ttl_s)
    for key in [key for key, until in cell.workers.items() if until < tx.now - ttl]:
        tx.delete(cell.workers, key)
    tx.put(cell.workers, (int(side), owner), tx.now + ttl)
    alive = sum(1 for (where, _), until in cell.workers.items() if where == side and until >= tx.now)
    return math.ceil(SHARDS / alive)


def lease(cell: CellTables, tx: Transaction, owner: str, side: Side, want: int, ttl_s: float) -> list[Grant]:
    """Renew what the owner holds, give back what is too much, take what is free.

    All that one owner holds has one term: a call renews all of it, so the term stands once for owner and side.
    """
    leases, over = (
        cell.leases[side],
        {who for (where, who), end in cell.terms.items() if where == side and end < tx.now},
    )
    over.discard(owner)
    mine = [number for number, row in enumerate(leases) if row.owner == owner]
    for number in mine[want:]:
        tx.replace(leases, number, Lease(leases[number].epoch, None))
    mine = mine[:want]
    if len(mine) < want:
        kept = set(mine)
        free = [
            number
            for number, row in enumerate(leases)
            if (row.owner is None or row.owner in over) and number not in kept
        ]
        for number in free[: want - len(mine)]:
            tx.replace(leases, number, Lease(leases[number].epoch + 1, owner))
            mine.append(number)
    tx.put(cell.terms, (int(side), owner), tx.now + dt.timedelta(seconds=ttl_s))
    return [Grant(side, number, leases[number].epoch) for number in sorted(mine)]


def release(cell: CellTables, tx: Transaction, owner: str) -> None:
    """Give all leases back at once."""
    for leases in cell.leases.values():
        for number, row in enumerate(leases):
            if row.owner == owner:
                tx.replace(leases, number, Lease(row.epoch, None))
    for worker in [worker for worker in cell.workers if worker[1] == owner]:
        tx.delete(cell.workers, worker)


def succeed(cell: CellTables, tx: Transaction, owner: str, side: Side) -> int:
    """Give back what former processes of the same name hold of a side; how many shards came free."""
    if _NUMBERED.search(owner) is None:
        raise defect()
    leases = cell.leases[side]
    left = [number for number, row in enumerate(leases) if row.owner is not None and _succeeds(owner, row.owner)]
    for number in left:
        tx.replace(leases, number, Lease(leases[number].epoch, None))
    for worker in [worker for worker in cell.workers if worker[0] == side and _succeeds(owner, worker[1])]:
        tx.delete(cell.workers, worker)
    return len(left)


def _succeeds(owner: str, other: str) -> bool:
    return other != owner and _NUMBERED.search(other) is not None and other[:-_NUMBER_LENGTH] == owner[:-_NUMBER_LENGTH]


def raise_epochs(cell: CellTables, tx: Transaction) -> None:
    """After a new timeline nobody's grant stands any more."""
    for leases in cell.leases.values():
        for number, row in enumerate(leases):
            tx.replace(leases, number, Lease(row.epoch + 1, None))


def open_cell(cell: CellTables, tx: Transaction, epoch: int) -> dt.datetime:
    """Open a restored cell in a later epoch: no permit that was issued before is served from now on."""
    if epoch <= cell.epoch:
        raise defect()
    tx.set(cell, "epoch", epoch)
    for table in cell.agencies.values():
        tx.set(table, "opened_at", tx.now)
    return tx.now


# ---------------------------------------------------------------- statistics


def fold_statistics(cell: CellTables, tx: Transaction, after: int, count: int, limit: int) -> int:
    """Make one row of those that count the same, at the next agencies; no sum changes."""
    page = sorted(number for number, table in cell.agencies.items() if number > after and table.open)[:count]
    for number in page:
        table = cell.agency(number)
        groups: dict[Counted, list[Counted]] = {}
        for row in table.statistics:
            groups.setdefault(row._replace(records=0), []).append(row)
        taken = [row for rows in groups.values() if len(rows) > 1 for row in rows][:limit]
        if taken:
            kept = list(table.statistics)
            for row in taken:
                kept.remove(row)
            tx.set(table, "statistics", [*kept, *folded(taken)])
    return page[-1] if page else 0


def folded(rows: Iterable[Counted]) -> list[Counted]:
    """The same counts in as few rows as can be."""
    sums: dict[Counted, int] = {}
    for row in rows:
        what = row._replace(records=0)
        sums[what] = sums.get(what, 0) + row.records
    return [what._replace(records=records) for what, records in sums.items()]


# ---------------------------------------------------------------- common data


def put_snapshot(cell: CellTables, tx: Transaction, row: SnapshotRow) -> None:
    """Put common data in force at once; what waits under a lower number was not derived from them and goes."""
    for number in [number for number in cell.waiting if number < row.number]:
        tx.delete(cell.waiting, number)
    tx.set(cell, "snapshot", row)


def stage_snapshot(cell: CellTables, tx: Transaction, row: CommonRow) -> None:
    """Have common data wait, not confirmed; refused where something newer is in force."""
    if row.number > cell.snapshot_number:
        tx.put(cell.waiting, row.number, row)


def confirm_snapshot(cell: CellTables, tx: Transaction, number: int, signature: bytes) -> None:
    """Say that every cell has what waits here."""
    row = cell.waiting.get(number)
    if row is not None and row.signature == signature and not row.confirmed:
        tx.put(cell.waiting, number, dataclasses.replace(row, confirmed=True))


def take_snapshots(cell: CellTables, tx: Transaction) -> list[CommonRow]:
    """Put in force what is due; return what is in force, and what waits."""
    due = cell.due(tx.now)
    if due is not None and due.body is not None:
        put_snapshot(cell, tx, SnapshotRow(due.number, due.body, due.signature, due.key, due.at))
        tx.delete(cell.waiting, due.number)
    now = cell.snapshot
    found: list[CommonRow] = []
    if now is not None:
        found.append(CommonRow(now.number, now.body, now.signature, now.key, now.at, None, True, True, None))  # noqa: FBT003
    for row in (cell.waiting[number] for number in sorted(cell.waiting)):
        wait_s = max(0.0, (row.effective_at - tx.now).total_seconds()) if row.confirmed and row.effective_at else None
        found.append(dataclasses.replace(row, wait_s=wait_s))
    return found


# ---------------------------------------------------------------- sequencer


def sequence(cell: CellTables, tx: Transaction, limit: int) -> int:
    """Give waiting records their place in their agency's log."""
    waits = [number for number in sorted(cell.to_sequence) if cell.to_sequence[number].agency not in cell.log_aside]
    for waiting in (cell.to_sequence[number] for number in waits[:limit]):
        if waiting.record not in cell.agency(waiting.agency).records and waiting.agency not in cell.log_aside:
            tx.put(cell.log_aside, waiting.agency, waiting.record)
            return sequence(cell, tx, limit)  # each time with one agency less
    taken = waits[:limit]
    for number in taken:
        waiting = cell.to_sequence[number]
        table = cell.agency(waiting.agency)
        record = table.records[waiting.record]
        before = next((leaf for leaf in reversed(table.log) if leaf.label == record.label), None)
        ordinal = 0 if before is None else int.from_bytes(before.data[65:73], "big") + 1
        previous = bytes(32) if before is None else before.hash
        data = b"\x01" + record.commitment + record.label + ordinal.to_bytes(8, "big") + previous
        leaf = Leaf(table.head + 1, record.id, record.label, data, hashlib.sha256(b"\x00" + data).digest())
        tx.append(table.log, leaf)
        tx.set(table, "head", leaf.seq)
        tx.delete(cell.to_sequence, number)
    return len(taken)


def sequencer_age(cell: CellTables, now: dt.datetime) -> float:
    """Seconds for which the oldest record has waited for its place."""
    if not cell.to_sequence:
        return 0.0
    return max(0.0, (now - cell.to_sequence[min(cell.to_sequence)].at).total_seconds())
