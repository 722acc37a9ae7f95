"""Whom an incident affects (影響を受けた本人): an agency's own list of persons, from its records, with its own keys.

The log is gone through from the first leaf of the period on, in pages of one transaction each; records of the kinds
and counterparts that matter are opened, and each person's label is led back to the addressee number by the agency's
links and copies. One look is bounded; who asks for a long period asks for parts of it, one after the other.

Invariant: it works in one agency's partition with that agency's keys, and gives its result to that agency alone; an
operator never gets it. A record that does not open or was changed fails it as a whole: nobody is left out silently.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chukan.errors import Problem
from chukan.tenants.copies import open_body
from chukan.tenants.evidence_export import Door
from chukan.tenants.partition import Record
from chukan.tenants.records import RecordError, RecordFields, open_record, record_row
from chukan.tenants.sealing import AgencyKeys

PAGE: Final = 1_000
PEOPLE_PAGE: Final = 5_000
PERSONS_MAX: Final = 50_000
"""Persons of one list; a longer period is asked for in parts."""
RECORDS_MAX: Final = 200_000
"""Records that one look opens; a longer period is asked for in parts."""
_SLICE: Final = 100
"""Records opened before others have their turn: they take about 3 ms."""
_RECORD: Final = b"\x01"
"""First byte of a record's leaf; one that is gone after seven years is before every period that can be asked for."""
_MARGIN: Final = dt.timedelta(hours=1)
"""How far the clocks of exchanges and cells may be apart: that much beyond both ends is looked at."""
_PENDING_S: Final = 2


_BEGINNING: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_END: Final = dt.datetime.max.replace(tzinfo=dt.UTC)


class Scope(NamedTuple):
    """Which records count: closed from ``since`` to before ``until``; of these kinds and counterparts (or all)."""

    since: dt.datetime
    until: dt.datetime
    kinds: Collection[str] = ()
    counterparts: Collection[str] = ()

    def takes(self, fields: RecordFields) -> bool:
        """Tell whether a record counts."""
        other = fields.provider if fields.side == "inquirer" else fields.inquirer
        return (
            self.since <= fields.closed_at < self.until
            and (not self.kinds or fields.kind in self.kinds)
            and (not self.counterparts or other in self.counterparts)
        )


@dataclass(slots=True)
class Touched:
    """One person and what was exchanged about them."""

    label: bytes
    addressee: str | None = None
    """The agency's own number (団体内統合宛名番号); None where it knows no such person any more."""
    records: int = 0
    kinds: set[str] = field(default_factory=set)
    first: dt.datetime = _END
    last: dt.datetime = _BEGINNING

    def add(self, fields: RecordFields) -> None:
        """Count a record."""
        self.records += 1
        self.kinds.add(fields.kind)
        self.first, self.last = min(self.first, fields.closed_at), max(self.last, fields.closed_at)


@dataclass(slots=True)
class Affected:
    """Who is affected, and how many records, items and agencies that are."""

    looked_at: int = 0
    records: int = 0
    items: dict[str, set[str]] = field(default_factory=dict)
    """Item codes by kind."""
    counterparts: set[str] = field(default_factory=set)
    persons: dict[bytes, Touched] = field(default_factory=dict)

    def add(self, label: bytes, fields: RecordFields) -> None:
        """Count a record of a person; ``Problem`` too_many_lines beyond 50,000 persons."""
        if label not in self.persons and len(self.persons) >= PERSONS_MAX:
            raise Problem("too_many_lines", limit=PERSONS_MAX)
        self.records += 1
        self.items.setdefault(fields.kind, set()).update(fields.items)
        self.counterparts.add(fields.provider if fields.side == "inquirer" else fields.inquirer)
        self.persons.setdefault(label, Touched(label)).add(fields)


async def find_affected(door: Door, keys: AgencyKeys, scope: Scope) -> Affected:
    """Return whom the records of a period are about.

    Args:
        door: opens one transaction for the agency.
        keys: the agency's.
        scope: which records count.

    Raises:
        Problem: too_many_lines for more than 50,000 persons or 200,000 records; proof_pending while a record of the
            period has no place in the log yet; as the cell does.
        RecordError, SealError: a record is not what was committed to.
    """
    found = Affected()
    begin, end = scope.since - _MARGIN, scope.until + _MARGIN
    # A leaf is never older than its record, but may be much younger: the end is where all records have been seen.
    missing = await _count(door, begin, end)
    position = await _last_before(door, begin)
    while True:
        async with door() as partition:
            rows = await partition.fetch(
                f"SELECT l.seq, l.at AS placed_at, l.leaf_data, r.* FROM {partition.table('log')} l"
                f" LEFT JOIN {partition.table('records')} r ON r.agency = l.agency AND r.id = l.record"
                " WHERE l.agency = $1 AND l.seq > $2 ORDER BY l.seq LIMIT $3",
                partition.agency,
                position,
                PAGE,
            )
        for turn, row in enumerate(rows):
            if turn % _SLICE == 0:
                await asyncio.sleep(0)
            # Other things than records may have a leaf: what is restored is said there.
            if row["id"] is None:
                if row["leaf_data"][:1] == _RECORD and row["placed_at"] >= scope.since:
                    raise RecordError(row["seq"])
                continue
            fields = open_record(keys, record_row(row))
            found.looked_at += 1
            missing -= begin <= row["at"] < end
            if found.looked_at > RECORDS_MAX:
                raise Problem("too_many_lines", limit=RECORDS_MAX)
            if scope.takes(fields):
                found.add(row["label"], fields)
        if len(rows) < PAGE or (missing <= 0 and rows[-1]["placed_at"] > end):
            break
        position = rows[-1]["seq"]
    if missing > 0:
        raise Problem("proof_pending", retry_after_s=_PENDING_S)
    await _name(door, keys, found.persons)
    return found


async def _count(door: Door, begin: dt.datetime, end: dt.datetime) -> int:
    """Count the records that were written in a period."""
    async with door() as partition:
        count: int = await partition.fetchval(
            f"SELECT count(*) FROM {partition.table('records')} WHERE agency = $1 AND at >= $2 AND at < $3",
            partition.agency,
            begin,
            end,
        )
    return count


async def _last_before(door: Door, instant: dt.datetime) -> int:
    """Return a position after which all leaves stand that were placed from an instant on, by halving."""
    async with door() as partition:
        table = partition.table("log")
        head = await partition.fetchval(f"SELECT max(seq) FROM {table} WHERE agency = $1", partition.agency)
        low, high = 0, head or 0
        while low < high:
            middle = (low + high + 1) // 2
            at = await partition.fetchval(
                f"SELECT at FROM {table} WHERE agency = $1 AND seq = $2", partition.agency, middle
            )
            if at is None or at >= instant:
                high = middle - 1
            else:
                low = middle
    return low


async def _name(door: Door, keys: AgencyKeys, persons: dict[bytes, Touched]) -> None:
    """Find each person's addressee number: among those who have a link, then among those of whom there is a copy."""
    unnamed = set(persons)
    await _name_by(
        door, keys, persons, unnamed, "codes",
        "SELECT person, addressee FROM {} WHERE person > $1 ORDER BY person LIMIT $2",
        lambda row: keys.open("addressee", row["person"], row["addressee"]).decode(),
    )  # fmt: skip
    await _name_by(
        door, keys, persons, unnamed, "copies",
        "SELECT DISTINCT ON (person) person, id, body FROM {} WHERE person > $1 ORDER BY person LIMIT $2",
        lambda row: open_body(keys, row["id"], row["body"]).addressee,
    )  # fmt: skip


async def _name_by(
    door: Door,
    keys: AgencyKeys,
    persons: dict[bytes, Touched],
    unnamed: set[bytes],
    table: str,
    sql: str,
    addressee: Callable[[Record], str],
) -> None:
    after = b""
    while unnamed:
        async with door() as partition:
            rows = await partition.fetch(sql.format(partition.table(table)), after, PEOPLE_PAGE)
        for row in rows:
            label = keys.label(row["person"])
            if label in unnamed:
                unnamed.discard(label)
                persons[label].addressee = addressee(row)
        if len(rows) < PEOPLE_PAGE:
            break
        after = rows[-1]["person"]
        await asyncio.sleep(0)
