"""Publishing: every cell, one number, whatever is away or quicker; a kill switch goes past a cell that is away."""

import asyncio
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.errors import Problem
from chukan.ops.installation import add_agency, open_installation, publish
from chukan.tenants import bodies, common_reading, directory
from chukan.tenants.changes import Changes
from chukan.tenants.directory import Stop

SAPPORO = "9901011002000001"
KIND, PROCEDURE = "TM00000000000002", "JT01010000000214"


async def cut(site: Any, cell: str, *, off: bool) -> None:
    """Take a cell away from everybody but the superuser, or give it back."""
    name = site.cells[cell].settings.database
    await site.fetch(cell, f"ALTER DATABASE {name} CONNECTION LIMIT {0 if off else -1}")
    if off:
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        await site.fetch(cell, sql, name)


@pytest.fixture
async def west_away(site: Any) -> Any:
    await cut(site, "west", off=True)
    yield
    await cut(site, "west", off=False)


async def in_force(installation: Any, cell: str) -> directory.Snapshot | None:
    rows = await common_reading.read_rows(installation.cells, cell)
    found = [common_reading._open(row, installation._public, installation.cells) for row in rows if row.in_force]
    return found[0] if found else None


async def test_the_very_first_snapshot_names_the_law_that_is_installed(site: Any, installation: Any) -> None:
    await site.empty_common_data()
    assert (await installation.common()).snapshot is None
    published = await publish(installation, Changes())
    assert (published.snapshot.number, published.changed) == (1, True)
    assert published.snapshot.law_number == installation.law.number
    assert (await publish(installation, Changes())).changed is False


async def test_a_cell_that_is_behind_catches_up_with_the_next_call(site: Any, installation: Any) -> None:
    await publish(installation, Changes().stop(kind=KIND))
    await site.fetch("west", "UPDATE chukan.cell SET snapshot = 1")
    await site.fetch("west", "DELETE FROM chukan.snapshot WHERE number > 1")
    common = await installation.common()
    assert (common.numbers, common.settled) == ({"east": 2, "west": 1}, False)
    published = await publish(installation, Changes())
    assert published.changed
    assert (await installation.common()).settled
    assert await in_force(installation, "west") == await in_force(installation, "east") == published.snapshot


async def test_many_operators_at_once_lose_nothing(site: Any, installation: Any) -> None:
    kinds = [f"TM{n:014d}" for n in range(5)]
    await asyncio.gather(*(publish(installation, Changes().stop(kind=kind)) for kind in kinds))
    common = await installation.common()
    assert common.settled
    assert sorted(str(stop.kind) for stop in common.snapshot.stopped) == kinds


async def test_a_kill_switch_goes_past_a_cell_that_is_away(site: Any, installation: Any, west_away: None) -> None:
    with pytest.raises(Problem, match="no_primary"):
        await publish(installation, Changes().stop(kind=KIND))
    assert (await in_force(installation, "east")).stopped == []
    published = await publish(installation, Changes().stop(kind=KIND), at_once=True, past_missing=True)
    assert published.missing == ("west",)
    assert (await in_force(installation, "east")).stopped == [Stop(kind=KIND)]


async def test_a_stop_that_one_cell_never_heard_of_is_not_forgotten(site: Any, installation: Any) -> None:
    """West is told of one stop while east is away, east of another while west is: both stand in the end."""
    await cut(site, "east", off=True)
    await publish(installation, Changes().stop(kind=KIND), at_once=True, past_missing=True)
    await cut(site, "east", off=False)
    await cut(site, "west", off=True)
    for procedure in (PROCEDURE, "JT01010000000001"):
        await publish(installation, Changes().stop(procedure=procedure), at_once=True, past_missing=True)
    await cut(site, "west", off=False)
    row = await add_agency(installation, bodies.agency(SAPPORO))
    common = await installation.common()
    assert common.settled
    assert row in common.snapshot.agencies
    stops = {(stop.kind, stop.procedure) for stop in common.snapshot.stopped}
    assert stops == {(KIND, None), (None, PROCEDURE), (None, "JT01010000000001")}
    await publish(installation, Changes().lift(kind=KIND))
    assert len((await in_force(installation, "west")).stopped) == 2


async def test_with_every_cell_away_nothing_is_said_to_be_stopped(
    site: Any, installation: Any, west_away: None
) -> None:
    await cut(site, "east", off=True)
    try:
        with pytest.raises(Problem, match="no_primary"):
            await publish(installation, Changes().stop(kind=KIND), at_once=True, past_missing=True)
    finally:
        await cut(site, "east", off=False)


async def test_a_snapshot_that_somebody_else_signed_is_built_upon_by_nobody(site: Any, installation: Any) -> None:
    snapshot = await installation.snapshot()
    forged = directory.sign(msgspec.structs.replace(snapshot, number=9), Ed25519PrivateKey.generate())
    await site.fetch("west", "SELECT chukan.snapshot_put(9, $1, $2, $3)", forged.body, forged.signature, forged.key)
    with pytest.raises(Problem, match="signature_invalid"):
        await publish(installation, Changes().stop(kind=KIND), at_once=True, past_missing=True)


async def test_without_the_signing_key_one_may_look_and_no_more(site: Any) -> None:
    async with site.open(key=False) as looking:
        assert (await looking.snapshot()).number == 1
        with pytest.raises(Problem, match="setting_missing"):
            await publish(looking, Changes().stop(kind=KIND))


async def test_a_key_that_exchanges_do_not_know_signs_nothing(site: Any, tmp_path: Any) -> None:
    (tmp_path / "other").mkdir()
    other = type(site)(tmp_path / "other", site.cells)
    with pytest.raises(Problem, match="setting_invalid"):
        async with open_installation(site.settings, directory_key=other.directory_key):
            pass
