"""The route table of the agency API: every call under ``/v1/agencies/{agency}``, as data.

``api`` serves it and ``openapi`` documents it. A call that stands in no row here does not exist.
"""

from typing import Final

from chukan.platform.http import (
    code_files,
    codes,
    copies,
    events,
    evidence,
    holders,
    later,
    links,
    loads,
    queries,
    query_files,
    records,
    reviews,
    statistics,
)
from chukan.platform.http.calls import Route

# The router tries them in this order: what is called most stands first.
ROUTES: Final[tuple[Route, ...]] = (
    *queries.ROUTES,
    *query_files.ROUTES,
    *events.ROUTES,
    *holders.ROUTES,
    *codes.ROUTES,
    *code_files.ROUTES,
    *copies.ROUTES,
    *loads.ROUTES,
    *reviews.ROUTES,
    *records.ROUTES,
    *evidence.ROUTES,
    *statistics.ROUTES,
    *links.ROUTES,
    *later.ROUTES,
)
