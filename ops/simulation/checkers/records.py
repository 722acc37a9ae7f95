"""Exactly one record for each side that took part, and all three parties say the same in the end (invariant 3).

A side that learned otherwise says so in an amendment. The only lasting difference allowed is one that the other side
can never learn of: an inquirer that cancelled, or gave up, before the network let the permit lapse.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from chukan.ops.simulation.checkers.evidence import Evidence, Exchanged, LineKey
from chukan.tenants.records import RecordFields
from chukan.tenants.states import Outcome

_CLOSED_BEFORE = frozenset({"cancelled", "expired"})
_WORDS = {"bad_request": "failed"}


def check(evidence: Evidence) -> Iterator[str]:
    """Count records, and compare what they say."""
    yield from _one_each(evidence)
    asked = set[LineKey]()
    for row in evidence.exchanged:
        agency = evidence.agencies[row.inquirer]
        key = (agency.number, row.request)
        asked.add(key)
        if key not in evidence.inquiries:
            yield "the network was asked about a line that its agency does not know"
            continue
        yield from _refused(evidence, row, key) if row.permit is None else _permitted(evidence, row, key)
    for key in evidence.inquiries:
        if key not in asked and evidence.amendments.get(key):
            yield "a line that the network never saw has an amendment"


def _one_each(evidence: Evidence) -> Iterator[str]:
    lines = {*evidence.inquiries, *evidence.provisions}
    for key in lines:
        records = evidence.base_records.get(key, [])
        if len(records) != 1:
            yield f"a line of agency {key[0]} has {len(records)} records"
        if len(evidence.amendments.get(key, [])) > 1:
            yield f"a line of agency {key[0]} has several amendments"
    for key in {*evidence.base_records, *evidence.amendments} - lines:
        yield f"agency {key[0]} has a record of a line that is not there"
    for key, inquiry in evidence.inquiries.items():
        said = [record.outcome for record in evidence.base_records.get(key, [])]
        if said and said[0] != Outcome(inquiry.outcome).word:
            yield f"a record says {said[0]}, and its line {Outcome(inquiry.outcome).word}"
    for key, provision in evidence.provisions.items():
        if evidence.effective(key) != Outcome(provision.outcome).word:
            yield f"a provider's records say {evidence.effective(key)}, its line {Outcome(provision.outcome).word}"


def _refused(evidence: Evidence, row: Exchanged, key: LineKey) -> Iterator[str]:
    """The network gave no permit: only the inquirer took part."""
    said = evidence.effective(key)
    if said not in {_WORDS.get(row.decided, row.decided), *_CLOSED_BEFORE}:
        yield f"the network said {row.decided}, the inquirer's record {said}"
    if row.reference in evidence.by_permit:
        yield "there is a provision without a permit"


def _permitted(evidence: Evidence, row: Exchanged, key: LineKey) -> Iterator[str]:
    inquirer = evidence.effective(key)
    provider = _provider(evidence, row.reference)
    provided = None if provider is None else evidence.effective(provider)
    if row.outcome == "expired":
        if inquirer not in _CLOSED_BEFORE:
            yield f"the permit lapsed, and the inquirer's record says {inquirer}"
        if provided not in {None, "expired"}:
            yield f"the permit lapsed, and the provider's record says {provided}"
    elif not inquirer == provided == row.outcome:
        yield f"the network says {row.outcome}, the inquirer {inquirer}, the provider {provided}"
    if provider is not None:
        yield from _same_facts(evidence, key, provider)


def _provider(evidence: Evidence, permit: uuid.UUID) -> LineKey | None:
    found = evidence.by_permit.get(permit, [])
    return found[0] if found else None


def _same_facts(evidence: Evidence, inquirer: LineKey, provider: LineKey) -> Iterator[str]:
    mine, theirs = (evidence.base_records.get(key, [])[:1] for key in (inquirer, provider))
    if mine and theirs and _facts(mine[0]) != _facts(theirs[0]):
        yield "the two sides' records are about different things"


def _facts(record: RecordFields) -> tuple[object, ...]:
    return (
        record.inquirer,
        record.provider,
        record.department,
        record.affair,
        record.procedure,
        record.kind,
        record.items,
        record.asked_at,
        record.withheld,
    )
