"""Review drafts (審査の起案): what a first officer proposed for a held provision, until a second officer decides.

A draft moves nothing: the decision itself is a set of one through the set functions. It rests in the agency's own
schema, its note sealed; it may be replaced until the provision is decided.

Invariant: a draft is about what its officer saw (``Seen``), which rests sealed with the note. Whoever carries it out
must hold that against what is found then: it must never let out another person's information than was looked at.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from chukan.tenants.partition import Partition, Record
from chukan.tenants.sealing import AgencyKeys


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom a provision was about when an officer looked at it, and whether a hold stood against it."""

    person: bytes | None
    """The agency's addressee digest; None where nobody had the code."""
    link_version: int
    held: bool

    def still_holds(self, now: Seen) -> bool:
        """Tell whether what was seen is what is found now; that a hold was lifted meanwhile changes nothing."""
        same = (self.person, self.link_version) == (now.person, now.link_version)
        return same and (self.held or not now.held)


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What rests sealed of a draft."""

    note: str
    seen: Seen


_sealed: Final = msgspec.json.Decoder(_Sealed)


@dataclass(frozen=True, slots=True)
class Draft:
    """A first officer's proposal."""

    provision: uuid.UUID
    decision: Literal["provide", "refuse"]
    withheld: bool
    officer: str
    """Registered id of the first officer's credential."""
    note: str
    at: dt.datetime
    seen: Seen | None = None
    """None in a draft of the release before, which did not say: nothing may be provided on it."""


def _row(provision: uuid.UUID) -> bytes:
    return provision.bytes + b"note"


async def save(partition: Partition, keys: AgencyKeys, draft: Draft) -> None:
    """Store or replace the proposal for a provision."""
    note = draft.note.encode() if draft.seen is None else msgspec.json.encode(_Sealed(draft.note, draft.seen))
    await partition.execute(
        f"INSERT INTO {partition.table('review_drafts')} AS d (provision, decision, withheld, officer, note, at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (provision) DO UPDATE SET decision = excluded.decision,"
        " withheld = excluded.withheld, officer = excluded.officer, note = excluded.note, at = excluded.at",
        draft.provision,
        draft.decision,
        draft.withheld,
        draft.officer,
        keys.seal("notice", _row(draft.provision), note),
        draft.at,
    )


async def read(partition: Partition, keys: AgencyKeys, provisions: list[uuid.UUID]) -> dict[uuid.UUID, Draft]:
    """The proposals for these provisions (1…1,000), by provision."""
    rows = await partition.fetch(
        f"SELECT provision, decision, withheld, officer, note, at FROM {partition.table('review_drafts')}"
        " WHERE provision = ANY($1::uuid[])",
        provisions,
    )
    return {row["provision"]: _opened(keys, row) for row in rows}


def _opened(keys: AgencyKeys, row: Record) -> Draft:
    note = keys.open("notice", _row(row["provision"]), row["note"])
    try:
        sealed: _Sealed | None = _sealed.decode(note)
    except msgspec.DecodeError:
        sealed = None
    return Draft(
        provision=row["provision"],
        decision=row["decision"],
        withheld=row["withheld"],
        officer=row["officer"],
        note=note.decode() if sealed is None else sealed.note,
        at=row["at"],
        seen=None if sealed is None else sealed.seen,
    )
