"""What a database offers to those who use it, and what it demands of them, as its own catalogue says.

Two catalogues of the same database, taken before and after a migration, tell what the migration really did, whatever
its text looks like: a function that is dropped and made again with other types, a column that is renamed, a right that
is revoked. An exchange of the release before goes on using what was offered; nothing of it may vanish in ``pre``, and
nothing may be demanded that it does not know of.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_OURS = "NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_'"
_OFFERS = {
    "schema": f"SELECT format('schema %I', n.nspname) FROM pg_namespace n WHERE n.nspname {_OURS}",
    "function": f"""
        SELECT format('function %I.%I(%s) returns %s', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid),
                      pg_get_function_result(p.oid))
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname {_OURS}""",
    "function's rights": f"""
        SELECT format('function %I.%I(%s) runs as %s', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid),
                      CASE WHEN p.prosecdef THEN p.proowner::regrole::text ELSE 'its caller' END)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname {_OURS}""",
    "table": f"""
        SELECT format('table %I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname {_OURS}""",
    "column": f"""
        SELECT format('column %I.%I.%I %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname {_OURS}""",
    "key": f"""
        SELECT format('key %s of %I.%I', (SELECT string_agg(pg_get_indexdef(i.indexrelid, k, true), ', ' ORDER BY k)
                      FROM generate_series(1, i.indnkeyatts::integer) k), n.nspname, c.relname)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE i.indisunique AND n.nspname {_OURS}""",
    "right on a table": f"""
        SELECT format('%s on table %I.%I for %s', x.privilege_type, n.nspname, c.relname, {{grantee}})
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) x
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname {_OURS}""",
    "right on a column": f"""
        SELECT format('%s on column %I.%I.%I for %s', x.privilege_type, n.nspname, c.relname, a.attname, {{grantee}})
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
             aclexplode(a.attacl) x WHERE NOT a.attisdropped AND n.nspname {_OURS}""",
    "right on a function": f"""
        SELECT format('EXECUTE on function %I.%I(%s) for %s', n.nspname, p.proname,
                      pg_get_function_identity_arguments(p.oid), {{grantee}})
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
             aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE n.nspname {_OURS}""",
    "right on a schema": f"""
        SELECT format('%s on schema %I for %s', x.privilege_type, n.nspname, {{grantee}})
        FROM pg_namespace n, aclexplode(n.nspacl) x WHERE n.nspname {_OURS}""",
    "membership": """
        SELECT format('role %s may be taken by %s', m.roleid::regrole, m.member::regrole) FROM pg_auth_members m
        WHERE m.member::regrole::text ~ '^(chukan_|a[0-9]{5}$)'""",
    "policy": f"""
        SELECT format('policy %I on %I.%I: %s %s %s %s', p.polname, n.nspname, c.relname, p.polcmd,
                      p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
                      pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname {_OURS}""",
}
_GRANTEE = "CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END"
_DEMANDS = {
    "no default": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS "table", NULL::text[] AS columns,
               format('a value for column %I.%I.%I', n.nspname, c.relname, a.attname) AS words
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname {_OURS}
          AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''""",
    "constraint": f"""
        SELECT format('%I.%I', n.nspname, c.relname), (SELECT array_agg(a.attname::text) FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)),
               format('constraint of %I.%I: %s', n.nspname, c.relname, pg_get_constraintdef(k.oid))
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype IN ('c', 'u', 'x', 'f') AND n.nspname {_OURS}""",
    "unique index": f"""
        SELECT format('%I.%I', n.nspname, c.relname), (SELECT array_agg(a.attname::text) FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)),
               format('unique %s', pg_get_indexdef(i.indexrelid))
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE i.indisunique AND NOT i.indisprimary AND n.nspname {_OURS}
          AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)""",
    "trigger": f"""
        SELECT format('%I.%I', n.nspname, c.relname), NULL::text[], pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND n.nspname {_OURS}""",
}
_OVERLOADS = f"""
    SELECT format('%I.%I', n.nspname, p.proname) AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
           p.pronargs - p.pronargdefaults AS least, CASE WHEN p.provariadic <> 0 THEN 100 ELSE p.pronargs END AS most
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname {_OURS}"""


class Demand(NamedTuple):
    """What is demanded of rows of a table; ``columns`` are those that it is about, where it is about some."""

    table: str
    columns: frozenset[str]
    words: str


class Overload(NamedTuple):
    """One function of a name, and with how many arguments it may be called."""

    name: str
    arguments: str
    least: int
    most: int


class Catalogue(NamedTuple):
    """What is offered and demanded at one moment."""

    offers: frozenset[str]
    demands: frozenset[Demand]
    overloads: frozenset[Overload]
    columns: Mapping[str, frozenset[str]]
    """The columns of each table."""


async def read(admin: Any) -> Catalogue:
    """Return the catalogue of a superuser's database."""
    offers: set[str] = set()
    for sql in _OFFERS.values():
        offers |= {row[0] for row in await admin.fetch(sql.replace("{grantee}", _GRANTEE))}
    demands = [
        Demand(row[0], frozenset(row[1] or ()), row[2]) for sql in _DEMANDS.values() for row in await admin.fetch(sql)
    ]
    columns: dict[str, set[str]] = {}
    for words in offers:
        if words.startswith("column "):
            schema, table, name = words.removeprefix("column ").split(" ")[0].split(".")
            columns.setdefault(f"{schema}.{table}", set()).add(name)
    overloads = [Overload(*row) for row in await admin.fetch(_OVERLOADS)]
    return Catalogue(
        frozenset(offers),
        frozenset(demands),
        frozenset(overloads),
        {table: frozenset(names) for table, names in columns.items()},
    )


def losses(before: Catalogue, after: Catalogue) -> list[str]:
    """Return, in words, what somebody who knows only ``before`` has lost in ``after``; sorted, nothing twice."""
    return sorted({*_vanished(before, after), *_demanded(before, after), *_confused(before, after)})


def _vanished(before: Catalogue, after: Catalogue) -> Iterator[str]:
    for words in before.offers - after.offers:
        yield f"takes away: {words}"


def _demanded(before: Catalogue, after: Catalogue) -> Iterator[str]:
    for demand in after.demands - before.demands:
        known = before.columns.get(demand.table)
        # A table that is new is used by nobody yet; so is a column, whose default whoever does not know it leaves in.
        new = known is None or (demand.columns and not demand.columns & known)
        if not new:
            yield f"demands: {demand.words}"


def _confused(before: Catalogue, after: Catalogue) -> Iterator[str]:
    """Two functions of a name that take the same number of arguments: a call with untyped ones may fit both."""
    for new in after.overloads - before.overloads:
        for old in before.overloads & after.overloads:
            if old.name == new.name and old.least <= new.most and new.least <= old.most:
                yield f"confuses: function {old.name}({old.arguments}) with ({new.arguments})"
