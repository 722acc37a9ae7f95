"""Outage as clients see it: the longest time in which no write of a group of agencies was acknowledged.

Registrations are answered at once, so that they tell to half a second. But a platform may take them and refuse every
question (a full disk does that); so the questions that were acknowledged are looked at by themselves too, by when they
were asked, and what exceeds the time between two of them counts.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from chukan.ops.drills.journal import WRITES, Account

QUESTIONS_EVERY_S: Final = 2.0
"""A client asks so often (``probing.PATTERN``)."""


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


def asked_at(accounts: Iterable[Account]) -> dict[str, list[float]]:
    """Return when the questions that were acknowledged had been asked, by group, in order."""
    found: dict[str, list[float]] = defaultdict(list)
    for account in accounts:
        sent = account.sent()
        found[account.client.group] += [sent[entry.n].at for entry in account.of("told") if entry.act == "query"]
    return {group: sorted(instants) for group, instants in found.items()}


def outages(accounts: Sequence[Account], begun: float, ended: float) -> dict[str, list[Gap]]:
    """Return the stretches without a write, and those in which every question failed, by group."""
    writes, questions = acknowledged_at(accounts), asked_at(accounts)
    found: dict[str, list[Gap]] = {}
    for group in sorted({account.client.group for account in accounts}):
        silent = gaps(questions[group], begun, ended) if questions.get(group) else []
        found[group] = [
            *gaps(writes.get(group, []), begun, ended),
            *(Gap(gap.begun + QUESTIONS_EVERY_S, gap.ended) for gap in silent if gap.seconds > QUESTIONS_EVERY_S),
        ]
    return found


def gaps(instants: Sequence[float], begun: float, ended: float) -> list[Gap]:
    """Return all stretches between two instants, those before the first and after the last acknowledgement too."""
    inside = [begun, *(at for at in instants if begun < at < ended), ended]
    return [Gap(one, other) for one, other in itertools.pairwise(inside)]


def after(instants: Sequence[float], word_at: float, ended: float) -> float:
    """Return how long it took from an instant to the next acknowledgement; to the end where there was none."""
    return next((at for at in instants if at > word_at), ended) - word_at
