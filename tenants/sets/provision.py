"""The provider's set functions (提供): what the agencies' own data say, and from a notice to the answer's receipt.

From notice to sealed answer is one commit; a line is decided again when what it was decided on has changed meanwhile.
"""

import itertools
import uuid
from collections.abc import Sequence
from typing import Any, Final

from chukan.tenants.rows import (
    CopyHit,
    DecideRow,
    Grant,
    LookupHit,
    LookupRow,
    ProvideRow,
    ProvisionSettle,
    ProvisionView,
    ProvisionWork,
)
from chukan.tenants.sets.common import Record, SetCaller, columns, grant_columns, kept, record_columns, same_length
from chukan.tenants.states import LinkStatus, Outcome, ProvisionState, Side

_PROVIDE_COLUMNS: Final = (
    "agency", "generation", "inbox", "id", "permit", "permit_until", "notice", "state", "outcome", "reason", "person",
    "link_version", "hold_version", "snapshot", "deadline", "outbox", "permit_issued",
)  # fmt: skip
_DECIDE_COLUMNS: Final = (
    "agency", "generation", "id", "outcome", "reason", "person", "link_version", "snapshot", "outbox", "hold_version",
)  # fmt: skip


class ProvisionSets(SetCaller):
    """Set functions of the provider's side."""

    async def lookup(self, rows: Sequence[LookupRow]) -> list[LookupHit]:
        """Return what the agencies' own data say about each row, with the versions that ``provide`` compares."""
        if not rows:
            return []
        given = columns(rows, "agency", "code", "kind", "period", "year", "on", "start", "end")
        found = sorted(await self._call("lookup", *given), key=lambda row: row["n"])
        return same_length([_hit(list(group)) for _, group in itertools.groupby(found, lambda row: row["n"])], rows)

    async def provide(self, rows: Sequence[ProvideRow]) -> list[str]:
        """Store provisions with answer, record, inbox key and used permit in one commit.

        Returns ``stored``; ``repeat`` (the message was taken before); ``replayed`` (another message used the permit:
        nothing is stored); ``again`` (holds, link or common data have changed since it was decided: nothing is stored);
        ``before_restore`` (the permit is older than the opening of the restored cell: nothing is stored).
        """
        if not rows:
            return []
        given = [*columns(rows, *_PROVIDE_COLUMNS), *record_columns(row.record for row in rows)]
        return same_length(await self._words_keeping(kept("stored", rows), "provide_notices", *given), rows)

    async def take_provisions(self, grants: Sequence[Grant], limit: int) -> list[ProvisionWork]:
        """Return open provisions that are due in the granted shards, each shard's share first; marks nothing."""
        if not grants:
            return []
        rows = await self._call("take_provisions", *grant_columns(grants, Side.PROVIDER), limit)
        return [
            ProvisionWork(
                agency=row["agency"],
                id=row["id"],
                state=ProvisionState(row["state"]),
                outcome=Outcome(row["outcome"]),
                tries=row["tries"],
                deadline=row["deadline"],
                notice=row["notice"],
                person=row["person"],
                outbox=row["outbox"],
            )
            for row in rows
        ]

    async def settle_provisions(self, grants: Sequence[Grant], rows: Sequence[ProvisionSettle]) -> list[str]:
        """Take provisions a step further under leases: ``applied``, or ``late`` when further already."""
        if not rows:
            return []
        words = await self._words_keeping(
            kept("applied", rows),
            "settle_provisions",
            *grant_columns(grants, Side.PROVIDER),
            *columns(rows, "agency", "id", "state", "outcome", "due", "drop_outbox"),
            *record_columns(row.record for row in rows),
        )
        return same_length(words, rows)

    async def decide_provisions(self, rows: Sequence[DecideRow]) -> list[str]:
        """Store officers' final decisions on held provisions: ``applied``; ``late`` (not held any more); ``again``.

        A line is to be decided ``again`` where the link, the agency's holds or delegations, or the common data are
        not those that it was decided on.
        """
        if not rows:
            return []
        given = [*columns(rows, *_DECIDE_COLUMNS), *record_columns(row.record for row in rows)]
        return same_length(await self._words_keeping(kept("applied", rows), "decide_reviews", *given), rows)

    async def provision_views(
        self,
        agency: int,
        *,
        state: ProvisionState | None = None,
        ids: Sequence[uuid.UUID] | None = None,
        limit: int = 1000,
    ) -> list[ProvisionView]:
        """Return one agency's provisions by id, of a state or the named ones."""
        rows = await self._call("provision_views", agency, state, None if ids is None else list(ids), limit)
        return [
            ProvisionView(
                id=row["id"],
                state=ProvisionState(row["state"]),
                outcome=Outcome(row["outcome"]),
                deadline=row["deadline"],
                notice=row["notice"],
                person=row["person"],
            )
            for row in rows
        ]


def _hit(rows: list[Record]) -> LookupHit:
    first = rows[0]
    copies = [_copy(row) for row in rows if row["copy"] is not None]
    return LookupHit(
        link=None if first["link"] is None else LinkStatus(first["link"]),
        person=first["person"],
        link_version=first["link_version"],
        held=first["held"] or any(copy.review for copy in copies),
        hold_version=first["hold_version"],
        snapshot=first["snapshot"],
        copies=copies,
    )


def _copy(row: Any) -> CopyHit:  # noqa: ANN401 - asyncpg's record
    return CopyHit(
        id=row["copy"],
        layout=row["layout"],
        effective_from=row["effective_from"],
        period=row["period"],
        body=row["body"],
        review=row["review"],
    )
