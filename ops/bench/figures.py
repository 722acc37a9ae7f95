"""What a benchmark found: medians over its runs, percentiles within a run, and the ratio to the limit of the same runs.

Pure. A figure is never made of fewer runs than ``RUNS_MIN`` unless the result says ``quick``; a ratio is one of
medians, so that one disturbed run on a noisy machine moves nothing.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

RUNS_MIN: Final = 5
_MS: Final = 1000.0


class Sample(msgspec.Struct, frozen=True):
    """One run of ours: how many lines came back answered in how long, and what each call of a client took."""

    lines: int
    elapsed_s: float
    taken_s: list[float]
    """Seconds of each round trip of a client: of one line, or of a whole list."""

    @property
    def per_s(self) -> float:
        """Lines per second."""
        return self.lines / self.elapsed_s


class Run(msgspec.Struct, frozen=True):
    """One run beside its limit."""

    per_s: float
    limit_per_s: float
    p50_ms: float
    p99_ms: float


class Figure(msgspec.Struct, frozen=True):
    """One figure: medians over ``runs`` runs; ``ratio`` is ``per_s`` over ``limit_per_s``."""

    name: str
    per_s: float
    limit: str
    limit_per_s: float
    ratio: float
    p50_ms: float
    p99_ms: float
    runs: int
    set_size: int
    """Lines in a set of the limit: the mean that the exchanges themselves formed just before."""
    limit_clients: int
    """Connections of the limit, both servers together."""
    each: list[Run]


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle; ``ValueError`` for none."""
    if not values:
        raise ValueError("no values have no median")
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0…1) of all do not exceed (nearest rank).

    ``ValueError`` for no values, or a share out of its range.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError("a percentile needs values and a share of them")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def run_of(sample: Sample, limit_per_s: float) -> Run:
    """Put one run beside its limit."""
    return Run(
        per_s=sample.per_s,
        limit_per_s=limit_per_s,
        p50_ms=percentile(sample.taken_s, 0.50) * _MS,
        p99_ms=percentile(sample.taken_s, 0.99) * _MS,
    )


def figure(name: str, limit: str, runs: Sequence[Run], *, set_size: int, limit_clients: int) -> Figure:
    """Return the figure of some runs; ``ValueError`` for none."""
    per_s, limit_per_s = median([run.per_s for run in runs]), median([run.limit_per_s for run in runs])
    return Figure(
        name=name,
        per_s=round(per_s, 1),
        limit=limit,
        limit_per_s=round(limit_per_s, 1),
        ratio=round(per_s / limit_per_s, 4),
        p50_ms=round(median([run.p50_ms for run in runs]), 2),
        p99_ms=round(median([run.p99_ms for run in runs]), 2),
        runs=len(runs),
        set_size=set_size,
        limit_clients=limit_clients,
        each=list(runs),
    )
