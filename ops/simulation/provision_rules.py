"""The provider's set functions of a simulated cell (``0014_provision.sql``, ``0015_provision_steps.sql``)."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

from chukan.ops.simulation.rules import (
    check_generation,
    check_grants,
    check_leases,
    defect,
    due_lines,
    put_event,
    put_inbox,
    put_record,
    same_link,
)
from chukan.ops.simulation.tables import (
    AgencyTables,
    CellTables,
    CopyEntry,
    LineKey,
    Provision,
    ProvisionLine,
    Transaction,
    UsedPermit,
)
from chukan.tenants.rows import (
    CopyHit,
    DecideRow,
    Grant,
    LookupHit,
    LookupRow,
    ProvideRow,
    ProvisionSettle,
    ProvisionView,
    ProvisionWork,
)
from chukan.tenants.states import LinkStatus, Outcome, ProvisionState, Side

_HELD, _ANSWERED, _LAPSED = 40, 50, 71
_OPEN = frozenset({_HELD, _ANSWERED})
_COPIES_MAX = 100


def lookup(cell: CellTables, rows: Sequence[LookupRow]) -> list[LookupHit]:
    """What the providers' own data say about each line."""
    check_generation(cell, [row.agency for row in rows])
    return [_look_up(cell.agency(row.agency), row, cell.snapshot_number) for row in rows]


def _look_up(table: AgencyTables, row: LookupRow, snapshot: int) -> LookupHit:
    link = next((code for code in table.codes.values() if code.code_digest == row.code), None)
    person = None if link is None else link.person
    copies = [] if person is None else _select(table.copies.get((person, row.kind), []), row)
    held = any((who is None or who == person) and (kind is None or kind == row.kind) for who, kind in table.holds)
    return LookupHit(
        link=None if link is None else LinkStatus(link.status),
        person=person,
        link_version=0 if link is None else link.version,
        held=held or any(copy.review for copy in copies),
        hold_version=table.hold_version,
        snapshot=snapshot,
        copies=[
            CopyHit(copy.id, copy.layout, copy.effective_from, copy.period, copy.body, copy.review) for copy in copies
        ],
    )


def _select(copies: Sequence[CopyEntry], row: LookupRow) -> list[CopyEntry]:
    """The copies that a condition means: the latest in force, the one of a year, or those in force in a span."""
    if row.period in {"0", "1"}:
        found = [
            copy for copy in copies if copy.effective_from <= row.on and (row.period == "0" or copy.period == row.year)
        ]
        return sorted(found, key=lambda copy: (copy.effective_from, copy.layout, copy.period))[-1:]
    if row.start is None or row.end is None:
        return []
    start, end = row.start, row.end
    newest: dict[tuple[dt.date, str], CopyEntry] = {}
    for copy in copies:
        replaced = any(copy.effective_from < other.effective_from <= start for other in copies)
        key = (copy.effective_from, copy.period)
        if copy.effective_from <= end and not replaced and (key not in newest or newest[key].layout < copy.layout):
            newest[key] = copy
    latest = sorted(newest.values(), key=lambda copy: copy.period)
    latest.sort(key=lambda copy: copy.effective_from, reverse=True)
    return sorted(latest[:_COPIES_MAX], key=lambda copy: (copy.effective_from, copy.period))


def provide(
    cell: CellTables, tx: Transaction, rows: Sequence[ProvideRow], locked: frozenset[int] = frozenset()
) -> list[str]:
    """From notice to sealed answer, or to a hold; ``locked`` agencies are changing their holds at this moment."""
    check_generation(cell, [row.agency for row in rows], [row.generation for row in rows])
    for row in rows:
        if (
            row.state not in {_HELD, _ANSWERED, _LAPSED}
            or (row.state >= _ANSWERED) != (row.record is not None)
            or (row.state == _LAPSED) != (row.outbox is None)
        ):
            raise defect()
    past = [_of_before(cell, row, locked) for row in rows]
    return [word or _provide(cell, tx, row, locked) for row, word in zip(rows, past, strict=True)]


def _of_before(cell: CellTables, row: ProvideRow, locked: frozenset[int]) -> str | None:
    """What becomes of a line whose permit is older than the opening of the restored cell; None for any other."""
    table = cell.agency(row.agency)
    if row.agency in locked or row.permit_issued >= table.opened_at:
        return None
    return "repeat" if row.inbox in table.inbox else "before_restore"


def still_stands(cell: CellTables, row: ProvideRow | DecideRow, now: dt.datetime) -> bool:
    """Whether holds, link and common data are those that the line was decided on."""
    return (
        cell.agency(row.agency).hold_version == row.hold_version
        and same_link(cell, row.agency, row.person, row.link_version)
        and row.snapshot == cell.held_snapshot(now)
    )


def _provide(cell: CellTables, tx: Transaction, row: ProvideRow, locked: frozenset[int]) -> str:
    table = cell.agency(row.agency)
    if row.agency in locked or not still_stands(cell, row, tx.now):
        return "again"
    used = table.permits_used.get(row.permit)
    if used is None:
        tx.put(table.permits_used, row.permit, UsedPermit(row.inbox, row.permit_until))
    else:
        tx.put(table.permits_used, row.permit, used._replace(until=max(used.until, row.permit_until)))
        if used.message != row.inbox:
            return "replayed"
    if not put_inbox(tx, table, row.inbox):
        return "repeat"
    if row.id in table.provisions:
        raise defect()
    tx.put(table.provisions, row.id, Provision(row.person, row.notice))
    if row.outbox is not None:
        tx.put(table.outbox, row.id, row.outbox)
    line = ProvisionLine(
        agency=row.agency,
        id=row.id,
        state=int(row.state),
        outcome=int(row.outcome),
        reason=row.reason,
        outbox=row.state != _LAPSED,
        due=tx.now,
        deadline=row.deadline,
        tries=0,
        updated_at=tx.now,
    )
    tx.put(cell.provisions, (row.agency, row.id), line)
    put_record(cell, tx, Side.PROVIDER, row.agency, row.id, row.outcome, row.record)
    put_event(cell, tx, Side.PROVIDER, row.agency, row.id, None, int(row.state))
    return "stored"


# ---------------------------------------------------------------- steps


def take_provisions(cell: CellTables, tx: Transaction, grants: Sequence[Grant], limit: int) -> list[ProvisionWork]:
    """Open provisions that are due in the granted shards."""
    check_grants(cell, Side.PROVIDER, grants)
    rows = [cell.provisions[key] for key in due_lines(cell.provisions, _OPEN, grants, limit, tx.now)]
    rows.sort(key=lambda row: (row.agency, row.due, row.id))
    return [
        ProvisionWork(
            agency=row.agency,
            id=row.id,
            state=ProvisionState(row.state),
            outcome=Outcome(row.outcome),
            tries=row.tries,
            deadline=row.deadline,
            notice=cell.agency(row.agency).provisions[row.id].notice,
            person=cell.agency(row.agency).provisions[row.id].person,
            outbox=cell.agency(row.agency).outbox.get(row.id) if row.outbox else None,
        )
        for row in rows
    ]


def settle_provisions(
    cell: CellTables, tx: Transaction, grants: Sequence[Grant], rows: Sequence[ProvisionSettle]
) -> list[str]:
    """Receipt, lapse, expiry of a hold, or another try; never back, and only while open."""
    check_leases(cell, Side.PROVIDER, grants, [row.agency for row in rows])
    words: list[str] = []
    seen: set[LineKey] = set()
    for row in rows:
        key = (row.agency, row.id)
        was = cell.provisions.get(key)
        if key in seen or was is None or was.state not in _OPEN or row.state < was.state:
            seen.add(key)
            words.append("late")
            continue
        seen.add(key)
        final = row.record is not None and row.record.amends is None
        if (was.state == _HELD and row.state >= _ANSWERED) != final:
            raise defect()
        changed = was._replace(
            state=int(row.state),
            outcome=int(row.outcome),
            due=row.due,
            outbox=was.outbox and not row.drop_outbox,
            tries=was.tries + 1,
            updated_at=tx.now,
        )
        tx.put(cell.provisions, key, changed)
        put_record(cell, tx, Side.PROVIDER, row.agency, row.id, row.outcome, row.record)
        put_event(cell, tx, Side.PROVIDER, row.agency, row.id, was.state, int(row.state))
        words.append("applied")
    return words


def decide_provisions(cell: CellTables, tx: Transaction, rows: Sequence[DecideRow]) -> list[str]:
    """Officers' final decisions on held lines; the final answer's bytes replace the interim ones."""
    check_generation(cell, [row.agency for row in rows], [row.generation for row in rows])
    if any(row.record.amends is not None for row in rows):
        raise defect()
    words: list[str] = []
    seen: set[LineKey] = set()
    for row in rows:
        key = (row.agency, row.id)
        was = cell.provisions.get(key)
        if key in seen or was is None or was.state != _HELD:
            words.append("late")
        elif not still_stands(cell, row, tx.now):
            words.append("again")
        else:
            _decide(cell, tx, was, row)
            words.append("applied")
        seen.add(key)
    return words


def _decide(cell: CellTables, tx: Transaction, was: ProvisionLine, row: DecideRow) -> None:
    changed = was._replace(
        state=_ANSWERED,
        outcome=int(row.outcome),
        reason=row.reason,
        outbox=True,
        due=tx.now,
        tries=0,
        updated_at=tx.now,
    )
    tx.put(cell.provisions, (row.agency, row.id), changed)
    tx.put(cell.agency(row.agency).outbox, row.id, row.outbox)
    put_record(cell, tx, Side.PROVIDER, row.agency, row.id, row.outcome, row.record)
    put_event(cell, tx, Side.PROVIDER, row.agency, row.id, was.state, _ANSWERED)


def provision_views(
    cell: CellTables,
    agency: int,
    *,
    state: ProvisionState | None,
    ids: Sequence[uuid.UUID] | None,
    limit: int,
) -> list[ProvisionView]:
    """One agency's provisions by id."""
    rows = [
        row
        for (number, line), row in cell.provisions.items()
        if number == agency and (state is None or row.state == state) and (ids is None or line in ids)
    ]
    rows.sort(key=lambda row: row.id)
    found = cell.agencies[agency].provisions if agency in cell.agencies else {}
    return [
        ProvisionView(
            id=row.id,
            state=ProvisionState(row.state),
            outcome=Outcome(row.outcome),
            deadline=row.deadline,
            notice=found[row.id].notice,
            person=found[row.id].person,
        )
        for row in rows[:limit]
    ]
