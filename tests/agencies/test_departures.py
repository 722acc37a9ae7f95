"""Agencies leave: closed by the operator, handed over and destroyed by order of two of their officers only."""

import datetime as dt
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.installation import (
    add_agencies,
    add_agency,
    close_agency,
    destroy_agency,
    export_agency,
    publish,
    register_client,
)
from chukan.tenants import births, bodies, departure, handover, order_book, own_flags, standing
from chukan.tenants.changes import Changes
from chukan.tenants.directory import Directory
from chukan.tenants.export_file import Manifest, read_export
from chukan.tenants.records import RecordFields, canonical_record, commit, month_of
from chukan.tenants.sealing import SealError
from chukan.tenants.sets import CellSets

SAPPORO, BOARD = "9901011002000001", "9902011002000001"
TAX = "TM00000000000002"


class Pair:
    """An agency with something of everything, and another one of the same body and cell with its own."""

    def __init__(self, site: Any, installation: Any, content: Callable[..., Any]) -> None:
        self.site, self.installation, self.content = site, installation, content

    async def fill(self) -> "Pair":
        entries = [entry for code in (SAPPORO, BOARD) if (entry := bodies.agency(code)) is not None]
        self.row, self.other = await add_agencies(self.installation, entries)
        await register_client(self.installation, *self.site.officers(SAPPORO), *self.site.officers(BOARD))
        mine, theirs = self.content(self.installation, self.row), self.content(self.installation, self.other)
        await mine.copies("addressee-1", "addressee-2", "addressee-3")
        await mine.holds(("addressee-1", TAX), ("addressee-unknown", None), (None, "TM00000000000003"))
        await mine.flag(own_flags.Wanted("addressee-1", TAX, "2026", dt.date(2026, 6, 1), flagged=True))
        await mine.flag(own_flags.Wanted(None, TAX, None, None, flagged=True))
        await mine.link("addressee-1", b"linkage code one")
        await mine.link("addressee-4", None)
        self.record = await mine.record("addressee-1")
        await theirs.copies("addressee-board")
        await theirs.link("addressee-board", b"linkage code of the board")
        await theirs.record("addressee-board")
        return self

    async def look(self, row: Any = None) -> standing.Standing:
        opened = self.installation
        return await standing.look(row or self.row, cells=opened.cells, keystores=opened.keystores)

    async def export(self, path: Path, **changes: Any) -> Any:
        return await export_agency(self.installation, SAPPORO, self.site.order("export", **changes), path)

    async def destroy(self, order: Any) -> Any:
        admin = {"admin_user": "postgres", "admin_password_file": self.site.folder / "admin"}
        return await destroy_agency(self.installation, SAPPORO, order, **admin)

    async def rows(self) -> list[Any]:
        sql = f"SELECT id, body, person FROM a{self.row.number:05d}.copies"
        return await self.site.fetch("east", sql)


@pytest.fixture
async def agencies(site: Any, installation: Any, content: Any) -> Pair:
    return await Pair(site, installation, content).fill()


def opened(path: Path, site: Any) -> tuple[dict[str, list[Any]], Manifest]:
    tables: dict[str, list[Any]] = {}
    *rows, manifest = read_export(path, site.recipient)
    for name, row in rows:
        tables.setdefault(name, []).append(json.loads(row))
    return tables, manifest


def found(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.rglob(pattern))


# ---------------------------------------------------------------- closing


async def test_a_closed_agency_accepts_and_provides_nothing_and_keeps_everything(agencies: Pair) -> None:
    before = await agencies.look()
    row = await close_agency(agencies.installation, SAPPORO)
    assert row.state == "closed"
    directory = Directory(await agencies.installation.snapshot())
    with pytest.raises(Problem, match="agency_closed"):
        directory.agency(SAPPORO)
    # An exchange that has not heard yet is refused by the cell itself.
    with pytest.raises(Problem, match="agency_moved"):
        await agencies.content(agencies.installation, agencies.row).link("addressee-9", None)
    after = await agencies.look()
    assert (after.here.state, after.keys, after.counts) == ("closed", True, before.counts)
    assert await close_agency(agencies.installation, SAPPORO) == row
    # The neighbour does not feel it.
    await agencies.content(agencies.installation, agencies.other).link("addressee-9", None)
    assert directory.agency(BOARD).state == "open"


async def test_a_closing_that_was_interrupted_is_finished_by_the_next(
    agencies: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> bool:
        raise Problem("no_primary")

    with monkeypatch.context() as patch:
        patch.setattr(births, "close", fail)
        with pytest.raises(Problem, match="no_primary"):
            await close_agency(agencies.installation, SAPPORO)
    assert (await agencies.look()).here.state == "open"
    await close_agency(agencies.installation, SAPPORO)
    assert (await agencies.look()).here.state == "closed"


async def test_an_unknown_agency_is_not_closed(agencies: Pair) -> None:
    with pytest.raises(Problem, match="unknown_agency"):
        await close_agency(agencies.installation, "9901272272000001")


# ---------------------------------------------------------------- export


@pytest.mark.requirement("TEN-01")
async def test_an_agency_is_handed_everything_of_its_own_and_nothing_else(agencies: Pair, tmp_path: Path) -> None:
    manifest, written = await agencies.export(tmp_path / "export")
    tables, inside = opened(tmp_path / "export", agencies.site)
    assert inside == manifest
    assert {name: each.rows for name, each in manifest.tables.items()} == {
        "copies": 3, "holds": 3, "own_information_flags": 2, "codes": 2, "records": 1, "log": 1, "statistics": 1,
    }  # fmt: skip
    assert {row["addressee"] for row in tables["copies"]} == {f"addressee-{n}" for n in (1, 2, 3)}
    assert tables["copies"][0]["items"] == {"TM1": "1000"}
    links = {row["addressee"]: (row["status"], row["code"]) for row in tables["codes"]}
    assert links == {"addressee-1": ("active", "bGlua2FnZSBjb2RlIG9uZQ=="), "addressee-4": ("requested", None)}
    holds = {(row["addressee"], row["kind"], row["person"] is None) for row in tables["holds"]}
    assert holds == {("addressee-1", TAX, False), (None, None, False), (None, "TM00000000000003", True)}
    flags = {(row["addressee"], row["kind"], row["period"], row["effective_from"]) for row in tables[own_flags.TABLE]}
    assert flags == {("addressee-1", TAX, "2026", "2026-06-01"), (None, TAX, None, None)}
    (record,), (leaf,) = tables["records"], tables["log"]
    assert record["record"]["id"] == str(agencies.record.id) == leaf["record"]
    assert record["record"]["department"] == "税務課"
    (count,) = tables["statistics"]
    assert (count["side"], count["outcome"], count["amendment"], count["count"]) == ("inquirer", "no_code", False, 1)
    fields = msgspec.convert(record["record"], RecordFields)
    assert count["month"] == month_of(fields.closed_at).isoformat()
    clear = (tmp_path / "export").read_bytes()
    assert len(clear) == written.size
    for value in (b"addressee-1", b"linkage", "税務課".encode(), b"TM1"):
        assert value not in clear


async def test_a_record_that_was_handed_over_can_be_held_against_its_leaf(agencies: Pair, tmp_path: Path) -> None:
    await agencies.export(tmp_path / "export")
    tables, _ = opened(tmp_path / "export", agencies.site)
    (record,), (leaf,) = tables["records"], tables["log"]
    fields = msgspec.convert(record["record"], RecordFields)
    commitment = commit(b64decode(record["salt"]), canonical_record(fields))
    assert b64decode(leaf["leaf_data"])[1:33] == commitment == b64decode(record["commitment"])


async def test_pages_make_no_difference(agencies: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await agencies.export(tmp_path / "whole")
    monkeypatch.setattr(handover, "PAGE_ROWS", 1)
    await agencies.export(tmp_path / "paged")
    whole, paged = (opened(tmp_path / name, agencies.site)[1].tables for name in ("whole", "paged"))
    assert whole == paged


async def test_an_altered_row_is_named_and_hides_no_other(agencies: Pair, tmp_path: Path) -> None:
    first = (await agencies.rows())[0]
    schema = f"a{agencies.row.number:05d}"
    await agencies.site.fetch("east", f"UPDATE {schema}.copies SET review = NOT review WHERE id = $1", first["id"])
    manifest, _ = await agencies.export(tmp_path / "export")
    assert (manifest.tables["copies"].rows, manifest.tables["copies"].unreadable) == (3, 1)
    tables, _ = opened(tmp_path / "export", agencies.site)
    (bad,) = [row for row in tables["copies"] if "unreadable" in row]
    assert bad["unreadable"]["id"] == str(first["id"])


async def test_without_an_order_nothing_is_handed_over(agencies: Pair, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="order_required"):
        await export_agency(agencies.installation, SAPPORO, None, tmp_path / "export")
    for order in (agencies.site.order("destroy"), agencies.site.order("export", BOARD)):
        with pytest.raises(Problem, match="order_invalid"):
            await export_agency(agencies.installation, SAPPORO, order, tmp_path / "export")
    assert found(tmp_path, "*export*") == ["export-key.pem"]


async def test_an_order_to_export_serves_once(agencies: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = agencies.site.order("export")
    await export_agency(agencies.installation, SAPPORO, order, tmp_path / "first")
    # Not a row is opened for it again.
    monkeypatch.setattr(departure, "ExportWriter", None)
    with pytest.raises(Problem, match="order_invalid"):
        await export_agency(agencies.installation, SAPPORO, order, tmp_path / "second")
    assert not (tmp_path / "second").exists()


async def test_an_export_that_was_interrupted_goes_on_under_its_order(
    agencies: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = agencies.site.order("export")
    with monkeypatch.context() as patch:
        patch.setitem(handover._READERS, "log", handover._READERS["log"]._replace(sql="SELECT nothing($1, $2)"))
        with pytest.raises(Problem):
            await export_agency(agencies.installation, SAPPORO, order, tmp_path / "export")
    assert found(tmp_path, "*export*") == ["export-key.pem"]
    await export_agency(agencies.installation, SAPPORO, order, tmp_path / "export")
    assert (tmp_path / "export").exists()


async def test_of_two_exports_at_once_under_one_order_one_is_withdrawn(
    agencies: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: Any) -> bool:
        return False

    monkeypatch.setattr(order_book, "finish", late)
    with pytest.raises(Problem, match="order_invalid"):
        await agencies.export(tmp_path / "export")
    assert not (tmp_path / "export").exists()


async def test_a_file_that_stands_there_is_left_alone(agencies: Pair, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("mine")
    with pytest.raises(Problem, match="file_exists"):
        await agencies.export(tmp_path / "export")
    assert (tmp_path / "export").read_text() == "mine"


async def test_a_closed_agency_is_handed_its_data_too(agencies: Pair, tmp_path: Path) -> None:
    await close_agency(agencies.installation, SAPPORO)
    manifest, _ = await agencies.export(tmp_path / "export")
    assert manifest.tables["copies"].rows == 3


# ---------------------------------------------------------------- destruction


@pytest.mark.requirement("SEC-04", "TEN-01")
async def test_what_was_destroyed_is_unreadable_for_ever_and_the_neighbour_is_whole(agencies: Pair) -> None:
    rest = await agencies.rows()  # as a backup or an old disk would hold them
    keys = agencies.installation.keystores.load(agencies.row.number)
    assert b"addressee" in keys.open("copy", rest[0]["id"].bytes, rest[0]["body"])
    before = await agencies.look(agencies.other)
    await close_agency(agencies.installation, SAPPORO)
    await agencies.destroy(agencies.site.order("destroy"))

    number = agencies.row.number
    for row in rest:
        with pytest.raises(SealError):
            keys.open("copy", row["id"].bytes, row["body"])
    async with agencies.site.open() as later:
        with pytest.raises(Problem, match="agency_closed"):
            later.keystores.load(number)
        with pytest.raises(Problem, match="agency_closed"):
            later.keystores.create(number)
    for centre in ("east", "west"):
        # Only the mark that they were destroyed.
        assert found(agencies.site.folder / f"keys-{centre}", f"*{number:05d}*") == [f"{number:05d}"]

    gone = await agencies.look()
    assert (gone.here, gone.keys, gone.counts) == (None, False, {})
    sql = (
        "SELECT nspname FROM pg_namespace WHERE nspname = $1 UNION ALL SELECT rolname FROM pg_roles WHERE rolname = $1"
    )
    assert await agencies.site.fetch("east", sql, f"a{number:05d}") == []
    for table in ("inquiry_work", "provision_work", "to_sequence", "log_heads"):
        assert await agencies.site.fetch("east", f"SELECT FROM chukan.{table} WHERE agency = $1", number) == []

    snapshot = await agencies.installation.snapshot()
    assert next(row for row in snapshot.agencies if row.code == SAPPORO).state == "closed"
    assert {client.id for client in snapshot.clients} == {officer.id for officer in agencies.site.officers(BOARD)}
    assert await agencies.look(agencies.other) == before
    await agencies.content(agencies.installation, agencies.other).record("addressee-board")


@pytest.mark.requirement("REP-08")
async def test_without_an_order_nothing_is_destroyed(agencies: Pair) -> None:
    await close_agency(agencies.installation, SAPPORO)
    before = await agencies.look()
    with pytest.raises(Problem, match="order_required"):
        await agencies.destroy(None)
    for order in (agencies.site.order("export"), agencies.site.order("destroy", BOARD)):
        with pytest.raises(Problem, match="order_invalid"):
            await agencies.destroy(order)
    assert await agencies.look() == before


@pytest.mark.requirement("REP-08")
async def test_no_login_of_the_platform_can_delete_what_an_agency_has(agencies: Pair) -> None:
    schema = f"a{agencies.row.number:05d}"
    cells = agencies.installation.cells
    async with cells.steward("east") as steward, cells.primary("east").broker.acquire() as broker:
        for sql in (f"DELETE FROM {schema}.copies", f"DROP SCHEMA {schema} CASCADE", f"SELECT FROM {schema}.copies"):
            for login in (steward, broker):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await login.execute(sql)
    assert (await agencies.look()).counts["copies"] == 3


async def test_an_open_agency_is_not_destroyed(agencies: Pair) -> None:
    with pytest.raises(Problem, match="agency_open"):
        await agencies.destroy(agencies.site.order("destroy"))
    assert (await agencies.look()).keys


async def test_the_same_order_is_not_accepted_after_its_work_is_done(agencies: Pair) -> None:
    order = agencies.site.order("destroy")
    await close_agency(agencies.installation, SAPPORO)
    await agencies.destroy(order)
    with pytest.raises(Problem, match="order_invalid"):
        await agencies.destroy(order)


@pytest.mark.parametrize("step", ["keys", "tables", "book", "rights"])
async def test_a_destruction_that_was_interrupted_goes_on_under_its_order(
    agencies: Pair, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise Problem("no_primary")

    def fail_at_once(*_: Any) -> None:
        raise Problem("keys_unconfirmed")

    order = agencies.site.order("destroy")
    await close_agency(agencies.installation, SAPPORO)
    with monkeypatch.context() as patch:
        if step == "keys":
            patch.setattr(agencies.installation.keystores, "destroy", fail_at_once)
        elif step == "tables":
            patch.setattr(births, "_detach", fail)
        elif step == "book":
            patch.setattr(order_book, "finish", fail)
        else:
            patch.setattr(births, "plan_snapshots", fail)
        with pytest.raises(Problem):
            await agencies.destroy(order)
    await agencies.destroy(order)
    gone = await agencies.look()
    assert (gone.here, gone.keys) == (None, False)
    clients = (await agencies.installation.snapshot()).clients
    assert {client.id for client in clients} == {officer.id for officer in agencies.site.officers(BOARD)}


async def test_a_key_store_that_is_away_keeps_the_tables_until_it_is_back(agencies: Pair) -> None:
    folder = agencies.site.folder
    await close_agency(agencies.installation, SAPPORO)
    order = agencies.site.order("destroy")
    (folder / "keys-west").rename(folder / "keys-away")
    with pytest.raises(Problem, match="keys_unconfirmed"):
        await agencies.destroy(order)
    assert (await agencies.look()).here is not None
    (folder / "keys-away").rename(folder / "keys-west")
    await agencies.destroy(order)
    assert found(folder / "keys-west" / "master", "*") == [f"{agencies.other.number:05d}.key"]


async def test_a_destroyed_agencys_code_and_number_never_come_back(agencies: Pair) -> None:
    await close_agency(agencies.installation, SAPPORO)
    await agencies.destroy(agencies.site.order("destroy"))
    with pytest.raises(Problem, match="agency_closed"):
        await add_agency(agencies.installation, bodies.agency(SAPPORO))
    published = await publish(
        agencies.installation, Changes().add_agency(code="9903011002000001", body="011002", name="組合", cell="east")
    )
    assert max(row.number for row in published.snapshot.agencies) > agencies.other.number > agencies.row.number
    assert await CellSets(agencies.installation.cells.primary("east").broker).snapshot() is not None
