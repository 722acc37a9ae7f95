"""The login of a gateway's process: it works without any other password, hears of changes, and reaches nothing else."""

import asyncio

import asyncpg
import msgspec
import pytest

from chukan import settings as ground
from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants.links import LinkController, links_cell
from chukan.tests.support.link_desk import CELL

pytestmark = pytest.mark.requirement("TEN-03")


def test_links_lie_in_the_first_cell_by_name():
    assert links_cell(["west", "east"]) == "east"
    assert links_cell({"south": None}) == "south"


async def test_a_hint_follows_each_act_and_every_connect(desk):
    heard = asyncio.Queue()
    listening = asyncio.create_task(desk.controller.hear(lambda: heard.put_nowait(None)))
    try:
        async with asyncio.timeout(20):
            await heard.get()  # the connect
            link = await desk.requested()
            await heard.get()
            while not heard.empty():
                heard.get_nowait()
            await desk.steward.revoke(link, who="anna", reason="as a test")
            await heard.get()
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def test_a_gateways_cells_have_the_one_door_alone(desk):
    assert await desk.controller.number() >= 0
    doors = desk.gateway_cells.primary(CELL)
    for door in (doors.broker, doors.app, doors.canary):
        with pytest.raises(Problem) as raised:
            await door.acquire(timeout=5)
        assert raised.value.code == "setting_missing"
    with pytest.raises(Problem) as raised:
        async with desk.gateway_cells.steward(CELL):
            pass
    assert raised.value.code == "setting_missing"


async def test_without_the_logins_password_there_is_no_door_to_links(links_cell_database):
    async with Cells({CELL: links_cell_database.settings}) as cells:
        with pytest.raises(Problem) as raised:
            await LinkController(cells, CELL).number()
    assert raised.value.code == "setting_missing"


async def test_its_connections_are_checked_as_all_are(desk, links_cell_database):
    wrong = msgspec.structs.replace(desk.gateway_cells._cells[CELL]._cell)
    async with Cells({CELL: wrong}, "sandbox") as cells:
        with pytest.raises(Problem) as raised:
            await LinkController(cells, CELL).number()
    assert raised.value.code == "other_environment"


@pytest.mark.parametrize("key", ["broker_password_file", "app_password_file"])
def test_whoever_is_no_gateway_needs_both_other_passwords(tmp_path, key):
    cell = {"host": "/run", "port": 5432, "broker_password_file": "b", "app_password_file": "a"}
    del cell[key]
    lines = "\n".join(f"{name} = {value!r}" for name, value in cell.items())
    path = tmp_path / "settings.toml"
    path.write_text(f"[site]\ncentre = 'east'\n[cells.east]\n{lines}\n".replace('"', "'"))
    with pytest.raises(Problem) as raised:
        ground.load(path, {})
    assert (raised.value.code, raised.value.pointer) == ("setting_missing", f"/cells/east/{key}")


async def test_the_login_reads_no_table_of_links(desk, links_cell_database):
    cell = links_cell_database
    connection = await asyncpg.connect(
        host=cell.settings.host,
        port=cell.settings.port,
        database=cell.settings.database,
        user="chukan_links",
        password=cell.passwords["chukan_links"],
    )
    try:
        tables = await desk.admin.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'chukan'::regnamespace AND relkind = 'r'"
        )
        assert {"links", "link_peers", "link_change"} <= {name for (name,) in tables}
        for (table,) in tables:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT 1 FROM chukan.{table}")
        for act in (
            "link_revoke('131016-1', 'x', NULL, 'x')",
            "link_rows(NULL, NULL, 9)",
            "link_history(NULL, NULL, 9)",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT chukan.{act}")
    finally:
        await connection.close()
