"""Review drafts (審査の起案): what a first officer proposed for a held provision, until a second officer decides.

A draft moves nothing: the decision itself is a set of one through the set functions. It rests in the agency's own
schema, its note sealed; it may be replaced until the provision is decided.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from chukan.tenants.partition import Partition
from chukan.tenants.sealing import AgencyKeys


@dataclass(frozen=True, slots=True)
class Draft:
    """A first officer's proposal."""

    provision: uuid.UUID
    decision: str
    """``provide`` or ``refuse``."""
    withheld: bool
    officer: str
    """Registered id of the first officer's credential."""
    note: str
    at: dt.datetime


def _row(provision: uuid.UUID) -> bytes:
    return provision.bytes + b"note"


async def save(partition: Partition, keys: AgencyKeys, draft: Draft) -> None:
    """Store or replace the proposal for a provision."""
    await partition.execute(
        f"INSERT INTO {partition.table('review_drafts')} AS d (provision, decision, withheld, officer, note, at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (provision) DO UPDATE SET decision = excluded.decision,"
        " withheld = excluded.withheld, officer = excluded.officer, note = excluded.note, at = excluded.at",
        draft.provision,
        draft.decision,
        draft.withheld,
        draft.officer,
        keys.seal("notice", _row(draft.provision), draft.note.encode()),
        draft.at,
    )


async def read(partition: Partition, keys: AgencyKeys, provisions: list[uuid.UUID]) -> dict[uuid.UUID, Draft]:
    """The proposals for these provisions (1…1,000), by provision."""
    rows = await partition.fetch(
        f"SELECT provision, decision, withheld, officer, note, at FROM {partition.table('review_drafts')}"
        " WHERE provision = ANY($1::uuid[])",
        provisions,
    )
    return {
        row["provision"]: Draft(
            provision=row["provision"],
            decision=row["decision"],
            withheld=row["withheld"],
            officer=row["officer"],
            note=keys.open("notice", _row(row["provision"]), row["note"]).decode(),
            at=row["at"],
        )
        for row in rows
    }
