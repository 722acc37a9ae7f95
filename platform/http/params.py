"""Query parameters of the agency API, and the small requests that the wire has no struct for.

Parameters carry cursors, limits and states only: identifiers of persons travel in bodies (DESIGN §6).
"""

from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.agency import Addressee
from chukan.platform.wire.network import END, LINES_MAX, Message
from chukan.platform.wire.statistics import FiscalYear, Month
from chukan.tenants.record_counts import STEP_MAX

Cursor = Annotated[
    str, msgspec.Meta(pattern=r"^[!-~]{1,200}" + END, description="Opaque cursor: `next` of the page before")
]
Limit = Annotated[int, msgspec.Meta(ge=1, le=LINES_MAX)]
StateWord = Literal[
    "accepted",
    "permit_requested",
    "permitted",
    "held",
    "answered",
    "refused",
    "no_code",
    "not_permitted",
    "stopped",
    "expired",
    "cancelled",
    "failed",
    "collected",
    "purged",
]


class WaitParams(Message, frozen=True, kw_only=True):
    """``?wait=30``: how long the reply may wait for lines to become final, in seconds."""

    wait: Annotated[int, msgspec.Meta(ge=0, le=60, description="Seconds to wait for open lines (long poll)")] = 0


class QueryPageParams(Message, frozen=True, kw_only=True):
    """``?state=&after=&limit=`` of a list of queries."""

    state: StateWord | None = None
    after: Cursor | None = None
    limit: Limit = 100


class PageParams(Message, frozen=True, kw_only=True):
    """``?after=&limit=`` of a page."""

    after: Cursor | None = None
    limit: Limit = 100


class StatisticsParams(Message, frozen=True, kw_only=True):
    """``?from=&to=`` or ``?fiscal_year=`` of the statistics; without any, the present fiscal year."""

    first: Month | None = msgspec.field(default=None, name="from")
    last: Month | None = msgspec.field(default=None, name="to")
    fiscal_year: FiscalYear | None = None


class ProcedureParams(StatisticsParams, frozen=True, kw_only=True):
    """``?after=&limit=`` of a step besides: a position in the log, and how many of its leaves to look at."""

    after: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)] = -1
    limit: Annotated[int, msgspec.Meta(ge=1, le=STEP_MAX)] = STEP_MAX


class RecordSearch(Message, frozen=True, kw_only=True):
    """``POST /records/search``: the records of one person, named by the agency's own number."""

    addressee: Addressee
    for_person: bool = False
    """本人開示: leave out what is withheld from the person (不開示, 番号法23条2項)."""
