"""The inquirer's set functions of a simulated cell (``0011_accept.sql`` – ``0013_inquiry_reads.sql``)."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple

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
from chukan.ops.simulation.tables import CellTables, InquiryLine, Key, LineKey, Query, Transaction
from chukan.tenants.rows import (
    AcceptBatch,
    AcceptedBatch,
    AcceptLine,
    AnswerRow,
    Collected,
    Grant,
    InquirySettle,
    InquiryView,
    InquiryWork,
    RecordRow,
    RequestHit,
)
from chukan.tenants.states import InquiryState, Outcome, Side, shard_of

_OPEN = frozenset({10, 20, 30, 40})
_HELD, _FINAL, _COLLECTED, _PURGED = 40, 50, 80, 90


def accept(
    cell: CellTables, tx: Transaction, batches: Sequence[AcceptBatch], lines: Sequence[AcceptLine]
) -> list[AcceptedBatch]:
    """Make POSTed lists durable; of two batches with one key the first wins, what changed meanwhile comes ``again``."""
    check_generation(cell, [b.agency for b in batches], [b.generation for b in batches])
    changed = {(line.agency, line.batch) for line in lines if not _stands(cell, line)}
    results: list[AcceptedBatch] = []
    fresh: set[tuple[int, uuid.UUID]] = set()
    seen: set[tuple[int, bytes]] = set()
    for batch in batches:
        if (batch.agency, batch.batch) in changed:
            results.append(AcceptedBatch(batch.batch, fresh=False, same_body=False, again=True))
            continue
        keys = cell.agency(batch.agency).idempotency
        first = (batch.agency, batch.key) not in seen
        seen.add((batch.agency, batch.key))
        old = keys.get(batch.key)
        if first:
            kept = Key(batch.body, batch.batch, 1) if old is None else old._replace(tries=old.tries + 1)
            tx.put(keys, batch.key, kept)
        else:
            assert old is not None  # noqa: S101 - the first of them was put in just now
            kept = old
        is_fresh = first and kept.tries == 1
        if is_fresh:
            fresh.add((batch.agency, batch.batch))
        results.append(AcceptedBatch(kept.outcome, is_fresh, kept.body == batch.body))
    for line in lines:
        if (line.agency, line.batch) in fresh:
            _store(cell, tx, line)
    return results


def _stands(cell: CellTables, line: AcceptLine) -> bool:
    """Whether a line's link is the one it was decided on; no agency here has a delegation."""
    if line.delegation is not None:
        return False
    return line.link_version is None or same_link(cell, line.agency, line.person, line.link_version)


def _store(cell: CellTables, tx: Transaction, line: AcceptLine) -> None:
    table = cell.agency(line.agency)
    if (line.state >= _FINAL) != (line.record is not None) or line.id in table.queries:
        raise defect()
    tx.put(table.queries, line.id, Query(line.batch, line.person, line.request))
    if line.outbox is not None:
        tx.put(table.outbox, line.id, line.outbox)
    row = InquiryLine(
        agency=line.agency,
        id=line.id,
        batch=line.batch,
        ordinal=line.ordinal,
        state=int(line.state),
        outcome=int(line.outcome),
        reason=line.reason,
        outbox=line.outbox is not None,
        due=line.due,
        deadline=line.deadline,
        tries=0,
        updated_at=tx.now,
    )
    tx.put(cell.inquiries, (line.agency, line.id), row)
    put_record(cell, tx, Side.INQUIRER, line.agency, line.id, line.outcome, line.record)
    put_event(cell, tx, Side.INQUIRER, line.agency, line.id, None, int(line.state))


# ---------------------------------------------------------------- steps


def settle_inquiries(
    cell: CellTables, tx: Transaction, grants: Sequence[Grant], rows: Sequence[InquirySettle]
) -> list[str]:
    """Steps by the worker that holds the leases."""
    check_leases(cell, Side.INQUIRER, grants, [row.agency for row in rows])
    return _step(cell, tx, rows)


def close_inquiries(cell: CellTables, tx: Transaction, rows: Sequence[InquirySettle]) -> list[str]:
    """The same for whoever may close a line without a lease."""
    check_generation(cell, [row.agency for row in rows])
    return _step(cell, tx, rows)


def _step(cell: CellTables, tx: Transaction, rows: Sequence[InquirySettle]) -> list[str]:
    before = [cell.inquiries.get((row.agency, row.id)) for row in rows]
    for row in rows:
        if not 10 <= row.state < 70 or (row.state >= _FINAL) != (row.record is not None):  # noqa: PLR2004 - as in the SQL
            raise defect()
    words: list[str] = []
    seen: set[LineKey] = set()
    for row, was in zip(rows, before, strict=True):
        key = (row.agency, row.id)
        go = key not in seen and was is not None and _forward(was.state, int(row.state))
        seen.add(key)
        words.append("applied" if go else "late")
        if was is None:
            continue
        now = cell.inquiries[key]
        if go:
            changed = was._replace(
                state=int(row.state),
                outcome=int(row.outcome),
                reason=row.reason,
                due=row.due,
                deadline=row.deadline,
                outbox=was.outbox and not row.drop_outbox,
                tries=was.tries + 1,
                updated_at=tx.now,
            )
            tx.put(cell.inquiries, key, changed)
            put_record(cell, tx, Side.INQUIRER, row.agency, row.id, row.outcome, row.record)
            put_event(cell, tx, Side.INQUIRER, row.agency, row.id, was.state, int(row.state))
        elif row.drop_outbox and now.outbox:
            tx.put(cell.inquiries, key, now._replace(outbox=False))
        permits = cell.agency(row.agency).permits
        if row.permit is not None and row.id not in permits:
            tx.put(permits, row.id, row.permit)
    return words


def _forward(was: int, state: int) -> bool:
    return was < _FINAL and (state >= _FINAL or was <= state < _HELD or (state == _HELD and was == _HELD))


def deliver_answers(cell: CellTables, tx: Transaction, rows: Sequence[AnswerRow]) -> list[str]:
    """Answers pushed by the network: effect, record and inbox key in one commit."""
    check_generation(cell, [row.agency for row in rows], [row.generation for row in rows])
    for row in rows:
        amends = None if row.amendment is None else row.amendment.amends
        if (
            not _HELD <= row.state < 70  # noqa: PLR2004 - as in the SQL
            or (row.state >= _FINAL) != (row.record is not None)
            or (row.amendment is None) != (amends is None)
        ):
            raise defect()
    first: dict[tuple[int, uuid.UUID], str] = {}
    turns: dict[LineKey, int] = {}
    records: list[_Written] = []
    words = []
    for n, row in enumerate(rows):
        message = (row.agency, row.inbox)
        if message in first:
            words.append("unknown" if first[message] == "unknown" else "repeat")
            continue
        turn = turns[row.agency, row.id] = turns.get((row.agency, row.id), 0) + 1
        first[message] = word = _deliver(cell, tx, row)
        words.append(word)
        # Late is amended where it says something else than what the line ended with.
        new = word == "late" and cell.inquiries[row.agency, row.id].outcome != row.outcome
        if new or word == "applied":
            record = row.amendment if new else row.record
            records.append(_Written((turn, word == "late", n), row, record))
    for _, row, record in sorted(records, key=lambda each: each.order):
        put_record(cell, tx, Side.INQUIRER, row.agency, row.id, row.outcome, record)
    return words


class _Written(NamedTuple):
    """A record in the order in which the SQL inserts them: turn by turn, amendments last."""

    order: tuple[int, bool, int]
    row: AnswerRow
    record: RecordRow | None


def _deliver(cell: CellTables, tx: Transaction, row: AnswerRow) -> str:
    key = (row.agency, row.id)
    was = cell.inquiries.get(key)
    if was is None:
        return "unknown"
    table = cell.agency(row.agency)
    fresh = put_inbox(tx, table, row.inbox)
    if fresh and was.state >= _FINAL:
        return "late"
    if not fresh or (was.state == _HELD and row.state == _HELD):
        return "repeat"
    changed = was._replace(
        state=int(row.state),
        outcome=int(row.outcome),
        reason=row.reason,
        due=was.deadline,
        outbox=False,
        updated_at=tx.now,
    )
    tx.put(cell.inquiries, key, changed)
    if row.answer is not None:
        if row.id in table.answers:
            raise defect()
        tx.put(table.answers, row.id, row.answer)
    put_event(cell, tx, Side.INQUIRER, row.agency, row.id, was.state, int(row.state))
    return "applied"


# ---------------------------------------------------------------- reading


def take_inquiries(cell: CellTables, tx: Transaction, grants: Sequence[Grant], limit: int) -> list[InquiryWork]:
    """Open lines that are due in the granted shards."""
    check_grants(cell, Side.INQUIRER, grants)
    rows = [cell.inquiries[key] for key in due_lines(cell.inquiries, _OPEN, grants, limit, tx.now)]
    rows.sort(key=lambda row: (row.agency, row.due, row.id))
    return [
        InquiryWork(
            agency=row.agency,
            id=row.id,
            state=InquiryState(row.state),
            tries=row.tries,
            deadline=row.deadline,
            request=cell.agency(row.agency).queries[row.id].request,
            outbox=cell.agency(row.agency).outbox.get(row.id) if row.outbox else None,
        )
        for row in rows
    ]


def read_requests(cell: CellTables, pairs: Sequence[tuple[int, uuid.UUID]]) -> list[RequestHit | None]:
    """The facts of the named lines."""
    hits: list[RequestHit | None] = []
    for agency, line in pairs:
        row = cell.inquiries.get((agency, line))
        if row is None:
            hits.append(None)
            continue
        query = cell.agency(agency).queries[line]
        hits.append(RequestHit(InquiryState(row.state), query.person, query.request, row.deadline))
    return hits


def inquiry_views(
    cell: CellTables,
    agency: int,
    *,
    batch: uuid.UUID | None,
    ids: Sequence[uuid.UUID] | None,
    state: InquiryState | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[InquiryView]:
    """States of one agency's lines."""
    rows = [row for (number, _), row in cell.inquiries.items() if number == agency]
    if ids is not None:
        wanted = set(ids)
        rows = sorted((row for row in rows if row.id in wanted), key=lambda row: row.id)
    elif batch is not None:
        rows = sorted((row for row in rows if row.batch == batch), key=lambda row: row.ordinal)
    else:
        rows = [row for row in rows if (state is None or row.state == state) and (after is None or row.id > after)]
        rows.sort(key=lambda row: row.id)
    return [
        InquiryView(
            id=row.id,
            batch=row.batch,
            ordinal=row.ordinal,
            state=InquiryState(row.state),
            outcome=Outcome(row.outcome),
            reason=row.reason,
            updated_at=row.updated_at,
        )
        for row in rows[:limit]
    ]


def collect(
    cell: CellTables, tx: Transaction, agency: int, generation: int, ids: Sequence[uuid.UUID]
) -> list[Collected]:
    """ANSWERED becomes COLLECTED and comes with its answer; any other line comes without."""
    check_generation(cell, [agency], [generation])
    found = []
    for line in dict.fromkeys(ids):
        row = cell.inquiries.get((agency, line))
        if row is None:
            continue
        if row.state == _FINAL:
            put_event(cell, tx, Side.INQUIRER, agency, line, row.state, _COLLECTED)
            row = row._replace(state=_COLLECTED, updated_at=tx.now)
            tx.put(cell.inquiries, (agency, line), row)
        answer = cell.agency(agency).answers.get(line) if row.state == _COLLECTED else None
        found.append(
            Collected(
                id=row.id,
                batch=row.batch,
                ordinal=row.ordinal,
                state=InquiryState(row.state),
                outcome=Outcome(row.outcome),
                reason=row.reason,
                updated_at=row.updated_at,
                answer=answer,
            )
        )
    return found


def purge_results(cell: CellTables, tx: Transaction, grants: Sequence[Grant], before: dt.datetime, limit: int) -> int:
    """Delete the answers of lines that ended before an instant; a line purged for as long again goes altogether."""
    shards = {grant.shard for grant in grants}
    old = [
        row
        for row in cell.inquiries.values()
        if row.state >= _FINAL and row.updated_at < before and shard_of(row.agency) in shards
    ][:limit]
    check_leases(cell, Side.INQUIRER, grants, [row.agency for row in old])
    purged = 0
    for row in old:
        key = (row.agency, row.id)
        if row.state == _PURGED:
            tx.delete(cell.inquiries, key)
            continue
        purged += 1
        if row.id in cell.agency(row.agency).answers:
            tx.delete(cell.agency(row.agency).answers, row.id)
        tx.put(cell.inquiries, key, row._replace(state=_PURGED, updated_at=tx.now))
        put_event(cell, tx, Side.INQUIRER, row.agency, row.id, row.state, _PURGED)
    return purged
