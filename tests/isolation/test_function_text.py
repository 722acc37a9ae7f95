"""What the SQL itself says: no hint in a writing transaction, no parent read, no function that anybody may call."""

import re

import pytest

from chukan.tenants.migrate import read_migrations


@pytest.fixture
async def functions(eyes):
    return await eyes.admin.fetch(
        "SELECT p.proname, p.prosrc, p.prosecdef, p.proconfig, l.lanname, r.rolname AS owner,"
        " has_function_privilege('public', p.oid, 'EXECUTE') AS public FROM pg_proc p"
        " JOIN pg_language l ON l.oid = p.prolang JOIN pg_roles r ON r.oid = p.proowner"
        " WHERE p.pronamespace = 'chukan'::regnamespace"
    )


@pytest.fixture
async def parents(eyes):
    rows = await eyes.admin.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'chukan'::regnamespace AND relkind = 'p'"
    )
    assert len(rows) == 12
    return [row["relname"] for row in rows]


def without_comments(text):
    return re.sub(r"--[^\n]*", "", text)


def notifying(text):
    """A NOTIFY in a transaction that writes holds the server's one notification lock through the synchronous wait."""
    return re.findall(r"\bnotify\b|pg_notify\s*\(\s*'", without_comments(text), re.IGNORECASE)


def reading_parents(text, parents):
    """Reading, updating or joining a parent locks and plans every agency's leaf."""
    names = "|".join(parents)
    return re.findall(
        rf"(?:FROM|JOIN|UPDATE|USING|TABLE|ONLY)\s+chukan\.(?:{names})\b", without_comments(text), re.IGNORECASE
    )


async def test_no_function_notifies(functions):
    assert [row["proname"] for row in functions if notifying(row["prosrc"])] == []
    assert notifying("BEGIN NOTIFY x; END")
    assert notifying("PERFORM pg_notify('x', '')")
    assert not notifying("-- NOTIFY x")


def test_no_migration_notifies():
    files = read_migrations()
    assert len(files) > 10
    assert [each.name for each in files if notifying(each.text)] == []


async def test_no_function_reads_a_parent(functions, parents):
    assert {row["proname"]: found for row in functions if (found := reading_parents(row["prosrc"], parents))} == {}
    assert reading_parents("SELECT 1 FROM chukan.records r", parents)
    assert reading_parents("UPDATE chukan.outbox SET", parents)
    assert not reading_parents("INSERT INTO chukan.records SELECT", parents)
    assert not reading_parents("SELECT 1 FROM %I.records", parents)


@pytest.mark.requirement("SYS-01")
async def test_no_function_writes_a_record_without_counting_it(functions):
    calling = {
        row["proname"] for row in functions if re.search(r"chukan\.put_records\(", without_comments(row["prosrc"]))
    }
    assert calling == {"put_counted_records"}
    inserting = {row["proname"] for row in functions if "INTO chukan.records" in without_comments(row["prosrc"])}
    assert inserting == {"put_records"}


async def test_every_function_has_an_owner_a_path_and_no_public(functions):
    assert len(functions) > 50
    for row in functions:
        assert row["lanname"] == "plpgsql", row["proname"]
        assert "search_path=pg_catalog, pg_temp" in row["proconfig"], row["proname"]
        assert not row["public"], row["proname"]
        if row["proname"] != "entrust":
            # Who looks at the standbys may see nothing else.
            owners = {"chukan_watch"} if row["proname"] == "standings" else {"chukan_fn", "chukan_owner"}
            assert row["owner"] in owners, row["proname"]


async def test_row_security_is_forced_on_every_leaf_and_parent(eyes):
    assert (
        await eyes.admin.fetch(
            "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ("
            " n.nspname ~ '^a[0-9]{5}$' AND c.relkind = 'r' OR n.nspname = 'chukan' AND c.relkind = 'p')"
            " AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
            # COPY is refused on a table with row security; the stage is held by its schema and its rights.
            " AND c.relname <> 'stage'"
        )
        == []
    )
    policies = await eyes.admin.fetch(
        "SELECT schemaname, roles::text[] AS roles FROM pg_policies WHERE schemaname ~ '^a[0-9]{5}$'"
    )
    assert {(row["schemaname"], *row["roles"]) for row in policies} == {
        ("a00007", "a00007"),
        ("a00007", "chukan_fn"),
        ("a00008", "a00008"),
        ("a00008", "chukan_fn"),
    }


async def test_tables_of_the_cell_hold_no_person_code_or_counterpart(eyes):
    rows = await eyes.admin.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'chukan' AND table_name = ANY($1)",
        [
            "inquiry_work",
            "provision_work",
            "to_sequence",
            "leases",
            "workers",
            "agencies",
            "log_heads",
            "canary",
            "evidence_heads",
            "witnessed",
        ],
    )
    columns = {row["column_name"] for row in rows}
    assert columns == {
        "agency", "id", "batch", "ordinal", "shard", "state", "outcome", "reason", "outbox", "due", "deadline", "tries",
        "updated_at", "n", "record", "at", "side", "epoch", "owner", "until", "generation", "hold_version", "opened_at",
        "seq", "size", "root", "signer", "origin",
        "one",
    }  # fmt: skip
