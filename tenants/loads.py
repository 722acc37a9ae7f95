"""Loads (副本登録): registering copies in bulk, in parts, so that provision sees the old set until one commit.

A load is opened with the number of rows to come, filled part by part into the agency's stage, and committed by one
merge (or aborted). A part is idempotent by its digest, so a broken transfer goes on with the parts that are missing.
The commit compares the count and the digest of all parts' digests with what the agency announced. A full load (全件)
deletes what it does not hold, and waits for an officer where it would drop more than 5% of the persons.

Invariant: nothing is ever accepted in silence and left (CON-04): past a limit the caller is told the limit, and a load
that is not committed says what it lacks. Refused lines are known by part, line and code, never by a value.
"""

import asyncio
import datetime as dt
import hashlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Final, Literal

import msgspec

from chukan.errors import REGISTRY, Problem
from chukan.tenants.copies import Copy, CopyPlace, seal_copy
from chukan.tenants.load_forms import Load, LoadSpec, Refused, RefusedLine
from chukan.tenants.load_merge import delete_absent, drops_too_many, merge
from chukan.tenants.partition import Partition, Record
from chukan.tenants.sealing import AgencyKeys

__all__ = [
    "Load", "LoadSpec", "Refused", "RefusedLine", "abort", "commit", "digest_of_parts", "get", "open_load", "put_part",
]  # fmt: skip

EXPECTED_MAX: Final = 5_000_000
PART_LINES_MAX: Final = 50_000
PARTS_MAX: Final = 10_000
PROBLEMS_MAX: Final = 1_000
"""Refused lines that a load remembers by name; beyond that they are only counted."""
OPEN_MAX: Final = 16
"""Loads that an agency may have open at once: an abandoned one keeps its rows staged until it is aborted."""

_DIGEST_BYTES: Final = 32
_RETRY_S: Final = 5
_YIELD_EACH: Final = 128
"""Rows sealed between two turns of the event loop: one file must not slow another agency's counter."""
_STAGED: Final = (
    "load", "n", "line", "id", "person", "kind", "period", "effective_from", "layout", "body", "content", "review",
)  # fmt: skip


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
    """Return a load as it stands: the parts that are here, what was refused, what came of it. ``Problem`` not_found."""
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
            lines than announced), invalid_field (with the line, from 1, of another kind, layout or period),
            truncated_body (a stream of lines broke off).
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
        rows = _Rows(keys, load, n, _spec(row), lines)
        await partition.copy_in("stage", rows.stream(), columns=_STAGED)
        await _note_part(partition, load, n, rows.count, refused)
        await _check_room(partition, load, row["expected"])
    return await get(partition, load)


async def commit(
    partition: Partition,
    load: uuid.UUID,
    *,
    digest: bytes,
    at: dt.datetime,
    officer_released: bool = False,
) -> Load:
    """Merge a load into the copies, in this one transaction; repeating it after a lost reply gives the same outcome.

    A load that would drop more than 5% of the persons, and that no officer released, comes back in state ``held`` with
    nothing merged: the transaction must be allowed to commit, then the caller answers load_held_for_officer.

    Args:
        partition: the agency's door.
        load: an open or held load.
        digest: SHA-256 over the parts' digests in the order of their numbers, 32 bytes.
        at: the instant of registration.
        officer_released: an officer has looked at a held load and let it go.

    Raises:
        Problem: not_found, load_not_open, load_count_mismatch, load_digest_mismatch; busy (another load of the agency
            is being committed); the first refused line's code, with the line, where one refused line refuses the file.
    """
    await _one_commit_at_a_time(partition)
    row = await _locked(partition, load, "FOR UPDATE")
    spec, state = _spec(row), row["state"]
    if state == "aborted":
        raise Problem("load_not_open")
    await _check_complete(partition, load, spec, digest)
    if state == "committed":
        # The row was locked above, and a lock is a write: this commit waits for the first one to be durable.
        return await get(partition, load)
    if spec.mode == "full" and not officer_released and await drops_too_many(partition, load, spec):
        await partition.execute(f"UPDATE {partition.table('loads')} SET state = 'held' WHERE id = $1", load)
        return await get(partition, load)
    inserted, updated, unchanged = await merge(partition, load, spec, at)
    deleted = await delete_absent(partition, load, spec) if spec.mode == "full" else 0
    await partition.execute(f"DELETE FROM {partition.table('stage')} WHERE load = $1", load)
    await partition.execute(
        f"UPDATE {partition.table('loads')} SET state = 'committed', committed_at = $2, inserted = $3, updated = $4,"
        " unchanged = $5, deleted = $6 WHERE id = $1",
        load,
        at,
        inserted,
        updated,
        unchanged,
        deleted,
    )
    return await get(partition, load)


async def abort(partition: Partition, load: uuid.UUID) -> Load:
    """Give up an open or held load and clear its stage; again on an aborted one has no effect.

    Raises:
        Problem: not_found, load_not_open (it was committed).
    """
    row = await _locked(partition, load, "FOR UPDATE")
    if row["state"] == "committed":
        raise Problem("load_not_open")
    await partition.execute(f"DELETE FROM {partition.table('stage')} WHERE load = $1", load)
    await partition.execute(f"UPDATE {partition.table('loads')} SET state = 'aborted' WHERE id = $1", load)
    return await get(partition, load)


def digest_of_parts(digests: Iterable[bytes]) -> bytes:
    """Return what a commit must announce: SHA-256 over the parts' SHA-256 digests in the order of their numbers."""
    return hashlib.sha256(b"".join(digests)).digest()


class _Rows:
    """Seals lines one by one into stage rows, and counts them."""

    def __init__(
        self, keys: AgencyKeys, load: uuid.UUID, n: int, spec: LoadSpec, lines: Iterable[Copy] | AsyncIterable[Copy]
    ) -> None:
        self._keys, self._load, self._n, self._spec, self._lines = keys, load, n, spec, lines
        self.count = 0

    async def stream(self) -> AsyncIterator[tuple[object, ...]]:
        """Yield the rows for COPY; ``Problem`` too_many_lines, invalid_field."""
        async for copy in _each(self._lines):
            if self.count >= PART_LINES_MAX:
                raise Problem("too_many_lines", limit=PART_LINES_MAX)
            self.count += 1
            if (copy.kind, copy.layout, copy.period) != (self._spec.kind, self._spec.layout, self._spec.period):
                raise Problem("invalid_field", line=self.count, expected="kind, layout and period of the load")
            if self.count % _YIELD_EACH == 0:
                await asyncio.sleep(0)
            sealed = seal_copy(self._keys, copy)
            head = (self._load, self._n, self.count, sealed.id)
            yield (*head, *_place(sealed.place), sealed.body, sealed.content, sealed.review)


async def _each(lines: Iterable[Copy] | AsyncIterable[Copy]) -> AsyncIterator[Copy]:
    if isinstance(lines, AsyncIterable):
        try:
            async for copy in lines:
                yield copy
        except OSError:
            # The sender's connection broke, which must not be taken for the database's.
            raise Problem("truncated_body") from None
    else:
        for copy in lines:
            yield copy


def _place(place: CopyPlace) -> tuple[object, ...]:
    return (place.person, place.kind, place.period, place.effective_from, place.layout)


def _spec(row: Record) -> LoadSpec:
    return LoadSpec(
        kind=row["kind"],
        layout=row["layout"],
        mode=row["mode"],
        expected=row["expected"],
        period=row["period"],
        on_error=row["on_error"],
        source=row["source"],
    )


async def _locked(partition: Partition, load: uuid.UUID, lock: Literal["FOR SHARE", "FOR UPDATE"]) -> Record:
    """Return the load's row: parts share it, commit and abort have it alone."""
    row = await partition.fetchrow(f"SELECT * FROM {partition.table('loads')} WHERE id = $1 {lock}", load)
    if row is None:
        raise Problem("not_found")
    return row


async def _one_commit_at_a_time(partition: Partition) -> None:
    # This mode excludes only itself (and a vacuum, which gives way): parts and new loads go on meanwhile.
    await partition.execute(f"LOCK TABLE {partition.table('loads')} IN SHARE UPDATE EXCLUSIVE MODE")


async def _note_part(partition: Partition, load: uuid.UUID, n: int, count: int, refused: Sequence[Refused]) -> None:
    table = partition.table("load_parts")
    known = await partition.fetchrow(
        f"SELECT coalesce(sum(json_array_length(refusals::json)), 0) AS n FROM {table} WHERE load = $1", load
    )
    room = max(0, PROBLEMS_MAX - (known["n"] if known is not None else 0))
    await partition.execute(
        f"UPDATE {table} SET rows = $3, refused = $4, refusals = $5 WHERE load = $1 AND n = $2",
        load,
        n,
        count,
        len(refused),
        msgspec.json.encode(refused[:room]).decode(),
    )


async def _check_room(partition: Partition, load: uuid.UUID, expected: int) -> None:
    total = await partition.fetchrow(
        f"SELECT coalesce(sum(rows + refused), 0) AS n FROM {partition.table('load_parts')} WHERE load = $1", load
    )
    if total is None or total["n"] > expected:
        raise Problem("load_count_mismatch", limit=expected)


async def _check_complete(partition: Partition, load: uuid.UUID, spec: LoadSpec, digest: bytes) -> None:
    """Raise unless everything that was announced is here, and nothing was refused that refuses the file."""
    parts = await partition.fetch(
        f"SELECT digest, rows, refused, refusals FROM {partition.table('load_parts')} WHERE load = $1 ORDER BY n", load
    )
    if sum(part["rows"] + part["refused"] for part in parts) != spec.expected:
        raise Problem("load_count_mismatch")
    if digest_of_parts(part["digest"] for part in parts) != digest:
        raise Problem("load_digest_mismatch")
    if spec.on_error == "reject_file":
        known = (each for part in parts for each in msgspec.json.decode(part["refusals"], type=list[Refused]))
        for first in known:
            raise Problem(first.code, line=first.line)
