"""Statistics by procedure and kind (事務手続・特定個人情報の種類ごと): counted by opening the agency's own records.

What a record is about rests sealed, so that no operator can count it; the agency can, with its keys. The log is gone
through in steps of a bounded number of leaves, each a transaction of its own, and a caller adds the steps up: the log
only grows, so that nothing is counted twice or left out between two of them.

Invariant: it works in one agency's partition with that agency's keys; no person comes into it. A record that was
changed fails its step as a whole. A record counts once it has its place in the log, within seconds.
"""

import asyncio
import datetime as dt
from collections import Counter
from typing import Final, Literal, NamedTuple

from chukan.tenants.partition import Partition
from chukan.tenants.records import open_record, record_row
from chukan.tenants.sealing import AgencyKeys

STEP_MAX: Final = 5_000
_SLICE: Final = 100
"""Records opened before others have their turn: they take about 3 ms."""


class Counted(NamedTuple):
    """What is counted together."""

    month: dt.date
    """First day of the month (JST) that the records name."""
    side: Literal["inquirer", "provider"]
    procedure: str
    kind: str
    outcome: str
    amendment: bool


class CountedStep(NamedTuple):
    """The counts of one step; ``next`` is where the next one begins, None at the end of the log."""

    counts: Counter[Counted]
    next: int | None


async def count_step(
    partition: Partition, keys: AgencyKeys, first: dt.date, last: dt.date, *, after: int, limit: int = STEP_MAX
) -> CountedStep:
    """Count the records of the months ``first`` to ``last`` among the next leaves of the log.

    Args:
        partition: the agency's door.
        keys: the agency's.
        first: first day of the first month.
        last: first day of the last month.
        after: position after which to begin; -1 for all.
        limit: leaves to look at, 1…5,000.

    Raises:
        RecordError, SealError: a record is not what was committed to.
        ValueError: a limit out of its bounds.
    """
    if not 0 < limit <= STEP_MAX:
        raise ValueError("a step looks at 1 to 5,000 leaves")
    rows = await partition.fetch(
        "SELECT l.seq, r.id, r.label, r.month, r.sealed, r.commitment, r.amends FROM"
        f" (SELECT seq, record FROM {partition.table('log')} WHERE agency = $1 AND seq > $2 ORDER BY seq LIMIT $3) l"
        f" LEFT JOIN {partition.table('records')} r ON r.agency = $1 AND r.id = l.record AND r.month BETWEEN $4 AND $5"
        " ORDER BY l.seq",
        partition.agency,
        after,
        limit,
        first,
        last,
    )
    counts: Counter[Counted] = Counter()
    for turn, row in enumerate(row for row in rows if row["id"] is not None):
        if turn % _SLICE == 0:
            await asyncio.sleep(0)
        fields = open_record(keys, record_row(row))
        amendment = fields.amends is not None
        counts[Counted(row["month"], fields.side, fields.procedure, fields.kind, fields.outcome, amendment)] += 1
    return CountedStep(counts, rows[-1]["seq"] if len(rows) == limit else None)
