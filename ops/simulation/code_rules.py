"""The set functions of linkage codes of a simulated cell (``0016_codes.sql``)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from chukan.errors import Problem
from chukan.ops.simulation.rules import check_generation, put_inbox
from chukan.ops.simulation.tables import CellTables, CodeEntry, Transaction
from chukan.tenants.rows import CodeNumber, CodeOpen, CodePut, CodeRow
from chukan.tenants.states import LinkStatus


def row_of(entry: CodeEntry) -> CodeRow:
    """A link as the exchange is shown it."""
    return CodeRow(
        person=entry.person,
        status=entry.status,
        version=entry.version,
        request=entry.request,
        number=entry.number,
        code=entry.code,
        code_digest=entry.code_digest,
    )


def find_codes(cell: CellTables, pairs: Sequence[tuple[int, bytes]]) -> list[CodeRow | None]:
    """The links of persons, None where there is none."""
    check_generation(cell, [agency for agency, _ in pairs])
    found = [cell.agency(agency).codes.get(person) for agency, person in pairs]
    return [None if entry is None else row_of(entry) for entry in found]


def open_codes(cell: CellTables, tx: Transaction, rows: Sequence[CodeOpen]) -> list[CodeRow]:
    """Open acquisitions, or find what is there."""
    check_generation(cell, [row.agency for row in rows], [row.generation for row in rows])
    for row in rows:
        codes = cell.agency(row.agency).codes
        if row.person not in codes:
            entry = CodeEntry(row.person, LinkStatus.REQUESTED, 1, row.addressee, request=row.request)
            tx.put(codes, row.person, entry)
    return [row_of(cell.agency(row.agency).codes[row.person]) for row in rows]


def set_numbers(cell: CellTables, tx: Transaction, rows: Sequence[CodeNumber]) -> list[CodeRow]:
    """Keep the acquisition numbers of open acquisitions; the first stays."""
    check_generation(cell, [row.agency for row in rows])
    seen: set[tuple[int, bytes]] = set()
    for row in rows:
        codes = cell.agency(row.agency).codes
        entry = codes.get(row.person)
        first = (row.agency, row.person) not in seen
        seen.add((row.agency, row.person))
        open_here = entry is not None and entry.request == row.request and entry.status is LinkStatus.REQUESTED
        if first and open_here and entry is not None and entry.number is None:
            tx.put(codes, row.person, entry._replace(number=row.number, number_digest=row.number_digest))
    found = [cell.agency(row.agency).codes.get(row.person) for row in rows]
    if None in found:
        raise Problem("not_found")
    return [row_of(entry) for entry in found if entry is not None]


def put_codes(cell: CellTables, tx: Transaction, rows: Sequence[CodePut]) -> list[str]:
    """Codes that arrived; the number is deleted in the same commit."""
    check_generation(cell, [row.agency for row in rows])
    seen: set[tuple[int, bytes]] = set()
    persons: list[bytes | None] = []
    for row in rows:
        key = (row.agency, row.number_digest)
        codes = cell.agency(row.agency).codes.values()
        holder = next((entry.person for entry in codes if entry.number_digest == row.number_digest), None)
        persons.append(None if key in seen else holder)
        seen.add(key)
    fresh, met = [], set[tuple[int, uuid.UUID]]()
    for row, person in zip(rows, persons, strict=True):
        new = (row.agency, row.inbox) not in met
        fresh.append(person is not None and new and put_inbox(tx, cell.agency(row.agency), row.inbox))
        if person is not None:
            met.add((row.agency, row.inbox))
    wins = [new and _wins(cell, rows, fresh, n, persons[n]) for n, new in enumerate(fresh)]
    words = []
    for row, person, new, won in zip(rows, persons, fresh, wins, strict=True):
        if new and person is not None:
            words.append(_put(cell, tx, row, person, won=won))
        else:
            words.append("repeat" if row.inbox in cell.agency(row.agency).inbox else "unknown")
    return words


def _wins(cell: CellTables, rows: Sequence[CodePut], fresh: Sequence[bool], n: int, person: bytes | None) -> bool:
    """Whether a row's code may become its person's: of one code the first row, and nobody else has it already."""
    row = rows[n]
    if row.code is None or row.code_digest is None:
        return False
    earlier = any(
        fresh[m] and other.agency == row.agency and other.code_digest == row.code_digest
        for m, other in enumerate(rows[:n])
    )
    taken = any(
        entry.code_digest == row.code_digest and entry.person != person
        for entry in cell.agency(row.agency).codes.values()
    )
    return not earlier and not taken


def _put(cell: CellTables, tx: Transaction, row: CodePut, person: bytes, *, won: bool) -> str:
    codes = cell.agency(row.agency).codes
    entry = codes[person]
    status = entry.status
    if won:
        status = LinkStatus.ACTIVE
    elif status is LinkStatus.REQUESTED:
        status = LinkStatus.DUPLICATE
    changed = entry._replace(
        status=status,
        version=entry.version + 1,
        code_digest=row.code_digest if won else entry.code_digest,
        code=row.code if won else entry.code,
        number=None,
        number_digest=None,
        request=None,
    )
    tx.put(codes, person, changed)
    return "duplicate" if status is LinkStatus.DUPLICATE else "applied"
