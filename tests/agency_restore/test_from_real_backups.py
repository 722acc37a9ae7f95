"""One agency, by the command, from a real backup of a cell that goes on running: pgBackRest, its archive, an order."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chukan.ops import backup as command
from chukan.ops.cli import run
from chukan.ops.installation import add_agencies, register_client
from chukan.settings import Cell
from chukan.tenants import bodies, orders
from chukan.tenants.migrate import LOGINS, prepare_cell
from chukan.tenants.orders import Target
from chukan.tests.agencies.conftest import SAPPORO, SAPPORO_BOARD, Content, Site
from chukan.tests.backup.place import Place, place
from chukan.tests.site.conftest import SITE

pytestmark = pytest.mark.full

_ARCHIVED_S = 90


class RealCell(NamedTuple):
    """The place's database as a cell of an installation."""

    server: Any
    settings: Cell
    here: Place

    async def admin(self) -> Any:
        return await self.here.connect()


class Scene(NamedTuple):
    """The place, the operator's installation on it, and the moment before the mistake."""

    here: Place
    site: Site
    moment: dt.datetime
    schema: str


def archived(here: Place) -> None:
    """End the present WAL segment and wait until it lies in both repositories."""
    segment = here.sql("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + _ARCHIVED_S
    while not here.sql(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"):
        assert time.monotonic() < deadline, "the segment was not archived"
        here.sql("SELECT pg_sleep(0.2)")


async def prepare(here: Place, folder: Path) -> Site:
    passwords = {role: f"password-of-{role}" for role in LOGINS}
    for role, password in passwords.items():
        (folder / role).write_text(password)
    admin = await here.connect()
    await prepare_cell(admin, "east", passwords, "sandbox")
    await admin.close()
    files = {f"{role[7:]}_password_file": folder / role for role in LOGINS}
    settings = Cell(host=str(here.root / "east" / "run"), port=here.node.port, database="chukan", **files)
    return Site(folder, {"east": RealCell(here.database, settings, here)})


async def content(site: Site, *addressees: str, first: bool = False) -> str:
    async with site.open() as opened:
        if first:
            entries = [entry for code in (SAPPORO, SAPPORO_BOARD) if (entry := bodies.agency(code)) is not None]
            await add_agencies(opened, entries)
            await register_client(opened, *site.officers())
        row = next(each for each in (await opened.snapshot()).agencies if each.code == SAPPORO)
        filled = Content(opened, row)
        await filled.copies(*addressees)
        await filled.link(addressees[0], f"code of {addressees[0]}".encode())
        await filled.record(addressees[0])
        return f"a{row.number:05d}"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("operator")
    with place(SITE) as here, here.servers():
        here.start()
        site = asyncio.run(prepare(here, folder))
        schema = asyncio.run(content(site, "one", "two", first=True))
        for centre in ("east", "west"):
            command.create("east", centre=centre, site=here.file, as_json=True)
        command.run_command("east", kind="full", site=here.file, as_json=True)
        here.sql("SELECT pg_sleep(2)")  # pgBackRest counts whole seconds when it looks for a backup before the moment
        moment = here.sql("SELECT clock_timestamp()")
        asyncio.run(content(site, "three"))
        here.sql(f"DELETE FROM {schema}.copies WHERE registered_at <= '{moment}'")
        archived(here)
        yield Scene(here, site, moment, schema)


def restore(scene: Scene, capsys: pytest.CaptureFixture[str], order: Path | None, status: int) -> dict[str, Any]:
    capsys.readouterr()
    words = ["backup", "restore-agency", "east", SAPPORO, "--to", scene.moment.isoformat()]
    words += ["--scratch", str(scene.here.root / "east"), "--site", str(scene.here.file)]
    words += ["--config", str(scene.site.config), "--directory-key", str(scene.site.directory_key)]
    words += ["--admin-password-file", str(scene.site.folder / "admin"), "--yes-the-agency-was-told", "--json"]
    words += [] if order is None else ["--order", str(order)]
    assert run(words) == status, capsys.readouterr()
    said = json.loads(capsys.readouterr().out)
    assert isinstance(said, dict)
    return said


@pytest.mark.requirement("PLT-06")
def test_one_agency_comes_back_from_a_real_backup_while_its_cell_runs(
    scene: Scene, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here, copies = scene.here, f"SELECT count(*) FROM {scene.schema}.copies"
    assert restore(scene, capsys, None, 2)["code"] == "order_required"
    assert here.sql(copies) == 1
    order = tmp_path / "order.json"
    # An order bears whole seconds, and the moment must lie before it.
    at = scene.site.clock.now() + dt.timedelta(seconds=1)
    order.write_bytes(orders.encode(scene.site.order("restore", target=Target("east", scene.moment), at=at)))
    assert run(["agency", "order", "show", str(order), "--config", str(scene.site.config)]) == 0
    told = restore(scene, capsys, order, 0)
    assert (told["whole"], told["generation"], told["rows"]["copies"], told["kept"]["links"]) == (False, 2, 2, 1)
    assert here.sql(copies) == 2
    assert here.sql(f"SELECT count(*) FROM {scene.schema}.copies WHERE registered_at <= '{scene.moment}'") == 2
    assert here.sql(f"SELECT count(*) FROM {scene.schema}.codes") == 2
    assert here.sql(f"SELECT count(*) FROM {scene.schema}.records") == 2
    # Nothing of it is left on this host, and the archive knows of one history only.
    assert list((here.root / "east").glob("chukan-restore-*")) == []
    assert here.sql("SELECT timeline_id FROM pg_control_checkpoint()") == 1
    archived(here)
    assert [path.name for path in (here.repository("east") / "archive").rglob("*.history*")] == []
    again = restore(scene, capsys, order, 2)
    assert (again["code"], again["expected"]) == ("order_invalid", "an order that was not carried out before")
