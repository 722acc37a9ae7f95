"""Statistics (統計): how many provision records an agency has, of a bounded period.

By month, side and outcome they are read as they were counted; by procedure and kind the agency's records are opened, in
steps that a caller adds up.
"""

import datetime as dt
from typing import Final

from chukan.clock import Clock, today_jst
from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.http.params import ProcedureParams, StatisticsParams
from chukan.platform.wire.statistics import MONTHS_MAX, ProcedureCount, ProcedureCounts, Statistics, StatisticsLine
from chukan.tenants.statistics import fiscal_year_of, month_span, months_of


async def read(call: Call) -> Reply:
    """Return the counts of the period that was asked for."""
    first, last = period(call.params_as(StatisticsParams), call.services.clock)
    return Reply(await call.services.desks.records.statistics(call.agency, first, last))


async def procedures(call: Call) -> Reply:
    """Return the counts of one step through the log."""
    params = call.params_as(ProcedureParams)
    first, last = period(params, call.services.clock)
    return Reply(await call.services.desks.records.procedures(call.agency, first, last, params.after, params.limit))


def period(params: StatisticsParams, clock: Clock) -> tuple[dt.date, dt.date]:
    """Return the first days of the first and the last month asked for.

    Raises ``Problem`` invalid_field: a period and a fiscal year together, half a period, one that ends before it begins
    or has more than 84 months.
    """
    if params.first is None and params.last is None:
        return months_of(params.fiscal_year or fiscal_year_of(today_jst(clock)))
    if params.fiscal_year is not None:
        raise Problem("invalid_field", pointer="/fiscal_year", expected="from and to, or fiscal_year")
    if params.first is None or params.last is None:
        raise Problem("invalid_field", pointer="/to" if params.last is None else "/from", expected="from and to")
    first, last = (dt.date.fromisoformat(f"{month}-01") for month in (params.first, params.last))
    if not 1 <= month_span(first, last) <= MONTHS_MAX:
        raise Problem("invalid_field", pointer="/to", limit=MONTHS_MAX, expected="1 to 84 months, in their order")
    return first, last


_SHOWN: Final = Statistics(
    first="2026-04",
    last="2027-03",
    records=1214,
    amendments=2,
    lines=[
        StatisticsLine(
            month="2026-11", fiscal_year=2026, side="inquirer", outcome="provided", records=1200, amendments=1
        ),
        StatisticsLine(month="2026-11", fiscal_year=2026, side="provider", outcome="expired", records=14, amendments=1),
    ],
)

_SHOWN_PROCEDURES: Final = ProcedureCounts(
    first="2026-04",
    last="2027-03",
    lines=[
        ProcedureCount(
            month="2026-11",
            side="inquirer",
            procedure="JT01000000115200",
            kind="TM00000000000002",
            outcome="provided",
            records=1200,
            amendments=1,
        )
    ],
    next=4999,
)

ROUTES: Final = (
    Route(
        "GET",
        "/statistics",
        "getStatistics",
        "統計。Count provision records by month, side and outcome.",
        Right(("records",)),
        read,
        Priority.COUNTER,
        params=StatisticsParams,
        reply=Statistics,
        shows=(Example("A fiscal year in which one month had records.", _SHOWN),),
    ),
    Route(
        "GET",
        "/statistics/procedures",
        "getProcedureStatistics",
        "事務手続・種類ごとの統計。Count records by procedure and kind too, a step of the log at a time.",
        Right(("records",)),
        procedures,
        Priority.BATCH,
        params=ProcedureParams,
        reply=ProcedureCounts,
        shows=(Example("A step: the next one begins after its `next`.", _SHOWN_PROCEDURES),),
    ),
)
