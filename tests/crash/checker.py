"""Judges a crash test: what the clients' journal says against the records of both sides and of the network.

It believes the clients. Every list that was acknowledged has one batch, every file one id and a result with each of its
lines once; every line has exactly one outcome, the same whenever it was told; each side that took part has exactly one
record of it, and so has the network; nobody has a record of a line that no client knows of. What a side learned later
stands in amendments, and then the last word counts.

Pure, and apart from everything that makes crashes. It shares no code with ``chukan reconcile``, so that one of the two
finds what the other overlooks.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chukan.ops.sandbox.admin import NetworkRecord
from chukan.platform.wire.agency import Record
from chukan.tests.crash.journal import Entry, Told

REFUSED: Final = "refused_before_acceptance"
WITH_CONTENT: Final = frozenset({"provided", "provided_with_gaps"})
OUTCOMES: Final = WITH_CONTENT | {
    "no_record", "no_code", "refused", "expired", "stopped", "not_permitted", "cancelled", "failed",
}  # fmt: skip
_OWN_WORDS: Final = {"failed": "bad_request", "cancelled": "expired"}
"""How an agency calls what the network calls otherwise: it knows of no cancelling, and of no failing."""


class Fault(NamedTuple):
    """Something that must not be: a stable word, the line or list that it is about, and what differs."""

    kind: str
    about: str
    detail: str = ""


class Evidence(NamedTuple):
    """Everything that can be read when all is over.

    ``views`` has all lines of each agency that asks, as the platform shows them now; ``records`` all records of every
    agency, those outside the platform included.
    """

    views: Mapping[str, Sequence[Told]]
    records: Mapping[str, Sequence[Record]]
    network: Sequence[NetworkRecord]


@dataclass(slots=True)
class _Line:
    """One acknowledged line, as its client knows it."""

    id: uuid.UUID
    agency: str
    outcomes: set[str] = field(default_factory=set)
    contents: set[str] = field(default_factory=set)
    collected: bool = False


def check(journal: Iterable[Entry], evidence: Evidence) -> list[Fault]:
    """Return everything that must not be; an empty list is the good end."""
    lines: dict[uuid.UUID, _Line] = {}
    faults = list(_read(journal, lines))
    faults += _clients(lines.values())
    faults += _against_views(lines, evidence.views)
    books = _Books(evidence.records)
    faults += books.faults
    faults += _inquirers(lines, books, frozenset(line.agency for line in lines.values()))
    faults += _network(lines, books, evidence.network)
    faults += _providers(books, evidence)
    return faults


# ---------------------------------------------------------------- the clients' word


def _read(journal: Iterable[Entry], lines: dict[uuid.UUID, _Line]) -> Iterator[Fault]:
    """Fill ``lines``, and yield what is wrong with the replies to lists."""
    sent: dict[str, int] = {}
    answers: dict[str, set[tuple[uuid.UUID | None, tuple[uuid.UUID | None, ...]]]] = defaultdict(set)
    for entry in journal:
        if entry.event == "sending":
            sent[entry.key] = entry.count
        if entry.event == "accepted":
            answers[entry.key].add((entry.batch, tuple(told.id for told in entry.lines)))
            count = entry.count or len(entry.lines)
            if count != sent.get(entry.key):
                yield Fault("lines_missing_in_reply", entry.key, f"{count} of {sent.get(entry.key)}")
        yield from _whole(entry)
        for told in entry.lines:
            if told.id is not None:
                _note(lines.setdefault(told.id, _Line(told.id, entry.agency)), told, entry)
    for key in sent:
        if not answers[key]:
            yield Fault("never_acknowledged", key)
        elif len(answers[key]) > 1:
            yield Fault("acknowledged_twice", key, f"{len(answers[key])} different replies to one key")


def _whole(result: Entry) -> Iterator[Fault]:
    """A file's result says one thing of each of its lines; a line without an id is one that was refused."""
    if result.event != "collected" or not result.count:
        return
    said = Counter(told.line for told in result.lines)
    for number in range(result.count):
        if said.pop(number, 0) != 1:
            yield Fault("not_once_in_result", f"{result.key} {number + 1}")
    for number in said:
        yield Fault("not_once_in_result", f"{result.key} {number + 1}", "a line that was never sent")
    for told in result.lines:
        if (told.id is None) is not (told.state == REFUSED) or not told.final:
            yield Fault("open", f"{result.key} {told.line + 1}", f"{told.state} in the result")


def _note(line: _Line, told: Told, entry: Entry) -> None:
    if told.final and told.outcome is not None:
        line.outcomes.add(told.outcome)
    if told.content is not None:
        line.contents.add(told.content)
    line.collected = line.collected or entry.event == "collected"


def _clients(lines: Iterable[_Line]) -> Iterator[Fault]:
    """What the clients themselves can see to be wrong with what they were told of a line."""
    for line in lines:
        if len(line.outcomes) > 1:
            yield Fault("told_differently", str(line.id), ", ".join(sorted(line.outcomes)))
        if len(line.contents) > 1:
            yield Fault("content_differs", str(line.id))
        if line.contents and not line.outcomes <= WITH_CONTENT:
            yield Fault("content_without_provision", str(line.id))
        if line.collected and line.outcomes & WITH_CONTENT and not line.contents:
            yield Fault("content_missing", str(line.id))


def _against_views(lines: Mapping[uuid.UUID, _Line], views: Mapping[str, Sequence[Told]]) -> Iterator[Fault]:
    """Every acknowledged line is still there, closed, with the outcome that was told."""
    now = {told.id: told for here in views.values() for told in here if told.id is not None}
    for line in lines.values():
        told = now.pop(line.id, None)
        if told is None:
            yield Fault("lost", str(line.id), "acknowledged, and not there any more")
        elif not told.final or told.outcome not in OUTCOMES:
            yield Fault("open", str(line.id), told.state)
        elif line.outcomes - {told.outcome}:
            yield Fault("told_differently", str(line.id), f"{sorted(line.outcomes)}, now {told.outcome}")
        else:
            line.outcomes.add(told.outcome)
    for unknown in now:
        yield Fault("nobody_asked", str(unknown), "a line that was never acknowledged")


# ---------------------------------------------------------------- records


class _Books:
    """All records: the first word of each line by (agency, side), and the last word after its amendments."""

    def __init__(self, records: Mapping[str, Sequence[Record]]) -> None:
        self.faults: list[Fault] = []
        self.first: dict[tuple[str, uuid.UUID], Record] = {}
        self.last: dict[tuple[str, uuid.UUID], Record] = {}
        for agency, of in records.items():
            self._read(agency, of)

    def _read(self, agency: str, records: Sequence[Record]) -> None:
        for record in records:
            if record.amends is None:
                if (agency, record.id) in self.first:
                    self.faults.append(Fault("recorded_twice", str(record.id), agency))
                self.first[agency, record.id] = self.last[agency, record.id] = record
        for record in sorted(records, key=lambda one: one.closed_at):
            if record.amends is None:
                continue
            if (agency, record.amends) in self.first:
                self.last[agency, record.amends] = record
            else:
                self.faults.append(Fault("amends_nothing", str(record.amends), agency))

    def side(self, side: str) -> Iterator[tuple[str, Record, Record]]:
        """Yield (agency, first word, last word) of every line of one side."""
        for (agency, line), record in self.first.items():
            if record.side == side:
                yield agency, record, self.last[agency, line]


def _inquirers(lines: Mapping[uuid.UUID, _Line], books: _Books, asking: frozenset[str]) -> Iterator[Fault]:
    """One record of each line at its inquirer, none of any other line."""
    for line in lines.values():
        record = books.first.get((line.agency, line.id))
        if record is None or record.side != "inquirer":
            yield Fault("not_recorded", str(line.id), "inquirer")
        elif line.outcomes and record.outcome not in line.outcomes:
            yield Fault("outcome_differs", str(line.id), f"recorded {record.outcome}, told {sorted(line.outcomes)}")
    for agency, record, _ in books.side("inquirer"):
        if agency in asking and record.id not in lines:
            yield Fault("nobody_asked", str(record.id), f"a record of inquirer {agency}")


def _network(lines: Mapping[uuid.UUID, _Line], books: _Books, network: Sequence[NetworkRecord]) -> Iterator[Fault]:
    """One record of each line at the network, with the outcome that the inquirer has."""
    by_line = {record.request: record for record in network}
    asking = {line.agency for line in lines.values()}
    for (_, request), count in Counter((record.inquirer, record.request) for record in network).items():
        if count > 1:
            yield Fault("recorded_twice", str(request), f"{count} times at the network")
    for record in network:
        if record.inquirer in asking and record.request not in lines:
            yield Fault("nobody_asked", str(record.request), "a record of the network")
        if record.outcome is None:
            yield Fault("open", str(record.request), "at the network")
    for line in lines.values():
        told = books.last.get((line.agency, line.id))
        if told is not None:
            yield from _compared(told, by_line.get(line.id), str(line.id))


def _compared(told: Record, theirs: NetworkRecord | None, line: str) -> Iterator[Fault]:
    """The inquirer's last word against the network's record."""
    if theirs is None:
        if told.reference is not None:
            yield Fault("not_recorded", line, "network")
    elif theirs.outcome is not None and not _agree(told.outcome, theirs.outcome):
        yield Fault("outcome_differs", line, f"inquirer {told.outcome}, network {theirs.outcome}")


def _providers(books: _Books, evidence: Evidence) -> Iterator[Fault]:
    """One record at the provider of every line that it was told of, with the network's outcome."""
    given: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for agency, first, last in books.side("provider"):
        given[agency, first.reference or ""].append(last)
    for record in evidence.network:
        if record.provider not in evidence.records or record.expires_at is None:
            continue
        found = given.pop((record.provider, str(record.reference)), [])
        if len(found) > 1:
            yield Fault("recorded_twice", str(record.request), f"{len(found)} times at provider {record.provider}")
        elif not found:
            if record.outcome not in {None, "expired"} or record.notified_at is not None:
                yield Fault("not_recorded", str(record.request), "provider")
        elif record.outcome is not None and not _agree(found[0].outcome, record.outcome):
            yield Fault(
                "outcome_differs", str(record.request), f"provider {found[0].outcome}, network {record.outcome}"
            )
    for (agency, reference), found in given.items():
        for _ in found:
            yield Fault("nobody_asked", reference, f"a record of provider {agency}")


def _agree(own: str, network: str) -> bool:
    return own == network or _OWN_WORDS.get(own) == network
