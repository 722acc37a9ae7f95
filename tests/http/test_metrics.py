"""Metrics: labels from closed sets, whatever is told; and the series that the alerts stand on."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chukan.platform.metrics import Metrics
from chukan.tenants.states import Side


def _series(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_template_method_and_class() -> None:
    metrics = Metrics()
    metrics.request("/v1/agencies/{agency}/queries", "POST", 202, 0.01)
    metrics.request("none", "31415926535", 404, 0.01)
    series = _series(metrics)
    labels = (("method", "POST"), ("route", "/v1/agencies/{agency}/queries"), ("status", "2xx"))
    assert series["chukan_http_requests_total", labels] == 1
    assert series["chukan_http_requests_total", (("method", "other"), ("route", "none"), ("status", "4xx"))] == 1


def test_what_is_not_in_a_closed_set_is_other() -> None:
    metrics = Metrics()
    metrics.problem("314159265358")
    metrics.refusal("314159265358")
    metrics.outcome("314159265358", "314159265358")
    for number in range(200):
        metrics.stage(f"stage {number}", 1, 0.1, failed=False)
    text = metrics.render().decode()
    assert "314159265358" not in text
    series = _series(metrics)
    assert series["chukan_stage_sets_total", (("outcome", "done"), ("stage", "other"))] == 136


def test_stages_count_sets_lines_and_failures() -> None:
    metrics = Metrics()
    metrics.stage("accept_east", 200, 0.004, failed=False)
    metrics.stage("accept_east", 3, 0.004, failed=True)
    series = _series(metrics)
    assert series["chukan_stage_items_total", (("outcome", "done"), ("stage", "accept_east"))] == 200
    assert series["chukan_stage_sets_total", (("outcome", "failed"), ("stage", "accept_east"))] == 1
    assert series["chukan_stage_set_size_count", (("stage", "accept_east"),)] == 2


def test_outcomes_are_told_by_side_or_by_its_name() -> None:
    metrics = Metrics()
    metrics.outcome(Side.PROVIDER, "provided")
    metrics.outcome("provider", "provided", 2)
    labels = (("outcome", "provided"), ("side", "provider"))
    assert _series(metrics)["chukan_outcomes_total", labels] == 3


@pytest.mark.requirement("CON-05", "OPS-02")
def test_an_agency_without_backlog_leaves_no_series() -> None:
    metrics = Metrics()
    metrics.agency_backlog({1: 5, 2: 7})
    metrics.agency_backlog({2: 8})
    series = {key: value for key, value in _series(metrics).items() if key[0] == "chukan_agency_backlog_lines"}
    assert series == {("chukan_agency_backlog_lines", (("agency", "2"),)): 8}


def test_series_by_agency_are_bounded() -> None:
    metrics = Metrics()
    metrics.agency_backlog(dict.fromkeys(range(1, 20_011), 1))
    series = {key: value for key, value in _series(metrics).items() if key[0] == "chukan_agency_backlog_lines"}
    assert len(series) == 20_001
    assert series["chukan_agency_backlog_lines", (("agency", "0"),)] == 10


@pytest.mark.requirement("REP-05", "OPS-02")
def test_what_stands_is_told_by_gauges() -> None:
    metrics = Metrics()
    metrics.backlog("east", Side.INQUIRER, "permit_requested", 12, 3.5)
    metrics.backlog("east", Side.INQUIRER, "held", 2, None)
    metrics.copy_ages({(3, "TM00000000000002"): 86_400.0})
    metrics.sequencer_age("east", 0.4)
    metrics.leases("east", Side.PROVIDER, 32)
    metrics.snapshot(7)
    metrics.keys(2, usable=True)
    metrics.loop_lag(0.01)
    metrics.canary("east", age_s=math.inf, commit_s=math.inf)
    metrics.ready(ready=False)
    metrics.certificate_expiry(1.0)
    metrics.load_lines(taken=5, refused=1)
    series = _series(metrics)
    where = (("cell", "east"), ("side", "inquirer"), ("state", "permit_requested"))
    assert series["chukan_backlog_lines", where] == 12
    assert series["chukan_queue_age_seconds", where] == 3.5
    assert series["chukan_copy_age_seconds", (("agency", "3"), ("kind", "TM00000000000002"))] == 86_400
    assert series["chukan_canary_age_seconds", (("cell", "east"),)] == math.inf
    assert series["chukan_ready", ()] == 0
    assert series["chukan_load_lines_total", (("outcome", "refused"),)] == 1
    assert any(name == "process_resident_memory_bytes" for name, _ in series)


def test_an_agency_stands_beside_a_kind_in_one_place_only() -> None:
    metrics = Metrics()
    metrics.copy_ages({(3, "TM00000000000002"): 1.0})
    metrics.agency_backlog({3: 1})
    both = {name for name, labels in _series(metrics) if {"agency", "kind"} <= {label for label, _ in labels}}
    assert both == {"chukan_copy_age_seconds"}
