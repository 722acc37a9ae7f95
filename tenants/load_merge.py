"""The statements that make a staged load the agency's copies (副本), each over the whole load at once.

They run in the one transaction of the load's commit: provision sees the old set or the new one, never a mixture.
"""

import datetime as dt
import uuid
from typing import Final

from chukan.errors import Problem
from chukan.tenants.load_forms import LoadSpec
from chukan.tenants.partition import Partition

DROP_PERCENT_MAX: Final = 5
"""A full load that would drop more than this share of persons waits for an officer."""


async def drops_too_many(partition: Partition, load: uuid.UUID, spec: LoadSpec) -> bool:
    """Tell whether more than 5% of the persons with a copy of this kind, period and layout have none in the load."""
    # Not a join: without statistics the planner would compare every copy with every staged row.
    counted = await partition.fetchrow(
        "SELECT count(DISTINCT c.person) AS before, count(DISTINCT c.person) FILTER (WHERE NOT EXISTS (SELECT FROM"
        f" {partition.table('stage')} s WHERE s.load = $1 AND s.person = c.person)) AS dropped"
        f" FROM {partition.table('copies')} c WHERE c.kind = $2 AND c.period = $3 AND c.layout = $4",
        load,
        spec.kind,
        spec.period,
        spec.layout,
    )
    return counted is not None and counted["dropped"] * 100 > counted["before"] * DROP_PERCENT_MAX


async def merge(partition: Partition, load: uuid.UUID, spec: LoadSpec, at: dt.datetime) -> tuple[int, int, int]:
    """Merge the staged rows, the last one of each key; return how many were inserted, updated and left alone.

    ``Problem`` load_count_mismatch when the stage does not hold what the parts say (never seen; a check in pairs).
    """
    stage = partition.table("stage")
    staged = await partition.fetchrow(
        f"SELECT count(*) AS rows, count(DISTINCT id) AS keys FROM {stage} WHERE load = $1", load
    )
    parts = await partition.fetchrow(
        f"SELECT coalesce(sum(rows), 0) AS rows FROM {partition.table('load_parts')} WHERE load = $1", load
    )
    if staged is None or parts is None or staged["rows"] != parts["rows"]:
        raise Problem("load_count_mismatch")
    merged = await partition.fetchrow(
        f"WITH merged AS (INSERT INTO {partition.table('copies')} AS c"
        " (id, person, kind, period, effective_from, layout, body, content, review, registered_at, source, load)"
        " SELECT DISTINCT ON (s.person, s.effective_from) s.id, s.person, s.kind, s.period, s.effective_from,"
        f" s.layout, s.body, s.content, s.review, $2, $3, $1 FROM {stage} s WHERE s.load = $1"
        " ORDER BY s.person, s.effective_from, s.n DESC, s.line DESC"
        " ON CONFLICT (person, kind, period, effective_from, layout) DO UPDATE SET body = excluded.body,"
        " content = excluded.content, review = excluded.review, registered_at = excluded.registered_at,"
        " source = excluded.source, load = excluded.load WHERE c.content IS DISTINCT FROM excluded.content"
        " RETURNING xmax = 0 AS fresh)"
        " SELECT count(*) FILTER (WHERE fresh) AS inserted, count(*) FILTER (WHERE NOT fresh) AS updated FROM merged",
        load,
        at,
        spec.source,
    )
    if merged is None:
        raise Problem("internal")
    inserted, updated = merged["inserted"], merged["updated"]
    return inserted, updated, staged["keys"] - inserted - updated


async def delete_absent(partition: Partition, load: uuid.UUID, spec: LoadSpec) -> int:
    """Delete the copies of this kind, period and layout that the load does not hold; return how many."""
    gone = await partition.fetchrow(
        f"WITH gone AS (DELETE FROM {partition.table('copies')} c"
        " WHERE c.kind = $2 AND c.period = $3 AND c.layout = $4 AND NOT EXISTS"
        f" (SELECT FROM {partition.table('stage')} s WHERE s.load = $1 AND s.person = c.person"
        " AND s.effective_from = c.effective_from) RETURNING 1) SELECT count(*) AS n FROM gone",
        load,
        spec.kind,
        spec.period,
        spec.layout,
    )
    return gone["n"] if gone is not None else 0
