"""The operators' register (運用者名簿): who may act for the operator, in which roles, on which days.

It is one file of the master data (``operators.csv``), so that it changes as these do: proposed by one person, approved
by another, shown as a difference, in force everywhere at one instant. A row names a certificate (``operator.…``); one
certificate may have several rows. Days are days in Japan, both included.

Roles: ``observe`` looks, and every other role includes it; ``operate`` brings agencies, systems, links, stops and
notices; ``masters`` proposes and approves master data; ``security`` has to do with keys, orders, incidents and this
register. None of them reads what agencies hold: that takes the agencies' keys, which no role opens.

Invariant: pure; deny by default once there is a register — an empty one is a register that does not exist yet. A
register that two people could not change any more is refused.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["observe", "operate", "masters", "security"]
FILE: Final = "operators.csv"
PERSONS_MIN: Final = 2
ROWS_MAX: Final = 1_000
_ROLES: Final = frozenset(get_args(Role))
_NAME: Final = re.compile(r"operator\.[A-Za-z0-9][A-Za-z0-9._-]{0,54}")


@dataclass(frozen=True, slots=True)
class Operator:
    """One row: a certificate's name, roles, and the days from first to last."""

    name: str
    roles: frozenset[str]
    first: dt.date
    last: dt.date | None

    def in_force(self, day: dt.date) -> bool:
        """Tell whether the row holds on this day."""
        return self.first <= day and (self.last is None or day <= self.last)


@dataclass(frozen=True, slots=True)
class Register:
    """All rows; without any there is no register, and whoever has a certificate named so is an operator."""

    operators: tuple[Operator, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, str]]) -> Register:
        """Return a register from the rows of its file. Raises ``ValueError`` without quoting a value."""
        operators = tuple(_operator(number, row) for number, row in enumerate(rows, start=1))
        if len(operators) > ROWS_MAX:
            raise ValueError(f"{FILE}: at most {ROWS_MAX} rows")
        return cls(operators)

    def roles(self, name: str, day: dt.date) -> frozenset[str]:
        """Return the roles that somebody has on a day; none is nobody's."""
        found = [each.roles for each in self.operators if each.name == name and each.in_force(day)]
        held = frozenset[str]().union(*found)
        return held | {"observe"} if held else held

    def may(self, name: str, role: Role, day: dt.date) -> bool:
        """Tell whether somebody has a role on a day; where there is no register, everybody has."""
        return not self.operators or role in self.roles(name, day)

    def changeable(self, day: dt.date) -> bool:
        """Tell whether two people can still change it from a day on: both have masters and security, with no end."""
        able = {
            each.name
            for each in self.operators
            if {"masters", "security"} <= self.roles(each.name, day) and each.last is None and each.in_force(day)
        }
        return len(able) >= PERSONS_MIN


def _operator(number: int, row: Mapping[str, str]) -> Operator:
    try:
        name, roles = row["name"], frozenset(row["roles"].split())
        first, last = dt.date.fromisoformat(row["first"]), row["last"]
        until = dt.date.fromisoformat(last) if last else None
    except (KeyError, ValueError):
        raise ValueError(f"{FILE}: row {number}: name, roles, first, last") from None
    if _NAME.fullmatch(name) is None or not roles or not roles <= _ROLES or (until is not None and until < first):
        raise ValueError(f"{FILE}: row {number}: a name operator.…, roles of {', '.join(sorted(_ROLES))}, days")
    return Operator(name, roles, first, until)
