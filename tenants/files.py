"""Files of many lines that an agency sends (照会ファイル, 符号取得ファイル): a row a file, found by its name (CON-03).

A file is ``open`` until all of its lines are durable, then ``accepted``. Its lines are made durable batch by batch
under keys that follow from the file's id; so a file that was cut short in the middle is simply sent again, and what
was taken the first time is found and not taken twice.

Invariant: a name stands for one content. The same file again finds the first row, whatever its Idempotency-Key; the
same name with other content is refused and changes nothing. Names and contents rest as keyed digests, the body is
sealed, refusals hold line numbers and registered codes and never a value.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.tenants import idempotency

if TYPE_CHECKING:
    from chukan.tenants.partition import Partition, Record
    from chukan.tenants.sealing import AgencyKeys

Purpose = Literal["queries", "codes"]
State = Literal["open", "accepted"]

RESUME_MAX: Final = dt.timedelta(days=7)
"""How long a file that was cut short may be finished: the keys of its batches are kept that long."""

_COLUMNS: Final = "id, content, body, lines, refusals, state, at"


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """A line that was refused: its number (from 1), the registered code, and where in the line."""

    line: int
    code: str
    pointer: str | None = None


class FileRow(NamedTuple):
    """A file as it rests; ``body`` is what its purpose needs to keep, opened."""

    id: uuid.UUID
    state: State
    lines: int
    body: bytes
    refusals: list[Refusal]
    at: dt.datetime


class Sent(NamedTuple):
    """A file as it was sent: what its name and its content are known by."""

    purpose: Purpose
    name: str
    content: bytes
    """Everything that must be the same for it to be the same file: its bytes, or their digest, and how to read them."""
    key: str
    """The request's Idempotency-Key."""
    request: bytes
    """Everything that must be the same when the key comes again."""


async def claim(
    partition: Partition, keys: AgencyKeys, sent: Sent, *, file: uuid.UUID, body: bytes, now: dt.datetime
) -> FileRow:
    """Find the row of a file, or make it under the id ``file``; a writing statement, so that it is durable either way.

    Raises:
        Problem: file_conflict for another content under the name; idempotency_key_reused for a key that stands for
            another request; idempotency_key_too_old for a file that was cut short longer ago than it can be finished.
    """
    content = keys.digest("body", sent.content)
    row = await partition.fetchrow(
        f"INSERT INTO {partition.table('files')} AS f (id, purpose, name, content, body, lines, at)"
        " VALUES ($1, $2, $3, $4, $5, 0, $6)"
        f" ON CONFLICT (purpose, name) DO UPDATE SET tries = f.tries + 1 RETURNING {_COLUMNS}",
        file,
        sent.purpose,
        keys.digest("file", sent.name.encode()),
        content,
        keys.seal("file", file.bytes, body),
        now,
    )
    if row is None or bytes(row["content"]) != content:
        raise Problem("file_conflict")
    await idempotency.claim(partition, keys, sent.key, sent.request, row["id"])
    if row["state"] == "open" and now - row["at"] > RESUME_MAX:
        raise Problem("idempotency_key_too_old")
    return _row(keys, row)


async def accept(
    partition: Partition, keys: AgencyKeys, file: uuid.UUID, *, lines: int, body: bytes, refusals: Sequence[Refusal]
) -> FileRow:
    """Say that all lines of a file are durable or refused; of two that say so the first counts."""
    await partition.execute(
        f"UPDATE {partition.table('files')} SET state = 'accepted', lines = $2, body = $3, refusals = $4"
        " WHERE id = $1 AND state = 'open'",
        file,
        lines,
        keys.seal("file", file.bytes, body),
        msgspec.json.encode(refusals).decode(),
    )
    return await get(partition, keys, file)


async def get(partition: Partition, keys: AgencyKeys, file: uuid.UUID, purpose: Purpose | None = None) -> FileRow:
    """Return a file by its id, of one purpose where that is given. Raises ``Problem`` not_found."""
    row = await partition.fetchrow(
        f"SELECT {_COLUMNS} FROM {partition.table('files')} WHERE id = $1 AND purpose = coalesce($2, purpose)",
        file,
        purpose,
    )
    if row is None:
        raise Problem("not_found")
    return _row(keys, row)


def _row(keys: AgencyKeys, row: Record) -> FileRow:
    return FileRow(
        id=row["id"],
        state=row["state"],
        lines=row["lines"],
        body=keys.open("file", row["id"].bytes, row["body"]),
        refusals=msgspec.json.decode(row["refusals"], type=list[Refusal]),
        at=row["at"],
    )
