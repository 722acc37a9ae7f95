"""A permit is used once (PRV-02): one provision, one final answer, whatever is repeated, replayed or sent by two."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec

from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.platform.wire.network import Answer


def check(evidence: Evidence) -> Iterator[str]:
    """Count provisions and answers by permit."""
    for lines in evidence.by_permit.values():
        if len(lines) > 1:
            yield f"a permit was used for {len(lines)} provisions of agency {lines[0][0]}"
    answers: dict[uuid.UUID, set[bytes]] = {}
    for _, body in evidence.world.network.journal.answers:
        answer = msgspec.json.decode(body, type=Answer)
        if answer.outcome != "under_review":
            answers.setdefault(answer.permit, set()).add(body)
    for bodies in answers.values():
        if len(bodies) > 1:
            yield f"{len(bodies)} different answers were sent under one permit"
