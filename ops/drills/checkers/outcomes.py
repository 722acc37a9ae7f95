"""Exactly one outcome: a request has one effect however often it is asked for, and a line ends in one way only.

What is told of a line before and after a failover must be the same; a line that no client ever asked for was made by a
request that took effect twice.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence

from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import Account

_OPEN = frozenset({"accepted", "permit_requested", "permitted", "held"})


def more_than_one(accounts: Sequence[Account], evidence: Evidence) -> Iterator[Fault]:
    """Yield requests with two effects, lines with two ends, and lines that nobody asked for."""
    for account in accounts:
        yield from _effects(account)
    yield from _ends(accounts, evidence)
    yield from _unasked(accounts, evidence)


def _effects(account: Account) -> Iterator[Fault]:
    effects: dict[str, set[tuple[uuid.UUID, tuple[uuid.UUID, ...]]]] = defaultdict(set)
    for entry in account.of("told", "settled"):
        if entry.act == "query" and entry.batch is not None:
            effects[entry.key].add((entry.batch, tuple(line.id for line in entry.lines)))
    for key, found in effects.items():
        if len(found) > 1:
            yield Fault("duplicates", "two_effects_of_one_request", key, f"{len(found)} different replies")


def _ends(accounts: Sequence[Account], evidence: Evidence) -> Iterator[Fault]:
    ends: dict[uuid.UUID, set[str]] = defaultdict(set)
    told = [line for account in accounts for entry in account.entries for line in entry.lines]
    for line in (*told, *(line for lines in evidence.lines.values() for line in lines)):
        if line.state not in _OPEN and line.outcome is not None:
            ends[line.id].add(line.outcome)
    for line_id, found in ends.items():
        if len(found) > 1:
            yield Fault("duplicates", "two_outcomes_of_one_line", str(line_id), ", ".join(sorted(found)))


def _unasked(accounts: Sequence[Account], evidence: Evidence) -> Iterator[Fault]:
    known: dict[str, set[uuid.UUID]] = defaultdict(set)
    for account in accounts:
        lines = (line for entry in account.of("told", "settled") if entry.act == "query" for line in entry.lines)
        known[account.client.agency].update(line.id for line in lines)
    for agency, of in known.items():
        for line in evidence.lines.get(agency, []):
            if line.id not in of:
                yield Fault("duplicates", "line_that_nobody_asked_for", str(line.id), agency)
