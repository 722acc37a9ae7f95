"""Effect and record are one: each side that took part has exactly one record of a line, and so has the network.

Amendments are no second record: they name the one that they amend, and the last word must agree with the network's.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from chukan.ops.drills.facts import Evidence, Exchanged, Fault, Recorded

_OWN_WORDS = {"failed": "bad_request", "cancelled": "expired"}
"""How an agency calls what the network, which knows of no cancelling, calls otherwise."""


def not_exactly_one(evidence: Evidence) -> Iterator[Fault]:
    """Yield lines with no record, with two, or with records that do not agree; and places in a log taken twice."""
    network: dict[uuid.UUID, list[Exchanged]] = defaultdict(list)
    for exchanged in evidence.network:
        network[exchanged.request].append(exchanged)
    for agency, lines in evidence.lines.items():
        own = _by_line(evidence.records.get(agency, []))
        for line in lines:
            yield from _inquirer(own.get(line.id, []), line.id, line.outcome, network.get(line.id, []))
    for agency in evidence.lines:
        asked = {line.id for line in evidence.lines[agency]}
        for record in evidence.records.get(agency, []):
            if record.side == "inquirer" and record.amends is None and record.id not in asked:
                yield Fault("duplicates", "record_of_no_line", str(record.id), agency)
    yield from _providers(evidence)
    yield from _places(evidence.records)


def _by_line(records: Sequence[Recorded]) -> dict[uuid.UUID, list[Recorded]]:
    found: dict[uuid.UUID, list[Recorded]] = defaultdict(list)
    for record in records:
        if record.side == "inquirer":
            found[record.amends or record.id].append(record)
    return found


def _inquirer(
    own: Sequence[Recorded], line: uuid.UUID, outcome: str | None, network: Sequence[Exchanged]
) -> Iterator[Fault]:
    first = [record for record in own if record.amends is None]
    if len(first) > 1:
        yield Fault("duplicates", "two_records_at_inquirer", str(line))
    elif not first:
        yield Fault("lost", "no_record_at_inquirer", str(line))
    elif outcome not in {record.outcome for record in own}:
        yield Fault("duplicates", "record_tells_another_outcome", str(line), f"{first[0].outcome}, told {outcome}")
    if len(network) > 1:
        yield Fault("duplicates", "two_records_at_network", str(line))
    if not network and first and any(record.reference for record in own):
        yield Fault("lost", "no_record_at_network", str(line))
    if network and first and not any(_agree(record.outcome, network[0].outcome) for record in own):
        yield Fault("duplicates", "sides_tell_different_outcomes", str(line), f"network {network[0].outcome}")


def _providers(evidence: Evidence) -> Iterator[Fault]:
    given: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    for agency, records in evidence.records.items():
        ids = {record.id: record for record in records if record.side == "provider" and record.amends is None}
        for record in records:
            base = record if record.amends is None else ids.get(record.amends)
            if record.side == "provider" and base is not None:
                given[agency, base.reference or record.reference].append(record)
    for exchanged in evidence.network:
        if exchanged.provider not in evidence.records or exchanged.outcome is None:
            continue
        found = given.get((exchanged.provider, exchanged.reference), [])
        first = [record for record in found if record.amends is None]
        if len(first) > 1:
            yield Fault("duplicates", "two_records_at_provider", exchanged.reference, exchanged.provider)
        elif not first and exchanged.told_provider:
            yield Fault("lost", "no_record_at_provider", exchanged.reference, exchanged.provider)
        elif first and not any(_agree(record.outcome, exchanged.outcome) for record in found):
            yield Fault("duplicates", "sides_tell_different_outcomes", exchanged.reference, exchanged.provider)


def _places(records: Mapping[str, Sequence[Recorded]]) -> Iterator[Fault]:
    for agency, of in records.items():
        seen: set[int] = set()
        for record in of:
            if record.position in seen:
                yield Fault("two_writers", "one_place_given_twice", f"{agency} {record.position}")
            if record.position >= 0:
                seen.add(record.position)


def _agree(own: str, network: str | None) -> bool:
    return own == network or _OWN_WORDS.get(own) == network
