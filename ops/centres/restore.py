"""The lab's hand for a restore to a moment (時点指定の復元): what ``chukan backup restore`` leaves to its operators.

How far it has come is on disk before the next step is made. Up to the moment at which the restored directory takes its
place nothing is lost: a restore that was broken off there is given up, and the cell starts again as it was. From there
on it is finished, for what went before has been put aside; every step may be made a second time.

The other nodes' directories are put aside until their copies stand, and thrown away then. The new epoch reaches the
exchanges before the cell starts: one that had not heard of it would take the restored cell for the one it knows.

Invariant: no node of the cell runs while directories are moved; a half-done restore is never left for good.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from chukan import log, private_file
from chukan.errors import Problem
from chukan.ops import restoring
from chukan.ops.centres import archives, databases
from chukan.ops.centres.picture import Painter
from chukan.ops.centres.processes import Processes
from chukan.ops.centres.stage import LabStage
from chukan.ops.centres.wires import Wires
from chukan.ops.demo.supervisor import in_thread
from chukan.ops.reopening import Opened, open_cell, reconcile_cell
from chukan.replication import backup
from chukan.replication.render import SUPERUSER
from chukan.replication.site import Node, Site, halves
from chukan.replication.superuser import superuser
from chukan.settings import load

STOP_TIMEOUT_S: Final = 30.0
LEADER_TIMEOUT_S: Final = 60.0
ARCHIVED_TIMEOUT_S: Final = 30.0
ETCD_TIMEOUT_S: Final = 30.0
OPENINGS_MAX: Final = 5
_LOOK_S: Final = 0.2
_NAME_BYTES: Final = 16

_log = log.get("ops.centres")
Raise = Callable[[str, int], None]
"""Writes a cell's new epoch into the site file and every exchange's settings."""


class Progress(msgspec.Struct, frozen=True):
    """How far a restore has come: ``begun``, then ``laid`` (its directory stands), then ``led``; opened, it is over."""

    cell: str
    node: str
    epoch: int
    since: datetime
    step: Literal["begun", "laid", "led"] = "begun"


class CellRestore:
    """Restores cells of one lab, one at a time."""

    def __init__(self, stage: LabStage, processes: Processes, wires: Wires, file: Path, raise_epoch: Raise) -> None:
        """``file`` keeps how far a restore has come; no file is no restore."""
        self._stage, self._processes, self._wires = stage, processes, wires
        self._file, self._raise = file, raise_epoch

    @property
    def _site(self) -> Site:
        return self._stage.site

    async def to(self, cell: str, moment: datetime) -> restoring.Restored:
        """Restore a cell, and return when it is led again. Raises ``Problem``; ``finish`` brings it to an end then."""
        node = self._heir(cell)
        if self._file.exists():
            raise Problem("not_possible_here", expected="the restore that was begun to be finished")
        progress = Progress(cell, node.name, self._site.cells[cell].restore_epoch + 1, moment)
        await self._archived(cell, self._site.where(node.host))
        await self._throw_away(cell)  # what an earlier one left that was killed at its end
        self._keep(progress)
        await self._stop(cell)
        done = await in_thread(lambda: self._lay_down(cell, node, moment))
        await self._take_place(progress, [row.name for row in self._site.exchanges])
        return done

    async def open(self, cell: str, report: Path) -> Opened:
        """Reconcile a restored cell with the network, keep what differs, and open it. Raises ``Problem``."""
        progress = self._progress()
        if progress is None or (progress.cell, progress.step) != (cell, "led"):
            raise Problem("not_found", expected="a cell that was restored and is not open")
        folder = self._site.operator.directory / "passwords"
        centre = self._site.cells[cell].home
        exchange = next(row.name for row in self._site.exchanges if self._site.where(row.host) == centre)
        settings = load(self._site.directory(centre) / "config" / f"{exchange}.toml", os.environ)
        admin: dict[str, Any] = {"admin_user": SUPERUSER, "admin_password_file": folder / f"{cell}-superuser"}
        for _ in range(OPENINGS_MAX):
            found = await reconcile_cell(settings, cell, progress.since, **admin)
            _write(report, msgspec.json.encode(found))
            try:
                opened = await open_cell(settings, cell, progress.since, accept=len(found.differences), **admin)
            except Problem as problem:
                # What was on its way when the one looked has come in before the other did.
                if problem.code != "differences_not_accepted":
                    raise
            else:
                self._file.unlink()
                return opened
        raise Problem("differences_not_accepted")

    def _progress(self) -> Progress | None:
        return msgspec.json.decode(self._file.read_bytes(), type=Progress) if self._file.exists() else None

    async def finish(self, report: Path) -> None:
        """Bring a restore that was broken off to its end, one way or the other; nothing where there is none."""
        progress = self._progress()
        if progress is None:
            return
        if progress.step == "begun":
            await self._give_up(progress)
            return
        if progress.step == "laid":
            await self._stop(progress.cell)
            await self._take_place(progress, [row.name for row in self._site.exchanges])
        await self.open(progress.cell, report)

    async def before_start(self) -> None:
        """Do what a restore left to be done with the cell's folders, in a lab that starts: its exchanges come later."""
        progress = self._progress()
        if progress is not None and progress.step == "begun":
            await self._give_up(progress)
        elif progress is not None and progress.step == "laid":
            await self._take_place(progress, [])

    async def _give_up(self, progress: Progress) -> None:
        _, node = self._site.node(progress.node)
        await in_thread(lambda: shutil.rmtree(self._restored(node), ignore_errors=True))
        for row in self._site.cells[progress.cell].nodes:
            await self._processes.start(f"patroni-{row.name}")
        self._file.unlink()

    def _heir(self, cell: str) -> Node:
        """Return the node that shall lead: one at home whose directory can be put aside as a whole."""
        home, _ = halves(self._site, self._site.cells[cell])
        return next((row for row in home if not os.path.ismount(self._data(row))), home[-1])

    def _data(self, row: Node) -> Path:
        return self._site.directory(self._site.where(row.host)) / "data" / row.name

    def _restored(self, row: Node) -> Path:
        return self._data(row).with_name(f"{row.name}.restored")

    def _aside(self, row: Node) -> Path:
        return self._data(row).with_name(f"{row.name}.before")

    def _keep(self, progress: Progress) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(progress))
        aside.rename(self._file)

    # ------------------------------------------------------------ before the cell is touched

    async def _archived(self, cell: str, centre: str) -> None:
        """Wait until all that is acknowledged by now lies in a centre's repository. Raises ``Problem``."""
        async with Painter(self._site) as painter:
            leader = (await painter.leaders()).get(cell)
        if leader is None:
            raise Problem("no_primary")
        async with superuser(self._site, leader, "postgres") as admin:
            segment = str(await admin.fetchval("SELECT pg_walfile_name(pg_switch_wal())"))
        folder = self._site.directory(centre) / "backup" / "repository" / "archive" / cell
        pattern = f"*/{segment[:_NAME_BYTES]}/{segment}-*"
        try:
            async with asyncio.timeout(ARCHIVED_TIMEOUT_S):
                while not any(folder.glob(pattern)):  # noqa: ASYNC110 - the archiver tells nobody
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Problem("backup_failed", expected=f"segment {segment} in the repository in {centre}") from None

    async def _stop(self, cell: str) -> None:
        async with Painter(self._site) as painter:
            leader = (await painter.leaders()).get(cell)
        names = [f"patroni-{row.name}" for row in self._site.cells[cell].nodes]
        # The leader last: otherwise a standby takes its place first.
        await self._processes.stop([name for name in names if name != f"patroni-{leader}"], STOP_TIMEOUT_S)
        await self._processes.stop([name for name in names if name == f"patroni-{leader}"], STOP_TIMEOUT_S)

    def _lay_down(self, cell: str, node: Node, moment: datetime) -> restoring.Restored:
        repository = backup.number(self._site, cell, self._site.where(node.host))
        into = self._restored(node)
        shutil.rmtree(into, ignore_errors=True)  # what an earlier one left that was killed in the middle
        running = restoring.running(self._site, cell)
        if running is not None:
            raise Problem("cell_running", expected=running)
        # What is not in the one repository is looked for in the other: from where the lab stands.
        with self._wires.inside():
            return restoring.restore(self._site, cell, node, repository, moment.astimezone(UTC), into, _quiet)

    # ------------------------------------------------------------ from here on forward only

    async def _take_place(self, progress: Progress, exchanges: Sequence[str]) -> None:
        self._keep(msgspec.structs.replace(progress, step="laid"))
        cell = progress.cell
        _, heir = self._site.node(progress.node)
        self._raise(cell, progress.epoch)
        for name in exchanges:
            await self._stage.stop(name)
            await self._stage.start(name)
        await self._forget(cell)
        rows = self._site.cells[cell].nodes
        await in_thread(lambda: self._exchange(rows, heir))
        await self._processes.start(f"patroni-{heir.name}")
        await databases.led(self._site, cell, LEADER_TIMEOUT_S)
        for row in rows:
            await self._processes.start(f"patroni-{row.name}")
        # Before anything is thrown away: from here on the directories are not moved any more.
        self._keep(msgspec.structs.replace(progress, step="led"))
        await self._throw_away(cell)
        _log.warning("a cell was restored", cell=cell)

    async def _throw_away(self, cell: str) -> None:
        for row in self._site.cells[cell].nodes:
            await asyncio.to_thread(shutil.rmtree, self._aside(row), ignore_errors=True)

    async def _forget(self, cell: str) -> None:
        async with asyncio.timeout(ETCD_TIMEOUT_S), Painter(self._site) as painter:
            while True:
                try:
                    return await painter.etcd.forget(cell)
                except Problem:
                    await asyncio.sleep(_LOOK_S)  # a lab that starts has not elected yet

    def _exchange(self, rows: Sequence[Node], heir: Node) -> None:
        for row in rows:
            self._put_aside(row)
        self._put_in(heir)

    def _put_aside(self, row: Node) -> None:
        data, aside = self._data(row), self._aside(row)
        if os.path.ismount(data):
            # The disk stays where it is; what is on it is copied anew.
            for entry in data.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        elif data.exists() and not aside.exists():
            data.rename(aside)

    def _put_in(self, heir: Node) -> None:
        restored, data = self._restored(heir), self._data(heir)
        if restored.exists():
            restored.rename(data)


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    private_file.write(path, content)


def _quiet(text: str) -> None:
    _log.info("restore", reason=text)


class LabRestorer:
    """What the stage of a lab with backups does with them."""

    def __init__(self, restore: CellRestore, stage: LabStage, wires: Wires, report: Path) -> None:
        """``report`` is where the differences of the last opening are kept."""
        self._restore, self._stage, self._wires, self._report = restore, stage, wires, report

    async def back_up(self, cell: str) -> list[str]:
        """Make a full backup of a cell at its home; returns its name. Raises ``Problem``."""
        site = self._stage.site
        return [await archives.back_up(site, self._wires, cell, site.cells[cell].home)]

    async def restore(self, cell: str, moment: datetime) -> list[str]:
        """Restore a cell and start it; returns its new epoch. Raises ``Problem``."""
        done = await self._restore.to(cell, moment)
        return [str(done.epoch)]

    async def open(self, cell: str) -> list[str]:
        """Reconcile a restored cell and open it; returns the file of the differences and the instant of opening."""
        opened = await self._restore.open(cell, self._report)
        return [str(self._report), opened.opened_at.isoformat()]

    async def before_start(self) -> None:
        """Do what a restore left to be done with the cell's folders, in a lab that starts."""
        await self._restore.before_start()

    async def finish(self) -> None:
        """Bring a restore that was broken off to its end. Raises ``Problem``."""
        await self._restore.finish(self._report)
