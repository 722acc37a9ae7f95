"""Checking an evidence file (証跡の検証) without the platform: is all as it was signed, and if not, what differs first?

Everything is computed anew from the leaf data: hashes, roots, each label's chain. Against it stand the signed
checkpoints (those in the file, and those that the checker kept from earlier), the commitments of the records, and the
hashes and tiles that the log rested with. Where data and signed root differ, hashes and tiles that do give the root
name the leaf.

Pure but for reading the lines. Invariant: nothing counts that no known key has signed, and of what follows from one
change only the first of its kind is reported. It holds a few bytes for each person of the log, nothing for each record.

It shows that the log is unaltered, and where its checkpoints sign the map of persons, that this map follows from the
log: by it a resident's answer is then shown to be complete (``resident_check``).
"""

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from chukan.tenants import checkpoint as forms
from chukan.tenants import label_map, merkle
from chukan.tenants.checkpoint import CheckpointError, Verified
from chukan.tenants.evidence_file import (
    CheckpointLine,
    EvidenceFileError,
    Header,
    LeafLine,
    Line,
    ListLine,
    MessageLine,
    ProofLine,
    TileLine,
    UnplacedLine,
)
from chukan.tenants.evidence_report import Finding, Report, Rules
from chukan.tenants.label_map import LabelMap
from chukan.tenants.merkle import Frontier
from chukan.tenants.operations import OperationFields
from chukan.tenants.records import SALT_BYTES, RecordFields, commit
from chukan.tenants.restored import Restored, explaining, read_leaf

_LEAF_BYTES: Final = 105
_VERSION: Final = b"\x01"
_COMMITMENT: Final = slice(1, 33)
_LABEL: Final = slice(33, 65)
_ORDINAL: Final = slice(65, 73)
_PREVIOUS: Final = slice(73, 105)
_NO_LEAF: Final = bytes(32)


def check(lines: Iterable[Line], rules: Rules) -> Report:
    """Check an evidence file and return what was found; never raises for what is in the file."""
    report = Report()
    try:
        _check(iter(lines), rules, report)
    except EvidenceFileError:
        report.add("file")
    return report


def find_restores(lines: Iterable[Line]) -> list[Restored]:
    """Return what the leaves of a file say of restores: true if the file is sound. Nothing is judged here."""
    found: list[Restored] = []
    with contextlib.suppress(EvidenceFileError):
        said = (read_leaf(line.position, line.data) for line in lines if isinstance(line, LeafLine))
        found.extend(each for each in said if each is not None)
    return found


def _check(lines: Iterable[Line], rules: Rules, report: Report) -> None:
    iterator = iter(lines)
    header = next(iterator, None)
    if not isinstance(header, Header):
        report.add("file")
        return
    report.origin = header.origin
    claims = _Claims(report, rules, header.origin)
    work: _Log | _Proofs | None = None
    for line in iterator:
        if isinstance(line, ListLine | MessageLine):
            continue  # what the network signed is judged with the network's keys, by message_check
        if isinstance(line, CheckpointLine) and work is None:
            claims.add(line.note.encode())
            continue
        if work is None:
            claims.settle()
            work = _Log(report, rules, header, claims) if header.of == "log" else _Proofs(report, rules, header, claims)
        work.take(line)
    if work is None:
        claims.settle()
        work = _Log(report, rules, header, claims)
    work.end()


class _Claims:
    """The signed checkpoints: of each size, the one root that was signed."""

    def __init__(self, report: Report, rules: Rules, origin: str) -> None:
        self._report = report
        self._rules = rules
        self._origin = origin
        self._last: Verified | None = None
        self._cosigned: set[int] = set()
        self.roots: dict[int, bytes] = {}
        self.maps: dict[int, bytes] = {}
        """The one map that was signed for each size, where one was."""
        self.known_size = 0
        """How many leaves the log has at least, by any checkpoint."""

    def add(self, note: bytes) -> None:
        """Take a checkpoint of the file."""
        found = self._verify(note)
        if found is None:
            return
        self._report.checkpoints += 1
        if _by_another(found):
            self._cosigned.add(found.checkpoint.size)
            self._report.cosigned_size = max(self._cosigned)
        if self._last is not None and found.checkpoint.size <= self._last.checkpoint.size:
            self._report.add("checkpoint_order")
        if self._last is None or found.checkpoint.size >= self._last.checkpoint.size:
            self._last = found
        self._claim(found)

    def settle(self) -> None:
        """Take those known from elsewhere, once all of the file are there."""
        report = self._report
        if self._last is None:
            report.add("no_checkpoint")
        else:
            report.size, report.root = self._last.checkpoint.size, self._last.checkpoint.root
            if self._rules.need_cosigned and report.cosigned_size < report.size:
                report.add("not_cosigned")
        self.known_size = report.size
        for note in self._rules.known:
            found = self._verify(note)
            if found is None or self._lost(found.checkpoint):
                continue
            self.known_size = max(self.known_size, found.checkpoint.size)
            if found.checkpoint.size not in self.roots:
                report.add("checkpoint_missing")
            elif _by_another(found) and found.checkpoint.size not in self._cosigned:
                report.add("cosignature")
            self._claim(found)
            # What the checker has seen counts, whatever the file says.
            self.roots[found.checkpoint.size] = found.checkpoint.root
            signed = label_map.root_in(found.checkpoint.extensions)
            if signed is not None:
                self.maps[found.checkpoint.size] = signed

    def _lost(self, said: forms.Checkpoint) -> bool:
        """Tell whether a checkpoint from elsewhere is of leaves that a restore lost, by the log's own word."""
        if self.roots.get(said.size) == said.root:
            return False
        restored = explaining(self._rules.restores, said.size, said.root)
        if restored is not None and not self._rules.allow_restored:
            self._report.add("restored", restored.position, said.size)
        return restored is not None

    def _verify(self, note: bytes) -> Verified | None:
        try:
            found = self._read(forms.parse_note(note))
            label_map.root_in(found.checkpoint.extensions)
        except CheckpointError:
            self._report.add("checkpoint")
            return None
        return found

    def _read(self, note: forms.Note) -> Verified:
        try:
            return forms.verify(note, self._rules.keys, origin=self._origin)
        except CheckpointError:
            # A wrong cosignature takes nothing away from what the log itself has signed.
            log_keys = [key for key in self._rules.keys if key.type == forms.LOG]
            found = forms.verify(note, log_keys, origin=self._origin)
            self._report.add("cosignature")
            return found

    def _claim(self, found: Verified) -> None:
        said = found.checkpoint
        signed = label_map.root_in(said.extensions)
        other_map = signed is not None and self.maps.setdefault(said.size, signed) != signed
        if self.roots.setdefault(said.size, said.root) != said.root or other_map:
            self._report.add("fork")


def _by_another(found: Verified) -> bool:
    """Tell whether a centre other than the one that signed has cosigned."""
    return any(each.key.public != found.log_key.public for each in found.cosigned)


class _Log:
    """The whole log, leaf by leaf."""

    def __init__(self, report: Report, rules: Rules, header: Header, claims: _Claims) -> None:
        self._report = report
        self._need_records = rules.need_records and header.records
        self._claims = claims
        self._trees = {"data": Frontier(), "leaf_hash": Frontier(), "tile": Frontier()}
        self._differs: dict[str, int] = {}
        """Where kept hashes and tiles differ from the data first."""
        self._chains: dict[bytes, tuple[int, bytes, int]] = {}
        self._map = LabelMap()
        self._grown: set[bytes] = set()
        """Labels that have grown since the map was looked at last."""
        self._tile: list[bytes] = []
        self._tile_n = 0
        self._good = 0
        self._seen: set[str] = set()
        self._bad: Finding | None = None

    def take(self, line: Line) -> None:
        """Take a line of the log."""
        if isinstance(line, TileLine):
            self._take_tile(line)
        elif isinstance(line, LeafLine):
            self._take_leaf(line)
        elif isinstance(line, UnplacedLine):
            self._once("record_without_leaf")
        else:
            self._once("file")

    def end(self) -> None:
        """Hold what was read against what was signed."""
        report = self._report
        if self._bad is not None:
            report.findings.append(self._bad)
        if report.leaves < report.size:
            # Only leaves up to a checkpoint are known to be as they were: before it one may be missing, all after it
            # moved up.
            report.add("truncated", self._good + 1, report.leaves + 1)
        elif report.leaves < self._claims.known_size:
            report.add("rolled_back", self._good + 1 if self._good == report.leaves else None, self._claims.known_size)
        elif report.leaves > self._claims.known_size and not any(each.code == "checkpoint" for each in report.findings):
            report.add("beyond", self._claims.known_size + 1)
        if self._bad is None:
            # The data is what was signed: then what was kept beside it is what was changed.
            for code, position in self._differs.items():
                report.add(code, position)

    def _once(self, code: str, first: int | None = None, last: int | None = None) -> None:
        """Add the first finding of a kind: one change has many consequences after it."""
        if code not in self._seen:
            self._seen.add(code)
            self._report.add(code, first, last)

    def _take_tile(self, line: TileLine) -> None:
        at = self._tile_n * merkle.TILE_WIDTH
        if line.n != self._tile_n or self._report.leaves != at or self._tile:
            self._once("tile", self._report.leaves + 1)
        try:
            self._tile = merkle.split_tile(line.hashes)
        except ValueError:
            self._once("tile", self._report.leaves + 1)
        self._tile_n = line.n + 1

    def _take_leaf(self, line: LeafLine) -> None:
        report = self._report
        report.leaves += 1
        place = report.leaves
        if line.position != place:
            self._once("position", place)
        own = merkle.leaf_hash(line.data)
        if place % merkle.TILE_WIDTH == 1 and not self._tile and place + merkle.TILE_WIDTH - 1 <= report.size:
            self._once("tile", place)
        kept = self._tile.pop(0) if self._tile else line.hash
        for code, given in (("data", own), ("leaf_hash", line.hash), ("tile", kept)):
            self._trees[code].append(given)
            if given != own:
                self._differs.setdefault(code, place)
        self._check_chain(line.data, own, place)
        restored = read_leaf(place, line.data)
        if restored is None:
            self._check_record(line, place)
        else:
            report.restores.append(restored)
            if line.record is not None or line.unreadable:
                self._once("record", place)
        root = self._claims.roots.get(place)
        if root is not None:
            self._check_root(root, place)

    def _check_root(self, root: bytes, size: int) -> None:
        if self._trees["data"].root() == root:
            if self._bad is not None:
                # A later tree holds all leaves as they are: the checkpoint before it was of another log.
                self._once("fork")
            self._good, self._bad = size, None
            self._check_map(size)
            return
        if self._bad is not None:
            return
        named = [
            self._differs[code]
            for code in ("leaf_hash", "tile")
            if code in self._differs and self._trees[code].root() == root
        ]
        first, last = (named[0], named[0]) if named else (self._good + 1, size)
        self._bad = Finding("leaf", first, last)

    def _check_map(self, size: int) -> None:
        """Hold the signed map of persons against the one that follows from the leaves so far."""
        signed = self._claims.maps.get(size)
        if signed is None:
            return
        values = {label_map.key_of(label): label_map.value_of(*self._chains[label][:2]) for label in self._grown}
        self._grown.clear()
        if self._map.put(values)[0] == signed:
            self._report.map_size = max(self._report.map_size, size)
        else:
            self._once("map")

    def _check_chain(self, data: bytes, own: bytes, place: int) -> None:
        is_form = data.startswith(_VERSION) or read_leaf(place, data) is not None
        if len(data) != _LEAF_BYTES or not is_form:
            self._once("leaf_form", place)
            return
        label = data[_LABEL]
        ordinal, previous, before = self._chains.get(label, (0, _NO_LEAF, place))
        if (int.from_bytes(data[_ORDINAL]), data[_PREVIOUS]) != (ordinal, previous):
            self._once("chain", before, place)
        self._chains[label] = (ordinal + 1, own, place)
        self._grown.add(label)

    def _check_record(self, line: LeafLine, place: int) -> None:
        if line.unreadable:
            self._once("record", place)
        elif line.record is None:
            if self._need_records:
                self._once("record_missing", place)
        elif is_committed(line.data, line.salt, line.record):
            self._report.records += 1
        else:
            self._once("record", place)


class _Proofs:
    """Single leaves with their paths."""

    def __init__(self, report: Report, rules: Rules, header: Header, _claims: _Claims) -> None:
        self._report = report
        self._need_records = rules.need_records and header.records

    def take(self, line: Line) -> None:
        """Take a proof."""
        if not isinstance(line, ProofLine):
            self._report.add("file")
            return
        report = self._report
        report.leaves += 1
        leaf = merkle.leaf_hash(line.data)
        if not merkle.verify_inclusion(leaf, line.position - 1, report.size, line.path, report.root):
            report.add("proof", line.position)
        elif line.record is None:
            if self._need_records:
                report.add("record_missing", line.position)
        elif is_committed(line.data, line.salt, line.record):
            report.records += 1
        else:
            report.add("record", line.position)

    def end(self) -> None:
        """Nothing is left to do: each proof stands by itself."""


def is_committed(data: bytes, salt: bytes | None, record: bytes) -> bool:
    """Tell whether a record's canonical bytes are those that a leaf commits to, and say something."""
    if salt is None or len(salt) != SALT_BYTES or commit(salt, record) != data[_COMMITMENT]:
        return False
    return any(_says(record, form) for form in (RecordFields, OperationFields))


def _says(content: bytes, form: type[RecordFields | OperationFields]) -> bool:
    try:
        msgspec.json.decode(content, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
