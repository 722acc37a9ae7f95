"""Who asks whom about whom in a drill, and the copy that answers: made from the sandbox's own population.

A case is one person whom two agencies of the platform know under numbers of their own: the inquirer asks, the provider
keeps a copy that the drill registers again and again with another value in one item, the ``mark``, so that every answer
tells which registration it was made from.

Pure; the people are synthetic. Nothing of a case but its ``subject``, a number of the drill's own, enters a journal.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from chukan.ops.demo import cast
from chukan.ops.demo.population import UNCODED_ONE_IN, Population
from chukan.ops.sandbox.people import addressee_number
from chukan.ops.sandbox.person_values import TAX
from chukan.platform.law import ItemType, Law, Verdict
from chukan.platform.wire.agency import CopyLine, Gap, QueryLine
from chukan.platform.wire.network import Condition

PROCEDURE: Final = "JTX0000000000001"
MARK_MAX: Final = 900_000
"""A mark is an amount of money that no other item of a synthetic person needs to agree with."""
_MARK_BYTES: Final = 6


class Case(msgspec.Struct, frozen=True):
    """One person: the question, the copy that answers it, and the item that carries the mark."""

    subject: str
    inquirer: str
    provider: str
    question: QueryLine
    copy: CopyLine
    mark: str

    def registration(self, version: int) -> CopyLine:
        """Return the copy with a version's mark."""
        return msgspec.structs.replace(self.copy, items={**self.copy.items, self.mark: str(version % MARK_MAX)})


def make_cases(population: Population, law: Law, agencies: Iterable[str] | None = None) -> Iterator[Case]:
    """Yield the cases of a population; only between the agencies given, where any are."""
    among = None if agencies is None else set(agencies)
    lodged: dict[str, Mapping[str, CopyLine]] = {}
    for resident in population.residents:
        if resident.before is None or resident.one_in(UNCODED_ONE_IN):
            continue
        inquirer, provider = cast.head(resident.now.body_code), cast.head(resident.before.body_code)
        if among is not None and not {inquirer, provider} <= among:
            continue
        if provider not in lodged:
            lodged[provider] = {copy.addressee: copy for copy in population.copies(provider, TAX, law)}
        copy = lodged[provider].get(addressee_number(resident.before, provider))
        question = _question(law, population, inquirer, provider, addressee_number(resident.now, inquirer))
        mark = None if copy is None else _mark(law, copy, population)
        if copy is not None and question is not None and mark is not None:
            yield Case(f"s{resident.number}", inquirer, provider, question, copy, mark)


def _question(law: Law, population: Population, inquirer: str, provider: str, addressee: str) -> QueryLine | None:
    affair = law.procedures[PROCEDURE].affair
    decision = law.decide(
        inquirer=inquirer, provider=provider, affair=affair, procedure=PROCEDURE, kind=TAX, day=population.day
    )
    if decision.verdict is not Verdict.YES:
        return None
    return QueryLine(
        addressee=addressee,
        kind=TAX,
        provider=provider,
        affair=affair,
        procedure=PROCEDURE,
        department="切替訓練",
        condition=Condition(period="1", year=str(population.tax_year)),
    )


def _mark(law: Law, copy: CopyLine, population: Population) -> str | None:
    """Return the last item that may be answered and is an amount, None where there is none."""
    layout = law.layout_for(copy.kind, copy.layout, population.day)
    allowed = law.allowed_items(PROCEDURE, copy.kind, population.day)
    amounts = [code for code, item in layout.items.items() if item.type is ItemType.AMOUNT and code in allowed]
    return amounts[-1] if amounts else None


def marks_of(items: Mapping[str, str | Gap], salt: bytes) -> dict[str, str]:
    """Return a short salted digest of each item, for journals: equal values are seen to be equal, and none is told."""
    return {
        code: hashlib.blake2b(
            _text(value).encode(), key=salt, person=b"drill mark", digest_size=_MARK_BYTES
        ).hexdigest()
        for code, value in items.items()
    }


def _text(value: str | Gap) -> str:
    return f"gap {value.gap}" if isinstance(value, Gap) else f"value {value}"


def share_out(cases: Sequence[Case], agencies: Sequence[str], each: int) -> dict[str, list[Case]]:
    """Return at most ``each`` cases for every inquirer among the agencies, of as many providers as there are."""
    found: dict[str, list[Case]] = {agency: [] for agency in agencies}
    for turn in range(each):
        for agency in agencies:
            taken = found[agency]
            counts = {provider: sum(case.provider == provider for case in taken) for provider in agencies}
            free = [case for case in cases if case.inquirer == agency and case.provider in counts and case not in taken]
            if len(taken) == turn and free:
                taken.append(min(free, key=lambda case: counts[case.provider]))
    return found
