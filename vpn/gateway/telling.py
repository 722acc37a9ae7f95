"""What follows a pass, apart from it: files, and what the database is told. No pass waits for a disk or a database.

Told are: from where devices were seen (a changed endpoint at once, a mere handshake now and then), drift for the audit,
and next keys that were seen in use. What could not be told stays to be told, within bounds; only the newest of a thing
counts, so nothing piles up while the cell is away.
"""

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from chukan import log
from chukan.errors import Problem
from chukan.tenants.link_rows import DRIFT_MAX
from chukan.tenants.links import Drifted, Seen
from chukan.vpn.gateway.drift import Found
from chukan.vpn.gateway.kinds import Sighting
from chukan.vpn.gateway.state import Memory, Place, Store

AGAIN_S: Final = 5.0
TELL_TIMEOUT_S: Final = 20.0
FRESH_S: Final = 120.0
"""A handshake is told when it is so much younger than the one that was told last."""
WAITING_MAX: Final = 2_000
"""Rows of drift, and rotations, that wait for the database; the oldest give way."""

_log = log.get("vpn.gateway.telling")


class Audience(Protocol):
    """Who is told; ``tenants.links.LinkController`` is one. Every call may be repeated and raises ``Problem``."""

    async def seen(self, centre: str, sightings: Sequence[Seen]) -> int:
        """Keep from where devices were seen."""
        ...

    async def drifted(self, centre: str, differences: Sequence[Drifted]) -> int:
        """Enter differences into the audit, ``DRIFT_MAX`` at most."""
        ...

    async def rotated(self, centre: str, link: str, generation: int | None = None) -> bool:
        """Say that a link's next key was seen in use."""
        ...


class Teller:
    """Keeps and tells while ``run`` runs; its other methods are quick and never raise."""

    def __init__(self, audience: Audience, centre: str, store: Store, told: Callable[[], None]) -> None:
        """``told`` is called when the database took a key over, so that the desired state is read again."""
        self._audience = audience
        self._centre = centre
        self._store = store
        self._told = told
        self._due = asyncio.Event()
        self._memory: Memory | None = None
        self._places: dict[str, Place] = {}
        self._places_changed = False
        self._last: dict[str, Place] = {}
        self._drift: deque[Found] = deque(maxlen=WAITING_MAX)
        self._rotated: dict[str, int] = {}

    # ------------------------------------------------------------ what there is to tell

    def start_with(self, places: Mapping[str, Place]) -> None:
        """Begin with what was kept on the disk."""
        self._places = dict(places)

    def endpoints(self) -> dict[str, str]:
        """Return where each link's device was last seen."""
        return {link: place.endpoint for link, place in self._places.items()}

    def remember(self, memory: Memory) -> None:
        """Keep this on the disk, instead of anything that was to be kept and is not yet."""
        self._memory = memory
        self._due.set()

    def forget(self, links: Collection[str]) -> None:
        """Keep no place of these links' devices any longer: they are gone for good."""
        for link in self._places.keys() & set(links):
            del self._places[link]
            self._last.pop(link, None)
            self._places_changed = True
        if self._places_changed:
            self._due.set()

    def saw(self, sightings: Mapping[str, Sighting]) -> None:
        """Take in where devices are now."""
        for link, sighting in sightings.items():
            if sighting.endpoint is None or sighting.handshake_at is None:
                continue
            known = self._places.get(link)
            if known is None or known.endpoint != sighting.endpoint or _younger(sighting.handshake_at, known):
                self._places[link] = Place(sighting.endpoint, sighting.handshake_at)
                self._places_changed = True
        if self._places_changed:
            self._due.set()

    def drifted(self, found: Iterable[Found]) -> None:
        """Enter differences into the audit, when it can be reached."""
        self._drift.extend(found)
        if self._drift:
            self._due.set()

    def rotated(self, links: Mapping[str, int]) -> None:
        """Say of these links, by generation, that their next key was seen in use."""
        self._rotated = dict([*self._rotated.items(), *links.items()][-WAITING_MAX:])
        if self._rotated:
            self._due.set()

    # ------------------------------------------------------------ telling

    async def run(self) -> None:
        """Keep and tell until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            kept = await self.keep()
            told = await self.tell()
            if not (kept and told):
                await asyncio.sleep(AGAIN_S)
                self._due.set()

    async def keep(self) -> bool:
        """Write the files that changed; tell whether they are on the disk."""
        memory, self._memory = self._memory, None
        changed, self._places_changed = self._places_changed, False
        try:
            if changed:
                await asyncio.to_thread(self._store.write_places, dict(self._places))
            if memory is not None:
                await asyncio.to_thread(self._store.write, memory)
        except (OSError, ValueError) as error:
            _log.error("a file of this gateway cannot be written", exc_info=error)
            self._memory = self._memory or memory
            self._places_changed = True
            return False
        return True

    async def tell(self) -> bool:
        """Tell the database what waits; tell whether nothing is left."""
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await self._tell_rotated()
                await self._tell_drift()
                await self._tell_places()
        except (Problem, TimeoutError) as error:
            _log.info("the database was not told of the links", exc_info=error)
            return False
        return True

    async def _tell_rotated(self) -> None:
        taken = False
        for link, generation in list(self._rotated.items()):
            taken |= await self._audience.rotated(self._centre, link, generation)
            if self._rotated.get(link) == generation:
                del self._rotated[link]
        if taken:
            self._told()

    async def _tell_drift(self) -> None:
        while rows := list(islice(self._drift, DRIFT_MAX)):
            await self._audience.drifted(
                self._centre, [Drifted(link=row.link, kind=row.kind, repaired=row.repaired) for row in rows]
            )
            for row in rows:
                if self._drift and self._drift[0] == row:
                    self._drift.popleft()

    async def _tell_places(self) -> None:
        places = dict(self._places)
        changed = {link: place for link, place in places.items() if place != self._last.get(link)}
        if changed:
            rows = [
                Seen(link=link, endpoint=place.endpoint, handshake_at=_at(place)) for link, place in changed.items()
            ]
            await self._audience.seen(self._centre, rows)
            self._last.update(changed)


def _younger(handshake_at: float, known: Place) -> bool:
    return handshake_at - known.handshake_at >= FRESH_S


def _at(place: Place) -> dt.datetime:
    return dt.datetime.fromtimestamp(place.handshake_at, dt.UTC)
