"""All questions at once, in the order in which a report tells them."""

from collections.abc import Sequence

from chukan.ops.drills.checkers.answers import wrong
from chukan.ops.drills.checkers.found import lost
from chukan.ops.drills.checkers.outcomes import more_than_one
from chukan.ops.drills.checkers.records import not_exactly_one
from chukan.ops.drills.checkers.writers import two
from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import Account


def all_faults(accounts: Sequence[Account], evidence: Evidence, gaps: frozenset[str]) -> list[Fault]:
    """Return everything that must not be; an empty list is the good end."""
    return [
        *lost(accounts, evidence),
        *more_than_one(accounts, evidence),
        *not_exactly_one(evidence),
        *two(accounts),
        *wrong(accounts, evidence, gaps),
    ]
