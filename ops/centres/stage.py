"""Breaks the lab and mends it: the hand of every drill, and of whoever tries things out.

Every act is remembered until it is undone; ``heal`` undoes what is left and says what it could not. Killed on purpose
stays down, but for a postmaster, which its own Patroni starts again: that is what is being tried.

Invariant: a centre that is lost takes everything of it along, its trees too: they are renamed and closed, so that
nothing on the same machine can quietly go on reading them.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from chukan.errors import Problem
from chukan.ops.centres.disks import Disk
from chukan.ops.centres.gateway_stage import GatewayStage
from chukan.ops.centres.link_picture import all_up
from chukan.ops.centres.picture import Painter, Picture
from chukan.ops.centres.processes import Processes
from chukan.ops.centres.wires import Wires
from chukan.replication.site import Site

_STOP_TIMEOUT_S: Final = 30.0
_ANSWER_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.5

Ready = Callable[[str], Awaitable[None]]


class Restorer(Protocol):
    """What a lab with backups can do with them."""

    async def back_up(self, cell: str) -> list[str]:
        """Make a full backup of a cell at its home; returns its name."""
        ...

    async def restore(self, cell: str, moment: datetime) -> list[str]:
        """Restore a cell and start it; returns its new epoch."""
        ...

    async def open(self, cell: str) -> list[str]:
        """Reconcile a restored cell and open it; returns the file of the differences and the instant of opening."""
        ...

    async def before_start(self) -> None:
        """Do what a restore left to be done with a cell's folders, in a lab that starts."""
        ...

    async def finish(self) -> None:
        """Bring a restore that was broken off to its end."""
        ...


class LabStage(GatewayStage):
    """What may be broken, and how it stands."""

    def __init__(self, site: Site, wires: Wires, processes: Processes, ready: Ready, disks: Mapping[str, Disk]) -> None:
        """``ready`` waits until a process of ours answers; ``disks`` are those of nodes that have their own."""
        super().__init__(processes)
        self.site = site
        self._wires, self._ready, self._disks = wires, ready, disks
        self._frozen: set[str] = set()
        self._down: set[str] = set()
        self._lost: set[str] = set()
        self._cut: tuple[str, str] | None = None
        self._isolated: set[str] = set()
        self._full: set[str] = set()
        self.restorer: Restorer | None = None
        """Who restores cells, where the lab has backups."""

    @property
    def topology(self) -> str:
        """2+2 or 2+1."""
        return self.site.topology

    def offers(self, need: str) -> bool:
        """Tell whether the lab has what some drills need: ``namespaces``, ``small disks``, ``backup``, ``links``."""
        return {
            "links": self.links is not None,
            "backup": self.site.backup is not None,
            "namespaces": self._wires.apart,
            "small disks": any(disk.is_there for disk in self._disks.values()),
        }.get(need, False)

    def pids(self) -> dict[str, int]:
        """Return the process ids of all that run now."""
        return self._processes.pids()

    def agency_urls(self) -> dict[str, str]:
        """Return the agency API of each centre's exchange."""
        return {
            self.site.where(row.host): f"https://{self.site.address(row.host)}:{row.agency_port}"
            for row in self.site.exchanges
        }

    async def picture(self) -> Picture:
        """Return how everything stands, as everybody tells."""
        async with Painter(self.site) as painter:
            return await painter.paint()

    # ------------------------------------------------------------ processes

    async def kill(self, name: str) -> None:
        """End a process with SIGKILL and keep it down; Patroni starts its postmaster again."""
        await self._kill([name])

    async def kill_node(self, node: str) -> None:
        """End Patroni and PostgreSQL of a node at the same moment, as the loss of its server does."""
        await self._kill([f"patroni-{node}", f"postgres-{node}"])

    async def _kill(self, names: Sequence[str]) -> None:
        for name in names:
            self._processes.site_of(name)
        self._down.update(name for name in names if not name.startswith("postgres-"))
        self._frozen.difference_update(names)
        await self._processes.kill(names)

    async def freeze(self, name: str) -> None:
        """Stop a process where it stands (SIGSTOP); of ``postgres-<node>`` the children too."""
        self._processes.send(name, signal.SIGSTOP)
        self._frozen.add(name)

    async def thaw(self, name: str) -> None:
        """Let it go on (SIGCONT)."""
        self._processes.send(name, signal.SIGCONT)
        self._frozen.discard(name)

    async def stop(self, name: str) -> None:
        """End in good order, and keep it down."""
        self._processes.site_of(name)
        self._down.add(name)
        self._frozen.discard(name)
        await self._processes.stop([name], _STOP_TIMEOUT_S)

    async def start(self, name: str) -> None:
        """Start what was ended; returns when it answers. Raises ``Problem`` process_failed, naming its log."""
        if self._processes.site_of(name) in self._lost:
            raise Problem("not_possible_here", expected="the centre to be returned first")
        if not name.startswith("postgres-"):
            await self._processes.start(name)
        self._down.discard(name)
        await self._until_it_answers(name)

    async def _until_it_answers(self, name: str) -> None:
        part, _, node = name.partition("-")
        if part in {"patroni", "postgres", "etcd"}:
            await self._until(lambda picture: _answers(picture, part, node), _ANSWER_TIMEOUT_S, name)
        else:
            await self._ready(name)

    async def _until(self, holds: Callable[[Picture], bool], timeout_s: float, name: str) -> None:
        try:
            async with asyncio.timeout(timeout_s), Painter(self.site) as painter:
                while not holds(await painter.paint()):  # noqa: ASYNC110 - other machines have no event of ours
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Problem("process_failed", expected=str(self._processes.log_of(name))) from None

    # ------------------------------------------------------------ centres and links

    async def lose_centre(self, centre: str) -> None:
        """Kill everything in a centre (or at the witness) at once and make its tree unreadable."""
        names = self._processes.names(centre)
        nodes = [name.removeprefix("patroni-") for name in names if name.startswith("patroni-")]
        self._lost.add(centre)
        self._frozen.difference_update(names, {f"postgres-{node}" for node in nodes})
        await self._processes.kill([*names, *(f"postgres-{node}" for node in nodes)])
        await self._lose_with(centre)
        tree = self.site.directory(centre)
        tree.chmod(0o000)
        tree.rename(_aside(tree))

    async def return_centre(self, centre: str) -> None:
        """Bring a centre's tree back and start everything in it; ``settled`` waits until it has caught up."""
        tree = self.site.directory(centre)
        if _aside(tree).exists():
            _aside(tree).rename(tree)
            tree.chmod(0o755)
        self._lost.discard(centre)
        await self._return_with(centre)
        names = self._processes.names(centre)
        for name in sorted(names, key=lambda name: not name.startswith("etcd-")):
            await self._processes.start(name)
        self._down.difference_update(names)

    async def cut(self, a: str, b: str) -> None:
        """Let nothing pass between two sites; both still see everybody else."""
        await asyncio.to_thread(self._wires.cut, a, b)
        self._cut = (a, b)

    async def mend(self, a: str, b: str) -> None:
        """Mend that link."""
        if self._cut is not None and set(self._cut) != {a, b}:
            raise Problem("not_found", expected="the link that was cut")
        await asyncio.to_thread(self._wires.mend)
        self._cut = None

    async def isolate(self, centre: str) -> None:
        """Cut a site off from everybody."""
        await asyncio.to_thread(self._wires.isolate, centre)
        self._isolated.add(centre)

    async def rejoin(self, centre: str) -> None:
        """Let it back."""
        await asyncio.to_thread(self._wires.rejoin, centre)
        self._isolated.discard(centre)

    # ------------------------------------------------------------ disks

    async def fill_disk(self, node: str) -> None:
        """Leave no free byte on the disk of a node. Raises ``Problem`` not_possible_here."""
        disk = self._disks.get(node)
        if disk is None:
            raise Problem("not_possible_here", expected=f"one of {', '.join(self._disks)}")
        self._full.add(node)
        await asyncio.to_thread(disk.fill)

    async def free_disk(self, node: str) -> None:
        """Give the space back."""
        if node in self._disks:
            await asyncio.to_thread(self._disks[node].free)
        self._full.discard(node)

    # ------------------------------------------------------------ backups

    async def back_up(self, cell: str) -> list[str]:
        """Make a full backup of a cell at its home; returns its name. Raises ``Problem``."""
        return await self._restorer().back_up(cell)

    async def restore(self, cell: str, moment: str) -> list[str]:
        """Restore a cell to a moment (ISO 8601) and start it; returns its new epoch. Raises ``Problem``."""
        return await self._restorer().restore(cell, datetime.fromisoformat(moment))

    async def open_restored(self, cell: str) -> list[str]:
        """Reconcile a restored cell and open it; returns the file of the differences and the instant of opening."""
        return await self._restorer().open(cell)

    async def before_start(self) -> None:
        """Do what a restore left to be done with a cell's folders, in a lab that starts."""
        if self.restorer is not None:
            await self.restorer.before_start()

    async def finish_restore(self) -> None:
        """Bring a restore that was broken off to its end; nothing where there is none. Raises ``Problem``."""
        if self.restorer is not None:
            await self.restorer.finish()

    def _restorer(self) -> Restorer:
        if self.restorer is None:
            raise Problem("not_possible_here", expected="pgBackRest")
        return self.restorer

    # ------------------------------------------------------------ mending

    async def heal(self) -> list[str]:
        """Undo everything that is undone, whatever fails meanwhile; return what could not be."""
        work: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        work += [(f"thaw {name}", lambda name=name: self.thaw(name)) for name in sorted(self._frozen)]  # type: ignore[misc]
        work += [(f"free the disk of {node}", lambda node=node: self.free_disk(node)) for node in sorted(self._full)]  # type: ignore[misc]
        work += [(f"rejoin {site}", lambda site=site: self.rejoin(site)) for site in sorted(self._isolated)]  # type: ignore[misc]
        if self._cut is not None:
            a, b = self._cut
            work.append((f"mend {a}-{b}", lambda: self.mend(a, b)))
        work += [(f"return {site}", lambda site=site: self.return_centre(site)) for site in sorted(self._lost)]  # type: ignore[misc]
        down = sorted(self.gateways_down - self._lost)
        work += [(f"return the gateway of {site}", lambda site=site: self.return_gateway(site)) for site in down]  # type: ignore[misc]
        failed = [what for what, undo in work if not await _done(undo)]
        # Last, and after the centres: what they bring back is up already.
        ended = sorted(self._down, key=lambda name: not name.startswith("etcd-"))
        failed += [f"start {name}" for name in ended if not await _done(lambda name=name: self.start(name))]  # type: ignore[misc]
        if not await _done(self.finish_restore):
            failed.append("finish the restore")
        return failed

    async def settled(self, timeout_s: float) -> None:
        """Wait until every cell is led, streams to standbys synchronous as configured, and is served everywhere.

        And every link is up at both centres and every device sends by its home, where the lab has links: a drill that
        began before would break what nobody uses. Raises ``TimeoutError``.
        """
        async with asyncio.timeout(timeout_s), Painter(self.site) as painter:
            while True:
                picture = await painter.paint()
                if picture.whole and all_up(picture.links) and await asyncio.to_thread(self.devices_at_home):
                    return
                await asyncio.sleep(_LOOK_S)


def _aside(tree: Path) -> Path:
    return tree.with_name(f".lost-{tree.name}")


def _answers(picture: Picture, part: str, node: str) -> bool:
    if part == "etcd":
        return picture.etcd.get(f"etcd-{node}", False)
    found = next((each for cell in picture.cells for each in cell.nodes if each.name == node), None)
    return found is not None and (found.state == "running" if part == "postgres" else found.role != "silent")


async def _done(undo: Callable[[], Awaitable[None]]) -> bool:
    try:
        await undo()
    except (Problem, OSError, TimeoutError):
        return False
    return True
