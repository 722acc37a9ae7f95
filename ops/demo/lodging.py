"""The first half of the main job: agencies lodge copies from files (副本登録) and acquire linkage codes (符号取得).

Copies go through load sessions, whole kinds first and then a difference, exactly as a municipal system would send them.
"""

from collections.abc import Sequence

import msgspec

from chukan.errors import Problem
from chukan.ops.demo import cast, files
from chukan.ops.demo.bring_up import Running
from chukan.ops.demo.screen import Advance, Screen
from chukan.ops.demo.systems import Systems, for_each
from chukan.ops.sandbox.people import addressee_number
from chukan.ops.sandbox.person_values import TAX
from chukan.ops.sandbox.systems import AddresseeSystem
from chukan.platform.law import Layout
from chukan.platform.wire.agency import CopyExport, CopyLine, Gap, LoadOpen

CORRECTED: int = 20
"""Local tax copies that one municipality corrects by a difference."""
_LIST_MAX: int = 1000
_UNDER_EXAMINATION = Gap(gap="04")


class Lodging:
    """Lodges copies and acquires codes for all agencies."""

    def __init__(self, running: Running, systems: Systems) -> None:
        """Work on a running demo with its systems."""
        self._running = running
        self._systems = systems
        self._population = running.population
        self._law = running.law

    async def show(self, screen: Screen) -> None:
        """Lodge all copies, then acquire all codes, with progress on the screen."""
        with screen.bar("copies (副本) from files", self.expected()) as advance:
            await self.lodge(advance)
        with screen.bar("linkage codes (符号)", self.people()) as advance:
            await self.acquire(advance)

    # ------------------------------------------------------------ copies

    def sets(self) -> list[tuple[str, str]]:
        """Return which agency lodges copies of which kind."""
        return [
            (agency.code, kind) for agency in cast.agencies() for kind in self._population.kinds_lodged(agency.code)
        ]

    async def lodge(self, advance: Advance) -> None:
        """Write the files, send each as a full load, then one difference; ``advance`` counts copies."""
        await self.lodge_whole(advance)
        agency, kind = self._corrected()
        await self._load(agency, kind, self._corrections(agency, kind), "difference")

    async def lodge_whole(self, advance: Advance) -> None:
        """Write the files and send each as a full load; ``advance`` counts copies."""

        async def one(which: tuple[str, str]) -> None:
            agency, kind = which
            copies = list(self._population.copies(agency, kind, self._law))
            await self._load(agency, kind, copies, "full")
            advance(len(copies))

        await for_each(self.sets(), one)

    def expected(self) -> int:
        """Return how many copies the files hold."""
        return sum(sum(1 for _ in self._population.copies(agency, kind, self._law)) for agency, kind in self.sets())

    @staticmethod
    def _corrected() -> tuple[str, str]:
        return cast.head(next(iter(cast.HEADS))), TAX

    def _corrections(self, agency: str, kind: str) -> list[CopyLine]:
        """Return copies in which one item is still being examined, in place of what was registered."""
        copies = list(self._population.copies(agency, kind, self._law))[:CORRECTED]
        last = list(self._layout(kind, copies[0].layout).items)[-1]
        return [msgspec.structs.replace(copy, items={**copy.items, last: _UNDER_EXAMINATION}) for copy in copies]

    def _layout(self, kind: str, version: int) -> Layout:
        return self._law.layout_for(kind, version, self._population.day)

    async def _load(self, agency: str, kind: str, copies: Sequence[CopyLine], mode: str) -> None:
        if not copies:
            return
        client = self._systems.agencies[agency]
        layout = self._layout(kind, copies[0].layout)
        parts = files.write_parts(self._running.place.files, f"{agency}-{kind}-{mode}", copies, layout)
        opening = LoadOpen(
            kind=kind,
            layout=layout.version,
            mode="full" if mode == "full" else "difference",
            expected=len(copies),
            period=copies[0].period,
        )
        load = await client.open_load(opening)
        for number, part in enumerate(parts, start=1):
            await client.put_part(load.id, number, part.path, media_type=part.media_type)
        done = await client.commit_load(load.id, [part.digest for part in parts])
        if done.state != "committed":
            raise Problem("load_held_for_officer")

    async def count_copies(self) -> int:
        """Return how many copies the platform holds, as the agencies' own exports tell (原本照合)."""
        counts: list[int] = []

        async def one(which: tuple[str, str]) -> None:
            agency, kind = which
            after: str | None = None
            while True:
                page = await self._systems.agencies[agency].export_copies(CopyExport(kind=kind, after=after))
                counts.append(len(page.copies))
                after = page.next
                if after is None:
                    return

        await for_each(self.sets(), one)
        return sum(counts)

    # ------------------------------------------------------------ linkage codes

    async def acquire(self, advance: Advance) -> None:
        """Acquire the linkage codes of everybody who shall have one; ``advance`` counts people."""

        async def one(agency: str) -> None:
            people = {
                addressee_number(person, agency): person.resident_code for person in self._population.coded(agency)
            }
            system = AddresseeSystem(self._systems.agencies[agency], self._systems.registry)
            await system.acquire(people)
            advance(len(people))

        await for_each([agency.code for agency in cast.agencies()], one)

    def people(self) -> int:
        """Return how many linkage codes shall be acquired."""
        return sum(len(self._population.coded(agency.code)) for agency in cast.agencies())

    async def count_codes(self) -> int:
        """Return how many people have an active link, as the platform tells."""
        counts: list[int] = []

        async def one(agency: str) -> None:
            numbers = [addressee_number(person, agency) for _, person in self._population.roll(agency)]
            for start in range(0, len(numbers), _LIST_MAX):
                found = await self._systems.agencies[agency].search_codes(numbers[start : start + _LIST_MAX])
                counts.append(sum(line.status == "active" for line in found.lines))

        await for_each([agency.code for agency in cast.agencies()], one)
        return sum(counts)
