"""What a synthetic resident is, and the reproducible draws that all their facts come from.

Invariant: a draw depends on its key only (seed, body, person, purpose), never on what was drawn before elsewhere, so
that people and copies can be made in any order and again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Person:
    """A synthetic resident; ``serial`` is their place in the seed's nation, ``household`` the number of 15 digits."""

    serial: int
    body_code: str
    individual_number: str
    resident_code: str
    family: str
    given: str
    family_kana: str
    given_kana: str
    birth_date: date
    sex: str
    """1 male, 2 female."""
    household: str
    household_size: int
    relation: str
    """Relation to the head of the household (続柄)."""
    head_name: str
    address: str
    resident_since: date

    @property
    def name(self) -> str:
        """Family and given name as they are written, with an ideographic space."""
        return f"{self.family}\u3000{self.given}"

    @property
    def name_kana(self) -> str:
        """The reading of the name, with an ideographic space."""
        return f"{self.family_kana}\u3000{self.given_kana}"

    def age_on(self, day: date) -> int:
        """Return the age in whole years, 0 before birth."""
        had_birthday = (day.month, day.day) >= (self.birth_date.month, self.birth_date.day)
        return max(0, day.year - self.birth_date.year - (0 if had_birthday else 1))


class Draws:
    """A short stream of reproducible draws from one key; 512 bits are plenty for one person and one purpose."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.blake2b("|".join(map(str, key)).encode()).digest()
        self._left = int.from_bytes(digest, "big")

    def below(self, n: int) -> int:
        """Return a number from 0 to n - 1."""
        self._left, drawn = divmod(self._left, n)
        return drawn

    def between(self, least: int, most: int) -> int:
        """Return a number between both, inclusive."""
        return least + self.below(most - least + 1)

    def one_in(self, n: int) -> bool:
        """Return True one time in n."""
        return self.below(n) == 0

    def choose(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def day(self, earliest: date, latest: date) -> date:
        """Return a day between both, inclusive."""
        return earliest + timedelta(days=self.below((latest - earliest).days + 1))
