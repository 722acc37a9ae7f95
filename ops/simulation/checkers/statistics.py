"""The statistics equal the raw records (統計): each agency's records are opened and counted once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date

from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.tenants.records import month_of
from chukan.tenants.states import Outcome, Side

What = tuple[date, str, str, bool]
"""Month, side, outcome, and whether it amends."""


def check(evidence: Evidence) -> Iterator[str]:
    """Compare the sums; a row that counts nothing is a fault as well."""
    for agency, _, table in evidence.world.tables():
        told: Counter[What] = Counter()
        for row in table.statistics:
            told[row.month, Side(row.side).name.lower(), Outcome(row.outcome).word, row.amendment] += row.records
            if row.records < 1:
                yield f"a row of agency {agency.number}'s statistics counts nothing"
        true: Counter[What] = Counter(
            (month_of(record.closed_at), record.side, record.outcome, record.amends is not None)
            for record in evidence.records[agency.number]
        )
        for what in sorted({*told, *true}, key=str):
            if told[what] != true[what]:
                yield f"agency {agency.number} has {true[what]} records of {what[1:]}, its statistics say {told[what]}"
