"""A real backup of a cell, restored to a moment: logs go on by the leaf that says so, the map is the signed one.

Both logs of an agency, with the other centre's cosigner and an agency's client that kept checkpoints of before and of
the lost time; what they remember is not in the cell.
"""

import asyncio
import dataclasses
import io
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import backup as command
from chukan.ops.local.binaries import find_binaries
from chukan.ops.local.postgres import Server
from chukan.ops.restored_logs import RestoredLogs
from chukan.ops.sandbox.checkpoint_book import CheckpointBook
from chukan.platform.http.desks.door import CellDoor
from chukan.platform.http.desks.evidence import PartitionEvidence
from chukan.replication.primary import Cells
from chukan.settings import Cell
from chukan.tenants import evidence_file, reopening
from chukan.tenants.births import birth
from chukan.tenants.cosigning import Cosigner, Restores
from chukan.tenants.directory import AgencyRow
from chukan.tenants.evidence import Signer
from chukan.tenants.evidence_check import check, find_restores
from chukan.tenants.evidence_export import export_log
from chukan.tenants.evidence_report import Report, Rules
from chukan.tenants.map_growth import MapFollower, MapGrower
from chukan.tenants.map_repair import MapRepair
from chukan.tenants.migrate import LOGINS, prepare_cell
from chukan.tenants.operations import Journal
from chukan.tenants.operations_export import AgencyLog, export_operations
from chukan.tenants.operations_tree import OperationTrees
from chukan.tenants.sets import CellSets
from chukan.tests.backup.place import Place, place
from chukan.tests.backup.test_backups import archived
from chukan.tests.records.acting import NAME, act
from chukan.tests.records.acting import place as place_acts
from chukan.tests.records.bending import CHANCE, CODE, KEYS, PRIVATE
from chukan.tests.records.conftest import Shelf, keys_of
from chukan.tests.site.conftest import SITE

pytestmark = pytest.mark.full

AGENCY = 1
ROW = AgencyRow(number=AGENCY, code=CODE, body="131016", name="市長", cell="east", generation=1)
WEST = dataclasses.replace(KEYS, centre="west", private=PRIVATE["w"])


class Memory:
    """What the other centre's cosigner remembers, in a place that no restore of this cell sets back."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.maps: dict[str, tuple[int, bytes]] = {}
        self.epochs: dict[str, int] = {}

    async def witness_recall(self, _signer: str, origins: list[str]) -> dict[str, tuple[int, bytes]]:
        return {origin: self.seen[origin] for origin in origins if origin in self.seen}

    async def witness_keep(self, _signer: str, origin: str, before: int, size: int, root: bytes) -> bool:
        assert self.seen.get(origin, (0, b""))[0] == before
        self.seen[origin] = size, root
        return True

    async def witness_restore(
        self, _signer: str, origin: str, before: tuple[int, bytes], now: tuple[int, bytes], epoch: int
    ) -> bool:
        taken = self.seen[origin] == before and self.epochs.get(origin, 1) < epoch
        if taken:
            self.seen[origin], self.epochs[origin] = now, epoch
        return taken

    async def witness_all(self, origins: list[str]) -> dict[str, list[tuple[int, bytes]]]:
        return {origin: [self.seen[origin]] for origin in origins if origin in self.seen}

    async def witness_map(self, _signer: str, origin: str) -> tuple[int, bytes] | None:
        return self.maps.get(origin)

    async def witness_map_keep(self, _signer: str, origin: str, size: int, root: bytes) -> None:
        self.maps[origin] = size, root


class Scene(NamedTuple):
    """The place, the folder of passwords and kept checkpoints, and the other centre's memory."""

    here: Place
    folder: Path
    memory: Memory

    @asynccontextmanager
    async def shelf(self, epoch: int = 1) -> AsyncIterator[Shelf]:
        files = {f"{role[7:]}_password_file": self.folder / role for role in LOGINS}
        socket = str(self.here.root / "east" / "run")
        cell = Cell(host=socket, port=self.here.node.port, database="chukan", restore_epoch=epoch, **files)
        admin = await self.here.connect()
        try:
            async with Cells({"east": cell}, "sandbox") as cells:
                yield Here(AGENCY, keys_of(AGENCY), CellSets(cells.primary("east").broker), cells, admin)
        finally:
            await admin.close()

    def book(self, name: str) -> CheckpointBook:
        return CheckpointBook(self.folder / f"kept-{name}", KEYS.known(CODE))

    async def grow(self, shelf: Shelf, records: int, acts: int, epoch: int = 1) -> None:
        """Both logs grow, are signed with the map by one centre, and cosigned by the other."""
        await shelf.records(records)
        await shelf.sequence()
        for _ in range(acts):
            await Journal(lambda _: shelf.keys, lambda _: shelf.sets, CHANCE).append(act(AGENCY))
        await place_acts(shelf)
        sets, memory = shelf.sets, self.memory
        trees = OperationTrees(sets)
        named, told = {AGENCY: CODE}.get, {AGENCY: NAME}.get
        assert await Signer(sets, KEYS, named, lambda _: None, maps=MapGrower(sets)).sign_due() == 1
        assert await Signer(trees, KEYS, told, lambda _: None).sign_due() == 1
        restores = Restores(epoch, sets, memory)
        follower = MapFollower(sets, memory)
        both = Cosigner(sets, memory, WEST, named, SystemClock(), restores=restores, maps=follower)
        assert await both.cosign_due() == 1
        assert await Cosigner(trees, memory, WEST, told, SystemClock(),
                              restores=Restores(epoch, trees, memory)).cosign_due() == 1  # fmt: skip


class Here(Shelf):
    """The shelf of this cell, which has another name than the tests' own."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        async with CellDoor(self.cells)(ROW) as partition:
            yield partition


class Desk:
    """The agency's log as the API shows it."""

    def __init__(self, shelf: Shelf) -> None:
        async def confirm(_cell: str) -> None:
            return

        self._desk = PartitionEvidence(CellDoor(shelf.cells), lambda _: shelf.keys, confirm)

    async def checkpoint(self) -> Any:
        return await self._desk.checkpoint(ROW)

    async def consistency(self, first: int) -> Any:
        return await self._desk.consistency(ROW, first)


async def verified(shelf: Shelf, known: bytes, *, acts: bool = False, allow: bool = False) -> Report:
    name = NAME if acts else CODE
    lines = (
        export_operations(AgencyLog(shelf.open), KEYS.origin(name), shelf.keys, clear=True)
        if acts
        else export_log(shelf.open, KEYS.origin(name), shelf.keys)
    )
    raw = b"".join(evidence_file.encode([line async for line in lines]))
    restores = find_restores(evidence_file.decode(io.BytesIO(raw)))
    rules = Rules(KEYS.known(name), [known], restores=restores, allow_restored=allow)
    return check(evidence_file.decode(io.BytesIO(raw)), rules)


async def note(shelf: Shelf, *, acts: bool = False) -> bytes:
    trees = OperationTrees(shelf.sets) if acts else shelf.sets
    last = await trees.evidence_last(AGENCY)
    assert last is not None
    return bytes(last.note)


async def pages(shelf: Shelf) -> list[Any]:
    return [tuple(row) for row in await shelf.admin.fetch("SELECT path, body FROM a00001.map_pages ORDER BY path")]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with place(SITE) as here, here.servers():
        here.start()
        for role in LOGINS:
            (tmp_path / role).write_text(f"password-of-{role}")

        async def prepare() -> None:
            admin = await here.connect()
            await prepare_cell(admin, "east", {role: f"password-of-{role}" for role in LOGINS}, "sandbox")
            await birth(admin, AGENCY)
            await admin.close()

        asyncio.run(prepare())
        yield Scene(here, tmp_path, Memory())


@pytest.mark.requirement("REC-02", "PLT-06")
def test_the_logs_go_on_by_the_leaf_and_the_map_is_the_signed_one(scene: Scene, capsys: Any) -> None:
    here = scene.here
    for centre in ("east", "west"):
        command.create("east", centre=centre, site=here.file, as_json=True)

    async def before() -> list[Any]:
        async with scene.shelf() as shelf:
            await scene.grow(shelf, 30, 4)
            await scene.book("before").look(Desk(shelf))
            return await pages(shelf)

    async def lost() -> tuple[bytes, bytes]:
        async with scene.shelf() as shelf:
            await scene.grow(shelf, 20, 3)
            await scene.book("lost").look(Desk(shelf))
            return await note(shelf), await note(shelf, acts=True)

    whole = asyncio.run(before())
    command.run_command("east", kind="full", site=here.file, as_json=True)
    here.sql("SELECT pg_sleep(2)")  # pgBackRest counts whole seconds when it looks for a backup before the moment
    moment = here.sql("SELECT clock_timestamp()")
    kept, kept_acts = asyncio.run(lost())
    archived(here)
    here.database.stop()
    into = here.root / "east" / "data" / "restored"
    command.restore("east", to=moment.isoformat(), into=into, site=here.file, confirmed=True, as_json=True)
    shutil.copy(here.data.with_name("e1.password"), into.with_name(f"{into.name}.password"))
    options = here.options(into) | {"archive_mode": "off"}
    again = Server("again", into, binaries=find_binaries("debian", only=True), options=options)
    again.start()

    async def after() -> None:
        async with scene.shelf(epoch=2) as shelf:
            assert await pages(shelf) == whole, "the map of the moment"
            logs = RestoredLogs("east", 2, shelf.admin, [ROW], [scene.memory], KEYS.origin)  # type: ignore[list-item]
            await logs.mark()
            await reopening.open_cell(shelf.admin, 2, "a test")
        async with scene.shelf(epoch=2) as shelf:
            await scene.grow(shelf, 25, 1, epoch=2)
            # A client of before the moment needs to know of nothing; one of the lost time goes on through the leaf.
            assert (await scene.book("before").look(Desk(shelf))).before == 30
            with pytest.raises(Problem, match="log_contradicted"):
                await scene.book("lost").look(Desk(shelf))
            assert (await scene.book("lost").look(Desk(shelf), replace=True)).size == 56
            for old, acts in ((kept, False), (kept_acts, True)):
                found = await verified(shelf, old, acts=acts)
                assert [each.code for each in found.findings] == ["restored"]
                assert (await verified(shelf, old, acts=acts, allow=True)).sound
            # And a map that is damaged besides is made anew from the restored log.
            await shelf.admin.execute("DELETE FROM a00001.map_pages WHERE path <> ''")
            assert (await MapRepair(shelf.cells, "east", AGENCY, CODE, KEYS).mend("operator-1")).sound
            await scene.grow(shelf, 1, 1, epoch=2)

    try:
        asyncio.run(after())
    finally:
        again.stop()
