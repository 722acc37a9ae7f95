"""Nothing acknowledged is lost (invariants 2 and 5): what anybody was told is there in the end, and says the same."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.ops.simulation.clients import OPEN, Line
from chukan.ops.simulation.tables import InquiryLine
from chukan.platform.wire.network import AnswerDelivery, Notice, ProviderPermit
from chukan.tenants.states import InquiryState, Outcome

_DECIDED = 50


def check(evidence: Evidence) -> Iterator[str]:
    """Hold the cells against the journals of clients, officers and network."""
    yield from evidence.journal.repeats
    yield from _clients(evidence)
    yield from _officers(evidence)
    yield from _network(evidence)


def _clients(evidence: Evidence) -> Iterator[str]:
    world = evidence.world
    for posted in evidence.journal.posted:
        agency = evidence.agencies[posted.agency]
        table = world.table(agency)
        kept = table.idempotency.get(world.keys(agency).digest("key", posted.key.encode()))
        if kept is None or kept.outcome != posted.batch:
            yield f"{posted.key}: the key does not lead to the batch that was acknowledged"
        for line in posted.lines.values():
            row = evidence.inquiries.get((agency.number, line.id))
            if row is None or line.id not in table.queries:
                yield f"{posted.key}: an acknowledged line is not there"
            elif row.batch != posted.batch:
                yield f"{posted.key}: an acknowledged line is in another batch"
            else:
                yield from _told(posted.key, line, row)


def _told(key: str, line: Line, row: InquiryLine) -> Iterator[str]:
    """A client was told of a final outcome: it must be the one that stands."""
    for told in line.told:
        if told.state not in OPEN and told.outcome != Outcome(row.outcome).word:
            yield f"{key}: was told {told.outcome}, but {Outcome(row.outcome).word} stands"
    collected = any(told.state == InquiryState.COLLECTED.name.lower() for told in line.told)
    if collected and row.state < InquiryState.COLLECTED:
        yield f"{key}: a collection that was acknowledged is not there"


def _officers(evidence: Evidence) -> Iterator[str]:
    for code, review, said in evidence.journal.decided:
        key = (evidence.agencies[code].number, review)
        row = evidence.provisions.get(key)
        if row is None or row.state < _DECIDED:
            yield "an officer's decision that was acknowledged is not there"
            continue
        words = {record.outcome for record in evidence.base_records.get(key, [])}
        if said == "refused" and words != {"refused"}:
            yield f"officers refused, and the record says {sorted(words)}"
        if said == "approved" and "refused" in words:
            yield "officers approved, and the record says refused"


def _network(evidence: Evidence) -> Iterator[str]:
    """The network was told that a message was taken: its inbox key must be there."""
    world = evidence.world
    for channel, body, ack in world.network.journal.acks:
        if ack.status != "accepted":
            continue
        if channel == "notices":
            notice = msgspec.json.decode(body, type=Notice)
            code = msgspec.json.decode(notice.permit.body, type=ProviderPermit).provider
        else:
            code = msgspec.json.decode(body, type=AnswerDelivery).inquirer
        if ack.id not in world.table(evidence.agencies[code]).inbox:
            yield f"one of {channel} was acknowledged and is not in the inbox"
