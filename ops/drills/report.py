"""The report of one drill as data, and of several together: what ``--json`` prints and what is signed and kept.

``summary`` has the fields that programs read: scenario, topology, acknowledged, lost, duplicates, two_writers, outage_s
by group of agencies, failed_requests, passed.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from chukan.ops.drills.facts import Fault
from chukan.ops.drills.verdict import Bound, Claim, Verdict
from chukan.ops.drills.watch import Change


class Event(msgspec.Struct, frozen=True):
    """Something that the drill did; ``at`` in seconds since it began."""

    at: float
    ja: str
    en: str
    kind: str = "step"


class Stretch(msgspec.Struct, frozen=True):
    """A time without an acknowledged write of a group of agencies, long enough to be seen in the picture."""

    group: str
    begun: float
    ended: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is told of a drill."""

    id: str
    scenario: str
    title_ja: str
    title_en: str
    breaks_ja: str
    breaks_en: str
    topology: str
    site: str
    begun_at: str
    """UTC, RFC 3339."""
    seconds: float
    version: str
    verdict: Verdict
    passed: bool
    ended_early: str = ""
    """Why the drill ended before its last sentence; empty when it did not."""
    unhealed: list[str] = []
    """What could not be undone; empty means that the site stands as before."""
    notes: list[str] = []
    load_from: float
    load_to: float
    events: list[Event]
    changes: list[Change]
    stretches: list[Stretch]
    gaps: list[str]
    """Salted marks of the reason codes for missing items, so that answers can be judged again."""

    @property
    def rto_s(self) -> float:
        """The longest outage of any group."""
        return max(self.verdict.outage_s.values(), default=0.0)

    @property
    def rpo_lost(self) -> int:
        """Acknowledged requests that were lost."""
        return self.verdict.lost

    def claims(self) -> list[Claim]:
        """What must hold, and whether it did."""
        return self.verdict.claims

    def bounds(self) -> list[Bound]:
        """What was measured against its bound."""
        return self.verdict.bounds

    def faults(self) -> list[Fault]:
        """What must not be and was."""
        return self.verdict.faults


def summary(report: Report) -> dict[str, Any]:
    """Return what ``--json`` prints of one drill."""
    verdict = report.verdict
    return {
        "scenario": report.scenario,
        "topology": report.topology,
        "acknowledged": verdict.acknowledged,
        "lost": verdict.lost,
        "duplicates": verdict.duplicates,
        "two_writers": verdict.two_writers,
        "wrong_answers": verdict.wrong_answers,
        "outage_s": verdict.outage_s,
        "after_word_s": verdict.after_word_s,
        "moving_s": verdict.moving_s,
        "failed_requests": verdict.failed_requests,
        "refused_requests": verdict.refused_requests,
        "in_doubt": verdict.in_doubt,
        "durability": verdict.durability,
        "passed": report.passed,
        "ended_early": report.ended_early,
        "unhealed": report.unhealed,
        "seconds": report.seconds,
        "id": report.id,
    }


def together(name: str, runs: Sequence[Report], skipped: Sequence[str]) -> dict[str, Any]:
    """Return what ``--json`` prints of several drills: sums, the longest outages, and each by itself."""
    totals = [summary(report) for report in runs]
    groups = sorted({group for each in totals for group in each["outage_s"]})
    return {
        "scenario": name,
        "topology": runs[0].topology if runs else "",
        **{
            count: sum(each[count] for each in totals)
            for count in (
                "acknowledged", "lost", "duplicates", "two_writers", "wrong_answers", "failed_requests",
                "refused_requests",
            )
        },
        "outage_s": {
            group: max(each["outage_s"][group] for each in totals if group in each["outage_s"]) for group in groups
        },
        "passed": bool(runs) and all(report.passed for report in runs),
        "not_possible_here": list(skipped),
        "runs": totals,
    }  # fmt: skip
