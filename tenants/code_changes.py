"""History of links (符号の紐付けの履歴): what officers proposed and decided, as their own agency reads it by door 1.

A change is decided once and never deleted; the records of a person keep the label under which they were written, for a
log's leaves never change. So who wants all records of a person asks here which other numbers of the agency are the same
person: those that were merged into it (``merged_into``), as far back as they go.

Nothing here writes: a change is made by the set functions alone (``tenants.sets.code_changes``).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from chukan.tenants.partition import Partition, Record
from chukan.tenants.sealing import AgencyKeys
from chukan.tenants.states import LinkStatus

MERGES_MAX: Final = 1000
"""Numbers that one person may have had at an agency, as far as they are followed."""
_COLUMNS: Final = (
    "id, act, person, target, state, detail, person_was, target_was, proposed_by, proposed_at, decided_by, decided_at"
)


class Detail(msgspec.Struct, frozen=True):
    """What rests sealed with a change."""

    addressee: str
    to: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a link, opened for its own agency."""

    id: uuid.UUID
    act: str
    state: str
    person: bytes
    target: bytes | None
    detail: Detail
    person_was: LinkStatus
    target_was: LinkStatus | None
    proposed_by: str
    proposed_at: dt.datetime
    decided_by: str | None
    decided_at: dt.datetime | None


_detail: Final = msgspec.json.Decoder(Detail)


def seal_detail(keys: AgencyKeys, change: uuid.UUID, detail: Detail) -> bytes:
    """Seal a change's detail for its row."""
    return keys.seal("notice", _row(change), msgspec.json.encode(detail))


def _row(change: uuid.UUID) -> bytes:
    return change.bytes + b"code change"


async def by_ids(partition: Partition, keys: AgencyKeys, changes: Sequence[uuid.UUID]) -> dict[uuid.UUID, Change]:
    """The named changes (at most 1,000), by id; unknown ones are left out."""
    rows = await partition.fetch(
        f"SELECT {_COLUMNS} FROM {partition.table('code_changes')} WHERE id = ANY($1::uuid[])", list(changes)
    )
    return {row["id"]: _opened(keys, row) for row in rows}


async def open_ones(partition: Partition, keys: AgencyKeys, *, limit: int = 1000) -> list[Change]:
    """The changes that wait for another officer, oldest first."""
    rows = await partition.fetch(
        f"SELECT {_COLUMNS} FROM {partition.table('code_changes')} WHERE state = 'open'"
        " ORDER BY proposed_at, id LIMIT $1",
        limit,
    )
    return [_opened(keys, row) for row in rows]


async def of_person(partition: Partition, keys: AgencyKeys, person: bytes, *, limit: int = 1000) -> list[Change]:
    """Everything that ever was proposed about a person's link, oldest first."""
    rows = await partition.fetch(
        f"SELECT {_COLUMNS} FROM {partition.table('code_changes')} WHERE person = $1 OR target = $1"
        " ORDER BY proposed_at, id LIMIT $2",
        person,
        limit,
    )
    return [_opened(keys, row) for row in rows]


async def merged_into(partition: Partition, person: bytes) -> list[bytes]:
    """The person (addressee digest) and every number that was merged into it, directly or by way of others."""
    known = [person]
    fresh = [person]
    while fresh and len(known) < MERGES_MAX:
        rows = await partition.fetch(
            f"SELECT DISTINCT person FROM {partition.table('code_changes')}"
            " WHERE act = 'merge' AND state = 'applied' AND target = ANY($1::bytea[])",
            fresh,
        )
        fresh = [row["person"] for row in rows if row["person"] not in known]
        known += fresh
    return known[:MERGES_MAX]


async def exchanged_with(partition: Partition, person: bytes) -> list[bytes]:
    """The person and every number with which it came to exchange or share codes, directly or by way of others.

    Not all of them are the same person: what is found under them is held against something else before it is used.
    """
    known = [person]
    fresh = [person]
    while fresh and len(known) < MERGES_MAX:
        rows = await partition.fetch(
            f"SELECT person, target FROM {partition.table('code_changes')}"
            " WHERE act IN ('relink', 'merge') AND state = 'applied'"
            " AND (person = ANY($1::bytea[]) OR target = ANY($1::bytea[]))",
            fresh,
        )
        fresh = sorted({row[side] for row in rows for side in ("person", "target")} - set(known))
        known += fresh
    return known[:MERGES_MAX]


async def relinked(partition: Partition, persons: Sequence[bytes]) -> bool:
    """Whether a code of any of these persons was moved from or to another number (付替)."""
    found: bool = await partition.fetchval(
        f"SELECT EXISTS (SELECT FROM {partition.table('code_changes')} WHERE act = 'relink' AND state = 'applied'"
        " AND (person = ANY($1::bytea[]) OR target = ANY($1::bytea[])))",
        list(persons),
    )
    return found


async def labels_of(partition: Partition, keys: AgencyKeys, person: bytes) -> list[bytes]:
    """The labels under which records of a person rest: of its own number and of all that were merged into it."""
    return [keys.label(each) for each in await merged_into(partition, person)]


def _opened(keys: AgencyKeys, row: Record) -> Change:
    return Change(
        id=row["id"],
        act=row["act"],
        state=row["state"],
        person=row["person"],
        target=row["target"],
        detail=_detail.decode(keys.open("notice", _row(row["id"]), row["detail"])),
        person_was=LinkStatus(row["person_was"]),
        target_was=None if row["target_was"] is None else LinkStatus(row["target_was"]),
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
    )
