"""What happens to the world while it is used: crashes, pauses, failovers, and changes that agencies and operators make.

Every trouble ends: whatever is down when the sky clears is started again, whatever is frozen goes on.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from chukan.errors import Problem
from chukan.ops.sandbox.admin import StopEntry
from chukan.ops.simulation.loop import Process
from chukan.ops.simulation.rules import confirm_snapshot
from chukan.ops.simulation.tables import Transaction
from chukan.ops.simulation.world import CENTRES, KIND, World, addressee_of
from chukan.tenants import directory
from chukan.tenants.sets import CellSets

FAULTS_MAX: Final = 4
CHANGES_MAX: Final = 3


class Troubles:
    """Plays what the seed has drawn."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def play(self, until_s: float) -> None:
        """Let things happen until the sky clears."""
        draw = self.world.draw
        stormy = draw.random() < 0.8  # noqa: PLR2004 - one world in five has no disaster
        faults = draw.randint(0, FAULTS_MAX) if stormy else 0
        acts: list[Callable[[], Awaitable[None]]] = [
            draw.choice((self.crash, self.pause, self.lose_cell, self.crash_network, self.pause_network))
            for _ in range(faults)
        ]
        acts += [
            draw.choice((self.hold, self.stop, self.announce, self.stop_network, self.move))
            for _ in range(draw.randint(0, CHANGES_MAX))
        ]
        acts.append(self.fold)
        async with asyncio.TaskGroup() as group:
            for act in acts:
                group.create_task(self._later(draw.uniform(0.0, until_s - 0.5), act))

    async def _later(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(seconds)
        await act()

    # ------------------------------------------------------------ faults

    async def crash(self) -> None:
        """Kill an exchange; a new one starts at its place a little later."""
        world = self.world
        server = world.draw.choice(list(world.servers.values()))
        if server.process.dead:
            return
        world.crash(server)
        await asyncio.sleep(world.draw.uniform(0.1, 2.0))
        await world.start(server)

    async def pause(self) -> None:
        """Freeze an exchange for a while, longer than a lease at times."""
        server = self.world.draw.choice(list(self.world.servers.values()))
        await self._freeze(server.process)

    async def _freeze(self, process: Process) -> None:
        world = self.world
        if process.dead or process.paused:
            return
        seconds = world.draw.choice((0.2, 1.0, 3.0, 14.0))
        world.tell(process.name, f"is frozen for {seconds} s")
        process.pause(world.loop)
        await asyncio.sleep(seconds)
        if not process.dead:
            process.resume(world.loop)
            world.tell(process.name, "goes on")

    async def lose_cell(self) -> None:
        """A cell is away for a while: restarted, or failed over."""
        cell = self.world.cells[self.world.draw.choice(CENTRES)]
        if cell.away:
            return
        cell.go_away()
        await asyncio.sleep(self.world.draw.choice((0.05, 0.5, 2.0)))
        cell.come_back(failed_over=self.world.draw.random() < 0.6)  # noqa: PLR2004 - most are failovers

    async def crash_network(self) -> None:
        """The network loses everything but its store."""
        network = self.world.network
        if network.process.dead:
            return
        network.crash()
        await asyncio.sleep(self.world.draw.uniform(0.1, 2.0))
        network.start()
        self.world.tell("network", "starts again")

    async def pause_network(self) -> None:
        """The network freezes."""
        await self._freeze(self.world.network.process)

    # ------------------------------------------------------------ changes

    async def hold(self) -> None:
        """An agency holds a person, a kind or everything, or lifts the hold again."""
        world = self.world
        agency = world.draw.choice(world.agencies())
        person = world.draw.choice([None, *world.people])
        keys = world.keys(agency)
        who = None if person is None else keys.digest("addressee", addressee_of(agency, person).encode())
        key = (who, world.draw.choice((None, KIND)) if who is not None else KIND)
        table = world.table(agency)

        def change(tx: Transaction) -> bool:
            held = key not in table.holds
            if held:
                tx.put(table.holds, key, True)  # noqa: FBT003 - a row that only has a key
            else:
                tx.delete(table.holds, key)
            tx.set(table, "hold_version", table.hold_version + 1)
            return held

        held = world.cells[agency.cell].execute("agency", "holds", change, (agency.number, key))
        world.tell(f"agency {agency.number}", "holds" if held else "lifts a hold")

    async def stop(self) -> None:
        """The kill switch: set in one cell after the other, and lifted again."""
        world = self.world
        await self._publish(directory.stop(world.snapshot, world.snapshot.made_at, kind=KIND), "stops the kind")
        await asyncio.sleep(world.draw.uniform(0.2, 2.5))
        await self._publish(directory.lift(world.snapshot, world.snapshot.made_at, kind=KIND), "lifts the stop")

    async def _publish(self, snapshot: directory.Snapshot, what: str) -> None:
        world = self.world
        order = world.draw.sample(CENTRES, len(CENTRES))
        world.tell("operator", what)
        snapshot = directory.renumber(snapshot, world.next_number(), snapshot.made_at)
        for cell in order:
            world.publish(max(snapshot, world.snapshot, key=lambda each: each.number), (cell,))
            await asyncio.sleep(world.draw.choice((0.0, 0.3)))

    async def announce(self) -> None:
        """A stop that takes effect at a stated time: in every cell first, then confirmed; the operator may crash."""
        world = self.world
        snapshot = directory.stop(world.snapshot, world.snapshot.made_at, kind=KIND)
        snapshot = directory.renumber(snapshot, world.next_number(), snapshot.made_at)
        seconds = world.draw.uniform(0.3, 3.0)
        at = world.cells[CENTRES[0]].now() + dt.timedelta(seconds=seconds)
        world.tell("operator", f"announces a stop of the kind in {seconds:.1f} s")
        order = world.draw.sample(CENTRES, len(CENTRES))
        for cell in order:
            row = world.stage(snapshot, at, cell)
            await asyncio.sleep(world.draw.choice((0.0, 0.2)))
        for n, cell in enumerate(order):
            tables = [world.cells[name].tables for name in CENTRES]
            if any(row.number not in each.waiting and row.number != each.snapshot_number for each in tables):
                return  # overtaken by something that was put in force at once
            if n and world.draw.random() < 0.3:  # noqa: PLR2004 - now and then
                world.tell("operator", "crashes between two confirmations")
                break
            confirm = partial(confirm_snapshot, world.cells[cell].tables, number=row.number, signature=row.signature)
            world.cells[cell].execute("operator", "confirm_snapshot", confirm)
            await asyncio.sleep(world.draw.choice((0.0, 0.2)))
        await asyncio.sleep(max(0.0, (at - world.cells[CENTRES[0]].now()).total_seconds()))
        if world.snapshot.number < snapshot.number:
            world.snapshot = snapshot

    async def stop_network(self) -> None:
        """The core's own kill switch."""
        world = self.world
        world.tell("network", "stops the kind")
        world.network.stop([StopEntry(kind=KIND)])
        await asyncio.sleep(world.draw.uniform(0.1, 1.0))
        world.network.stop([])

    async def move(self) -> None:
        """Raise an agency's generation, as a move does; common data follow."""
        world = self.world
        agency = world.draw.choice(world.agencies())
        table = world.table(agency)
        snapshot = directory.move_agency(world.snapshot, world.snapshot.made_at, agency.code, agency.cell)
        generation = directory.Directory(snapshot).agency(agency.code).generation
        world.cells[agency.cell].execute(
            "operator", "generation", lambda tx: tx.set(table, "generation", generation), agency.number
        )
        await self._publish(snapshot, f"raises the generation of agency {agency.number}")

    async def fold(self) -> None:
        """Every exchange folds the statistics of every cell at the same time."""
        for server in self.world.servers.values():
            for sets in server.exchange.sets.values():
                if not server.process.dead:
                    server.process.spawn(self._fold(sets), name="fold")

    async def _fold(self, sets: CellSets) -> None:
        with suppress(Problem):
            await sets.fold_statistics(0)

    # ------------------------------------------------------------ the end of it

    async def mend(self) -> None:
        """Clear the sky: everything runs, and nothing goes wrong from now on."""
        world = self.world
        world.weather.clear = True
        for cell in world.cells.values():
            if cell.away:
                cell.come_back(failed_over=True)
        processes = [world.network.process, *(server.process for server in world.servers.values())]
        for process in processes:
            if process.paused:
                process.resume(world.loop)
        if world.network.process.dead:
            world.network.start()
        for server in world.servers.values():
            if server.process.dead:
                await world.start(server)
        world.tell("world", "the sky clears")
