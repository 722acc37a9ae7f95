"""Delegations (委任): one agency's own half — what it has given to another agency, or taken from one.

An agency that asks or answers for another one holds the *taken* half, the other one the *given* half; the network says
a delegation holds once both have registered theirs. A half is proposed by one officer and approved by another, and any
officer may end it. Ended halves stay: a record names whom an exchange was for, and years later somebody asks why.

Invariant: only a half that two officers made, on a day it covers, counts (deny by default). It must never be deleted,
and its counterpart rests sealed: nobody without the agency's key learns who acts for whom.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from chukan.errors import Problem

if TYPE_CHECKING:
    from chukan.tenants.partition import Partition, Record
    from chukan.tenants.sealing import AgencyKeys

State = Literal["proposed", "in_force", "ended"]
Role = Literal["given", "taken"]
DelegatedSide = Literal["inquirer", "provider"]

HALVES_MAX: Final = 500
"""Halves that an agency may have open at once."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a half says. Days (JST) are inclusive."""

    role: Role
    side: DelegatedSide
    counterpart: str
    """16-digit code: whom it was given to, or from whom it was taken."""
    affair: str | None
    """None: all affairs."""
    valid_from: dt.date
    valid_until: dt.date | None


class Half(msgspec.Struct, frozen=True, kw_only=True):
    """One agency's half of a delegation."""

    id: uuid.UUID
    state: State
    terms: Terms
    proposed_by: str
    approved_by: str | None = None
    ended_by: str | None = None

    def covers(self, side: DelegatedSide, delegator: str, affair: str, day: dt.date) -> bool:
        """Tell whether this half lets its agency act for ``delegator`` in an affair on a day."""
        terms = self.terms
        asked = (terms.role, terms.side, terms.counterpart) == ("taken", side, delegator)
        due = terms.valid_from <= day and (terms.valid_until is None or day <= terms.valid_until)
        return self.state == "in_force" and asked and due and terms.affair in {None, affair}


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    terms: Terms
    proposed_by: str
    approved_by: str | None = None
    ended_by: str | None = None


def may_act(halves: Collection[Half], side: DelegatedSide, delegator: str, affair: str, day: dt.date) -> bool:
    """Tell whether one of an agency's halves lets it act for ``delegator``."""
    return acting_half(halves, side, delegator, affair, day) is not None


def acting_half(
    halves: Collection[Half], side: DelegatedSide, delegator: str, affair: str, day: dt.date
) -> Half | None:
    """Return the half of an agency by which it acts for ``delegator``, None where it may not."""
    return next((half for half in halves if half.covers(side, delegator, affair, day)), None)


async def propose(partition: Partition, keys: AgencyKeys, half: Half) -> Half:
    """Store a first officer's proposal, or find it under its id.

    Raises:
        Problem: delegations_full.
    """
    row = await partition.fetchrow(f"SELECT count(*) AS n FROM {partition.table('delegations')} WHERE state <> 'ended'")
    if row is not None and row["n"] >= HALVES_MAX:
        raise Problem("delegations_full", limit=HALVES_MAX)
    await partition.execute(
        f"INSERT INTO {partition.table('delegations')} (id, state, body) VALUES ($1, 'proposed', $2)",
        half.id,
        _seal(keys, half),
    )
    return half


async def read(partition: Partition, keys: AgencyKeys, half: uuid.UUID) -> Half:
    """Return a half, locked until the transaction ends. Raises ``Problem`` not_found."""
    row = await partition.fetchrow(
        f"SELECT id, state, body FROM {partition.table('delegations')} WHERE id = $1 FOR UPDATE", half
    )
    if row is None:
        raise Problem("not_found")
    return _open(keys, row)


async def change(partition: Partition, keys: AgencyKeys, half: Half) -> Half:
    """Store a half in the place of what it was; what was decided while it was in force is decided anew from then on."""
    if half.state == "ended":
        await partition.execute("SELECT chukan.bump_holds($1)", partition.agency)
    await partition.execute(
        f"UPDATE {partition.table('delegations')} SET state = $2, body = $3, at = now() WHERE id = $1",
        half.id,
        half.state,
        _seal(keys, half),
    )
    return half


async def list_halves(partition: Partition, keys: AgencyKeys, *, ended: bool, limit: int = HALVES_MAX) -> list[Half]:
    """Return the newest halves of an agency, the ended ones only where they are asked for."""
    rows = await partition.fetch(
        f"SELECT id, state, body FROM {partition.table('delegations')} WHERE $1 OR state <> 'ended'"
        " ORDER BY id DESC LIMIT $2",
        ended,
        limit,
    )
    return [_open(keys, row) for row in rows]


def _seal(keys: AgencyKeys, half: Half) -> bytes:
    body = _Body(half.terms, half.proposed_by, half.approved_by, half.ended_by)
    return keys.seal("delegation", half.id.bytes, msgspec.json.encode(body))


def _open(keys: AgencyKeys, row: Record) -> Half:
    body = msgspec.json.decode(keys.open("delegation", row["id"].bytes, row["body"]), type=_Body)
    return Half(
        id=row["id"],
        state=row["state"],
        terms=body.terms,
        proposed_by=body.proposed_by,
        approved_by=body.approved_by,
        ended_by=body.ended_by,
    )
