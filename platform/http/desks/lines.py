"""The check that every copy passes before it is stored, whether it came in a list or in a file (REP-01, REP-02)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec

from chukan.errors import Problem
from chukan.platform.http import forbidden
from chukan.platform.law import Law, validate_copy
from chukan.platform.wire.agency import Gap
from chukan.tenants.copies import Copy

_ITEMS = msgspec.json.Encoder(order="sorted")


def checked_copy(
    law: Law,
    today: dt.date,
    *,
    addressee: str,
    kind: str,
    layout: int,
    period: str,
    effective_from: dt.date,
    items: Mapping[str, str | Gap],
    review: bool,
) -> Copy:
    """Return a copy that may be stored.

    The layout must be in force today or on the copy's own day: a copy of next year may come ahead with its layout.

    Raises:
        Problem: unknown_kind, unknown_layout, invalid_field, unknown_item, missing_reason_code, unauthorised_gap_code,
            individual_number_present, resident_code_present; with a pointer, and never with a value.
    """
    forbidden.refuse([("addressee", addressee), ("period", period)])
    law.validate_period(kind, period)
    try:
        found = law.layout_for(kind, layout, today)
    except Problem:
        found = law.layout_for(kind, layout, effective_from)
    validate_copy(found, items)
    return Copy(addressee, kind, layout, effective_from, period, _ITEMS.encode(items), review)


def at_line(problem: Problem, line: int, root: str = "") -> Problem:
    """Return the same problem with its line (from 1) and its pointer under ``root``."""
    pointer = None if problem.pointer is None else root + problem.pointer
    return Problem(
        problem.code,
        pointer=pointer,
        line=line,
        retry_after_s=problem.retry_after_s,
        limit=problem.limit,
        expected=problem.expected,
    )
