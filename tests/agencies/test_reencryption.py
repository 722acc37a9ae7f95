"""An agency's rows get its newest data key while everybody works; old versions end when no row needs them."""

import asyncio
import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.tenants import bodies, copies, handover, reencryption
from chukan.tenants.keystore import KeyStores
from chukan.tenants.partition import act_for
from chukan.tenants.sealing import HEAD_BYTES, AgencyKeys, SealError

SAPPORO, BOARD = "9901011002000001", "9902011002000001"
UPDATE_RIGHTS = (
    "SELECT count(*) FROM information_schema.column_privileges WHERE table_schema = $1 AND grantee = 'chukan_fn'"
    " AND ((privilege_type = 'UPDATE' AND table_name IN ('records', 'copies', 'queries'))"
    " OR (privilege_type = 'SELECT' AND table_name IN ('permits', 'stage')))"
)


class Town:
    """An agency with something of everything, sealed by version 1, and what may be seen of it."""

    def __init__(self, site: Any, installation: Any, content: Callable[..., Any]) -> None:
        self.site, self.installation, self.maker = site, installation, content

    async def fill(self) -> "Town":
        entry = bodies.agency(SAPPORO)
        assert entry is not None
        self.row = await acts.add_agency(self.installation, entry)
        await acts.register_client(self.installation, *self.site.officers(SAPPORO))
        self.made = self.maker(self.installation, self.row)
        self.keys: AgencyKeys = self.made.keys
        await self.made.copies("A1", "A2", "A3")
        await self.made.link("A1", b"code of A1")
        await self.made.link("A2", None)
        await self.made.record("A1")
        return self

    @property
    def schema(self) -> str:
        return f"a{self.row.number:05d}"

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        return list(await self.site.fetch(self.row.cell, sql, *values))

    def walk(self, **options: Any) -> Any:
        return reencryption.reencrypt(self.installation.cells, self.row, self.keys, **options)

    async def clear(self) -> list[Any]:
        """Everything that the agency could be handed, in the clear."""
        door = partial(act_for, self.made.connections.app, self.row.number)
        return [
            (row.table, row.row)
            for table in handover.HANDED
            async for row in handover.read_rows(door, self.keys, table)
        ]

    async def versions(self) -> set[int]:
        """The key versions that the agency's sealed columns name."""
        found: set[int] = set()
        for place in await self.fetch("SELECT relation, sealed FROM chukan.sealed_places"):
            column, name = place["sealed"], f"{self.schema}.{place['relation']}"
            sql = f"SELECT DISTINCT substr({column}, 1, {HEAD_BYTES}) FROM {name} WHERE {column} IS NOT NULL"
            found |= {int.from_bytes(head[1:]) for (head,) in await self.fetch(sql)}
        return found

    async def stamps(self) -> list[Any]:
        """What must not move: ages of copies, commitments, leaves, digests."""
        queries = (
            "SELECT * FROM {}.copy_marks ORDER BY kind",
            "SELECT id, commitment, label, at FROM {}.records ORDER BY id",
            "SELECT seq, leaf_hash FROM {}.log ORDER BY seq",
            "SELECT id, content, person, registered_at FROM {}.copies ORDER BY id",
        )
        return [await self.fetch(sql.format(self.schema)) for sql in queries]

    async def progress(self) -> Any:
        every = await reencryption.progress(self.installation.cells, self.row.cell)
        (mine,) = [each for each in every if each.agency == self.row.number]
        return mine

    def another_process(self) -> AgencyKeys:
        """The keys as a process loaded them before."""
        return KeyStores.of(self.site.settings, chance=SystemChance(SystemClock())).load(self.row.number)

    def copy(self, addressee: str) -> copies.Copy:
        return copies.Copy(
            addressee=addressee, kind="TM00000000000002", layout=1, effective_from=dt.date(2026, 4, 1), period="2026",
            items=b'{"TM1":"1"}', review=False,
        )  # fmt: skip

    async def lodge(self, keys: AgencyKeys, addressee: str) -> None:
        async with act_for(self.made.connections.app, self.row.number) as partition:
            now = self.installation.clock.now()
            await copies.register(partition, keys, [self.copy(addressee)], source="test", at=now)


@pytest.fixture
async def town(site: Any, installation: Any, content: Any) -> Town:
    return await Town(site, installation, content).fill()


@pytest.mark.requirement("SEC-01")
async def test_rows_get_the_newest_key_and_nothing_else_changes(town: Town) -> None:
    before, stamps, rights = await town.clear(), await town.stamps(), await town.fetch(UPDATE_RIGHTS, town.schema)
    town.installation.keystores.rotate(town.row.number)
    assert await town.versions() == {1}
    done = await town.walk()
    assert (done.version, done.left, done.unreadable, done.unknown) == (2, 0, 0, ())
    assert done.sealed >= 8
    assert await town.versions() == {2}
    assert await town.clear() == before
    assert await town.stamps() == stamps
    told = await town.progress()
    assert (told.version, told.sealed, told.ended_at is not None) == (2, done.sealed, True)
    assert await town.fetch(UPDATE_RIGHTS, town.schema) == rights
    assert (await town.walk()).sealed == 0


@pytest.mark.requirement("SEC-01")
async def test_a_row_that_somebody_works_with_is_passed_over_and_never_overwritten(town: Town) -> None:
    town.installation.keystores.rotate(town.row.number)
    admin = await town.site.cells[town.row.cell].admin()
    held = admin.transaction()
    await held.start()
    await admin.execute(f"SELECT FROM {town.schema}.codes FOR UPDATE")
    async with asyncio.timeout(20):  # nobody waits for the rows
        done = await town.walk()
    assert done.left == 3  # two addressees and a code
    assert (await town.progress()).ended_at is None
    await held.rollback()
    await admin.close()
    done = await town.walk()
    assert done.left == 0
    assert await town.versions() == {2}


@pytest.mark.requirement("SEC-01")
async def test_what_is_lodged_while_it_walks_stays_as_it_was_lodged(town: Town) -> None:
    town.installation.keystores.rotate(town.row.number)
    changed = False

    def meanwhile(place: str, block: int, blocks: int) -> None:
        nonlocal changed
        changed = changed or (place == "copies.body" and block <= blocks)

    async def work() -> None:
        for n in range(20):
            await town.lodge(town.keys, f"B{n}")
            await town.lodge(town.keys, "A1")

    done, _ = await asyncio.gather(town.walk(report=meanwhile, rate_per_s=40), work())
    assert changed
    assert done.left == 0
    clear = await town.clear()
    assert len([row for table, row in clear if table == "copies"]) == 23
    assert await town.versions() == {2}


@pytest.mark.requirement("SEC-01")
async def test_an_interrupted_walk_goes_on_where_it_was(town: Town) -> None:
    town.installation.keystores.rotate(town.row.number)
    seen: list[str] = []

    def stop(place: str, block: int, blocks: int) -> None:
        del block, blocks
        seen.append(place)
        if place == "copies.body":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await town.walk(report=stop)
    told = await town.progress()
    assert (told.place, told.ended_at) == ("copies.body", None)
    assert await town.versions() == {1, 2}
    before = list(seen)
    done = await town.walk(report=lambda place, *_: seen.append(place))
    assert done.left == 0
    assert "codes.code" in before
    assert "codes.code" not in seen[len(before) :]
    assert await town.versions() == {2}


@pytest.mark.requirement("SEC-01")
async def test_what_does_not_open_is_left_and_told_of(town: Town) -> None:
    town.installation.keystores.rotate(town.row.number)
    bent = f"UPDATE {town.schema}.copies SET body = set_byte(body, 30, 255 - get_byte(body, 30)) WHERE id ="
    await town.fetch(f"{bent} (SELECT min(id::text)::uuid FROM {town.schema}.copies)")
    done = await town.walk()
    assert (done.left, done.unreadable) == (1, 1)
    assert (await town.progress()).ended_at is None


@pytest.mark.requirement("SEC-01")
async def test_old_versions_end_on_an_order_when_no_row_needs_them(town: Town) -> None:
    before, late = await town.clear(), town.another_process()
    (old,) = await town.fetch(f"SELECT id, body FROM {town.schema}.copies LIMIT 1")
    town.installation.keystores.rotate(town.row.number)
    with pytest.raises(Problem, match="order_required"):
        await acts.retire_keys(town.installation, SAPPORO, None)
    with pytest.raises(Problem, match="order_invalid"):
        await acts.retire_keys(town.installation, SAPPORO, town.site.order("destroy"))
    done = await acts.retire_keys(town.installation, SAPPORO, town.site.order("retire"))
    assert done.version == 2
    fresh = town.another_process()
    for keys in (fresh, town.keys):
        assert not keys.holds(old["body"])
        with pytest.raises(SealError):
            keys.open("copy", old["id"].bytes, old["body"])
    assert await town.clear() == before
    # A process that has not heard writes nothing that nobody could read: the database itself refuses it.
    with pytest.raises(Problem):
        await town.lodge(late, "C1")
    await town.lodge(fresh, "C1")
    assert await town.versions() == {2}


@pytest.mark.requirement("SEC-01")
async def test_a_version_that_any_row_needs_is_never_destroyed(town: Town) -> None:
    stores, order = town.installation.keystores, town.site.order("retire")
    stores.rotate(town.row.number)
    # A column that no migration told of holds a value of the old version.
    await town.fetch(f"ALTER TABLE {town.schema}.loads ADD COLUMN secret bytea")
    value = town.another_process()
    sealed = value.seal("copy", b"row", b"value")
    old = b"\x01" + (1).to_bytes(4) + sealed[HEAD_BYTES:]
    await town.fetch(
        f"INSERT INTO {town.schema}.loads (id, kind, layout, mode, expected, secret)"
        " VALUES (gen_random_uuid(), 'k', 1, 'full', 1, $1)", old,
    )  # fmt: skip
    with pytest.raises(Problem, match="key_versions_needed"):
        await acts.retire_keys(town.installation, SAPPORO, order)
    assert (await town.walk()).unknown == ("loads.secret",)
    assert town.another_process().holds(old)
    await town.fetch(f"DELETE FROM {town.schema}.loads")
    await acts.retire_keys(town.installation, SAPPORO, order)
    assert not town.another_process().holds(old)


@pytest.mark.requirement("SEC-01")
async def test_the_floor_itself_finds_a_row_that_came_late(town: Town) -> None:
    late = town.another_process()
    town.installation.keystores.rotate(town.row.number)
    assert (await town.walk()).left == 0
    await town.lodge(late, "C1")
    with pytest.raises(Problem, match="key_versions_needed"):
        await reencryption.raise_floor(town.installation.cells, town.row, 2)
    await town.lodge(late, "C2")  # no floor is left behind
    assert (await town.walk()).sealed == 2
    await reencryption.raise_floor(town.installation.cells, town.row, 2)
    with pytest.raises(Problem):
        await town.lodge(late, "C3")


@pytest.mark.requirement("SEC-01")
async def test_a_floor_that_a_crash_left_is_proven_by_the_next_walk_or_taken_away(town: Town) -> None:
    cells, late = town.installation.cells, town.another_process()
    town.installation.keystores.rotate(town.row.number)
    assert (await town.walk()).left == 0
    await town.lodge(late, "C1")  # so one table holds a row below
    places = await town.fetch("SELECT relation, sealed FROM chukan.sealed_places ORDER BY relation <> 'copies' LIMIT 3")
    async with cells.steward(town.row.cell) as steward:
        for relation, sealed in places:
            await steward.fetchval("SELECT chukan.key_floor($1, $2, $3, 2)", town.row.number, relation, sealed)
    left = await reencryption.open_floors(cells, town.row.cell)
    assert {(each.agency, each.version) for each in left} == {(town.row.number, 2)}
    assert len(left) == 3
    done = await town.walk()  # no order, and nobody repeats the one that was cut off
    assert (done.left, done.sealed) == (0, 1)
    assert await reencryption.open_floors(cells, town.row.cell) == []
    proven = (
        "SELECT t.relname::text FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid"
        " WHERE starts_with(c.conname, 'key_floor_') AND c.convalidated AND t.relnamespace = $1::text::regnamespace"
    )
    kept = {row[0] for row in await town.fetch(proven, town.schema)}
    assert kept == {relation for relation, _ in places[1:]}


@pytest.mark.requirement("SEC-01")
async def test_an_interrupted_retirement_names_its_version_and_goes_on_there(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, number, cells = town.installation.keystores, town.row.number, town.installation.cells

    async def cut_off(order: Any) -> None:
        with monkeypatch.context() as broken:

            def away(agency: int, below: int) -> None:
                raise FileNotFoundError(agency, below)

            broken.setattr(stores.stores["west"], "retire", away)
            with pytest.raises(Problem, match="keys_unconfirmed"):
                await acts.retire_keys(town.installation, SAPPORO, order)

    stores.rotate(number)
    first = town.site.order("retire")
    await cut_off(first)
    stores.rotate(number)
    middle = stores.load(number).seal("copy", b"row", b"value")
    stores.rotate(number)
    (begun,) = await reencryption.retirements_begun(cells, town.row.cell)
    assert (begun.agency, begun.version) == (number, 2)
    assert (await acts.retire_keys(town.installation, SAPPORO, first)).version == 2
    # What was rotated since these officers did not order destroyed.
    assert town.another_process().holds(middle)
    assert await reencryption.retirements_begun(cells, town.row.cell) == []
    await cut_off(town.site.order("retire"))
    assert not town.another_process().holds(middle)
    assert stores.unfinished(number) is not None
    # What one centre has destroyed already is finished without an order; nothing else is.
    assert (await acts.retire_keys(town.installation, SAPPORO, None)).version == 4
    assert stores.unfinished(number) is None
    assert await reencryption.retirements_begun(cells, town.row.cell) == []
    with pytest.raises(Problem, match="order_required"):
        await acts.retire_keys(town.installation, SAPPORO, None)


NOT_SEALED = {
    "codes.code_digest", "codes.number_digest", "code_changes.code_digest", "records.commitment",
    "operations.commitment",
    "log.leaf_data", "log.leaf_hash", "operation_log.leaf_data", "operation_log.leaf_hash", "tiles.hashes",
    "operation_tiles.hashes", "checkpoints.root", "checkpoints.note", "operation_checkpoints.root",
    "operation_checkpoints.note", "cosignatures.line", "operation_cosignatures.line", "map_pages.body",
    "load_parts.digest", "permits_used.permit", "idempotency.key", "idempotency.body", "code_changes.body",
    "files.name", "files.content", "copies.content", "stage.content", "officers.challenge", "officer_changes.asked",
    "officer_changes.content", "officer_sessions.digest",
}  # fmt: skip
"""Digests, hashes and signatures; persons and labels (keyed digests) besides, wherever they are."""


@pytest.mark.requirement("SEC-01")
async def test_every_column_of_an_agency_is_known_to_be_sealed_or_not(town: Town) -> None:
    """A column that is new stands in ``chukan.sealed_places`` (a migration adds it), or here with what is no secret."""
    rows = await town.fetch(
        "SELECT table_name || '.' || column_name FROM information_schema.columns"
        " WHERE table_schema = $1 AND data_type = 'bytea' AND column_name NOT IN ('person', 'label', 'target')",
        town.schema,
    )
    places = {f"{each['relation']}.{each['sealed']}" for each in await town.fetch("SELECT * FROM chukan.sealed_places")}
    assert {name for (name,) in rows} - places <= NOT_SEALED
    assert places <= {name for (name,) in rows}
    assert not places & NOT_SEALED


@pytest.mark.requirement("SEC-01")
async def test_no_login_of_an_exchange_may_walk(town: Town) -> None:
    for call in ("reencrypt_begin($1, 2)", "sealed_before($1, 2, 1)", "reencrypt_end($1, true)"):
        async with town.made.connections.broker.acquire() as broker:
            with pytest.raises(Exception, match="permission denied"):
                await broker.fetch(f"SELECT chukan.{call}", town.row.number)
