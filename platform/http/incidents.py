"""Incidents (漏えい等事案): an agency finds whom the records of a period are about, with its own keys."""

import datetime as dt
from typing import Final

from chukan.errors import Problem
from chukan.platform.admission import Priority
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Call, Example, Reply, Route
from chukan.platform.wire.incidents import Affected, AffectedSearch
from chukan.tenants.affected import PERSONS_MAX
from chukan.tenants.incidents import PERIOD_MAX

_NIGHT: Final = dt.datetime(2026, 11, 22, 15, tzinfo=dt.UTC)


async def affected(call: Call) -> Reply:
    """Return whom the records of a period are about."""
    body = call.body_as(AffectedSearch)
    if not dt.timedelta(0) < body.until - body.since <= PERIOD_MAX:
        raise Problem("invalid_field", pointer="/until", expected="a period of at most seven years")
    if body.since.year <= dt.MINYEAR or body.until.year >= dt.MAXYEAR:
        # An instant of the first or last days of time may have none in UTC, by which the database goes.
        raise Problem("invalid_field", pointer="/since", expected="a period of our time")
    return Reply(await call.services.desks.records.affected(call.agency, body))


ROUTES: Final = (
    Route(
        "POST",
        "/incidents/affected",
        "findAffected",
        f"影響を受けた本人。Find whom the records of a period are about, at most {PERSONS_MAX:,} persons.",
        Right(("records",)),
        affected,
        Priority.BATCH,
        body=AffectedSearch,
        reply=Affected,
        problems=("proof_pending", "too_many_lines"),
        examples=(Example("One night.", AffectedSearch(since=_NIGHT, until=_NIGHT + dt.timedelta(hours=9))),),
    ),
)
