"""Statistics (統計) of provision records: how many there are by month, side and outcome; read through door 1.

The counts are written by the set functions in the very commits that write the records (``0041_statistics.sql``), so
they equal the records at every instant: each record counts once, in the month (JST) that it names itself, and an
amendment beside, not among, the records of first instance. Sets only ever insert; ``fold_statistics`` makes few rows of
many and changes no sum.

Procedure (事務手続) and kind are not counted: they rest sealed in the records, where no operator can read them, and a
report by them is made by opening the records (``record_counts``). This module must never open one, and never writes.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from chukan.tenants.partition import Partition
from chukan.tenants.states import Outcome, Side

FISCAL_FIRST_MONTH: Final = 4
"""The fiscal year (年度) begins in April."""

_LAST_MONTH: Final = 12


class MonthCount(NamedTuple):
    """How many records of one month, side and outcome there are; at least one of the two counts is not zero."""

    month: dt.date
    """First day of the month in Japan."""
    side: Side
    outcome: Outcome
    records: int
    """Records of lines that ended so."""
    amendments: int
    """Amendments that say so of an earlier record, of this month or another."""


async def count_records(partition: Partition, first: dt.date, last: dt.date) -> list[MonthCount]:
    """Return the counts from the month ``first`` to the month ``last``, both included, in that order.

    Both are first days of months. ``Problem`` as the partition raises it.
    """
    rows = await partition.fetch(
        "SELECT month, side, outcome, coalesce(sum(count) FILTER (WHERE NOT amendment), 0)::bigint AS records,"
        " coalesce(sum(count) FILTER (WHERE amendment), 0)::bigint AS amendments"
        f" FROM {partition.table('statistics')} WHERE agency = $1 AND month BETWEEN $2 AND $3"
        " GROUP BY month, side, outcome ORDER BY month, side, outcome",
        partition.agency,
        first,
        last,
    )
    return [
        MonthCount(row["month"], Side(row["side"]), Outcome(row["outcome"]), row["records"], row["amendments"])
        for row in rows
    ]


def fiscal_year_of(month: dt.date) -> int:
    """Return the fiscal year (年度) that a day lies in: April to March, named after its April."""
    return month.year if month.month >= FISCAL_FIRST_MONTH else month.year - 1


def months_of(fiscal_year: int) -> tuple[dt.date, dt.date]:
    """Return the first days of the first and the last month of a fiscal year."""
    return dt.date(fiscal_year, FISCAL_FIRST_MONTH, 1), dt.date(fiscal_year + 1, FISCAL_FIRST_MONTH - 1, 1)


def month_span(first: dt.date, last: dt.date) -> int:
    """Return how many months a period from one month to another has, both included; below 1 where it ends too early."""
    return (last.year - first.year) * _LAST_MONTH + last.month - first.month + 1
