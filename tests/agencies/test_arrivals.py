"""Agencies come: keys, then tables, then a snapshot in every cell — all of it, whatever interrupts it."""

import asyncio
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.ops.installation import add_agencies, add_agency, publish, register_client
from chukan.tenants import births, bodies
from chukan.tenants.changes import Changes
from chukan.tenants.directory import Directory, SignedSnapshot, verify
from chukan.tenants.sets import CellSets

SAPPORO, SAPPORO_BOARD, FUKUOKA = "9901011002000001", "9902011002000001", "9901401307000001"


def entries(*codes: str) -> list[bodies.AgencyEntry]:
    return [entry for code in codes if (entry := bodies.agency(code)) is not None]


async def here(site: Any, cell: str, number: int) -> list[Any]:
    return await site.fetch(cell, "SELECT state FROM chukan.agencies WHERE agency = $1", number)


async def numbers(installation: Any) -> dict[str, int | None]:
    return (await installation.common()).numbers


async def test_an_agency_has_keys_tables_and_its_place_in_every_cells_snapshot(site: Any, installation: Any) -> None:
    row = await add_agency(installation, entries(SAPPORO)[0])
    assert (row.cell, row.state, row.name) == ("east", "open", "札幌市長")
    assert installation.keystores.load(row.number).agency == row.number
    assert [each["state"] for each in await here(site, "east", row.number)] == ["open"]
    assert await here(site, "west", row.number) == []
    for cell in ("east", "west"):
        stored = await CellSets(installation.cells.primary(cell).broker).snapshot()
        signed = SignedSnapshot(stored.body, stored.signature, stored.key)
        snapshot = verify(signed, installation._public)
        assert Directory(snapshot).agency(SAPPORO) == row


async def test_thirty_agencies_and_their_clients_make_one_snapshot(site: Any, installation: Any) -> None:
    wanted = [entry for entry in bodies.agencies() if entry.on_platform][:30]
    changes = Changes()
    for entry in wanted:
        changes.add_agency(code=entry.code, body=entry.body, name=entry.name, cell=entry.home_centre or "")
    for officer in site.officers(wanted[0].code):
        changes.register(officer)
    changes.stop(kind="TM00000000000002")
    published = await publish(installation, changes)
    assert (published.snapshot.number, published.changed, len(published.snapshot.agencies)) == (2, True, 31)
    assert await numbers(installation) == {"east": 2, "west": 2}
    # All over again, as a second start does: nothing is left to do.
    again = await publish(installation, changes)
    assert (again.changed, again.snapshot) == (False, published.snapshot)


async def test_adding_again_changes_nothing(installation: Any) -> None:
    first = await add_agencies(installation, entries(SAPPORO, FUKUOKA))
    assert await add_agencies(installation, entries(FUKUOKA, SAPPORO)) == first[::-1]
    assert await numbers(installation) == {"east": 2, "west": 2}


@pytest.mark.parametrize("broken", ["keys", "birth", "first cell", "second cell"])
async def test_a_crash_at_any_step_is_repaired_by_adding_once_more(
    site: Any, installation: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    class CrashError(Exception):
        pass

    real_put, real_birth, real_create = births.plan_snapshots, births.birth, installation.keystores.create
    puts = 0

    def create(agency: int) -> None:
        real_create(agency)
        if broken == "keys":
            raise CrashError

    async def birth(*values: Any) -> bool:
        done = await real_birth(*values)
        if broken == "birth":
            raise CrashError
        return done

    async def put(*values: Any) -> bool:
        nonlocal puts
        puts += 1
        if broken == ("first cell", "second cell")[puts - 1]:
            raise CrashError
        return await real_put(*values)

    with monkeypatch.context() as patch:
        patch.setattr(installation.keystores, "create", create)
        patch.setattr(births, "birth", birth)
        patch.setattr(births, "plan_snapshots", put)
        with pytest.raises(CrashError):
            await add_agency(installation, entries(SAPPORO)[0])
    # Nobody hears of an agency that is not there yet.
    assert (await numbers(installation))["west"] == 1
    row = await add_agency(installation, entries(SAPPORO)[0])
    common = await installation.common()
    assert common.settled
    assert [each for each in common.snapshot.agencies if each.state == "open"] == [row]
    assert installation.keystores.agencies() == [row.number]
    assert len(await here(site, "east", row.number)) == 1


async def test_two_operators_at_once_get_two_numbers(site: Any, installation: Any) -> None:
    async with site.open() as other:
        rows = await asyncio.gather(
            add_agency(installation, entries(SAPPORO)[0]), add_agency(other, entries(FUKUOKA)[0])
        )
    common = await installation.common()
    assert common.settled
    assert {row.code: row for row in common.snapshot.agencies if row.state == "open"} == {row.code: row for row in rows}
    for row in rows:
        assert installation.keystores.load(row.number)
        assert await here(site, row.cell, row.number)


@pytest.mark.requirement("TEN-01")
async def test_no_agency_is_put_on_top_of_anothers_data(site: Any, installation: Any, content: Any) -> None:
    """Common data that went back to an older state would give a number twice."""
    row = await add_agency(installation, entries(SAPPORO)[0])
    await content(installation, row).copies("1001")
    for cell in ("east", "west"):
        await site.fetch(cell, "UPDATE chukan.cell SET snapshot = 1")
        await site.fetch(cell, "DELETE FROM chukan.snapshot WHERE number > 1")
    with pytest.raises(Problem, match="number_in_use"):
        await add_agency(installation, entries(SAPPORO_BOARD)[0])
    assert await numbers(installation) == {"east": 1, "west": 1}


async def test_missing_keys_of_a_known_agency_are_never_made_anew(installation: Any, site: Any) -> None:
    row = await add_agency(installation, entries(SAPPORO)[0])
    for centre in ("east", "west"):
        for file in (site.folder / f"keys-{centre}" / "keys").iterdir():
            file.unlink()
    async with site.open() as later:
        await add_agency(later, entries(SAPPORO)[0])
        with pytest.raises(Problem, match="keys_unconfirmed"):
            later.keystores.load(row.number)


async def test_without_both_key_stores_no_agency_comes(installation: Any, site: Any) -> None:
    (site.folder / "keys-west").rename(site.folder / "keys-away")
    with pytest.raises(Problem, match="keys_unconfirmed"):
        await add_agency(installation, entries(SAPPORO)[0])
    known = max(row.number for row in (await installation.snapshot()).agencies)
    assert await here(site, "east", known + 1) == []
    assert await numbers(installation) == {"east": 1, "west": 1}


async def test_a_cell_that_there_is_none_of_is_refused_before_anything_is_made(installation: Any) -> None:
    with pytest.raises(Problem, match="invalid_field") as raised:
        await add_agency(installation, entries(SAPPORO)[0], cell="north")
    assert raised.value.pointer == "/cell"
    assert installation.keystores.agencies() == []


async def test_an_agency_does_not_change_under_its_code(installation: Any) -> None:
    await add_agency(installation, entries(SAPPORO)[0])
    with pytest.raises(Problem, match="invalid_field") as raised:
        await add_agency(installation, entries(SAPPORO)[0], cell="west")
    assert raised.value.pointer == "/cell"


@pytest.mark.requirement("CON-01")
async def test_clients_are_registered_for_agencies_of_their_own_body_only(site: Any, installation: Any) -> None:
    await add_agencies(installation, entries(SAPPORO, FUKUOKA))
    (officer, _) = site.officers()
    for wrong in ([FUKUOKA], [SAPPORO, FUKUOKA]):
        client = type(officer)(**{**{f: getattr(officer, f) for f in officer.__struct_fields__}, "agencies": wrong})
        with pytest.raises(Problem, match="invalid_field"):
            await register_client(installation, client)
    published = await register_client(installation, *site.officers())
    found = Directory(published.snapshot).allow(officer.id, SAPPORO, "order")
    assert found.functions == ["order"]
