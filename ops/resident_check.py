"""Checking a resident's answer (本人開示の検証) without the platform: is each of their leaves there, as it was signed?

Against the answer stand verifier keys from elsewhere than the answer, and checkpoints that somebody kept. Per label the
map's proof says how many leaves there are and which is the last; each leaf names the hash of the one before; so none
can be left out, added or changed. A record that is withheld from the person (不開示) has its leaf and counts.

Pure. Invariant: nothing counts that no known key has signed, and what an answer says of itself is never believed: a
report says ``complete`` only where all of this was computed here.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chukan.platform.wire.evidence import CheckpointView
from chukan.platform.wire.resident import PersonRecords, ResidentLeaf, ResidentRecords
from chukan.tenants import checkpoint as forms
from chukan.tenants import label_map
from chukan.tenants.checkpoint import CheckpointError, Verified
from chukan.tenants.evidence_check import is_committed
from chukan.tenants.evidence_report import Rules
from chukan.tenants.label_map import Entry, MapProof
from chukan.tenants.merkle import EMPTY_ROOT, leaf_hash

WORDS: Final = {
    "answer": "this is no answer about a resident's records",
    "unproven": "the answer proves nothing: it has no checkpoint",
    "checkpoint": "the checkpoint is not signed by the log, or a signature is wrong",
    "not_cosigned": "the checkpoint is not cosigned by another centre",
    "no_map": "the checkpoint signs no map of persons",
    "rolled_back": "a checkpoint that was seen before is larger than the answer's",
    "fork": "the checkpoint contradicts one that was seen before",
    "place": "the proof does not lead to the signed map",
    "missing": "a record of the person is missing: the signed map has another number of them, or another last one",
    "chain": "a leaf is missing, was changed or is another person's",
    "record": "the record is not the one that was committed to",
    "record_missing": "a record is not there, and is not withheld: it was deleted after seven years, or is lost",
    "label": "the answer says nothing of one of the numbers",
}
"""What each finding means."""

_LEAF_BYTES: Final = 105
_LABEL: Final = slice(33, 65)
_ORDINAL: Final = slice(65, 73)
_PREVIOUS: Final = slice(73, 105)


class ResidentFinding(NamedTuple):
    """Something that is not as it should be: a code of ``WORDS``, of which of the asked, and its leaf (from 1)."""

    code: str
    asked: str | None = None
    leaf: int | None = None


@dataclass
class PersonCount:
    """What one number or code came to."""

    asked: str
    shown: int = 0
    withheld: int = 0
    gone: int = 0
    unproven: int = 0
    known: bool = True


@dataclass
class ResidentReport:
    """What a check came to."""

    origin: str = ""
    size: int = 0
    root: bytes = EMPTY_ROOT
    persons: list[PersonCount] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    """The shown records, as canonical bytes, that are what was committed to."""
    findings: list[ResidentFinding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def shows(self) -> str:
        """What was shown, in a word: ``complete``, or ``nothing``."""
        return "complete" if self.sound else "nothing"

    def add(self, code: str, asked: str | None = None, leaf: int | None = None) -> None:
        """Note a finding; of one person the first of each code counts."""
        if not any((each.code, each.asked) == (code, asked) for each in self.findings):
            self.findings.append(ResidentFinding(code, asked, leaf))


def check_answer(answer: ResidentRecords, rules: Rules) -> ResidentReport:
    """Check an answer; ``rules`` as for an evidence file. Never raises for what is in the answer."""
    report = ResidentReport()
    root = None if answer.checkpoint is None else _check_checkpoint(answer.checkpoint, rules, report)
    if answer.checkpoint is None:
        report.add("unproven")
    for person in answer.persons:
        report.persons.append(_check_person(person, root, rules, report))
    return report


def _check_checkpoint(view: CheckpointView, rules: Rules, report: ResidentReport) -> bytes | None:
    """Return the root of the signed map, None where there is none that counts."""
    found = _verify(view.note.encode(), rules)
    if found is None:
        report.add("checkpoint")
        return None
    said = found.checkpoint
    report.origin, report.size, report.root = said.origin, said.size, said.root
    if rules.need_cosigned and all(each.key.public == found.log_key.public for each in found.cosigned):
        report.add("not_cosigned")
    root = label_map.root_in(said.extensions)
    if root is None:
        report.add("no_map")
    for note in rules.known:
        _hold_against(found, note, rules, report)
    return root


def _verify(raw: bytes, rules: Rules) -> Verified | None:
    try:
        note = forms.parse_note(raw)
        found = forms.verify(note, rules.keys, origin=forms.parse_checkpoint(note.text).origin)
        label_map.root_in(found.checkpoint.extensions)
    except CheckpointError:
        return None
    return found


def _hold_against(found: Verified, note: bytes, rules: Rules, report: ResidentReport) -> None:
    """Hold the checkpoint against one that was kept; what lies between two sizes is the log's consistency proof."""
    seen = _verify(note, rules)
    if seen is None or seen.checkpoint.origin != found.checkpoint.origin:
        report.add("checkpoint")
    elif seen.checkpoint.size > found.checkpoint.size:
        report.add("rolled_back")
    elif seen.checkpoint.size == found.checkpoint.size and seen.checkpoint != found.checkpoint:
        report.add("fork")


def _check_person(person: PersonRecords, root: bytes | None, rules: Rules, report: ResidentReport) -> PersonCount:
    count = PersonCount(person.asked, unproven=len(person.unproven), known=person.known)
    if person.label is None:
        if person.known and root is not None:
            report.add("label", person.asked)
        return count
    if root is not None:
        _check_place(person, person.label, root, report)
    previous = bytes(32)
    for ordinal, leaf in enumerate(person.leaves):
        own = leaf_hash(leaf.data)
        if not _continues(leaf.data, person.label, ordinal, previous):
            report.add("chain", person.asked, ordinal + 1)
        _check_leaf(leaf, ordinal + 1, count, rules, report)
        previous = own
    return count


def _continues(data: bytes, label: bytes, ordinal: int, previous: bytes) -> bool:
    said = (data[_LABEL], int.from_bytes(data[_ORDINAL]), data[_PREVIOUS])
    return len(data) == _LEAF_BYTES and said == (label, ordinal, previous)


def _check_place(person: PersonRecords, label: bytes, root: bytes, report: ResidentReport) -> None:
    """Hold the number of leaves and the last one against the signed map."""
    key = label_map.key_of(label)
    found = None if person.found is None else Entry(person.found.key, person.found.value)
    if not label_map.verify(root, key, MapProof(tuple(person.siblings), found)):
        report.add("place", person.asked)
        return
    is_there = found is not None and found.key == key
    if person.leaves:
        value = label_map.value_of(len(person.leaves), leaf_hash(person.leaves[-1].data))
        if not is_there or found is None or found.value != value:
            report.add("missing", person.asked)
    elif is_there:
        report.add("missing", person.asked)


def _check_leaf(leaf: ResidentLeaf, number: int, count: PersonCount, rules: Rules, report: ResidentReport) -> None:
    if leaf.state == "shown":
        count.shown += 1
        if leaf.record is not None and is_committed(leaf.data, leaf.salt, leaf.record):
            report.records.append(leaf.record)
        else:
            report.add("record", count.asked, number)
        return
    if leaf.state == "withheld":
        count.withheld += 1
    else:
        count.gone += 1
        if rules.need_records:
            report.add("record_missing", count.asked, number)
