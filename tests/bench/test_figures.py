"""What is made of the runs of a benchmark: medians, percentiles by nearest rank, ratios of medians."""

import json

import msgspec
import pytest

from chukan.ops.bench.figures import RUNS_MIN, Run, Sample, figure, median, percentile, run_of


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([9.0, 1.0, 5.0], 5.0), ([4.0, 1.0, 3.0, 2.0], 2.5), ([1.0, 1.0, 1.0, 1.0, 1000.0], 1.0)],
)
def test_the_median_is_the_middle_and_one_bad_run_moves_nothing(values: list[float], expected: float) -> None:
    assert median(values) == expected


# Nearest rank, as tables of it give it: of 15, 20, 35, 40 and 50 the 5th, 30th, 40th, 50th and 100th.
@pytest.mark.parametrize(("share", "expected"), [(0.05, 15), (0.3, 20), (0.4, 20), (0.5, 35), (1.0, 50), (0.0, 15)])
def test_percentiles_are_values_that_were_really_seen(share: float, expected: float) -> None:
    assert percentile([50, 15, 40, 20, 35], share) == expected


def test_of_a_hundred_the_99th_is_the_last_but_one() -> None:
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile(list(range(1, 101)), 0.50) == 50


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_there_is_no_percentile_out_of_range_or_of_nothing(share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile([1.0], share)
    with pytest.raises(ValueError, match="percentile"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="median"):
        median([])


def test_a_run_counts_lines_in_the_time_of_all_clients() -> None:
    run = run_of(Sample(lines=2000, elapsed_s=4.0, taken_s=[1.5, 3.5]), 1250.0)
    assert run == Run(per_s=500.0, limit_per_s=1250.0, p50_ms=1500.0, p99_ms=3500.0)


def test_a_figure_is_made_of_medians_and_says_how_many() -> None:
    runs = [
        Run(per_s=per_s, limit_per_s=1000.0 + per_s, p50_ms=per_s / 10, p99_ms=90.0) for per_s in (10, 500, 20, 30, 1)
    ]
    made = figure("single", "pgbench", runs, set_size=4, limit_clients=8)
    assert (made.per_s, made.limit_per_s, made.ratio) == (20.0, 1020.0, round(20 / 1020, 4))
    assert (made.p50_ms, made.p99_ms, made.runs) == (2.0, 90.0, RUNS_MIN)
    assert made.each == runs


def test_a_figure_has_the_members_that_were_promised() -> None:
    made = figure("batch", "pgbench", [Run(1.0, 2.0, 3.0, 4.0)], set_size=1, limit_clients=2)
    document = json.loads(msgspec.json.encode(made))
    promised = {"name", "per_s", "limit", "limit_per_s", "ratio", "p50_ms", "p99_ms", "runs"}
    assert promised <= document.keys()
    assert (document["name"], document["limit"], document["ratio"]) == ("batch", "pgbench", 0.5)
