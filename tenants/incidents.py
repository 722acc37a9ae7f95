"""Incidents (漏えい等事案, 番号法29条の4): what operators wrote down, and how many an agency's period touches.

An incident is a list of steps in the cell that has the links: opened, amended, reported, closed. Nobody changes or
deletes one, and each is an operator's act in the operations log, in the same commit.

Invariant: nothing here names a person, and nothing is opened: an operator gets agencies and counts, which come from
what is clear in the records (labels and instants). Text that an operator writes holds nobody's number.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants.directory import AgencyCode
from chukan.tenants.link_calls import fetch
from chukan.tenants.numbers import find_forbidden

AGENCIES_MAX: Final = 5_000
STEPS_MAX: Final = 10_000
PERIOD_MAX: Final = dt.timedelta(days=366 * 7)
_PLAIN: Final = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"

Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(max_length=4_000, pattern=_PLAIN)]
Step = Literal["open", "amend", "reported", "close"]


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What is known of an incident; each later step replaces what it names."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_PLAIN)] | None = None
    known_at: Instant | None = None
    """When it became known (事態を知った時点): from then on the deadlines run."""
    wrongful: bool | None = None
    """Whether it may have been done for a wrongful purpose (不正の目的): 60 days instead of 30."""
    since: Instant | None = None
    until: Instant | None = None
    """The period whose records are affected, the end not included."""
    agencies: Annotated[list[AgencyCode], msgspec.Meta(max_length=AGENCIES_MAX)] | None = None
    kinds: Annotated[list[str], msgspec.Meta(max_length=1_000)] | None = None
    """Kinds of information (TM codes), where it is known that no other is affected."""
    summary: Text | None = None
    cause: Text | None = None
    secondary: Text | None = None
    to_persons: Text | None = None
    publication: Text | None = None
    prevention: Text | None = None
    other: Text | None = None
    report: Literal["preliminary", "final"] | None = None
    """Of a step ``reported``: which report was given (速報, 確報)."""


class Entered(NamedTuple):
    """One step as it was entered."""

    n: int
    step: Step
    who: str
    facts: Facts
    at: dt.datetime


class Incident(NamedTuple):
    """An incident as its steps leave it."""

    id: uuid.UUID
    facts: Facts
    steps: tuple[Entered, ...]

    @property
    def closed(self) -> bool:
        """Whether its last step closed it."""
        return self.steps[-1].step == "close"


class Count(NamedTuple):
    """How much of an agency a period touches at most."""

    agency: int
    records: int
    persons: int


def check_facts(facts: Facts) -> None:
    """Refuse what must not be written down.

    Raises ``Problem``: individual_number_present, resident_code_present in a text; invalid_field for a period that ends
    before it begins or is longer than records are kept.
    """
    for name in Facts.__struct_fields__:
        value = getattr(facts, name)
        found = find_forbidden(value) if isinstance(value, str) else None
        if found is not None:
            raise Problem(f"{found}_present", pointer=f"/{name}")
    if (
        facts.since is not None
        and facts.until is not None
        and not (dt.timedelta(0) < facts.until - facts.since <= PERIOD_MAX)
    ):
        raise Problem("invalid_field", pointer="/until", expected="a period of at most seven years")


async def enter(cells: Cells, cell: str, incident: uuid.UUID, step: Step, who: str, facts: Facts) -> None:
    """Enter a step, durably, with the operator's act.

    Raises ``Problem``: as ``check_facts``; not_found for an incident that was not opened; conflict for one that is
    closed, or a second opening; as the cell does.
    """
    check_facts(facts)
    sql = "SELECT chukan.incident_enter($1, $2, $3, $4)"
    async with cells.steward(cell) as connection:
        ((word,),) = await fetch(connection, sql, incident, step, who, msgspec.json.encode(facts).decode())
    if word == "unknown":
        raise Problem("not_found")
    if word != "entered":
        raise Problem("incident_state")


async def read_incidents(cells: Cells, cell: str) -> list[Incident]:
    """Return incidents in the order in which they were opened. Raises ``Problem`` as the cell does."""
    async with cells.steward(cell) as connection:
        rows = await fetch(connection, "SELECT * FROM chukan.incident_steps($1)", STEPS_MAX)
    steps: dict[uuid.UUID, list[Entered]] = {}
    for row in rows:
        facts = msgspec.json.decode(row["body"], type=Facts)
        steps.setdefault(row["id"], []).append(Entered(row["n"], row["step"], row["who"], facts, row["at"]))
    return [Incident(each, _joined(taken), tuple(taken)) for each, taken in steps.items()]


def _joined(steps: list[Entered]) -> Facts:
    given = {
        name: value
        for step in steps
        for name in Facts.__struct_fields__
        if name != "report" and (value := getattr(step.facts, name)) is not None
    }
    return Facts(**given)


async def count_affected(cells: Cells, cell: str, agency: int, since: dt.datetime, until: dt.datetime) -> Count:
    """Count the records of one agency that were closed in a period, and the labels of persons among them.

    An upper bound: no kind is looked at, and a person whom the agency does not know counts once a record.
    """
    sql = "SELECT * FROM chukan.incident_counts($1, $2, $3)"
    async with cells.steward(cell) as connection:
        (row,) = await fetch(connection, sql, agency, since, until)
    return Count(agency, row["records"], row["persons"])
