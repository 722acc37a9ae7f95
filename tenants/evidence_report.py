"""What a check of an evidence file (証跡の検証) brings along, and what it comes to: rules, findings, the report.

Pure data: what is found is judged in ``evidence_check``. Invariant: a report that is sound has no finding, and it names
positions and codes only, never what a record says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chukan.tenants import merkle
from chukan.tenants.checkpoint import Key
from chukan.tenants.restored import Restored

FINDINGS_MAX: Final = 100

WORDS: Final = {
    "file": "the file has a line of another form, or in another place",
    "position": "a leaf is missing, doubled or at another place",
    "leaf": "the leaf is not the one that was signed",
    "leaf_form": "the leaf has another form",
    "leaf_hash": "the hash kept beside the leaf is not the leaf's",
    "tile": "a tile of the tree does not have the leaf's hash",
    "chain": "the leaf does not continue the person's chain: it, or the one before it, was changed",
    "record": "the record is not the one that was committed to",
    "record_missing": "the leaf's record is not there",
    "record_without_leaf": "a record has no leaf",
    "truncated": "the log ends before the last checkpoint",
    "beyond": "there are leaves after the last checkpoint",
    "checkpoint": "a checkpoint is not signed by the log, or its signature is wrong",
    "cosignature": "a cosignature is not what its centre signed, or one that was seen before is not there",
    "checkpoint_order": "the checkpoints do not follow one another",
    "no_checkpoint": "there is no checkpoint",
    "not_cosigned": "the last checkpoint is not cosigned by another centre",
    "checkpoint_missing": "a checkpoint that was seen before is not there",
    "fork": "a signed checkpoint contradicts another one",
    "rolled_back": "a checkpoint that was seen before is larger than the log",
    "restored": "leaves that were signed before are lost: the cell was restored, and the leaf here says so",
    "proof": "the leaf is not in the tree of the checkpoint",
    "map": "a checkpoint signs a map of persons that does not follow from the log",
}
"""What each finding means."""


class Finding(NamedTuple):
    """Something that is not as it was signed: a code of ``WORDS``, and the positions of which the first is bad."""

    code: str
    first: int | None = None
    last: int | None = None


def _place(finding: Finding) -> int:
    return finding.first or 0


@dataclass
class Report:
    """What a check came to."""

    origin: str = ""
    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    leaves: int = 0
    records: int = 0
    checkpoints: int = 0
    cosigned_size: int = 0
    """The largest checkpoint that a centre beside the one that signed it has cosigned."""
    map_size: int = 0
    """The largest checkpoint whose map of persons follows from the log; 0 where none signs one."""
    findings: list[Finding] = field(default_factory=list)
    restores: list[Restored] = field(default_factory=list)
    """What the log itself says of restores; whether that is believed is not judged here."""

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def shows(self) -> str:
        """What was shown, in a word: ``complete`` where the last checkpoint's map of persons follows from the log too.

        A person's answer that is held against that map then misses nothing that is in the log.
        """
        if not self.sound:
            return "nothing"
        return "complete" if 0 < self.size == self.map_size else "unaltered"

    @property
    def first_bad(self) -> Finding | None:
        """The finding that names the first bad leaf: the earliest, or an exact one inside of its range."""
        placed = [each for each in self.findings if each.first is not None]
        first = min(placed, key=_place, default=None)
        if first is None:
            return None
        last = first.last or 0
        exact = [each for each in placed if each.first == each.last and _place(each) <= last]
        return min(exact, key=_place, default=first)

    def add(self, code: str, first: int | None = None, last: int | None = None) -> None:
        """Note a finding; the first of each code counts, and no more than 100."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(code, first, first if last is None else last))


class Rules(NamedTuple):
    """What a checker brings along."""

    keys: Sequence[Key]
    """Of the log and its cosigners, from elsewhere than the file."""
    known: Sequence[bytes] = ()
    """Checkpoints (notes) that were kept from earlier, or came from elsewhere."""
    need_cosigned: bool = True
    need_records: bool = True
    """Whether a leaf without its record is a finding: records are deleted after seven years, leaves never."""
    restores: Sequence[Restored] = ()
    """What the file says of restores (``find_restores``), by which a known checkpoint may be explained."""
    allow_restored: bool = False
    """Whether a known checkpoint that is explained so is no finding."""
