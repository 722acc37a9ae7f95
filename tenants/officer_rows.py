"""Rows of officers' accounts, changes and sessions, in one agency's partition (door 1), sealed under its key.

Every function works inside the caller's transaction, so that what it writes, what it was decided on (rows are locked
before they are read) and the entry of the operations log are one commit. What a body says is bound to its row: a body
that was put under another officer's id does not open, and the row then counts as altered (``Problem`` internal).

Invariant: a session's token stands nowhere, only its keyed digest; a row here never holds a name in the clear.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import msgspec

from chukan.errors import Problem
from chukan.tenants.directory import Instant
from chukan.tenants.officer_accounts import KEPT_MAX, Account, Entry
from chukan.tenants.partition import Partition, Record
from chukan.tenants.sealing import AgencyKeys, SealError

SESSIONS_MAX: Final = 3
"""Sessions that one officer may hold; the one seen last longest ago gives way."""
LISTED_MAX: Final = KEPT_MAX + 1
CHANGES_LISTED: Final = 100
State = Literal["open", "approved", "rejected"]
B = TypeVar("B", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account, and what locks it."""

    account: Account
    version: int
    failures: int
    locked_until: dt.datetime | None
    challenge: bytes | None
    challenge_until: dt.datetime | None


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a change is to do, and why."""

    entries: list[Entry]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A proposed change as it stands."""

    id: uuid.UUID
    proposer: str
    proposal: Proposal
    state: State
    decided_by: str | None
    at: dt.datetime
    content: bytes


class SessionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a session says: whose it is, at which client (certificate) it serves, and since when."""

    officer: str
    client: str
    factor: Literal["passkey", "card"]
    started_at: Instant
    until: Instant
    since: Instant
    """When the factors were set that it was begun with."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session, and when its officer was last seen."""

    body: SessionBody
    seen_at: dt.datetime


# ---------------------------------------------------------------- accounts

_ACCOUNT: Final = "officer, body, version, failures, locked_until, challenge, challenge_until"


async def any_account(partition: Partition) -> bool:
    """Tell whether the agency has accounts."""
    return bool(await partition.fetchval(f"SELECT EXISTS (SELECT FROM {partition.table('officers')})"))


async def accounts(partition: Partition, keys: AgencyKeys, *, lock: bool = False) -> dict[str, AccountRow]:
    """Return all accounts by officer; ``lock`` keeps every one as it is until the end of the transaction."""
    if lock:
        # A change looks at all of them, and one that is being born has no row yet that could be locked.
        await partition.execute(f"LOCK TABLE {partition.table('officers')} IN SHARE ROW EXCLUSIVE MODE")
    rows = await partition.fetch(
        f"SELECT {_ACCOUNT} FROM {partition.table('officers')} ORDER BY officer LIMIT {LISTED_MAX}"
    )
    return {row["officer"]: _account(keys, row) for row in rows}


async def account(partition: Partition, keys: AgencyKeys, officer: str, *, lock: bool = False) -> AccountRow | None:
    """Return one account, locked where wanted; None for nobody's."""
    row = await partition.fetchrow(
        f"SELECT {_ACCOUNT} FROM {partition.table('officers')} WHERE officer = $1{' FOR UPDATE' if lock else ''}",
        officer,
    )
    return None if row is None else _account(keys, row)


async def put_account(partition: Partition, keys: AgencyKeys, changed: Account) -> None:
    """Put an account into the place of the one before, or make it; its lock stays as it is."""
    body = keys.seal("officer", changed.officer.encode(), msgspec.json.encode(changed))
    await partition.execute(
        f"INSERT INTO {partition.table('officers')} AS o (officer, body) VALUES ($1, $2) ON CONFLICT (officer)"
        " DO UPDATE SET body = excluded.body, version = o.version + 1, at = now()",
        changed.officer,
        body,
    )


async def set_lock(partition: Partition, officer: str, failures: int, locked_until: dt.datetime | None) -> None:
    """Set how often signing in failed in a row, and until when nobody may try; the challenge is used up."""
    await partition.execute(
        f"UPDATE {partition.table('officers')} SET failures = $2, locked_until = $3, challenge = NULL,"
        " challenge_until = NULL WHERE officer = $1",
        officer,
        failures,
        locked_until,
    )


async def set_challenge(partition: Partition, officer: str, challenge: bytes, until: dt.datetime) -> None:
    """Lay down what an authenticator has to sign next; one at a time."""
    await partition.execute(
        f"UPDATE {partition.table('officers')} SET challenge = $2, challenge_until = $3 WHERE officer = $1",
        officer,
        challenge,
        until,
    )


def _account(keys: AgencyKeys, row: Record) -> AccountRow:
    found = _opened(keys, "officer", row["officer"].encode(), row["body"], Account)
    if found.officer != row["officer"]:
        raise Problem("internal")
    return AccountRow(
        account=found,
        version=row["version"],
        failures=row["failures"],
        locked_until=row["locked_until"],
        challenge=row["challenge"],
        challenge_until=row["challenge_until"],
    )


# ---------------------------------------------------------------- changes

_CHANGE: Final = "id, proposer, body, state, decided_by, at, content"


async def propose(
    partition: Partition,
    keys: AgencyKeys,
    *,
    change: uuid.UUID,
    request: bytes,
    content: bytes,
    proposer: str,
    proposal: Proposal,
    at: dt.datetime,
) -> ChangeRow:
    """Keep a proposal, or return the one that the same request made before."""
    row = await partition.fetchrow(
        f"INSERT INTO {partition.table('officer_changes')} AS c (id, asked, content, proposer, body, at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (asked) DO UPDATE SET tries = c.tries + 1"
        f" RETURNING {_CHANGE}",
        change,
        request,
        content,
        proposer,
        keys.seal("officer_change", change.bytes, msgspec.json.encode(proposal)),
        at,
    )
    if row is None:
        raise Problem("internal")
    return _change(keys, row)


async def change(partition: Partition, keys: AgencyKeys, wanted: uuid.UUID) -> ChangeRow | None:
    """Return a change, locked until the end of the transaction; None where there is none."""
    row = await partition.fetchrow(
        f"SELECT {_CHANGE} FROM {partition.table('officer_changes')} WHERE id = $1 FOR UPDATE", wanted
    )
    return None if row is None else _change(keys, row)


async def changes(partition: Partition, keys: AgencyKeys, after: dt.datetime) -> list[ChangeRow]:
    """Return what waits for a decision, oldest first, then what was decided last; a hundred of each at most.

    What was proposed up to ``after`` has lapsed: it stands behind what has not, however much of it there is.
    """
    table = partition.table("officer_changes")
    rows = await partition.fetch(
        f"SELECT {_CHANGE} FROM {table} WHERE state = 'open' ORDER BY at > $1 DESC, at LIMIT {CHANGES_LISTED}", after
    )
    rows += await partition.fetch(
        f"SELECT {_CHANGE} FROM {table} WHERE state <> 'open' ORDER BY decided_at DESC LIMIT {CHANGES_LISTED}"
    )
    return [_change(keys, row) for row in rows]


async def open_changes(partition: Partition, after: dt.datetime) -> int:
    """Count the changes that wait for a decision since an instant."""
    found = await partition.fetchval(
        f"SELECT count(*) FROM {partition.table('officer_changes')} WHERE state = 'open' AND at > $1", after
    )
    return int(found)


async def decide(partition: Partition, change: uuid.UUID, state: State, by: str, at: dt.datetime) -> None:
    """Close a change; the table refuses an approval by who proposed it."""
    await partition.execute(
        f"UPDATE {partition.table('officer_changes')} SET state = $2, decided_by = $3, decided_at = $4 WHERE id = $1",
        change,
        state,
        by,
        at,
    )


def _change(keys: AgencyKeys, row: Record) -> ChangeRow:
    proposal = _opened(keys, "officer_change", row["id"].bytes, row["body"], Proposal)
    return ChangeRow(
        row["id"], row["proposer"], proposal, row["state"], row["decided_by"], row["at"], bytes(row["content"])
    )


# ---------------------------------------------------------------- sessions


async def begin_session(
    partition: Partition, keys: AgencyKeys, digest: bytes, body: SessionBody, at: dt.datetime
) -> None:
    """Keep a session; the officer's ended ones go, and the oldest where there would be too many."""
    table = partition.table("officer_sessions")
    await partition.execute(
        f"DELETE FROM {table} WHERE officer = $1 AND (until <= $2 OR digest IN"
        f" (SELECT digest FROM {table} WHERE officer = $1 ORDER BY seen_at DESC OFFSET {SESSIONS_MAX - 1}))",
        body.officer,
        at,
    )
    await partition.execute(
        f"INSERT INTO {table} (digest, officer, body, seen_at, until) VALUES ($1, $2, $3, $4, $5)",
        digest,
        body.officer,
        keys.seal("officer_session", digest, msgspec.json.encode(body)),
        at,
        body.until,
    )


async def session(partition: Partition, keys: AgencyKeys, digest: bytes) -> SessionRow | None:
    """Return a session; None where there is none."""
    row = await partition.fetchrow(
        f"SELECT officer, body, seen_at FROM {partition.table('officer_sessions')} WHERE digest = $1", digest
    )
    if row is None:
        return None
    body = _opened(keys, "officer_session", digest, row["body"], SessionBody)
    return None if body.officer != row["officer"] else SessionRow(body, row["seen_at"])


async def seen(partition: Partition, digest: bytes, at: dt.datetime) -> None:
    """Remember that the officer was there."""
    await partition.execute(
        f"UPDATE {partition.table('officer_sessions')} SET seen_at = $2 WHERE digest = $1 AND seen_at < $2", digest, at
    )


async def end_session(partition: Partition, digest: bytes) -> bool:
    """End a session; False where there is none."""
    return await partition.execute(f"DELETE FROM {partition.table('officer_sessions')} WHERE digest = $1", digest) > 0


async def end_sessions(partition: Partition, officers: Sequence[str]) -> int:
    """End all sessions of these officers, and return how many."""
    return await partition.execute(
        f"DELETE FROM {partition.table('officer_sessions')} WHERE officer = ANY ($1::text[])", list(officers)
    )


def _opened(keys: AgencyKeys, table: str, row: bytes, sealed: bytes, kind: type[B]) -> B:
    try:
        return msgspec.json.decode(keys.open(table, row, sealed), type=kind)
    except (SealError, msgspec.MsgspecError):
        # Written by nobody who had the key.
        raise Problem("internal") from None
