"""Two agencies with everything an agency can have, and the eyes that see whether anything was read or changed."""

import dataclasses
import datetime as dt
import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

ATTACKER, VICTIM = 7, 8
SECRET = b"SECRET-OF-8".ljust(32, b".")
"""Stands in every column of the victim's rows that can hold it; it must never come back."""

FILLERS = {
    "uuid": lambda n: uuid.UUID(int=0x8888 << 100 | n),
    "bytea": lambda n: hashlib.sha256(b"%d" % n).digest(),
    "int4": lambda n: n,
    "int8": lambda n: n,
    "int2": lambda _n: 1,
    "text": lambda n: f"SECRET-OF-8-{n}",
    "bool": lambda _n: False,
    "date": lambda n: dt.date(2026, 1, 1) + dt.timedelta(days=n),
    "timestamptz": lambda _n: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
}
SECRETIVE = {"request", "sealed", "notice", "body", "addressee", "number", "code", "note"}
FIXED = {
    "purpose": "queries",
    "mode": "full",
    "on_error": "reject_file",
    "state": "open",
    "act": "relink",
    "target": SECRET,
    "decided_by": None,
    "delegations.state": "proposed",
    "map_pages.path": lambda n: f"a{n}",
    "map_pages.body": SECRET.ljust(65, b"x"),
    "leaf_data": SECRET.ljust(105, b"x"),
    "hashes": SECRET.ljust(512, b"x"),
}
TABLES = (
    "SELECT n.nspname AS schema, c.relname AS table FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname ~ '^(chukan|chukan_plain|chukan_operators|a[0-9]{5})$' ORDER BY 1, 2"
)


async def fill(admin: Any, agency: int) -> None:
    """Put three rows into every table of an agency."""
    schema = f"a{agency:05d}"
    for (table,) in await admin.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'", schema
    ):
        columns = await admin.fetch(
            "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
            " WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped",
            f"{schema}.{table}",
        )
        names = [row["attname"] for row in columns if (table, row["attname"]) != ("records", "amends")]
        kinds = {row["attname"]: row["typname"] for row in columns}
        for n in range(1, 4):
            values = [agency if name == "agency" else value_of(table, name, kinds[name], n) for name in names]
            places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
            # The marks of copies are there already: their trigger has worked.
            await admin.execute(
                f"INSERT INTO {schema}.{table} ({', '.join(names)}) VALUES ({places}) ON CONFLICT DO NOTHING", *values
            )
        await admin.execute(f"ANALYZE {schema}.{table}")


def value_of(table: str, name: str, kind: str, n: int) -> Any:
    """Return a value for a column that says whose it is where the column allows it."""
    for known in (f"{table}.{name}", name):
        if known in FIXED:
            fixed = FIXED[known]
            return fixed(n) if callable(fixed) else fixed
    return SECRET if kind == "bytea" and name in SECRETIVE else FILLERS[kind](n)


@dataclasses.dataclass
class Eyes:
    """Sees everything, as the superuser."""

    admin: Any

    async def picture(self) -> dict[str, str]:
        """A digest of every table of ours, the rights on them, and what a server-wide attack could leave."""
        seen = {}
        for schema, table in await self.admin.fetch(TABLES):
            seen[f"{schema}.{table}"] = await self.admin.fetchval(
                f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM ONLY {schema}.{table} t"
            )
        seen["rights"] = await self.admin.fetchval(
            "SELECT md5(string_agg(c.oid::text || c.relname || coalesce(c.relacl::text, '') || c.relrowsecurity"
            " || c.relforcerowsecurity || c.relowner, '|' ORDER BY c.oid)) FROM pg_class c"
            " WHERE c.relnamespace::regnamespace::text ~ '^(chukan|chukan_plain|a[0-9]{5}|public)$'"
        )
        for name, sql in {
            "functions": "SELECT count(*)::text FROM pg_proc",
            "relations": "SELECT count(*)::text FROM pg_class WHERE relpersistence <> 't'",
            "policies": "SELECT md5(string_agg(p::text, '|' ORDER BY p.oid)) FROM pg_policy p",
            "members": "SELECT md5(string_agg(m::text, '|' ORDER BY m.roleid, m.member)) FROM pg_auth_members m",
            "roles": "SELECT md5(string_agg(rolname || rolsuper || rolbypassrls || rolcanlogin, '|' ORDER BY oid))"
            " FROM pg_roles",
            "large objects": "SELECT count(*)::text FROM pg_largeobject_metadata",
            "schemas": "SELECT count(*)::text FROM pg_namespace WHERE nspname !~ '^pg_'",
        }.items():
            seen[name] = await self.admin.fetchval(sql)
        return seen


@pytest.fixture(scope="session")
def walled(any_server: Any, make_cell: Callable[..., Any]) -> Any:
    """A cell of two agencies, both full."""
    return make_cell(any_server, [ATTACKER, VICTIM])


@pytest.fixture(scope="session")
def filled() -> set[str]:
    """The databases that have been filled."""
    return set()


@pytest.fixture
async def eyes(walled: Any, filled: set[str]) -> Any:
    admin = await walled.admin()
    if walled.settings.database not in filled:
        filled.add(walled.settings.database)
        for agency in (ATTACKER, VICTIM):
            await fill(admin, agency)
    yield Eyes(admin)
    await admin.close()


@pytest.fixture
def log_in(walled: Any) -> Callable[[str], Any]:
    """Connect as one of the login roles, as whoever stole its password would."""

    async def connect(user: str) -> Any:
        return await asyncpg.connect(
            host=walled.settings.host,
            port=walled.settings.port,
            database=walled.settings.database,
            user=user,
            password=walled.passwords[user],
        )

    return connect
