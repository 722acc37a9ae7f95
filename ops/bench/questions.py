"""What the benchmark asks: the household (住民票関係情報) of residents who moved this year.

The new mayor asks the former one. Every question is one that must be answered in full: the law permits it, both sides
have the person's linkage code, nobody holds it back, and the copy is complete. Inquirers of both cells take turns, so
that each cell carries as much of the inquirer's work as the other. Pure.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.demo.population import PROTECTED_ONE_IN, UNCODED_ONE_IN, Population
from chukan.ops.sandbox.people import addressee_number
from chukan.ops.sandbox.person_values import RESIDENT
from chukan.platform.law import Law, Verdict
from chukan.platform.wire.agency import QueryLine
from chukan.platform.wire.network import Condition

PROCEDURE: Final = "JTX0000000000099"
DEPARTMENT: Final = "福祉課"

T = TypeVar("T")


class Question(NamedTuple):
    """One question, and the number under which the provider knows the same person."""

    inquirer: str
    line: QueryLine
    provider_addressee: str


def ask(population: Population, law: Law) -> dict[str, list[Question]]:
    """Return each inquirer's questions, inquirers of both cells in turn.

    Raises:
        Problem: invalid_field, when the people are so few that some municipality has nobody to ask about.
    """
    found: dict[str, list[Question]] = {code: [] for code in in_turn([cast.head(body) for body in cast.HEADS])}
    for resident in population.residents:
        if resident.before is None or resident.one_in(UNCODED_ONE_IN) or resident.one_in(PROTECTED_ONE_IN):
            continue
        inquirer, provider = cast.head(resident.now.body_code), cast.head(resident.before.body_code)
        if not _permitted(law, inquirer, provider, population):
            continue
        line = QueryLine(
            addressee=addressee_number(resident.now, inquirer),
            kind=RESIDENT,
            provider=provider,
            affair=law.procedures[PROCEDURE].affair,
            procedure=PROCEDURE,
            department=DEPARTMENT,
            condition=Condition(),
        )
        found[inquirer].append(Question(inquirer, line, addressee_number(resident.before, provider)))
    if not all(found.values()):
        raise Problem("invalid_field", pointer="/people", expected="more people")
    return found


def in_turn(agencies: Sequence[str]) -> list[str]:
    """Return agencies so that the cells that they live in take turns, as far as there are as many in each."""
    homes: dict[str | None, list[str]] = {}
    for agency in agencies:
        homes.setdefault(cast.home(agency), []).append(agency)
    return list(dict.fromkeys(evenly(list(homes.values()))))


def evenly(groups: Sequence[Sequence[T]]) -> list[T]:
    """Return the first of each group, then the second of each, and so on; shorter groups begin again.

    No group is empty.
    """
    longest = max(map(len, groups), default=0)
    return [group[n % len(group)] for n in range(longest) for group in groups]


def _permitted(law: Law, inquirer: str, provider: str, population: Population) -> bool:
    decision = law.decide(
        inquirer=inquirer,
        provider=provider,
        affair=law.procedures[PROCEDURE].affair,
        procedure=PROCEDURE,
        kind=RESIDENT,
        day=population.day,
    )
    return decision.verdict is Verdict.YES
