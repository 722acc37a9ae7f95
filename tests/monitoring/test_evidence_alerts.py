"""The evidence alerts over time, as Prometheus would judge them: they fire when they should, and not before.

The rules are of one form, ``max|min by (labels) (metric{matchers}) > number``; their expressions come from the file.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped] # its stubs are a package that nothing else needs
from prometheus_client.parser import text_string_to_metric_families

from chukan.platform.metrics import Metrics

pytestmark = pytest.mark.requirement("OPS-02", "REC-02")
RULES = Path(__file__).resolve().parents[2] / "ops" / "monitoring" / "alerts.yml"
FORM = re.compile(r"(max|min) by \(([^)]*)\) \((\w+)(?:\{(\w+)(!?=)\"(\w+)\"\})?\) > (\d+)")
STEP_S = 15
UNITS = {"s": 1, "m": 60, "h": 3600}


class Rule(NamedTuple):
    """One alert rule, taken apart."""

    fold: Any
    by: list[str]
    metric: str
    matcher: tuple[str, str, str] | None
    above: float
    for_s: int


def rule(name: str) -> Rule:
    document = yaml.safe_load(RULES.read_text("utf-8"))
    (found,) = [each for group in document["groups"] for each in group["rules"] if each["alert"] == name]
    form = FORM.fullmatch(found["expr"])
    assert form is not None
    wait = found.get("for", "0s")
    matcher = (form[4], form[5], form[6]) if form[4] else None
    fold = {"max": max, "min": min}[form[1]]
    by = [label.strip() for label in form[2].split(",")]
    return Rule(fold, by, form[3], matcher, float(form[7]), int(wait[:-1]) * UNITS[wait[-1]])


def matches(labels: dict[str, str], matcher: tuple[str, str, str] | None) -> bool:
    if matcher is None:
        return True
    label, how, value = matcher
    return (labels.get(label, "") == value) is (how == "=")


def above(found: Rule, scrapes: list[str]) -> set[tuple[str, ...]]:
    """Return the groups for which the expression holds at one instant, over every instance's scrape."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for text in scrapes:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        for sample in samples:
            if sample.name == found.metric and matches(sample.labels, found.matcher):
                groups.setdefault(tuple(sample.labels[label] for label in found.by), []).append(sample.value)
    return {group for group, values in groups.items() if found.fold(values) > found.above}


def fires(name: str, instants: list[list[str]]) -> dict[tuple[str, ...], int]:
    """Return, by group, after how many seconds an alert fires, scraped each 15 s."""
    found, since, fired = rule(name), dict[tuple[str, ...], int](), dict[tuple[str, ...], int]()
    for n, scrapes in enumerate(instants):
        now = n * STEP_S
        held = above(found, scrapes)
        since = {group: since.get(group, now) for group in held}
        fired |= {group: now for group in held if now - since[group] >= found.for_s and group not in fired}
    return fired


def scrape(*, age_s: float = 0.0, broken: dict[str, int] | None = None) -> str:
    """Return what an exchange exports."""
    metrics = Metrics()
    metrics.evidence_age("east", age_s)
    metrics.evidence_age("west", 0.0)
    for refused in ("signing", "cosigning", "sequencing", "network"):
        metrics.evidence_broken("east", refused, (broken or {}).get(refused, 0))
    return metrics.render().decode()


def test_an_old_log_is_told_when_no_exchange_signs_it_for_a_minute() -> None:
    growing = [[scrape(age_s=n * STEP_S), scrape(age_s=n * STEP_S)] for n in range(20)]
    assert fires("ChukanEvidenceOld", growing) == {("east",): 75 + 60}
    # One exchange that measures nothing for a while says nothing of the log, as long as the other one knows better.
    assert fires("ChukanEvidenceOld", [[scrape(age_s=n * STEP_S), scrape(age_s=1)] for n in range(20)]) == {}


def test_a_short_delay_is_no_alert() -> None:
    late = [[scrape(age_s=90)]] * 3 + [[scrape(age_s=1)]] * 3 + [[scrape(age_s=90)]] * 4
    assert fires("ChukanEvidenceOld", late) == {}


@pytest.mark.parametrize("refused", ["signing", "cosigning", "network"])
def test_a_broken_log_is_told_at_once_by_whom_it_was_seen(refused: str) -> None:
    good = [[scrape(), scrape()]]
    found = fires("ChukanEvidenceBroken", [*good, [scrape(broken={refused: 1}), scrape()]])
    assert found == {("east", refused): STEP_S}
    assert fires("ChukanLogSetAside", [[scrape(broken={refused: 1})]]) == {}


def test_a_log_that_waits_for_a_record_has_an_alert_of_its_own() -> None:
    aside = [[scrape()], [scrape(broken={"sequencing": 2})]]
    assert fires("ChukanLogSetAside", aside) == {("east",): STEP_S}
    assert fires("ChukanEvidenceBroken", aside) == {}
