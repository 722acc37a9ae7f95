"""Outage as clients see it: the longest time in which no write of a group of agencies was acknowledged."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chukan.ops.drills.journal import WRITES, Account


class Gap(NamedTuple):
    """A stretch without an acknowledgement; seconds since the drill began."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.begun


def acknowledged_at(accounts: Iterable[Account]) -> dict[str, list[float]]:
    """Return the instants of acknowledged writes by group, in order."""
    found: dict[str, list[float]] = defaultdict(list)
    for account in accounts:
        found[account.client.group] += [entry.at for entry in account.of("told") if entry.act in WRITES]
    return {group: sorted(instants) for group, instants in found.items()}


def gaps(instants: Sequence[float], begun: float, ended: float) -> list[Gap]:
    """Return all stretches between two instants, those before the first and after the last acknowledgement too."""
    inside = [begun, *(at for at in instants if begun < at < ended), ended]
    return [Gap(one, other) for one, other in itertools.pairwise(inside)]


def longest(instants: Sequence[float], begun: float, ended: float) -> float:
    """Return the longest stretch in seconds."""
    return max((gap.seconds for gap in gaps(instants, begun, ended)), default=0.0)


def after(instants: Sequence[float], word_at: float, ended: float) -> float:
    """Return how long it took from an instant to the next acknowledgement; to the end where there was none."""
    return next((at for at in instants if at > word_at), ended) - word_at
