"""The route table of the agency API: every call under ``/v1/agencies/{agency}``, as data.

``api`` serves it and ``openapi`` documents it. A call that stands in no row here does not exist.
"""

from typing import Final

from chukan.platform.http import (
    acquisition_asks,
    code_changes,
    code_files,
    codes,
    copies,
    corrections,
    delegations,
    events,
    evidence,
    holders,
    incidents,
    links,
    loads,
    notices,
    officers,
    operations,
    queries,
    query_files,
    records,
    resident,
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
    *code_changes.ROUTES,
    *acquisition_asks.ROUTES,
    *code_files.ROUTES,
    *copies.ROUTES,
    *loads.ROUTES,
    *reviews.ROUTES,
    *delegations.ROUTES,
    *corrections.ROUTES,
    *records.ROUTES,
    *evidence.ROUTES,
    *resident.ROUTES,
    *statistics.ROUTES,
    *incidents.ROUTES,
    *links.ROUTES,
    *officers.ROUTES,
    *operations.ROUTES,
    *notices.ROUTES,
)
