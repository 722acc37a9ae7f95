"""Set functions of corrections (訂正): an amendment appended to a record, and the message about it until it is taken.

A record is never changed: what is corrected stands in a record of its own that names it. Sealed bytes go through here
unopened.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from chukan.tenants.rows import RecordRow
from chukan.tenants.sets.common import SetCaller, record_columns
from chukan.tenants.states import Outcome, Side


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """An amendment to append; ``send`` is the sealed message to the network, None where nobody is to be told.

    ``seen`` is how many amendments of the record there were when this one was made.
    """

    agency: int
    generation: int
    side: Side
    outcome: Outcome
    record: RecordRow
    send: bytes | None
    next_at: dt.datetime
    seen: int


@dataclass(frozen=True, slots=True)
class DueCorrection:
    """A message that the network has not taken yet."""

    agency: int
    id: uuid.UUID
    sealed: bytes


class CorrectionSets(SetCaller):
    """Set functions of ``corrections`` and of the amendments they bring."""

    async def put_correction(self, row: CorrectionRow) -> str:
        """Append the amendment: ``applied``, ``repeat``, ``unknown`` where no such record stands, or ``changed``.

        ``changed`` leaves nothing: the record has other amendments by now than were seen.
        """
        columns = [column[0] for column in record_columns([row.record])]
        given = (row.agency, row.generation, row.side, row.outcome, *columns, row.send, row.next_at, row.seen)
        return (await self._words("correct_record", *given))[0]

    async def take_corrections(
        self, after: int, now: dt.datetime, next_at: dt.datetime, *, agencies: int = 50, limit: int = 100
    ) -> tuple[int, list[DueCorrection]]:
        """Return where to go on (0 at the end), and the messages due at the next agencies; each is due again later."""
        rows = await self._call("take_corrections", after, agencies, limit, now, next_at)
        due = [DueCorrection(row["agency"], row["id"], row["sealed"]) for row in rows if row["id"] is not None]
        return int(rows[-1]["agency"]), due

    async def told_corrections(self, agency: int, ids: Sequence[uuid.UUID], at: dt.datetime) -> int:
        """Say that the network has taken messages of one agency; return how many."""
        return int((await self._words("told_corrections", agency, list(ids), at))[0])
