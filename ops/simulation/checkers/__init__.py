"""The checkers of the simulation: each judges one promise by what is left, in a file of its own.

A checker reads rows, commits and the clients' journals; it never asks the exchange. It yields a complaint for every
breach, and nothing where the promise was kept. tests/sim shows each one to fail on a planted fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from chukan.ops.simulation.checkers import (
    leaving,
    logs,
    loss,
    outcomes,
    permits,
    records,
    separation,
    statistics,
    waits,
    writers,
)
from chukan.ops.simulation.checkers.evidence import Evidence

__all__ = ["CHECKERS", "Checker", "Evidence"]


class Checker(NamedTuple):
    """One promise and who judges it."""

    name: str
    check: Callable[[Evidence], Iterator[str]]


CHECKERS: Final[tuple[Checker, ...]] = (
    Checker("loss", loss.check),
    Checker("outcomes", outcomes.check),
    Checker("records", records.check),
    Checker("leaving", leaving.check),
    Checker("permits", permits.check),
    Checker("separation", separation.check),
    Checker("writers", writers.check),
    Checker("logs", logs.check),
    Checker("statistics", statistics.check),
    Checker("waits", waits.check),
)
