"""Every waiter got an answer by its deadline (invariant 10), or lost its exchange; nobody waits for ever.

What a frozen exchange slept is not held against it, and neither is the one look at a slow cell that was under way.
"""

from __future__ import annotations

from collections.abc import Iterator

from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.ops.simulation.clients import CALL_BOUND_S


def check(evidence: Evidence) -> Iterator[str]:
    """Measure every wait of the clients' journal."""
    if evidence.journal.waiting:
        yield f"{evidence.journal.waiting} waiters never got an answer"
    for wait in evidence.journal.waits:
        bound_s = wait.timeout_s + wait.frozen_s + CALL_BOUND_S
        if wait.took_s > bound_s:
            yield f"a wait of {wait.timeout_s} s at {wait.process} took {wait.took_s:.1f} s ({wait.ended})"
