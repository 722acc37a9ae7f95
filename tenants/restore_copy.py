"""What a restored agency's tables come to (機関単位の復元): registrations go back to the moment, what happened stays.

``put_back`` fills the live cell's tables of a frozen agency from a cell that stands as of the moment, inside the
caller's transaction. Everything goes through COPY and is read back: the streams have the same SHA-256, or nothing is
changed.

- *Copies* (副本) become exactly those of the moment.
- *Links* (符号) of the moment come back. A code that the network gave later stays, for it is given once: unless at the
  moment it stood under another person, who then has it again. A link that is suspended now stays suspended.
- *Holds* (自動応答不可) of the moment come back and those of now stay; where a copy that comes back has no flag and one
  of its kind and person has one now, there is a hold instead. A restore never lets out what is withheld.
- *Loads* (副本登録) that the copies do not show any more are aborted, and their staged rows go: they are made again.
- Everything else *happened*, and is not touched.

Invariant: an agency's table that stands in none of the lists below is not restored around: nothing is done at all.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from chukan import log
from chukan.errors import Problem
from chukan.replication.primary import DRIVER_ERRORS, Connection, translate
from chukan.tenants import births
from chukan.tenants.partition import schema_name
from chukan.tenants.table_copy import Sent, Table, digest, pipe, tables_of

BACK: Final = ("copies", "copy_marks")
"""Become what they were."""
JOINED: Final = ("codes", "holds", "loads")
"""What they were is joined with what they are."""
EMPTIED: Final = ("stage",)
HAPPENED: Final = (
    "acquisition_asks", "code_changes", "corrections", "delegations",
    "map_pages", "messages",
    "answers", "checkpoints", "cosignatures", "events", "files", "idempotency", "inbox", "load_parts", "log", "outbox",
    "operation_checkpoints", "operation_cosignatures", "operation_log", "operation_tiles", "operations",
    "permits", "permits_used", "provisions", "queries", "records", "review_drafts", "statistics", "tiles",
    "officers", "officer_changes", "officer_sessions", "own_information_flags",
)  # fmt: skip
"""Never taken back."""
_FROZEN: Final = ("kept_inquiry_work", "kept_provision_work", "kept_to_sequence", "kept_operations_waiting")
"""What a freeze makes; see 0046_agency_move.sql."""

STEP_TIMEOUT_S: Final = 3600.0

_log = log.get("restore")


class PutBack(NamedTuple):
    """What was put back."""

    sent: dict[str, Sent]
    """By table, as it was at the moment."""
    kept: dict[str, int]
    """How many rows of now stand beside them, by what they are."""


async def writers_gone(live: Connection, agency: int) -> None:
    """Wait until every transaction of a frozen agency that began before its freeze has ended; none can begin any more.

    Raises ``Problem`` busy when one goes on for about a minute; as the cell does.
    """
    schema = schema_name(agency)
    names = ", ".join(f"{schema}.{name}" for name in (*BACK, *JOINED, *EMPTIED))

    async def attempt() -> None:
        async with live.transaction():
            await live.execute("SET LOCAL lock_timeout = '200ms'")
            await live.execute(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")

    try:
        await births.patiently(attempt)
    except DRIVER_ERRORS as error:
        raise translate(error) from None


async def put_back(source: Connection, live: Connection, agency: int) -> PutBack:
    """Put an agency's registrations back, in the caller's transaction on the live cell, once nobody writes any more.

    Args:
        source: an administrator's connection to the cell as of the moment, of this release's schema.
        live: the same to the live cell, in a transaction; the agency is frozen, and was waited for (``writers_gone``).
        agency: its number.

    Raises:
        Problem: restore_differs, with the table; as the cells do.
    """
    schema = schema_name(agency)
    try:
        tables = await _checked_tables(source, live, schema)
        # Triggers would say that copies changed now: they changed at the moment that their marks name.
        await live.execute("SET LOCAL session_replication_role = replica")
        await live.execute(
            "CREATE TEMP TABLE withheld ON COMMIT DROP AS"
            f" SELECT DISTINCT person, kind FROM {schema}.copies WHERE review",
            timeout=STEP_TIMEOUT_S,
        )
        for name in (*BACK, *EMPTIED):
            # Never TRUNCATE: whoever comes meanwhile would wait for its lock with a connection that others need.
            await live.execute(f"DELETE FROM {schema}.{name}", timeout=STEP_TIMEOUT_S)
        sent = {name: await _send(source, live, schema, tables[name], f"{schema}.{name}") for name in BACK}
        for name in JOINED:
            await live.execute(f"CREATE TEMP TABLE then_{name} (LIKE {schema}.{name}) ON COMMIT DROP")
            sent[name] = await _send(source, live, schema, tables[name], f"pg_temp.then_{name}")
            await live.execute(f"ANALYZE pg_temp.then_{name}")
        kept = {
            "links": await _join_links(live, schema),
            "holds": await _join_holds(live, schema),
            "loads": await _abort_loads(live, schema),
        }
    except DRIVER_ERRORS as error:
        raise translate(error) from None
    return PutBack(sent, kept)


async def _checked_tables(source: Connection, live: Connection, schema: str) -> dict[str, Table]:
    """Return the tables to read, once both cells are known to have them alike; ``Problem`` restore_differs."""
    now = {table.name: table for table in await tables_of(live, schema)}
    then = {table.name: table for table in await tables_of(source, schema)}
    for name in sorted(set(now) - {*BACK, *JOINED, *EMPTIED, *HAPPENED, *_FROZEN}):
        raise Problem("restore_differs", expected=f"{name}: a table that this release knows")
    for name in (*BACK, *JOINED):
        if name not in now or then.get(name) != now[name]:
            raise Problem("restore_differs", expected=f"{name}: the same columns in the backup and in the cell")
    return then


async def _send(source: Connection, live: Connection, schema: str, table: Table, into: str) -> Sent:
    """Send one table and read it back; ``Problem`` restore_differs."""
    sent = await pipe(source, live, schema, table, into)
    to_schema, to_table = into.split(".")
    if await digest(live, to_schema, table._replace(name=to_table)) != sent:
        _log.error("a table did not come back as it was sent", stage=table.name)
        raise Problem("restore_differs", expected=table.name)
    return sent


async def _join_links(live: Connection, schema: str) -> int:
    """Join the links; return how many of now stay that the moment did not know."""
    codes = f"{schema}.codes"
    # What was suspended since stays so. A version never goes back: who decided on the one of now must decide again.
    await _run(
        live,
        "UPDATE then_codes t SET version = greatest(t.version, c.version) + 1,"
        " status = CASE WHEN t.status = 2 AND c.status = 3 AND c.code_digest = t.code_digest THEN 3 ELSE t.status END"
        f" FROM {codes} c WHERE c.person = t.person AND t.code IS NOT NULL",
    )
    await _run(
        live,
        f"DELETE FROM {codes} c USING then_codes t"
        " WHERE t.code IS NOT NULL AND (c.person = t.person OR c.code_digest = t.code_digest)",
    )
    await _run(live, f"INSERT INTO {codes} SELECT * FROM then_codes t WHERE t.code IS NOT NULL")
    stay = await live.fetchval(
        f"SELECT count(*) FROM {codes} c WHERE NOT EXISTS (SELECT FROM then_codes t"
        " WHERE t.person = c.person AND t.code IS NOT NULL)",
        timeout=STEP_TIMEOUT_S,
    )
    # An acquisition that was open then, and of which nothing is left: it is open again.
    await _run(live, f"INSERT INTO {codes} SELECT * FROM then_codes t WHERE t.code IS NULL ON CONFLICT DO NOTHING")
    return int(stay)


async def _join_holds(live: Connection, schema: str) -> int:
    """Join the holds; return how many of now stay that the moment did not know."""
    holds = f"{schema}.holds"
    stay = await live.fetchval(
        f"SELECT count(*) FROM {holds} h WHERE NOT EXISTS (SELECT FROM then_holds t"
        " WHERE t.person IS NOT DISTINCT FROM h.person AND t.kind IS NOT DISTINCT FROM h.kind)",
        timeout=STEP_TIMEOUT_S,
    )
    await _run(live, f"INSERT INTO {holds} SELECT * FROM then_holds ON CONFLICT (person, kind) DO NOTHING")
    status = await _run(
        live,
        f"INSERT INTO {holds} (person, kind) SELECT w.person, w.kind FROM withheld w WHERE EXISTS"
        f" (SELECT FROM {schema}.copies c WHERE c.person = w.person AND c.kind = w.kind AND NOT c.review)"
        " ON CONFLICT (person, kind) DO NOTHING",
    )
    return int(stay) + status


async def _abort_loads(live: Connection, schema: str) -> int:
    """Abort the loads that the copies do not show; return how many there are."""
    loads = f"{schema}.loads"
    aborted = await _run(
        live,
        f"UPDATE {loads} l SET state = 'aborted' WHERE l.state IN ('open', 'held') OR l.state = 'committed'"
        " AND NOT EXISTS (SELECT FROM then_loads t WHERE t.id = l.id AND t.state = 'committed')",
    )
    await _run(
        live, f"INSERT INTO {loads} SELECT * FROM then_loads t WHERE t.state = 'committed' ON CONFLICT DO NOTHING"
    )
    return aborted


async def _run(live: Connection, sql: str) -> int:
    """Run one statement and return how many rows it touched."""
    return int(str(await live.execute(sql, timeout=STEP_TIMEOUT_S)).rsplit(" ", 1)[-1])
