"""What many drills came to, one row a scenario: runs, what was lost, and the shortest and longest outage of each home.

For an operator who compares this quarter's drills with the last one's, and for the page of figures in the docs: the
Markdown is pasted there as it is. Counts are sums; an outage is what clients of the public API saw.

Invariant: pure; a run that did not pass is counted as one, never left out.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from chukan.ops.drills.report import Report

Language = Literal["en", "ja"]
HOMES: Final = ("east", "west")
_HEADINGS: Final[dict[Language, tuple[str, ...]]] = {
    "en": (
        "drill", "runs", "passed", "acknowledged", "lost", "doubled", "two writers",
        "outage, home east (s)", "outage, home west (s)", "after the word (s)", "failed requests",
    ),
    "ja": (
        "訓練", "回数", "合格", "受理済み", "喪失", "二重", "二重主系",
        "停止・本拠東 (秒)", "停止・本拠西 (秒)", "宣言後 (秒)", "失敗した要求",
    ),
}  # fmt: skip


class Row(msgspec.Struct, frozen=True):
    """All runs of one scenario on one topology; a pair of seconds is the shortest and the longest of the runs."""

    scenario: str
    topology: str
    runs: int
    passed: int
    acknowledged: int
    lost: int
    duplicates: int
    two_writers: int
    outage_s: dict[str, tuple[float, float]]
    after_word_s: tuple[float, float] | None
    failed_requests: tuple[int, int]


def rows(reports: Iterable[Report]) -> list[Row]:
    """Gather reports by scenario and topology, in the order of their names."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.scenario, report.topology), []).append(report)
    return [_row(*key, groups[key]) for key in sorted(groups)]


def _row(scenario: str, topology: str, runs: Sequence[Report]) -> Row:
    verdicts = [report.verdict for report in runs]
    words = [verdict.after_word_s for verdict in verdicts if verdict.after_word_s is not None]
    homes = {home: [worst for verdict in verdicts if (worst := _worst(verdict.outage_s, home)) is not None]
             for home in HOMES}  # fmt: skip
    failed = [verdict.failed_requests for verdict in verdicts]
    return Row(
        scenario=scenario,
        topology=topology,
        runs=len(runs),
        passed=sum(report.passed for report in runs),
        acknowledged=sum(verdict.acknowledged for verdict in verdicts),
        lost=sum(verdict.lost for verdict in verdicts),
        duplicates=sum(verdict.duplicates for verdict in verdicts),
        two_writers=sum(verdict.two_writers for verdict in verdicts),
        outage_s={home: (min(seen), max(seen)) for home, seen in homes.items() if seen},
        after_word_s=(min(words), max(words)) if words else None,
        failed_requests=(min(failed), max(failed)),
    )


def _worst(outage_s: dict[str, float], home: str) -> float | None:
    """Return the longest outage among the groups of agencies of one home: of those who ask either exchange."""
    return max((seconds for group, seconds in outage_s.items() if group.startswith(f"home-{home}-")), default=None)


def headings(language: Language) -> tuple[str, ...]:
    """Return the names of the columns of ``cells``."""
    return _HEADINGS[language]


def cells(row: Row) -> list[str]:
    """Return a row as texts."""
    return [
        row.scenario if row.topology == "2+2" else f"{row.scenario} ({row.topology})",
        str(row.runs),
        str(row.passed),
        f"{row.acknowledged:,}",
        str(row.lost),
        str(row.duplicates),
        str(row.two_writers),
        *(_span(row.outage_s.get(home)) for home in HOMES),
        _span(row.after_word_s),
        _counts(row.failed_requests),
    ]


def markdown(found: Iterable[Row], language: Language) -> str:
    """Return the rows as a table of Markdown, ending with a line feed."""
    lines = ["| " + " | ".join(headings(language)) + " |", "|" + "---|" * len(headings(language))]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in found]
    return "\n".join(lines) + "\n"


def _span(seconds: tuple[float, float] | None) -> str:
    if seconds is None:
        return "–"
    shortest, longest = f"{seconds[0]:.1f}", f"{seconds[1]:.1f}"
    return longest if shortest == longest else f"{shortest}–{longest}"


def _counts(counts: tuple[int, int]) -> str:
    return str(counts[0]) if counts[0] == counts[1] else f"{counts[0]}–{counts[1]}"
