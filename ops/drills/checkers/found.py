"""Acknowledged means found: every query that was acknowledged is there and closed, every registration is in force.

A row that only a deposed primary had is not there any more; here it is seen.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from chukan.ops.drills.checkers.registrations import fits, kept, readable, writes
from chukan.ops.drills.facts import Evidence, Fault
from chukan.ops.drills.journal import Account
from chukan.ops.drills.restored import Restored

OPEN = frozenset({"accepted", "permit_requested", "permitted", "held"})


def lost(accounts: Sequence[Account], evidence: Evidence, restored: Restored | None = None) -> Iterator[Fault]:
    """Yield what was acknowledged and is not there."""
    yield from _lines(accounts, evidence)
    yield from _copies(accounts, evidence, restored)


def _lines(accounts: Iterable[Account], evidence: Evidence) -> Iterator[Fault]:
    now = {(agency, line.id): line for agency, lines in evidence.lines.items() for line in lines}
    for account in accounts:
        acknowledged = {
            line.id for entry in account.of("told", "settled") if entry.act == "query" for line in entry.lines
        }
        for line in sorted(acknowledged):
            found = now.get((account.client.agency, line))
            if found is None:
                yield Fault("lost", "query_gone", str(line), account.client.group)
            elif found.state in OPEN or found.outcome is None:
                yield Fault("lost", "query_never_closed", str(line), found.state)


def _copies(accounts: Sequence[Account], evidence: Evidence, restored: Restored | None) -> Iterator[Fault]:
    for subject, of in writes(accounts, restored).items():
        acknowledged = [write for write in kept(of) if not math.isinf(write.acknowledged)]
        if not acknowledged:
            continue
        marks = evidence.copies.get(subject)
        # Read after everything: begun and ended are both the end of time.
        if not marks:
            yield Fault("lost", "copy_gone", subject)
        elif not any(fits(write, marks, frozenset()) for write in readable(of, math.inf, math.inf)):
            yield Fault("lost", "registration_gone", subject, f"acknowledged up to {acknowledged[-1].version}")
