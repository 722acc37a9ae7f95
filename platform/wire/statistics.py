"""Statistics (統計) of an agency's provision records: ``GET /statistics`` of the agency API.

Counts by month, side and outcome, as the records themselves say it; months are those of Japan, and each names its
fiscal year (年度, April to March). A combination without any record has no line: its count is zero, not unknown.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from chukan.platform.wire.network import END, Message

MONTHS_MAX: Final = 84
"""Longest period of one reply: the seven years for which records are kept."""

Month = Annotated[
    str,
    msgspec.Meta(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])" + END, description="年月 in Japan", examples=["2026-11"]),
]
FiscalYear = Annotated[
    int, msgspec.Meta(ge=2000, le=2098, description="年度: April of this year to March of the next", examples=[2026])
]


class StatisticsLine(Message, frozen=True):
    """How many records of one month say one outcome at one side."""

    month: Month
    fiscal_year: FiscalYear
    side: Literal["inquirer", "provider"]
    outcome: str
    """回答区分, as the records have it."""
    records: int
    """Lines that ended so."""
    amendments: int
    """Amendments that say so of an earlier record; they are not among ``records``."""


class Statistics(Message, frozen=True):
    """The counts of a period, by month, side and outcome."""

    first: Month = msgspec.field(name="from")
    last: Month = msgspec.field(name="to")
    records: int
    """All records of the period, both sides."""
    amendments: int
    """All amendments of the period, both sides: how many records were amended."""
    lines: list[StatisticsLine]


class ProcedureCount(Message, frozen=True):
    """How many records say the same of month, side, procedure, kind and outcome."""

    month: Month
    side: Literal["inquirer", "provider"]
    procedure: str
    """事務手続 (JT code)."""
    kind: str
    """特定個人情報の種類 (TM code)."""
    outcome: str
    """回答区分, as the records have it."""
    records: int
    amendments: int
    """They are not among ``records``."""


class ProcedureCounts(Message, frozen=True):
    """One step through the agency's log: add the steps up. A combination may stand in several of them."""

    first: Month = msgspec.field(name="from")
    last: Month = msgspec.field(name="to")
    lines: list[ProcedureCount]
    next: int | None = None
    """``after`` of the next step; none at the end. A record counts once it has its place in the log."""
