"""A restore of a lab's cell that was broken off comes to its end, one way or the other, from wherever it stopped."""

import datetime as dt
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from chukan.ops import restoring
from chukan.ops.centres import restore as module
from chukan.ops.centres.layout import lab_site
from chukan.ops.centres.restore import CellRestore, Progress
from chukan.ops.centres.wires import Loopback
from chukan.replication.site import Site

SINCE = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
NODES = ["e1", "e2", "ew1"]


class World:
    """A lab's processes, stage, etcd and database as a restore sees them; notes what is done in which order."""

    def __init__(self, root: Path) -> None:
        self.site: Site = lab_site(root, "2+1", Loopback(root), backup_user="nobody")
        self.file = root / "restore.json"
        self.report = root / "reconciled.json"
        self.done: list[str] = []
        self.fail_at = ""
        for name in NODES:
            self.data(name).mkdir(parents=True)
            (self.data(name) / "PG_VERSION").write_text(f"old {name}", encoding="ascii")

    def data(self, name: str) -> Path:
        _, row = self.site.node(name)
        return self.site.directory(self.site.where(row.host)) / "data" / name

    def content(self, name: str) -> str:
        file = self.data(name) / "PG_VERSION"
        return file.read_text(encoding="ascii") if file.exists() else ""

    def lay(self, *_: object) -> Any:
        into = self.data("e2").with_name("e2.restored")
        into.mkdir()
        (into / "PG_VERSION").write_text("restored", encoding="ascii")
        self._note("laid down")
        return restoring.Restored("east", str(into), "", 2, 2)

    def _note(self, what: str) -> None:
        self.done.append(what)
        if what == self.fail_at:
            self.fail_at = ""
            raise OSError(what)

    async def start(self, name: str) -> None:
        self._note(f"start {name}")

    async def stop(self, names: Any, _timeout_s: float = 0) -> None:
        for name in [names] if isinstance(names, str) else names:
            self._note(f"stop {name}")

    def raise_epoch(self, cell: str, epoch: int) -> None:
        row = msgspec.structs.replace(self.site.cells[cell], restore_epoch=epoch)
        self.site = msgspec.structs.replace(self.site, cells={**self.site.cells, cell: row})
        self._note(f"epoch {epoch}")

    # ------------------------------------------------------------ what is asked of others

    async def leaders(self) -> dict[str, str]:
        return {"east": "e1"}

    async def forget(self, cell: str) -> None:
        self._note(f"forget {cell}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    @property
    def etcd(self) -> "World":
        return self


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)

    async def led(*_: object) -> str:
        made._note("led")
        return "e2"

    async def reconcile(*_: object, **_more: object) -> Any:
        made._note("reconciled")
        return module_reconciled()

    async def opened(*_: object, **more: Any) -> Any:
        made._note(f"opened {more['accept']}")
        return module.Opened("east", 2, SINCE, 1, more["accept"])

    async def nothing(*_: object) -> None:
        return None

    # As in a lab of root: the first node's data lies on a disk of its own.
    monkeypatch.setattr(module.os.path, "ismount", lambda path: Path(path).name == "e1")
    monkeypatch.setattr(module, "Painter", lambda _site: made)
    monkeypatch.setattr(module.databases, "led", led)
    monkeypatch.setattr(module.restoring, "restore", made.lay)
    monkeypatch.setattr(module, "reconcile_cell", reconcile)
    monkeypatch.setattr(module, "open_cell", opened)
    monkeypatch.setattr(module, "load", lambda *_: None)
    monkeypatch.setattr(CellRestore, "_archived", nothing)
    return made


def module_reconciled() -> Any:
    return _Found(differences=["one", "two"])


class _Found(msgspec.Struct):
    differences: list[str]


def restore_of(world: World) -> CellRestore:
    return CellRestore(world, world, Loopback(world.file.parent), world.file, world.raise_epoch)  # type: ignore[arg-type]


async def test_a_whole_restore_tells_the_exchanges_before_any_node_starts(world: World) -> None:
    restore = restore_of(world)
    assert (await restore.to("east", SINCE)).epoch == 2
    await restore.open("east", world.report)
    assert world.done == [
        "stop patroni-e2", "stop patroni-ew1", "stop patroni-e1", "laid down", "epoch 2",
        "stop exchange-east", "start exchange-east", "stop exchange-west", "start exchange-west", "forget east",
        "start patroni-e2", "led", "start patroni-e1", "start patroni-e2", "start patroni-ew1",
        "reconciled", "opened 2",
    ]  # fmt: skip
    assert [world.content(name) for name in NODES] == ["", "restored", ""]
    assert not list(world.data("e1").parent.glob("*.before"))
    assert not world.file.exists()
    assert world.report.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fail_at", ["stop patroni-e1", "laid down"])
async def test_before_the_data_has_its_place_it_is_given_up(world: World, fail_at: str) -> None:
    world.fail_at = fail_at
    with pytest.raises(OSError, match=fail_at):
        await restore_of(world).to("east", SINCE)
    await restore_of(world).finish(world.report)
    assert [world.content(name) for name in NODES] == ["old e1", "old e2", "old ew1"]
    assert world.done[-3:] == ["start patroni-e1", "start patroni-e2", "start patroni-ew1"]
    assert world.site.cells["east"].restore_epoch == 1
    assert not world.data("e2").with_name("e2.restored").exists()
    assert not world.file.exists()


@pytest.mark.parametrize(
    "fail_at", ["epoch 2", "stop exchange-west", "forget east", "start patroni-e2", "led", "start patroni-ew1"]
)
async def test_afterwards_it_is_finished_and_opened(world: World, fail_at: str) -> None:
    world.fail_at = fail_at
    with pytest.raises(OSError, match=fail_at):
        await restore_of(world).to("east", SINCE)
    await restore_of(world).finish(world.report)
    assert [world.content(name) for name in NODES] == ["", "restored", ""]
    assert world.site.cells["east"].restore_epoch == 2
    assert world.done[-1] == "opened 2"
    assert not world.file.exists()


async def test_a_cell_that_is_led_and_not_open_is_opened_and_its_folders_are_let_alone(world: World) -> None:
    restore = restore_of(world)
    await restore.to("east", SINCE)
    world.fail_at = "reconciled"
    with pytest.raises(OSError, match="reconciled"):
        await restore.open("east", world.report)
    assert msgspec.json.decode(world.file.read_bytes(), type=Progress).step == "led"
    await restore_of(world).finish(world.report)
    assert world.content("e2") == "restored"
    assert not world.file.exists()


async def test_a_lab_that_starts_does_what_concerns_its_folders_first_and_starts_no_exchange(world: World) -> None:
    world.fail_at = "forget east"
    with pytest.raises(OSError, match="forget"):
        await restore_of(world).to("east", SINCE)
    world.done.clear()
    await restore_of(world).before_start()
    assert world.content("e2") == "restored"
    assert not any("exchange" in what for what in world.done)
    assert msgspec.json.decode(world.file.read_bytes(), type=Progress).step == "led"
