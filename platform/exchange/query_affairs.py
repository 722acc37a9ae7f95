"""The affairs (事務) that queries were asked for, by which an officer's right to see them is judged.

Invariant: what cannot be read any more stands for an affair of nobody (the empty word), so that it is refused.
"""

from __future__ import annotations

import uuid

from chukan.errors import Problem
from chukan.platform.exchange.context import Context
from chukan.platform.exchange.memos import open_request
from chukan.tenants.directory import AgencyRow


class QueryAffairs:
    """Tells the affairs of a batch or of one line: call it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, agency: AgencyRow, reference: uuid.UUID) -> frozenset[str]:
        """Return the affairs of a batch by its id, or of one line by its own. Raises ``Problem`` not_found."""
        cell, keys = self._context.cell(agency), self._context.keys(agency.number)
        rows = await cell.inquiry_views(agency.number, batch=reference)
        rows = rows or await cell.inquiry_views(agency.number, ids=[reference])
        if not rows:
            raise Problem("not_found")
        hits = await cell.read_requests([(agency.number, row.id) for row in rows])
        return frozenset(
            "" if hit is None else open_request(keys, row.id, hit.request).line.affair
            for row, hit in zip(rows, hits, strict=True)
        )
