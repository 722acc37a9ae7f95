"""Loads (副本登録): registering copies in bulk, in parts, so that provision sees the old set until one commit.

A load is opened with the number of rows to come, filled part by part into the agency's stage, and committed by one merge
(or aborted). A part is idempotent by its digest, so a broken transfer goes on with the parts that are missing. The commit
compares the count and the digest of all parts' digests with what the agency announced. A full load (全件) deletes what it
does not hold, and waits for an officer where it would drop more than 5% of the persons.

Invariant: nothing is ever accepted in silence and left (CON-04): past a limit the caller is told the limit, and a load
that is not committed says what it lacks. Refused lines are known by part, line and code, never by a value.
"""

import asyncio
import datetime as dt
import hashlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import asyncpg
import msgspec

from chukan.errors import REGISTRY, Problem
from chukan.tenants.copies import Copy, fence, seal_copy
from chukan.tenants.partition import Partition
from chukan.tenants.sealing import AgencyKeys

EXPECTED_MAX: Final = 5_000_000
PART_LINES_MAX: Final = 50_000
PARTS_MAX: Final = 10_000
PROBLEMS_MAX: Final = 1_000
"""Refused lines that a load remembers by name; beyond that they are only counted."""
OPEN_MAX: Final = 16
"""Loads that an agency may have open at once: an abandoned one keeps its rows staged until it is aborted."""
DROP_PERCENT_MAX: Final = 5
"""A full load that would drop more than this share of persons waits for an officer."""

_DIGEST_BYTES: Final = 32
_RETRY_S: Final = 5
_YIELD_EACH: Final = 128
"""Rows sealed between two turns of the event loop: one file must not slow another agency's counter."""
_STAGED: Final = (
    "load", "n", "line", "id", "person", "kind", "period", "effective_from", "layout", "body", "content", "review",
)  # fmt: skip

Mode = Literal["full", "difference"]
OnError = Literal["reject_line", "reject_file"]
State = Literal["open", "held", "committed", "aborted"]


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a load will bring; ``full`` replaces all copies of (kind, period, layout)."""

    kind: str
    layout: int
    mode: Mode
    expected: int
    """Lines to come, refused ones included."""
    period: str = ""
    on_error: OnError = "reject_file"
    source: str = "file"


class Refused(NamedTuple):
    """A line that was refused before it came here: its number in its part (from 1) and a code of the registry."""

    line: int
    code: str


class RefusedLine(NamedTuple):
    """A refused line as a load remembers it."""

    part: int
    line: int
    code: str


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A load session as it stands."""

    id: uuid.UUID
    spec: LoadSpec
    state: State
    staged: int
    refused: int
    parts: list[int]
    problems: list[RefusedLine]
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0


async def open_load(partition: Partition, spec: LoadSpec, *, load: uuid.UUID, at: dt.datetime) -> Load:
    """Open a load under an id of the caller's; the same id and announcement again gives the same load.

    Raises:
        Problem: idempotency_key_reused (the id stands for another announcement), too_many_lines (more are announced
            than a load may have), rate_limited (too many loads are open: commit or abort one).
    """
    if not 0 <= spec.expected <= EXPECTED_MAX:
        raise Problem("too_many_lines", limit=EXPECTED_MAX)
    table = partition.table("loads")
    row = await partition.fetchrow(
        f"INSERT INTO {table} AS l (id, kind, period, layout, mode, expected, source, on_error, opened_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (id) DO UPDATE SET opened_at = l.opened_at RETURNING l.*, xmax = 0 AS fresh",
        load,
        spec.kind,
        spec.period,
        spec.layout,
        spec.mode,
        spec.expected,
        spec.source,
        spec.on_error,
        at,
    )
    if row is None or _spec(row) != spec:
        raise Problem("idempotency_key_reused")
    open_now = await partition.fetchrow(f"SELECT count(*) AS n FROM {table} WHERE state IN ('open', 'held')")
    if row["fresh"] and open_now is not None and open_now["n"] > OPEN_MAX:
        raise Problem("rate_limited", limit=OPEN_MAX, retry_after_s=_RETRY_S)
    return await get(partition, load)


async def get(partition: Partition, load: uuid.UUID) -> Load:
    """Return a load as it stands: the parts that are here, what was refused, what became of it. ``Problem`` not_found."""
    row = await partition.fetchrow(f"SELECT * FROM {partition.table('loads')} WHERE id = $1", load)
    if row is None:
        raise Problem("not_found")
    parts = await partition.fetch(
        f"SELECT n, rows, refused, refusals FROM {partition.table('load_parts')} WHERE load = $1 ORDER BY n", load
    )
    problems = [
        RefusedLine(part["n"], line, code)
        for part in parts
        for line, code in msgspec.json.decode(part["refusals"], type=list[Refused])
    ]
    return Load(
        id=load,
        spec=_spec(row),
        state=row["state"],
        staged=sum(part["rows"] for part in parts),
        refused=sum(part["refused"] for part in parts),
        parts=[part["n"] for part in parts],
        problems=problems,
        inserted=row["inserted"] or 0,
        updated=row["updated"] or 0,
        unchanged=row["unchanged"] or 0,
        deleted=row["deleted"] or 0,
    )


async def put_part(
    partition: Partition,
    keys: AgencyKeys,
    load: uuid.UUID,
    n: int,
    lines: Sequence[Copy] | AsyncIterable[Copy],
    *,
    digest: bytes,
    refused: Sequence[Refused] = (),
) -> Load:
    """Stage part ``n`` of an open load, all of it or nothing; the same part again has no effect.

    Args:
        partition: the agency's door; its commit makes the part durable.
        keys: the agency's.
        load: an open load.
        n: number of the part, 0…9,999, in the order in which the parts' digests are digested at commit.
        lines: checked copies of the load's kind, layout and period, at most 50,000.
        digest: SHA-256 of the part as the agency sent it, 32 bytes.
        refused: the part's lines that were refused.

    Raises:
        Problem: not_found, load_not_open, part_conflict, too_many_lines (with the limit), load_count_mismatch (more
            lines than announced), invalid_field (with the line, from 1, of another kind, layout or period).
        ValueError: the items of a copy are no JSON object, the digest has another length, or a code is not registered.
    """
    if len(digest) != _DIGEST_BYTES or any(each.code not in REGISTRY for each in refused):
        raise ValueError("a part has a SHA-256 digest and registered refusals")
    if not 0 <= n < PARTS_MAX:
        raise Problem("too_many_lines", limit=PARTS_MAX)
    if isinstance(lines, Sequence) and len(lines) > PART_LINES_MAX:
        raise Problem("too_many_lines", limit=PART_LINES_MAX)
    row = await _locked(partition, load, "FOR SHARE")
    if row["state"] != "open":
        raise Problem("load_not_open")
    kept = await partition.fetchrow(
        f"INSERT INTO {partition.table('load_parts')} AS p (load, n, digest, rows) VALUES ($1, $2, $3, 0)"
        " ON CONFLICT (load, n) DO UPDATE SET digest = p.digest RETURNING digest, xmax = 0 AS fresh",
        load,
        n,
        digest,
    )
    if kept is None or kept["digest"] != digest:
        raise Problem("part_conflict")
    if kept["fresh"]:
        rows = _staged(keys, load, n, _spec(row), lines)
        await partition.copy_in("stage", rows.stream(), columns=_STAGED)
        await _note_part(partition, load, n, rows.count, refused)
        await _check_room(partition, load, row["expected"])
    return await get(partition, load)
