"""Gives a drill its lab: the one that runs, or one of its own that is brought up and taken down again.

Its own keeps its data between drills, so that copies are lodged and codes acquired once. However it ends, no process is
left (``ops.centres``).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.ops.centres.control import SOCKET, RemoteStage
from chukan.ops.centres.place import LabPlace
from chukan.ops.centres.running import CentresRunning
from chukan.ops.demo import cast, connection
from chukan.ops.demo.bring_up import Memory, read_memory, write_memory
from chukan.ops.demo.lodging import Lodging
from chukan.ops.demo.place import Lock
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import plan
from chukan.ops.demo.screen import Screen
from chukan.ops.demo.systems import connect
from chukan.ops.drills.history import hold
from chukan.ops.drills.lab import Lab
from chukan.ops.local.machine import state_folder
from chukan.ops.namespaces import enter
from chukan.ops.sandbox.connection_file import read_connection
from chukan.platform.law import Law
from chukan.replication import site_file
from chukan.replication.site import Topology

PEOPLE: Final = 300
SEED: Final = 7
NEEDS: Final = ("namespaces", "small disks", "backup", "agency moves", "key rotation", "links")
_EXAMPLES: Final = 200
_LOCK: Final = "drill.lock"
_NOTICE: Final = ("CHUKAN__EXCHANGE__DRAIN_NOTICE_S", "3")
"""As at a real site: clients of a drill move their route as a body's device does, and that takes a second."""


def own_root(topology: Topology) -> Path:
    """Return where a drill's own lab of a topology lies."""
    return state_folder() / f"drill-{topology.replace('+', '')}"


@asynccontextmanager
async def own_lab(
    topology: Topology, screen: Screen, root: Path | None = None, *, links: bool = False
) -> AsyncIterator[Lab]:
    """Bring a lab up for a block, with ``links`` every client behind its body's device.

    Raises ``Problem`` already_running, or with the log to read.
    """
    os.environ.setdefault(*_NOTICE)
    place = LabPlace(root or own_root(topology))
    clock = SystemClock()
    with Lock(place.root):
        memory = read_memory(place) or Memory(people=PEOPLE, seed=SEED)
        population, law = Population(memory.people, memory.seed, today_jst(clock)), Law.load()
        bodies = cast.bodies() if links else ()
        own = CentresRunning(place, screen, population, law, topology, backups=True, bodies=bodies)
        try:
            await own.lay()
            with own.wires.inside():
                await _start(own)
                await _lodge(own, screen, memory)
                connection.publish(own, plan(population, law, _EXAMPLES, 0))
                offers = [need for need in NEEDS if own.stage.offers(need)]
                described = read_connection(place.connection)
                async with Lab(own.site, own.stage, described, population, law, offers, own.stage) as lab:
                    yield lab
        finally:
            with screen.step("the lab is being stopped"):
                await asyncio.shield(own.stop())


def running_lab() -> LabPlace | None:
    """Return where ``chukan demo --centres`` runs, None where it does not."""
    place = LabPlace()
    return place if RemoteStage(place.lab / SOCKET).is_there() else None


@asynccontextmanager
async def running(place: LabPlace) -> AsyncIterator[Lab]:
    """Use the lab that runs for a block; it runs on afterwards. Raises ``Problem`` settings_unreadable."""
    stage = RemoteStage(place.lab / SOCKET)
    described = site_file.read(place.site)
    memory = read_memory(place)
    if memory is None:
        raise Problem("settings_unreadable", expected=str(place.state))
    population = Population(memory.people, memory.seed, today_jst(SystemClock()))
    if described.operator.namespace:
        enter(described.operator.namespace)
    offers = await stage.offered(NEEDS)
    # A lab has one drill at a time, wherever the reports of it go.
    with hold(place.lab / _LOCK):
        async with Lab(
            described, stage, read_connection(place.connection), population, Law.load(), offers, stage
        ) as lab:
            yield lab


async def _start(running: CentresRunning) -> None:
    try:
        await running.start()
    except TimeoutError:
        raise Problem("site_not_settled", expected=f"a settled lab; the logs lie under {running.lab.lab}") from None


async def _lodge(running: CentresRunning, screen: Screen, memory: Memory) -> None:
    if memory.registered:
        return
    async with connect(running) as systems:
        await Lodging(running, systems).show(screen)
    write_memory(running.place, Memory(people=memory.people, seed=memory.seed, runs=memory.runs, registered=True))
