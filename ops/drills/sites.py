"""A real site as an installation to drill on: seen as ``chukan status`` sees it, broken by the site's own hands.

Everything is as on the lab but the stage and what makes a drill admissible: the mark in the site's table ``[drill]``,
and clients that are for drills only. A drill registers copies of made people and asks about them, so the site, and the
authority of the clients' certificates, must bear the stamp of a sandbox (検証環境): production has real agencies only.

Invariant: nothing of a site is touched before it was found to be such a one.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from chukan.clock import SystemClock, today_jst
from chukan.errors import Problem
from chukan.ops.centres.picture import Painter
from chukan.ops.certificates import require_environment
from chukan.ops.demo.population import Population
from chukan.ops.drills.history import hold
from chukan.ops.drills.lab import Lab
from chukan.ops.drills.site_stage import NOTES, SiteStage
from chukan.ops.failover import Hand, Move
from chukan.ops.namespaces import enter
from chukan.ops.sandbox.connection_file import AgencyFiles, ConnectionFile, read_connection
from chukan.platform.law import Law
from chukan.replication import site_file
from chukan.replication.site import Site
from chukan.replication.site_drills import DrillClients, Drills

_LOCK: Final = "drill.lock"
_ACT_OF_NEED: Final = {"namespaces": ("cut", "isolate"), "small disks": ("fill_disk",), "links": ("lose_gateway",)}
"""What a lab offers as a whole is on a real site a matter of single acts, which ``does`` is asked for."""


class OperatorsHand:
    """An operator's orders, by the functions of the operator's own commands."""

    def __init__(self, site: Site, painter: Painter) -> None:
        self._hand = Hand(site, painter)

    async def switchover(self, cell: str, leader: str, candidate: str) -> None:
        """Move a cell's primary as planned, and wait until it has moved. Raises ``Problem``."""
        await self._hand.hand_over(Move(cell, leader, candidate))

    async def fence(self, cell: str) -> None:
        """Say that a cell's primary is dead, as ``chukan fence`` does once it was confirmed. Raises ``Problem``.

        The word counts from here; who leads next is waited for by the drill.
        """
        await self._hand.revoke(cell, await self._hand.holder(cell))


class RealSite(Lab):
    """An installation that is described by its site file; ``async with``."""

    def __init__(self, site: Site, stage: SiteStage, connection: ConnectionFile, drill: Drills) -> None:
        """Make the clients' people as ``drill`` says; its mark counts, not the lab's."""
        people = Population(drill.clients.people, drill.clients.seed, today_jst(SystemClock()))
        super().__init__(site, stage, connection, people, Law.load())
        self.marked = drill.allowed
        self._hands = stage
        self.steering = OperatorsHand(site, self._painter)

    def offers(self, need: str) -> bool:
        """Tell whether it has what some drills need."""
        centre = next(iter(self._site.centres))
        return super().offers(need) or any(self._hands.does(act, centre) for act in _ACT_OF_NEED.get(need, ()))

    def does(self, act: str, target: str) -> bool:
        """Tell whether the site's hands can do an act."""
        return self._hands.does(act, target)


@asynccontextmanager
async def real_site(path: Path, store: Path) -> AsyncIterator[RealSite]:
    """Use a site for a block; what is broken on it is noted in ``store``.

    Raises ``Problem``: those of the site file, drill_running, file_unwritable, setting_missing without ``[drill]``,
    other_environment for a site or clients of production, unknown_agency, settings_unreadable, certificate_unreadable.
    """
    site = site_file.read(path)
    if site.drill is None:
        raise Problem("setting_missing", pointer="/drill", expected="how this site may be drilled")
    if not site.sandbox:
        raise Problem("other_environment", pointer="/sandbox", expected="sandbox")
    connection = _clients(site.drill.clients)
    if site.operator.namespace:
        enter(site.operator.namespace)
    with _alone(site):
        stage = SiteStage(site, site.drill, store / NOTES)
        async with RealSite(site, stage, connection, site.drill) as installation:
            yield installation


@contextmanager
def _alone(site: Site) -> Iterator[None]:
    """Hold the site's lock on this machine: one drill at a time, wherever the reports of it go."""
    path = site.operator.directory / _LOCK
    try:
        path.touch(mode=0o600)
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
    with hold(path):
        yield


def _clients(clients: DrillClients) -> ConnectionFile:
    connection = read_connection(clients.connection)
    require_environment(Path(connection.ca), "sandbox")
    return msgspec.structs.replace(connection, agencies=_only(connection, clients.agencies))


def _only(connection: ConnectionFile, agencies: Iterable[str]) -> dict[str, AgencyFiles]:
    named = set(agencies)
    if not named <= connection.agencies.keys():
        raise Problem("unknown_agency", pointer="/drill/clients/agencies")
    return {code: files for code, files in connection.agencies.items() if not named or code in named}
