"""Metrics of the last drills, as a text file for Prometheus (node_exporter's textfile collector).

``chukan_drill_last_success_timestamp_seconds`` ages: a site whose drills are forgotten or fail is noticed by its alert.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from chukan.ops.drills.report import Report

FILE: Final = "chukan_drill.prom"
_HELP: Final = {
    "chukan_drill_last_run_timestamp_seconds": "When a drill was last run.",
    "chukan_drill_last_success_timestamp_seconds": "When a drill last passed.",
    "chukan_drill_last_passed": "Whether the last run of a drill passed.",
    "chukan_drill_rto_seconds": "Longest outage that clients of a group saw in the last run.",
    "chukan_drill_rpo_lost": "Acknowledged requests that were lost in the last run.",
    "chukan_drill_unhealed": "What the last run broke and could not mend.",
}


def render(reports: Iterable[Report]) -> str:
    """Return the exposition of reports, which are oldest first (text format 0.0.4)."""
    last: dict[str, Report] = {}
    success: dict[str, Report] = {}
    for report in reports:
        last[report.scenario] = report
        if report.passed:
            success[report.scenario] = report
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    for report in last.values():
        name = "chukan_drill_last_run_timestamp_seconds"
        samples[name].append(f'{name}{{scenario="{report.scenario}"}} {_seconds(report):.0f}')
        for name, value in _samples(report):
            samples[name.partition("{")[0]].append(f"{name} {value:g}")
    for report in success.values():
        name = "chukan_drill_last_success_timestamp_seconds"
        samples[name].append(f'{name}{{scenario="{report.scenario}"}} {_seconds(report):.0f}')
    lines: list[str] = []
    for name, of in samples.items():
        lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge", *sorted(of)]
    return "\n".join(lines) + "\n"


def _samples(report: Report) -> Iterator[tuple[str, float]]:
    scenario = f'scenario="{report.scenario}"'
    yield f"chukan_drill_last_passed{{{scenario}}}", float(report.passed)
    yield f"chukan_drill_rpo_lost{{{scenario}}}", float(report.rpo_lost)
    yield f"chukan_drill_unhealed{{{scenario}}}", float(len(report.unhealed))
    for group, outage_s in report.verdict.outage_s.items():
        yield f'chukan_drill_rto_seconds{{{scenario},group="{group}"}}', outage_s


def _seconds(report: Report) -> float:
    return datetime.fromisoformat(report.begun_at).timestamp() + report.seconds


def write(folder: Path, reports: Iterable[Report]) -> Path:
    """Replace the file at once, so that a scraper never reads half of it. Raises ``OSError``."""
    path, aside = folder / FILE, folder / f".{FILE}.new"
    aside.write_text(render(reports), encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)
    return path
