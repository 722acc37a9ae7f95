"""What an agency keeps from the person's own query by a portal (自己情報提供不可フラグ).

A flag stands on everything of a person, on a kind of everybody, on a kind of a person, or on single copies of these by
period or first day. It rests beside the copies, not in them: a copy that is registered anew does not lift it. Every
change raises the agency's hold version, so that a provision which was looked up before is decided again.

Invariant: read after the look-up of the line, never before, or a flag set between the two would be missed. This module
must never be asked about anything but a person's own query: another agency is answered by the list and by holds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from chukan.errors import Problem
from chukan.tenants.copies import person_digest

if TYPE_CHECKING:
    from chukan.tenants.partition import Partition
    from chukan.tenants.sealing import AgencyKeys

LINES_MAX: Final = 1000
FLAGS_OF_LINE_MAX: Final = 1000
"""Flags on copies of one person and kind that are looked at; there are never as many periods."""
TABLE: Final = "own_information_flags"


class Wanted(NamedTuple):
    """A flag to set or to lift. None: all of them."""

    addressee: str | None
    kind: str | None
    period: str | None
    effective_from: dt.date | None
    flagged: bool


class Flag(NamedTuple):
    """A flag as it rests; ``person`` is the digest of the addressee number."""

    person: bytes | None
    kind: str | None
    period: str | None
    effective_from: dt.date | None

    def stops(self, person: bytes, kind: str, copies: Collection[tuple[str, dt.date]]) -> bool:
        """Tell whether it stands against an answer about a person and a kind.

        ``copies`` are the period and the first day of each copy that the answer would be made from.
        """
        if self.person not in {None, person} or self.kind not in {None, kind}:
            return False
        if self.period is None and self.effective_from is None:
            return True
        return any(
            self.period in {None, period} and self.effective_from in {None, effective} for period, effective in copies
        )


def check(wanted: Wanted) -> str | None:
    """Return the field that makes a flag none, or None: it names a person or a kind, and a copy by both."""
    if wanted.addressee is None and wanted.kind is None:
        return "addressee"
    of_copy = wanted.period is not None or wanted.effective_from is not None
    if of_copy and wanted.kind is None:
        return "kind"
    return "addressee" if of_copy and wanted.addressee is None else None


async def set_flags(partition: Partition, keys: AgencyKeys, wanted: Sequence[Wanted]) -> None:
    """Set or lift flags; of two about the same the last one wins.

    Raises:
        Problem: too_many_lines; invalid_field with the line (from 0) that names too little.
    """
    if len(wanted) > LINES_MAX:
        raise Problem("too_many_lines", limit=LINES_MAX)
    settled: dict[Flag, bool] = {}
    for line, each in enumerate(wanted):
        wrong = check(each)
        if wrong is not None:
            raise Problem("invalid_field", line=line, pointer=f"/{wrong}")
        person = None if each.addressee is None else person_digest(keys, each.addressee)
        settled[Flag(person, each.kind, each.period, each.effective_from)] = each.flagged
    table = partition.table(TABLE)
    columns: tuple[list[object], ...] = tuple([*column] for column in zip(*settled, strict=True)) or ([], [], [], [])
    given = "unnest($1::bytea[], $2::text[], $3::text[], $4::date[], $5::bool[]) u(person, kind, period, day, flagged)"
    await partition.execute(
        f"DELETE FROM {table} f USING {given} WHERE NOT u.flagged AND f.person IS NOT DISTINCT FROM u.person"
        " AND f.kind IS NOT DISTINCT FROM u.kind AND f.period IS NOT DISTINCT FROM u.period"
        " AND f.effective_from IS NOT DISTINCT FROM u.day",
        *columns,
        list(settled.values()),
    )
    await partition.execute(
        f"INSERT INTO {table} AS f (person, kind, period, effective_from)"
        f" SELECT u.person, u.kind, u.period, u.day FROM {given} WHERE u.flagged"
        " ON CONFLICT (person, kind, period, effective_from) DO UPDATE SET at = f.at",
        *columns,
        list(settled.values()),
    )
    # A provision that was decided on the flags of before is decided again.
    await partition.execute("SELECT chukan.bump_holds($1)", partition.agency)


async def carry(partition: Partition, keys: AgencyKeys, person: bytes, addressee: str) -> None:
    """Set the flags of a number that is given up (統合) on the one that stays."""
    rows = await partition.fetch(
        f"SELECT kind, period, effective_from FROM {partition.table(TABLE)} WHERE person = $1 LIMIT $2",
        person,
        FLAGS_OF_LINE_MAX,
    )
    if rows:
        flags = [Wanted(addressee, row["kind"], row["period"], row["effective_from"], flagged=True) for row in rows]
        await set_flags(partition, keys, flags)


async def read(partition: Partition, lines: Collection[tuple[bytes, str]]) -> list[Flag]:
    """Return the flags that may stand against answers about these (person, kind)."""
    rows = await partition.fetch(
        f"SELECT f.person, f.kind, f.period, f.effective_from FROM {partition.table(TABLE)} f"
        " WHERE (f.person = ANY ($1) OR f.person IS NULL) AND (f.kind = ANY ($2) OR f.kind IS NULL) LIMIT $3",
        [person for person, _ in lines],
        [kind for _, kind in lines],
        FLAGS_OF_LINE_MAX * LINES_MAX + 1,
    )
    if len(rows) > FLAGS_OF_LINE_MAX * LINES_MAX:
        # What was not read might be the one that counts.
        raise Problem("too_many_lines", limit=FLAGS_OF_LINE_MAX)
    return [Flag(row["person"], row["kind"], row["period"], row["effective_from"]) for row in rows]
