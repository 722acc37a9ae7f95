"""The installation that is measured: two cells, two exchanges, the sandbox network, as ``chukan demo`` brings them up.

It has its own place and its own data, thrown away before each run and after a good one: nothing of an earlier run, of
a demo or of a site is touched. The sandbox's national counterparts run too, idle.

Invariant: nothing is measured unless both servers say themselves that every commit is on disk before it is answered.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES, Running
from chukan.ops.demo.databases import CELLS
from chukan.ops.demo.lodging import Lodging
from chukan.ops.demo.place import Place
from chukan.ops.demo.screen import Advance, Screen
from chukan.ops.demo.systems import Systems, for_each
from chukan.ops.installation import open_installation
from chukan.ops.local.machine import CLONE, state_folder
from chukan.ops.sandbox.people import addressee_number
from chukan.ops.sandbox.person_values import RESIDENT
from chukan.ops.sandbox.systems import AddresseeSystem
from chukan.settings import load
from chukan.tenants.directory import AgencyRow

STAGES: Final = ("work_inquirer", "lookup", "provide", "work_provider", "read_requests", "deliver")
"""Where the exchanges form sets of what waits: the steps of a round trip between its acceptance and its collection."""
_DURABLE: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_TIMEOUT_S: Final = 10.0
_READY_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.2
_OK: Final = 200


class Servers(msgspec.Struct, frozen=True):
    """What both servers say of themselves."""

    postgresql: str
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    wal_sync_method: str
    shared_buffers: str


class Formed(msgspec.Struct, frozen=True):
    """How many lines the exchanges' stages have carried so far, in how many sets."""

    lines: float
    sets: float

    def size_since(self, before: "Formed") -> int:
        """Return the mean size of the sets since then, at least 1."""
        sets = self.sets - before.sets
        return max(1, round((self.lines - before.lines) / sets)) if sets > 0 else 1


def place() -> Place:
    """Return where the benchmark's installation lies."""
    return Place(CLONE / "var" / "bench", state_folder() / "bench")


async def servers(running: Running) -> Servers:
    """Return what both servers say of their durability.

    Raises:
        Problem: setting_invalid, naming the setting that would let a commit be answered before it is on disk.
    """
    names = ["server_version", *_DURABLE, "wal_sync_method", "shared_buffers"]
    told: dict[str, str] = {}
    for cell in CELLS:
        admin = await running.databases.admin(cell)
        try:
            # As the broker's own sessions have it: what its role sets goes before what the server sets.
            for name in names:
                told[name] = await admin.fetchval("SELECT current_setting($1)", name)
            role = await admin.fetchval(
                "SELECT s FROM pg_roles r, unnest(r.rolconfig) s"
                " WHERE r.rolname = 'chukan_broker' AND s LIKE 'synchronous_commit=%'"
            )
        finally:
            await admin.close()
        told["synchronous_commit"] = (role or f"={told['synchronous_commit']}").partition("=")[2]
        for name, wanted in _DURABLE.items():
            if told[name] != wanted:
                raise Problem("setting_invalid", pointer=f"/cells/{cell}/{name}", expected=wanted)
    return Servers(postgresql=told.pop("server_version"), **told)


class HouseholdLodging(Lodging):
    """Lodges what the benchmark asks for, and acquires the codes of those whom it asks about and for."""

    def sets(self) -> list[tuple[str, str]]:
        """Return the mayors, each with household information."""
        return [(cast.head(body), RESIDENT) for body in cast.HEADS]

    async def lodge(self, advance: Advance) -> None:
        """Send each mayor's copies as a full load; ``advance`` counts copies."""
        await self.lodge_whole(advance)

    async def acquire(self, advance: Advance) -> None:
        """Acquire the codes of everybody whom a mayor knows; ``advance`` counts people."""

        async def one(which: tuple[str, str]) -> None:
            agency, _ = which
            people = {
                addressee_number(person, agency): person.resident_code for person in self._population.coded(agency)
            }
            await AddresseeSystem(self._systems.agencies[agency], self._systems.registry).acquire(people)
            advance(len(people))

        await for_each(self.sets(), one)

    def people(self) -> int:
        """Return how many linkage codes shall be acquired."""
        return sum(len(self._population.coded(agency)) for agency, _ in self.sets())


async def agencies(running: Running) -> list[AgencyRow]:
    """Return the agencies of the common data in force. Raises ``Problem``."""
    async with open_installation(load(running.place.operator, os.environ)) as installation:
        return list((await installation.snapshot()).agencies)


async def lodge(running: Running, systems: Systems, screen: Screen) -> None:
    """Lodge the copies and acquire the codes, with progress on the screen."""
    await HouseholdLodging(running, systems).show(screen)


async def until_ready(running: Running) -> None:
    """Wait until both exchanges serve. Raises ``Problem`` deadline_exceeded."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S), aiohttp.ClientSession() as session:
            for name in EXCHANGES:
                url = f"{running.addresses.health_url(name)}/readyz"
                while not await _answers(session, url):  # noqa: ASYNC110 - another process cannot set an event of ours
                    await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise Problem("deadline_exceeded") from None


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as response:
            return response.status == _OK
    except aiohttp.ClientError:
        return False


async def formed(running: Running) -> Formed:
    """Return what the stages of both exchanges have carried so far, from their own metrics. Raises ``Problem``."""
    lines = sets = 0.0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
        for name in EXCHANGES:
            try:
                async with session.get(f"{running.addresses.health_url(name)}/metrics") as response:
                    text = await response.text()
            except (aiohttp.ClientError, TimeoutError):
                raise Problem("unavailable") from None
            found = carried(text)
            lines, sets = lines + found.lines, sets + found.sets
    return Formed(lines, sets)


def carried(metrics: str) -> Formed:
    """Return what the metrics of one exchange say of the stages of a round trip."""
    totals: Mapping[str, list[float]] = {"chukan_stage_items_total": [], "chukan_stage_sets_total": []}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in totals and sample.labels.get("stage", "").rpartition("_")[0] in STAGES:
                totals[sample.name].append(sample.value)
    return Formed(sum(totals["chukan_stage_items_total"]), sum(totals["chukan_stage_sets_total"]))
