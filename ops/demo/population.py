"""The demo's residents, which agency knows whom, and which copies (副本) it lodges: the same seed, the same people.

One resident in three has moved this year: two bodies know the same person, under different numbers of their own, and
only the network can tell that they are one. That is what makes an agency ask another one.

Pure: nothing here reads a file, a clock or a socket.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from chukan.ops.demo import cast
from chukan.ops.sandbox.people import Person, addressee_number, copy_values, generate
from chukan.ops.sandbox.person_values import (
    CARE_INSURANCE,
    CHILD_ALLOWANCE,
    DISABILITY,
    HEALTH_INSURANCE,
    PUBLIC_ASSISTANCE,
    RESIDENT,
    TAX,
)
from chukan.platform.law import Law
from chukan.platform.wire.agency import CopyLine
from chukan.tenants import bodies
from chukan.tenants.bodies import AgencyKind

MOVED_ONE_IN: Final = 3
_MOVE_NEAR_ONE_IN: Final = 3
"""Of those who moved, one in so many stayed in their half of the country."""
PUPIL_ONE_IN: Final = 5
DISABLED_ONE_IN: Final = 7
PROTECTED_ONE_IN: Final = 25
"""Residents whose household copies never leave without an officer's decision (支援措置)."""
UNCODED_ONE_IN: Final = 41
"""Residents for whom no linkage code (符号) has been acquired yet."""
_LODGED_ONE_IN: Final = {HEALTH_INSURANCE: 2, CHILD_ALLOWANCE: 4, PUBLIC_ASSISTANCE: 8}
"""Kinds of which an agency lodges a copy for some of the residents only."""
_ELDERLY: Final = 75
_TAX_DAY: Final = (6, 1)
_YEAR_DAY: Final = (4, 1)


def _half(body: str) -> str | None:
    return cast.home(cast.head(body))


@dataclass(frozen=True, slots=True)
class Resident:
    """One person as the body of today knows them, and as the body that they left this year does."""

    number: int
    now: Person
    before: Person | None

    def at(self, body: str) -> Person | None:
        """Return the person as a body knows them, None where it does not."""
        if self.now.body_code == body:
            return self.now
        return self.before if self.before is not None and self.before.body_code == body else None

    def one_in(self, n: int) -> bool:
        """Tell whether this is every n-th resident."""
        return self.number % n == 0


class Population:
    """Everybody in the demo, seen from each agency."""

    def __init__(self, people: int, seed: int, day: dt.date) -> None:
        """``people`` residents; ``day`` is today in Japan, from which the years of copies follow."""
        self.people, self.seed, self.day = people, seed, day
        self.tax_year = day.year if (day.month, day.day) >= _TAX_DAY else day.year - 1
        """The newest year for which local tax has been assessed."""

    @cached_property
    def residents(self) -> tuple[Resident, ...]:
        """All residents, those of one first home together."""
        residents: list[Resident] = []
        for body in cast.HEADS:
            for person in generate(body, self.began_in(body), self.seed):
                residents.append(self._settle(person, len(residents)))
        return tuple(residents)

    def began_in(self, body: str) -> int:
        """Return how many residents began the year in a municipality."""
        return max(MOVED_ONE_IN, self.people * cast.HEADS[body] // sum(cast.HEADS.values()))

    def _settle(self, person: Person, number: int) -> Resident:
        if number % MOVED_ONE_IN:
            return Resident(number, person, None)
        mover = number // MOVED_ONE_IN
        far = mover % _MOVE_NEAR_ONE_IN != 0
        homes = [body for body in cast.HEADS if (_half(body) != _half(person.body_code)) is far]
        to = [body for body in homes if body != person.body_code]
        return Resident(number, self._moved(person, to[mover % len(to)]), person)

    def _moved(self, person: Person, to: str) -> Person:
        old, new = bodies.body(person.body_code), bodies.body(to)
        if old is None or new is None:
            raise ValueError("people move between bodies of the directory data")
        street = person.address.removeprefix(old.prefecture + old.name)
        # Movers came after the day on which tax is fixed, 1 January, so that the former body holds their tax copy.
        since = dt.date(self.day.year, 1, 2) + dt.timedelta(days=person.serial % 20)
        return replace(person, body_code=to, address=f"{new.prefecture}{new.name}{street}", resident_since=since)

    @cached_property
    def _rolls(self) -> dict[str, tuple[tuple[Resident, Person], ...]]:
        return {agency.code: tuple(self._known_to(agency.code)) for agency in cast.agencies()}

    def roll(self, agency: str) -> Sequence[tuple[Resident, Person]]:
        """Return whom an agency knows, each with the face of them that it knows."""
        return self._rolls[agency]

    def _known_to(self, agency: str) -> Iterator[tuple[Resident, Person]]:
        entry = cast.entry(agency)
        body = cast.GOVERNED if entry.body == cast.GOVERNOR and entry.kind is AgencyKind.HEAD else entry.body
        body = cast.UNIONS.get(agency, body)
        for resident in self.residents:
            person = resident.at(body)
            if person is not None and self._is_known(entry, body, resident, person):
                yield resident, person

    def _is_known(self, entry: bodies.AgencyEntry, body: str, resident: Resident, person: Person) -> bool:
        lives_here = resident.now.body_code == body
        if entry.kind is AgencyKind.JOINT:
            return lives_here and self.is_elderly(person)
        if entry.kind is AgencyKind.BOARD:
            return lives_here and resident.one_in(PUPIL_ONE_IN)
        return entry.body == body or resident.one_in(DISABLED_ONE_IN)

    def is_elderly(self, person: Person) -> bool:
        """Tell whether a person belongs to the late-stage elderly (後期高齢者)."""
        return person.age_on(self.day) >= _ELDERLY

    def coded(self, agency: str) -> list[Person]:
        """Return the people for whom an agency acquires linkage codes (符号): all that it knows but a few."""
        return [person for resident, person in self.roll(agency) if not resident.one_in(UNCODED_ONE_IN)]

    # ------------------------------------------------------------ copies

    def kinds_lodged(self, agency: str) -> tuple[str, ...]:
        """Return the kinds of which an agency lodges copies."""
        entry = cast.entry(agency)
        if entry.kind is AgencyKind.BOARD:
            return ()
        if entry.kind is AgencyKind.JOINT:
            return (HEALTH_INSURANCE,)
        if entry.body == cast.GOVERNOR:
            return (DISABILITY, PUBLIC_ASSISTANCE)
        return (RESIDENT, TAX, HEALTH_INSURANCE, CHILD_ALLOWANCE, CARE_INSURANCE)

    def lodges(self, agency: str, kind: str, resident: Resident, person: Person) -> bool:
        """Tell whether an agency that knows a resident lodges a copy of a kind about them."""
        if kind == TAX:  # where the person lived on 1 January
            return resident.before is None or resident.before is person
        if kind == CARE_INSURANCE:
            return self.is_elderly(person)
        if cast.entry(agency).kind is AgencyKind.JOINT:
            return True
        return resident.one_in(_LODGED_ONE_IN.get(kind, 1))

    def copies(self, agency: str, kind: str, law: Law) -> Iterator[CopyLine]:
        """Yield the copies of one kind that an agency lodges, in the newest layout in force."""
        layout = law.layouts_in_force(kind, self.day)[-1]
        by_year = law.kinds[kind].period == "year"
        for resident, person in self.roll(agency):
            if not self.lodges(agency, kind, resident, person):
                continue
            year = self.tax_year
            yield CopyLine(
                addressee=addressee_number(person, agency),
                kind=kind,
                layout=layout.version,
                effective_from=self._effective_from(kind, person),
                items=copy_values(person, kind, layout, year, self.seed),
                period=str(year) if by_year else "",
                review=kind == RESIDENT and resident.one_in(PROTECTED_ONE_IN),
            )

    def _effective_from(self, kind: str, person: Person) -> dt.date:
        if kind == TAX:
            return dt.date(self.tax_year, *_TAX_DAY)
        if kind == RESIDENT:
            return person.resident_since
        return dt.date(self.tax_year, *_YEAR_DAY)
