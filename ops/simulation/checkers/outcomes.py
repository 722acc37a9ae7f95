"""Every accepted line reaches exactly one final outcome, at the inquirer and at the provider (invariant 3)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import pairwise

from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.ops.simulation.tables import Event
from chukan.tenants.states import InquiryState, Outcome, ProvisionState, Side

_FINAL = 50
_OPEN_OUTCOMES = frozenset({Outcome.NONE, Outcome.UNDER_REVIEW})


def check(evidence: Evidence) -> Iterator[str]:
    """Count the steps of every line that led from an open state to a final one."""
    for agency, _, table in evidence.world.tables():
        steps: dict[tuple[int, uuid.UUID], list[Event]] = {}
        for event in table.events:
            steps.setdefault((event.side, event.id), []).append(event)
        for (side, line), events in steps.items():
            yield from _steps(f"a line of agency {agency.number} ({Side(side).name.lower()})", events)
            if side == Side.INQUIRER and line not in table.queries:
                yield f"a line of agency {agency.number} has steps, and was never accepted"
    for inquiry in evidence.inquiries.values():
        if inquiry.state < _FINAL or Outcome(inquiry.outcome) in _OPEN_OUTCOMES:
            yield f"a query line is still {InquiryState(inquiry.state).name.lower()}"
    for provision in evidence.provisions.values():
        if provision.state < ProvisionState.RECEIPTED:
            yield f"a provision is still {ProvisionState(provision.state).name.lower()}"


def _steps(name: str, events: list[Event]) -> Iterator[str]:
    closing = [event for event in events if (event.before or 0) < _FINAL <= event.after]
    if len(closing) != 1:
        yield f"{name} reached {len(closing)} final outcomes"
    if any(earlier.after != later.before for earlier, later in pairwise(events)):
        yield f"{name} jumped between states"
