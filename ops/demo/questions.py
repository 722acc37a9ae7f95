"""What is asked in the demo: mostly what moving house and daily work bring, and some of everything that may happen.

Each planned query carries its aim, the outcome that it is meant to show; what really came out is counted from the
answers, never from here. A later run asks about other people. Pure, like the population that it draws on.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from chukan.ops.demo import cast
from chukan.ops.demo.population import PROTECTED_ONE_IN, UNCODED_ONE_IN, Population, Resident
from chukan.ops.sandbox.people import addressee_number
from chukan.ops.sandbox.person_values import (
    ACCOUNT,
    CARE_INSURANCE,
    DISABILITY,
    HEALTH_INSURANCE,
    RESIDENT,
    TAX,
)
from chukan.platform.law import Law, Verdict
from chukan.platform.wire.agency import QueryLine
from chukan.platform.wire.network import Condition
from chukan.tenants.bodies import AgencyKind

Aim = Literal[
    "answered", "withheld", "no_record", "no_code", "not_permitted", "stopped", "released", "refused", "expired",
    "cancelled", "bad_request",
]  # fmt: skip

STOPPED: Final = (HEALTH_INSURANCE, "JTX0000000000009")
"""Kind and procedure on which the demo's common data has a kill switch."""
TAKEN_BACK: Final = "JTX0000000000014"
LAPSING: Final = "JTX0000000000015"
"""Procedures about which the demo's officers decide nothing: under the one queries are taken back, under the other
they are left until their time is over."""
SHORT_LIVED: Final = (TAKEN_BACK, LAPSING)
"""Procedures for which the demo's network gives permits of a few seconds, so that nobody waits long for their end."""
_DEPARTMENTS: Final = ("税務課", "子育て支援課", "保険年金課", "福祉課", "教育総務課")
_YEARS_BACK: Final = 4
_STRIDE: Final = 7919
"""People stand in the order of their homes; a prime stride takes them from everywhere."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a query is about: who asks, by which number, and whom."""

    inquirer: str
    addressee: str
    provider: str


@dataclass(frozen=True, slots=True)
class Question:
    """A kind of query: under which procedure, of which kind, about whom, and which share (%) of all it is."""

    aim: Aim
    share: int
    procedure: str
    kind: str
    about: Callable[[Population], Iterator[Person]]
    condition: Literal["latest", "this year", "long ago", "wrong"] = "latest"
    withheld: bool = False
    """不開示: the record is kept from the person."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One query to be sent, and what it is meant to show."""

    inquirer: str
    line: QueryLine
    aim: Aim


# ---------------------------------------------------------------- about whom


def _movers(population: Population, *, protected: bool | None = None, coded: bool = True) -> Iterator[Person]:
    """Yield residents who moved this year: the new mayor asks the former one."""
    for resident in population.residents:
        if resident.before is None or resident.one_in(UNCODED_ONE_IN) is coded:
            continue
        if protected is None or resident.one_in(PROTECTED_ONE_IN) is protected:
            yield _asked(resident, cast.head(resident.now.body_code), cast.head(resident.before.body_code))


def _open_movers(population: Population) -> Iterator[Person]:
    return _movers(population, protected=False)


def _protected_movers(population: Population) -> Iterator[Person]:
    return _movers(population, protected=True)


def _uncoded_movers(population: Population) -> Iterator[Person]:
    return _movers(population, coded=False)


def _strangers(population: Population) -> Iterator[Person]:
    """Yield residents about whom a mayor is asked who has never known them."""
    heads = list(cast.HEADS)
    for resident in _coded(population):
        other = heads[resident.number % len(heads)]
        if resident.at(other) is None:
            yield _asked(resident, cast.head(resident.now.body_code), cast.head(other))


def _account_holders(population: Population) -> Iterator[Person]:
    for resident in _coded(population):
        if (resident.before or resident.now).body_code == cast.PROVIDER_KNOWS:
            yield _asked(resident, cast.head(resident.now.body_code), cast.NATIONAL_PROVIDER)


def _pupils(population: Population) -> Iterator[Person]:
    """Yield residents whose board of education asks a mayor: the present one, the former one of those who moved."""
    for body in cast.BOARDS:
        for resident, _ in population.roll(cast.board(body)):
            if not resident.one_in(UNCODED_ONE_IN):
                source = resident.before or resident.now
                yield _asked(resident, cast.board(body), cast.head(source.body_code))


def _elderly(population: Population) -> Iterator[Person]:
    for union, body in cast.UNIONS.items():
        for resident, _ in population.roll(union):
            if not resident.one_in(UNCODED_ONE_IN):
                yield _asked(resident, union, cast.head((resident.before or resident.now).body_code))
                yield _asked(resident, cast.head(body), union)


def _unions_only(population: Population) -> Iterator[Person]:
    return (person for person in _elderly(population) if person.inquirer in cast.UNIONS)


def _members_only(population: Population) -> Iterator[Person]:
    return (person for person in _elderly(population) if person.provider in cast.UNIONS)


def _disabled(population: Population) -> Iterator[Person]:
    """Yield residents whom the governor knows; the mayor of today asks."""
    governor = cast.head(cast.GOVERNOR)
    for resident, _ in population.roll(governor):
        if not resident.one_in(UNCODED_ONE_IN):
            yield _asked(resident, cast.head(resident.now.body_code), governor)


def _coded(population: Population) -> Iterable[Resident]:
    return (resident for resident in population.residents if not resident.one_in(UNCODED_ONE_IN))


def _asked(resident: Resident, inquirer: str, provider: str) -> Person:
    return Person(inquirer, addressee_number(resident.now, inquirer), provider)


# ---------------------------------------------------------------- what is asked

QUESTIONS: Final[tuple[Question, ...]] = (
    Question("answered", 16, "JTX0000000000001", TAX, _movers, "this year"),
    Question("withheld", 1, "JTX0000000000001", TAX, _movers, "this year", withheld=True),
    Question("answered", 10, "JT01010000000214", TAX, _movers),
    Question("answered", 15, "JTX0000000000099", RESIDENT, _open_movers),
    Question("answered", 8, "JTX0000000000008", HEALTH_INSURANCE, _movers),
    Question("answered", 8, "JT01010000000001", ACCOUNT, _account_holders),
    Question("answered", 6, "JTX0000000000004", TAX, _pupils),
    Question("answered", 5, "JTX0000000000010", TAX, _unions_only),
    Question("answered", 3, "JTX0000000000008", HEALTH_INSURANCE, _members_only),
    Question("answered", 4, "JTX0000000000002", DISABILITY, _disabled),
    Question("no_record", 5, "JTX0000000000003", TAX, _movers, "long ago"),
    Question("no_code", 2, "JTX0000000000006", RESIDENT, _uncoded_movers),
    Question("no_code", 3, "JTX0000000000006", TAX, _strangers),
    Question("not_permitted", 4, "JTX0000000000004", CARE_INSURANCE, _pupils),
    Question("stopped", 3, STOPPED[1], STOPPED[0], _movers),
    Question("released", 2, "JTX0000000000099", RESIDENT, _protected_movers),
    Question("refused", 1, "JTX0000000000007", RESIDENT, _protected_movers),
    Question("expired", 1, LAPSING, RESIDENT, _protected_movers),
    Question("cancelled", 1, TAKEN_BACK, RESIDENT, _protected_movers),
    Question("bad_request", 2, "JTX0000000000001", TAX, _movers, "wrong"),
)


def plan(population: Population, law: Law, count: int, run: int) -> list[Planned]:
    """Return about ``count`` queries (at least one of each question); ``run`` chooses other people each time."""
    by_question = [_ask(question, population, law, count, run) for question in QUESTIONS]
    longest = max(len(queries) for queries in by_question)
    # Spread evenly: every stretch of the list holds a bit of everything.
    placed = [
        ((n + 0.5) * longest / len(queries), order, query)
        for order, queries in enumerate(by_question)
        for n, query in enumerate(queries)
    ]
    return [query for _, _, query in sorted(placed, key=lambda each: each[:2])]


def _ask(question: Question, population: Population, law: Law, count: int, run: int) -> list[Planned]:
    people = [person for person in question.about(population) if _fits(question, person, law, population)]
    if not people:
        raise ValueError("a question of the demo is about nobody: take more people")
    people = _mixed(people)
    wanted = max(1, count * question.share // 100)
    start = run * wanted
    return [
        Planned(person.inquirer, _line(question, person, population, law), question.aim)
        for person in (people[(start + n) % len(people)] for n in range(wanted))
    ]


def _mixed(people: list[Person]) -> list[Person]:
    """Return them so that every stretch takes homes evenly, and crosses between cells as often as all of them do."""
    spread = [people[n * _STRIDE % len(people)] for n in range(len(people))] if len(people) % _STRIDE else people
    crossing = [person for person in spread if _crosses(person)]
    others = [person for person in spread if not _crosses(person)]
    placed = [
        ((n + 0.5) / len(some), order, person)
        for order, some in enumerate((crossing, others))
        for n, person in enumerate(some)
    ]
    return [person for _, _, person in sorted(placed, key=lambda each: each[:2])]


def _crosses(person: Person) -> bool:
    return cast.home(person.provider) not in {None, cast.home(person.inquirer)}


def _fits(question: Question, person: Person, law: Law, population: Population) -> bool:
    """Tell whether the law says what the question is meant to show."""
    decision = law.decide(
        inquirer=person.inquirer,
        provider=person.provider,
        affair=law.procedures[question.procedure].affair,
        procedure=question.procedure,
        kind=question.kind,
        day=population.day,
    )
    return (decision.verdict is Verdict.YES) is (question.aim != "not_permitted")


def _line(question: Question, person: Person, population: Population, law: Law) -> QueryLine:
    board = cast.entry(person.inquirer).kind is AgencyKind.BOARD
    department = _DEPARTMENTS[-1] if board else _DEPARTMENTS[int(question.procedure[-2:]) % (len(_DEPARTMENTS) - 1)]
    year = population.tax_year
    conditions = {
        "latest": Condition(),
        "this year": Condition(period="1", year=str(year)),
        "long ago": Condition(period="1", year=str(year - _YEARS_BACK)),
        "wrong": Condition(period="1"),
    }
    return QueryLine(
        addressee=person.addressee,
        kind=question.kind,
        provider=person.provider,
        affair=law.procedures[question.procedure].affair,
        procedure=question.procedure,
        department=department,
        condition=conditions[question.condition],
        withheld=question.withheld,
    )
