"""All questions at once, in the order in which a report tells them."""

from collections.abc import Sequence

from chukan.ops.drills.checkers.answers import wrong
from chukan.ops.drills.checkers.found import lost
from chukan.ops.drills.checkers.outcomes import more_than_one
from chukan.ops.drills.checkers.records import not_exactly_one
from chukan.ops.drills.checkers.writers import two
from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import Account
from chukan.ops.drills.restored import Restored, gone, lost_for_good, without


def all_faults(
    accounts: Sequence[Account], evidence: Evidence, gaps: frozenset[str], restored: Restored | None = None
) -> list[Fault]:
    """Return everything that must not be; an empty list is the good end.

    ``restored`` where the scenario says that a cell was taken back to a moment, by intention.
    """
    if restored is None:
        return _all(accounts, evidence, gaps, None)
    left = without(accounts, gone(accounts, evidence, restored))
    return lost_for_good(_all(left, evidence, gaps, restored), evidence, restored)


def _all(
    accounts: Sequence[Account], evidence: Evidence, gaps: frozenset[str], restored: Restored | None
) -> list[Fault]:
    return [
        *lost(accounts, evidence, restored),
        *more_than_one(accounts, evidence),
        *not_exactly_one(evidence),
        *two(accounts, restored),
        *wrong(accounts, evidence, gaps, restored),
    ]
