"""No read across agencies (invariants 1 and 6): nobody is shown or brought what is another's.

Every value in a copy says who lodged it and about whom; so content that reached a client must be about the person and
of the provider that the client asked about. An agency's keys note each attempt to open what is not the agency's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.ops.simulation.clients import Line
from chukan.ops.simulation.world import items, value_of
from chukan.platform.wire.agency import AnswerContent, Gap


def check(evidence: Evidence) -> Iterator[str]:
    """Look at what every client was shown, and at every key that was tried."""
    yield from evidence.journal.strangers
    yield from evidence.world.keystores.foreign
    for posted in evidence.journal.posted:
        for line in posted.lines.values():
            for content in line.contents:
                yield from _contents(evidence, posted.key, line, content)
    owners: dict[object, int] = {}
    for agency, _, table in evidence.world.tables():
        for row in (*table.queries, *table.provisions, *table.records):
            if owners.setdefault(row, agency.number) != agency.number:
                yield "two agencies' rows share an id"
    for entry in evidence.world.journal.entries:
        if entry.function == "collect":
            number, _ = entry.given
            table = next(table for agency, _, table in evidence.world.tables() if agency.number == number)
            if any(row.id not in table.queries for row in entry.result):
                yield "an agency was given another one's lines"


def _contents(evidence: Evidence, key: str, line: Line, content: AnswerContent) -> Iterator[str]:
    provider = evidence.agencies[line.asked.provider]
    asked = set(line.asked.items or items())
    for copy in content.copies:
        for item, value in copy.items.items():
            if item not in asked:
                yield f"{key}: was given an item that it did not ask for"
            elif not isinstance(value, Gap) and value != value_of(provider, line.person, items().index(item)):
                yield f"{key}: was given somebody else's value"
