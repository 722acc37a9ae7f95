"""The verdict of a drill: what the checkers found, what clients saw, and whether that is within the scenario's bounds.

Pure: journals and evidence in, a verdict out; anybody may judge again from what a report keeps.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from chukan.ops.drills import claims
from chukan.ops.drills.checkers import outage
from chukan.ops.drills.checkers.every import all_faults
from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import WRITES, Account
from chukan.ops.drills.restored import Restored
from chukan.ops.drills.scenario import Scenario
from chukan.ops.drills.vocabulary import ALWAYS

COUNTS: Final = ("lost", "duplicates", "two_writers", "wrong_answers")
_CLAIMS: Final = {
    "found": {"lost"}, "outcomes": {"duplicates"}, "records": {"lost", "duplicates"}, "writers": {"two_writers"},
    "answers": {"wrong_answers"},
}  # fmt: skip
FAULTS_KEPT_MAX: Final = 200
_NEVER_S: Final = 9999.0


class Course(msgspec.Struct, frozen=True):
    """What the runner knows of a drill's course: seconds since it began."""

    begun_at: float
    """When the clients began to work."""
    ended_at: float
    word_at: float | None = None
    word_cell: str = ""
    leaders: dict[str, list[str]] = {}
    """Who led each cell, one after the other."""
    nodes_from: float | None = None
    """When the first node was about to be restarted in good order."""
    moved_agency: str = ""
    """Who was moved to another cell and back."""
    restored: Restored | None = None
    """What was taken back to a moment, where the scenario says that this is meant."""


class Bound(msgspec.Struct, frozen=True):
    """A bound and what was seen."""

    what: str
    limit_s: float
    seen_s: float

    @property
    def held(self) -> bool:
        """Whether it holds."""
        return self.seen_s <= self.limit_s


class Claim(msgspec.Struct, frozen=True):
    """Something that must hold, in words, and whether it did; None where it could not be judged."""

    ja: str
    en: str
    held: bool | None


class Verdict(msgspec.Struct, frozen=True):
    """What came of a drill."""

    acknowledged: int
    lost: int
    duplicates: int
    two_writers: int
    wrong_answers: int
    outage_s: dict[str, float]
    after_word_s: float | None
    requests: int
    failed_requests: int
    refused_requests: int
    in_doubt: dict[str, int]
    """Queries without an answer, by what was found out by their keys: ``settled`` or ``unknown``."""
    outcomes: dict[str, int]
    faults: list[Fault]
    bounds: list[Bound]
    claims: list[Claim]
    moving_s: float | None = None
    """The longest time for which an agency that moved was not served."""
    durability: dict[str, int] = {}
    """Acknowledged writes by where they were on disk, as the replies' header said."""

    @property
    def passed(self) -> bool:
        """Whether everything holds, and something was tried at all."""
        return (
            self.acknowledged > 0
            and not self.faults
            and all(bound.held for bound in self.bounds)
            and all(claim.held for claim in self.claims)
        )


def judge(
    scenario: Scenario,
    accounts: Sequence[Account],
    evidence: Evidence | None,
    course: Course,
    gaps: frozenset[str],
) -> Verdict:
    """Return the verdict; without evidence (an aborted drill) what could not be judged is not claimed."""
    faults = [] if evidence is None else all_faults(accounts, evidence, gaps, course.restored)
    counts = Counter(fault.counts_as for fault in faults)
    instants = outage.acknowledged_at(accounts)
    outages = {
        group: round(max((gap.seconds for gap in gaps), default=0.0), 2)
        for group, gaps in outage.outages(accounts, course.begun_at, course.ended_at).items()
    }
    word_s = _after_word(course, instants)
    moving_s = claims.unserved_s(accounts, course.moved_agency, course.begun_at, course.ended_at)
    ends = [entry for account in accounts for entry in account.of("told", "refused", "in_doubt")]
    written = [entry for entry in ends if entry.event == "told" and entry.act in WRITES]
    failed = sum(entry.event == "in_doubt" for entry in ends) + _unanswered(accounts)
    return Verdict(
        acknowledged=len(written),
        **{name: counts.get(name, 0) for name in COUNTS},
        outage_s=outages,
        after_word_s=word_s,
        moving_s=moving_s,
        requests=sum(len(account.sent()) for account in accounts),
        failed_requests=failed,
        refused_requests=sum(entry.event == "refused" for entry in ends),
        in_doubt=_in_doubt(accounts),
        outcomes=_outcomes(evidence),
        durability=dict(sorted(Counter(entry.durability or "not told" for entry in written).items())),
        faults=faults[:FAULTS_KEPT_MAX],
        bounds=list(_bounds(scenario, outages, word_s, moving_s)),
        claims=_claims(scenario, accounts, evidence, counts, failed, course),
    )


def _after_word(course: Course, instants: Mapping[str, Sequence[float]]) -> float | None:
    if course.word_at is None:
        return None
    of_cell = [at for group, at in instants.items() if group.startswith(f"home-{course.word_cell}-")]
    slowest = [outage.after(at, course.word_at, course.ended_at) for at in of_cell]
    return round(max(slowest, default=_NEVER_S), 2)


def _unanswered(accounts: Sequence[Account]) -> int:
    """Requests of which the journal says nothing after they were sent."""
    return sum(
        len(account.sent().keys() - {entry.n for entry in account.of("told", "refused", "in_doubt")})
        for account in accounts
    )


def _in_doubt(accounts: Sequence[Account]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for account in accounts:
        answered = {entry.n for entry in account.of("told", "refused")}
        settled = {entry.n for entry in account.of("settled")}
        for n, sent in account.sent().items():
            if sent.act == "query" and n not in answered:
                found["settled" if n in settled else "unknown"] += 1
    return dict(found)


def _outcomes(evidence: Evidence | None) -> dict[str, int]:
    if evidence is None:
        return {}
    found = Counter(line.outcome or line.state for lines in evidence.lines.values() for line in lines)
    return dict(sorted(found.items()))


def _bounds(
    scenario: Scenario, outages: Mapping[str, float], word_s: float | None, moving_s: float | None
) -> list[Bound]:
    found = [
        Bound(f"outage {group}", limit, seen)
        for group, seen in outages.items()
        if (limit := scenario.within.outage_s(group)) is not None
    ]
    if scenario.within.after_word_s is not None:
        seen_s = _NEVER_S if word_s is None else word_s
        found.append(Bound("served after the operator's word", scenario.within.after_word_s, seen_s))
    if scenario.within.moving_s is not None:
        seen_s = _NEVER_S if moving_s is None else moving_s
        found.append(Bound("the agency that moves not served", scenario.within.moving_s, seen_s))
    return found


def _claims(
    scenario: Scenario,
    accounts: Sequence[Account],
    evidence: Evidence | None,
    counts: Mapping[str, int],
    failed: int,
    course: Course,
) -> list[Claim]:
    judged = evidence is not None
    found = [
        Claim(
            sentence.ja, sentence.en, not any(counts.get(name) for name in _CLAIMS[sentence.verb]) if judged else None
        )
        for sentence in ALWAYS
    ]
    for step in scenario.then:
        held: bool | None = None
        if step.verb == "no_failures":
            held = failed == 0
        elif step.verb == "roles_stay":
            held = all(len(order) <= 1 for order in course.leaders.values())
        elif step.verb == "no_failures_before_nodes":
            held = claims.none_before(accounts, course.nodes_from)
        elif step.verb == "only_moving_refused":
            held = claims.only_of(accounts, course.moved_agency)
        elif step.verb in claims.OF_A_RESTORE and evidence is not None and course.restored is not None:
            held = claims.OF_A_RESTORE[step.verb](accounts, evidence, course.restored)
        found.append(Claim(step.ja, step.en, held))
    return found
