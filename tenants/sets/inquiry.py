"""The inquirer's set functions (照会): from a POSTed list to a collected answer, and its purge.

Every line moves forward only, has exactly one final outcome, and its record is inserted in that commit; what comes
later is told as ``late``. Sealed bytes go through here unopened.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from chukan.tenants.rows import (
    AcceptBatch,
    AcceptedBatch,
    AcceptLine,
    AnswerRow,
    BatchProgress,
    Collected,
    Grant,
    InquirySettle,
    InquiryView,
    InquiryWork,
    RequestHit,
)
from chukan.tenants.sets.common import (
    Record,
    SetCaller,
    columns,
    grant_columns,
    in_order,
    kept,
    record_columns,
    same_length,
)
from chukan.tenants.states import InquiryState, Outcome, Side

_STEP_COLUMNS = ("agency", "id", "state", "outcome", "reason", "due", "deadline", "permit", "drop_outbox")


class InquirySets(SetCaller):
    """Set functions of the inquirer's side."""

    async def accept(self, batches: Sequence[AcceptBatch], lines: Sequence[AcceptLine]) -> list[AcceptedBatch]:
        """Make POSTed lists durable with their idempotency keys; one result a batch, in order.

        Lines of a batch that is not fresh are not stored; of two batches with one key in a call the first wins. A
        batch with a line whose link or delegation changed leaves nothing (``again``) and is to be decided anew.
        """
        if not batches:
            return []
        rows = await self._call(
            "accept_asked",
            *columns(batches, "agency", "generation", "key", "body", "batch"),
            *columns(lines, "agency", "batch", "id", "ordinal", "state", "outcome", "reason", "due", "deadline"),
            *columns(lines, "person", "request", "outbox"),
            *record_columns(line.record for line in lines),
            *columns(lines, "link_version", "delegation"),
        )
        found = [AcceptedBatch(row["batch"], row["fresh"], row["same_body"], row["again"]) for row in rows]
        return same_length(found, batches)

    async def inquiry_views(
        self,
        agency: int,
        *,
        batch: uuid.UUID | None = None,
        ids: Sequence[uuid.UUID] | None = None,
        state: InquiryState | None = None,
        after: uuid.UUID | None = None,
        limit: int = 1000,
    ) -> list[InquiryView]:
        """Return states of one agency's lines: those named, a batch's in order, or a page by id from ``after`` on."""
        ids = None if ids is None else list(ids)
        rows = await self._call("inquiry_views", agency, batch, ids, state, after, limit)
        return [InquiryView(**_line(row), **_progress(row)) for row in rows]

    async def batch_progress(self, agency: int, batches: Sequence[uuid.UUID]) -> list[BatchProgress]:
        """Count the lines of batches of one agency by state and outcome; long purged ones are counted no more."""
        rows = await self._call("batch_progress", agency, list(batches))
        return [BatchProgress(InquiryState(row["state"]), Outcome(row["outcome"]), row["count"]) for row in rows]

    async def take_inquiries(self, grants: Sequence[Grant], limit: int) -> list[InquiryWork]:
        """Return open lines that are due in the granted shards, each shard's share first; marks nothing."""
        if not grants:
            return []
        rows = await self._call("take_inquiries", *grant_columns(grants, Side.INQUIRER), limit)
        return [
            InquiryWork(
                agency=row["agency"],
                id=row["id"],
                state=InquiryState(row["state"]),
                tries=row["tries"],
                deadline=row["deadline"],
                request=row["request"],
                outbox=row["outbox"],
            )
            for row in rows
        ]

    async def read_requests(self, pairs: Sequence[tuple[int, uuid.UUID]]) -> list[RequestHit | None]:
        """Return the facts of the lines named by (agency, id), None where there is no such line."""
        if not pairs:
            return []
        rows = await self._call("read_requests", [agency for agency, _ in pairs], [line for _, line in pairs])
        return [
            None
            if row is None
            else RequestHit(InquiryState(row["state"]), row["person"], row["request"], row["deadline"])
            for row in in_order(rows, len(pairs))
        ]

    async def settle_inquiries(self, grants: Sequence[Grant], rows: Sequence[InquirySettle]) -> list[str]:
        """Take lines a step further under leases: ``applied``, or ``late`` when the line was further already.

        A permit is kept even when late; ``drop_outbox`` takes effect even when late.
        """
        if not rows:
            return []
        given = [*grant_columns(grants, Side.INQUIRER), *columns(rows, *_STEP_COLUMNS)]
        given += record_columns(row.record for row in rows)
        words = await self._words_keeping(kept("applied", rows), "settle_inquiries", *given)
        return same_length(words, rows)

    async def close_inquiries(self, rows: Sequence[InquirySettle]) -> list[str]:
        """Close lines without a lease (中断): ``applied``, or ``late`` when the line was final already."""
        if not rows:
            return []
        given = [*columns(rows, *_STEP_COLUMNS), *record_columns(row.record for row in rows)]
        return same_length(await self._words("close_inquiries", *given), rows)

    async def deliver_answers(self, rows: Sequence[AnswerRow]) -> list[str]:
        """Store answers that the network pushed.

        Returns ``applied``; ``repeat`` (the message was taken before, or says nothing new); ``late`` (the line is
        final: the amendment is stored, the content dropped); ``unknown`` (no such line: nothing is stored).
        """
        if not rows:
            return []
        words = await self._words_keeping(
            [*kept("applied", rows), *kept("late", rows, "amending")],
            "deliver_answers",
            *columns(rows, "agency", "generation", "inbox", "id", "state", "outcome", "reason", "answer"),
            *record_columns(row.record for row in rows),
            *record_columns(row.amendment for row in rows),
        )
        return same_length(words, rows)

    async def collect(self, agency: int, generation: int, ids: Sequence[uuid.UUID]) -> list[Collected]:
        """Collect answers: an answered line becomes collected and brings its answer, again and again until the purge.

        Lines in other states come without answer; unknown ids do not come at all.
        """
        if not ids:
            return []
        rows = await self._call("collect", agency, generation, list(ids))
        return [Collected(**_line(row), **_progress(row), answer=row["answer"]) for row in rows]

    async def purge_results(self, grants: Sequence[Grant], before: dt.datetime, limit: int) -> int:
        """Delete the answers of lines that ended before an instant (INQ-09); return how many lines were purged."""
        if not grants:
            return 0
        return int((await self._words("purge_results", *grant_columns(grants, Side.INQUIRER), before, limit))[0])


def _line(row: Record) -> dict[str, Any]:
    return {"id": row["id"], "batch": row["batch"], "ordinal": row["ordinal"]}


def _progress(row: Record) -> dict[str, Any]:
    return {
        "state": InquiryState(row["state"]),
        "outcome": Outcome(row["outcome"]),
        "reason": row["reason"],
        "updated_at": row["updated_at"],
    }
