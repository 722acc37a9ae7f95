"""A superuser's dumps of both cells, without a key: nothing joins the two sides of exchanges better than time.

Many lines are asked in one list, so that time tells nothing of their order. Every row of every table, by the
catalogue, is given to the agency that it is of; then every value of one agency is compared with every value of the
other, and every column of the one is laid beside every column of the other by rank, as one does who hopes that an order
was kept.
"""

import itertools
import uuid
from collections import defaultdict
from typing import Any, TypeVar

import pytest

from chukan.chance import Chance, SeededChance
from chukan.tenants.partition import schema_name
from chukan.tests.support.nation import ASKS, GIVES_WEST

LINES = 48
CHANCE_MAX = 12
"""Right pairs that chance does not reach: of two random orders one pair is right on average, so twelve or more come
once in a billion tries, and there are about ten thousand pairs of columns."""
COMMON = {"open", "network", bytes(32)}
"""State of an agency, who pushed a message, and what a log's first leaf of a person points at: each stands on both
sides of every exchange that there is, and so joins none."""
COMMON_TABLES = {
    "access_refused", "agency_tables", "canary", "cell", "cell_opening", "incidents", "leases", "link_change",
    "link_counter", "link_gateways", "link_keys", "link_peers", "link_service", "link_sightings", "links", "master",
    "master_act", "migrations", "notice", "sealed_places", "snapshot", "witnessed", "witnessed_maps", "workers",
}  # fmt: skip
"""Tables without an agency's number: of the cell, of links, of operators' acts, and the other centre's last heads."""
Row = dict[str, Any]
T = TypeVar("T")


def shuffled(items: list[T], dice: Chance) -> list[T]:
    return sorted(items, key=lambda _: dice.token(8))


async def exchange(nation: Any) -> dict[bytes, bytes]:
    """Have many lines answered that were asked in one list; returns the provider's id by the inquirer's."""
    dice = SeededChance(7, nation.clock)
    people = [(f"{7_000_000 + n:015d}", f"99{7_000 + n:08d}0") for n in range(LINES)]
    for code in (ASKS, GIVES_WEST):
        await nation.acquire(code, shuffled(people, dice))
    for addressee, _ in shuffled(people, dice):
        await nation.register(GIVES_WEST, addressee)
    asked = [nation.line(addressee, GIVES_WEST) for addressee, _ in shuffled(people, dice)]
    batch = await nation.ask(ASKS, asked)
    done = await nation.answered(ASKS, batch)
    assert {line.outcome for line in done.lines} == {"provided"}
    await nation.west.inquiries.collect(nation.agency(ASKS), batch.batch)
    await nation.until_records(GIVES_WEST, LINES)
    await nation.sequenced()
    mine = {record.fields.reference: record.fields.id for record in await nation.records(ASKS)}
    theirs = {record.fields.reference: record.fields.id for record in await nation.records(GIVES_WEST)}
    return {mine[permit].bytes: theirs[permit].bytes for permit in mine}


async def rows_of(nation: Any, code: str) -> dict[str, list[Row]]:
    """Every row of an agency, by table: its schema's, and those of the cell that bear its number."""
    agency = nation.agency(code)
    admin = await nation.admin(nation.databases[agency.cell])
    own = schema_name(agency.number)
    tables = await admin.fetch(
        "SELECT n.nspname AS schema, c.relname AS name, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid"
        " AND a.attname = 'agency') AS numbered FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema)'"
    )
    found = {}
    for table in tables:
        schema, name = table["schema"], table["name"]
        if schema == own:
            rows = await admin.fetch(f'SELECT ctid::text AS place, * FROM {own}."{name}"')
        elif table["numbered"] and not schema.startswith("a0"):
            rows = await admin.fetch(
                f'SELECT ctid::text AS place, * FROM {schema}."{name}" WHERE agency = $1', agency.number
            )
        else:
            continue
        found[name if schema == own else f"{schema}.{name}"] = [dict(row) for row in rows]
    await admin.close()
    return found


def plain(value: Any) -> Any:
    return value.bytes if isinstance(value, uuid.UUID) else value


def telling(tables: dict[str, list[Row]]) -> dict[Any, set[str]]:
    """Values that could name something, each with the columns that it stands in; long ones by their ends as well."""
    found = defaultdict(set)
    for table, rows in tables.items():
        for row in rows:
            for column, value in row.items():
                if isinstance(value, bytes | uuid.UUID | str) and column != "place":
                    content = plain(value)
                    found[content].add(f"{table}.{column}")
                    if isinstance(content, bytes) and len(content) > 48:
                        found[content[-32:]].add(f"{table}.{column}")
                        found[content[:32]].add(f"{table}.{column}")
    return found


def features(tables: dict[str, list[Row]], lines: set[bytes]) -> dict[str, dict[bytes, Any]]:
    """By table and column: what can be put in order about each line, where the table has a row of every line."""
    found: dict[str, dict[bytes, Any]] = {}
    for table, rows in tables.items():
        columns = rows[0].keys() if rows else ()
        for named in columns:
            mine = {plain(row[named]): row for row in reversed(rows) if plain(row[named]) in lines}
            if len(mine) == len(lines):
                for column in columns:
                    found[f"{table}.{column}"] = {line: ordered(column, row[column]) for line, row in mine.items()}
                    found[f"{table}.{column} length"] = {line: size(row[column]) for line, row in mine.items()}
                break
    return found


def ordered(column: str, value: Any) -> Any:
    if column == "place":
        return tuple(map(int, value.strip("()").split(",")))
    return plain(value)


def size(value: Any) -> int:
    return len(value) if isinstance(value, bytes | str) else 0


def right(one: dict[bytes, Any], other: dict[bytes, Any], truth: dict[bytes, bytes], dice: Chance) -> int:
    """How many pairs come out right when both sides are put in order and laid beside each other; ties are drawn."""
    ranked = []
    for feature in (one, other):
        known = shuffled([line for line, value in feature.items() if value is not None], dice)
        ranked.append(sorted(known, key=lambda line, values=feature: values[line]))
    return sum(truth[mine] == theirs for mine, theirs in zip(*ranked, strict=False))


@pytest.mark.requirement("TEN-01", "TEN-02", "SYM-08")
async def test_a_superusers_dumps_of_both_cells_join_no_two_agencies_better_than_time(nation: Any) -> None:
    truth = await exchange(nation)
    mine, theirs = await rows_of(nation, ASKS), await rows_of(nation, GIVES_WEST)
    for tables in (mine, theirs):
        assert {"log", "outbox", "inbox", "codes", "events", "records"} <= {
            name for name, rows in tables.items() if rows
        }

    # No value of the one stands with the other, in whatever table and column.
    asked, gave = telling(mine), telling(theirs)
    assert min(len(asked), len(gave)) > 10 * LINES
    assert {str(value) for value in asked.keys() & gave.keys()} <= {str(value) for value in COMMON}

    # No column of the one is in the order of a column of the other.
    first, second = features(mine, set(truth)), features(theirs, set(truth.values()))
    assert {"records.place", "log.seq", "queries.id", "permits.sealed length"} <= set(first)
    assert {"records.place", "log.seq", "provisions.id", "permits_used.place"} & set(second)
    dice = SeededChance(1, nation.clock)
    tries = {(one, two): right(first[one], second[two], truth, dice) for one, two in itertools.product(first, second)}
    assert len(tries) > 5_000
    best = max(tries, key=lambda pair: tries[pair])
    assert tries[best] < CHANCE_MAX, best
    # The attack itself finds an order that was kept.
    kept = dict(zip(truth.values(), sorted(first["records.place"].values()), strict=True))
    order = dict(zip(truth, sorted(first["records.place"].values()), strict=True))
    assert right(order, kept, truth, dice) == LINES


async def test_every_table_is_some_agencys_or_holds_no_row_about_one_line(nation: Any) -> None:
    """A table that neither lies in an agency's schema nor bears its number would be past the search above."""
    admin = await nation.admin(nation.databases["east"])
    rows = await admin.fetch(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema|a[0-9]{5})' AND NOT EXISTS"
        " (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'agency')"
    )
    assert {row["relname"] for row in rows if row["nspname"] == "chukan"} == COMMON_TABLES
    # Those that agencies' own are made after hold nothing; those of the operators' log hold acts of operators.
    plain_ones = [row["relname"] for row in rows if row["nspname"] == "chukan_plain"]
    assert len(plain_ones) > 20
    for name in plain_ones:
        assert await admin.fetchval(f"SELECT count(*) FROM chukan_plain.{name}") == 0
    assert {row["nspname"] for row in rows} == {"chukan", "chukan_plain", "chukan_operators"}
    await admin.close()
