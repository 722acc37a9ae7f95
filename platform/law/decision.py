"""What a judgement of the matching list looks like: verdict, reason, and the steps that led to it.

``reason`` is a stable code for programs; ``steps`` explain it in Japanese to people. Neither holds anything about a
person: a decision speaks of agencies, affairs and kinds only.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Verdict(enum.Enum):
    """Yes, no, or unknown; only YES opens anything."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        """Refuse to be taken for a truth value: ``unknown`` is neither."""
        raise TypeError("a verdict has three values; compare it with Verdict.YES")


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return YES when one is YES, else UNKNOWN when one is UNKNOWN, else NO (also for none at all)."""
    best = Verdict.NO
    for verdict in verdicts:
        if verdict is Verdict.YES:
            return verdict
        if verdict is Verdict.UNKNOWN:
            best = verdict
    return best


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return NO when one is NO, else UNKNOWN when one is UNKNOWN, else YES (also for none at all)."""
    worst = Verdict.YES
    for verdict in verdicts:
        if verdict is Verdict.NO:
            return verdict
        if verdict is Verdict.UNKNOWN:
            worst = verdict
    return worst


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was checked: what, with which result, and why in words."""

    check: str
    verdict: Verdict
    text_ja: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A judgement by one list. ``list_number`` is 0 and the names are empty where no list was consulted.

    ``item`` is the number of the list's entry in 漢数字 (several candidates are joined by 、 unless one of them is the
    reason for a yes); ``law`` names the text it stands in.
    """

    verdict: Verdict
    reason: str
    list_number: int = 0
    list_name: str = ""
    item: str = ""
    law: str = ""
    steps: tuple[Step, ...] = ()
