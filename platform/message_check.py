"""Checking kept messages (電文の証跡の検証) with the network's public keys alone, when all content is long gone.

Of each message it is shown, as far as it is there: that the network signed the list in which it stood; that the network
signed the permit, whose terms are the record's; that the record commits to exactly this (its salt); and what was
received and sent, by digests that whoever still has the bytes can compute. A message that contradicts is a finding.

What it cannot show stands in ``SHOWS``: a digest without its bytes says that something was exchanged, not what.

Pure. Invariant: nothing counts that none of the given keys signed, or that its record does not commit to; bounded by
the records of one page (1,024), whatever a file holds. It names positions and codes, never what a record says.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidSignature

from chukan.errors import Problem
from chukan.platform.envelope import Evidence, verify_evidence
from chukan.platform.permits import signed_bytes
from chukan.platform.wire.network import InquirerPermit, PermitReply, Receipt
from chukan.tenants.evidence_file import EvidenceFileError, LeafLine, Line, ListLine, MessageLine, ProofLine
from chukan.tenants.evidence_report import FINDINGS_MAX, Finding
from chukan.tenants.merkle import inclusion_root, leaf_hash
from chukan.tenants.messages import OF_RECORDS_MAX, KeptList, KeptMessage, PermitProof, salt_of
from chukan.tenants.records import RecordFields

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WORDS: Final = {
    "message_list": "the network did not sign a list of messages as it is kept",
    "message_place": "a message is not the one at its place in the list",
    "message_permit": "the network did not sign the permit as it is kept, or the record says otherwise",
    "message_binding": "the record does not commit to what is kept of its messages",
    "message_alone": "a message belongs to no record before it",
    "message_missing": "nothing is kept of the messages of a record that names a permit",
}
"""What each finding means."""
SHOWS: Final = (
    "the network's signatures over lists, permits and receipts hold; a digest without its bytes shows that something"
    " was exchanged at that time, not what"
)
_LISTED: Final = frozenset({"notice", "answer", "reply", "receipt"})
_UNBOUND: Final = frozenset({"notice", "receipt"})
"""What no record need commit to: a notice that was held, and a receipt, which names the line itself."""
_inquirer_permit: Final = msgspec.json.Decoder(InquirerPermit)
_receipt: Final = msgspec.json.Decoder(Receipt)
_reply: Final = msgspec.json.Decoder(PermitReply)
_record: Final = msgspec.json.Decoder(RecordFields)


@dataclass
class MessageReport:
    """What a check of messages came to, in numbers: of lists, of bound messages by kind, of permits and receipts."""

    lists: int = 0
    permits: int = 0
    bound: Counter[str] = field(default_factory=Counter)
    """Messages that their record commits to, by what they are."""
    others: Counter[str] = field(default_factory=Counter)
    """Messages that the network signed, which no record commits to: receipts, and notices that were held."""
    without: int = 0
    """Records that name a permit and of whose messages nothing is kept."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, code: str, position: int | None) -> None:
        """Note a finding, no more than 100."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(code, position, position))


@dataclass
class _Seen:
    """A record of the page, as its leaf line gives it."""

    position: int
    salt: bytes
    fields: RecordFields
    messages: int = 0


def check_messages(
    lines: Iterable[Line], network: Sequence[Ed25519PublicKey], *, need_messages: bool = False
) -> MessageReport:
    """Check the messages of an evidence file; never raises for what is in it.

    Whether the records are those that the log commits to is ``evidence_check``'s, which is asked beside this one.

    Args:
        lines: of the file.
        network: the network's keys, from elsewhere than the file.
        need_messages: whether a record that names a permit and has no message is a finding: those of before messages
            were kept, and those closed without an answer, have none.
    """
    work = _Check(network, need_messages=need_messages)
    try:
        for line in lines:
            work.take(line)
    except EvidenceFileError:
        work.report.add("message_list", None)
    work.turn()
    return work.report


class _Check:
    def __init__(self, network: Sequence[Ed25519PublicKey], *, need_messages: bool) -> None:
        self.report = MessageReport()
        self._network = network
        self._need = need_messages
        self._records: dict[uuid.UUID, _Seen] = {}
        self._list: KeptList | None = None
        self._talking = False

    def take(self, line: Line) -> None:
        if isinstance(line, LeafLine | ProofLine):
            if self._talking or len(self._records) >= OF_RECORDS_MAX:
                self.turn()
            self._take_record(line)
        elif isinstance(line, ListLine):
            self._talking = True
            self._take_list(line.list)
        elif isinstance(line, MessageLine):
            self._talking = True
            self._take_message(line)

    def turn(self) -> None:
        """End a page: its records cannot be named any more."""
        for seen in self._records.values():
            if seen.fields.reference is not None and seen.fields.amends is None and not seen.messages:
                self.report.without += 1
                if self._need:
                    self.report.add("message_missing", seen.position)
        self._records.clear()
        self._list = None
        self._talking = False

    def _take_record(self, line: LeafLine | ProofLine) -> None:
        if line.record is None or line.salt is None:
            return
        try:
            fields = _record.decode(line.record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # no provision record: whether it should be one is the log's check
        self._records[fields.id] = _Seen(line.position, line.salt, fields)

    def _take_list(self, kept: KeptList) -> None:
        self._list = kept
        digests = [kept.digests[at : at + 32] for at in range(0, len(kept.digests), 32)]
        evidence = Evidence(kept.base, kept.signature, kept.key, digests)
        if any(_holds(evidence, key) for key in self._network):
            self.report.lists += 1
        else:
            self._list = None
            self.report.add("message_list", None)

    def _take_message(self, line: MessageLine) -> None:
        seen, message = self._records.get(line.record), line.message
        if seen is None:
            self.report.add("message_alone", None)
            return
        seen.messages += 1
        digest = self._digest(message)
        if (message.what in _LISTED) is not (digest is not None):
            self.report.add("message_place", seen.position)
            return
        if message.permit is not None and not self._permitted(message.permit, seen.fields):
            self.report.add("message_permit", seen.position)
            return
        named = message.item is not None or message.what == "receipt"
        if named and not _names(message, seen.fields, digest):
            self.report.add("message_place", seen.position)
            return
        if message.statement is None and message.nonce is None and message.what in _UNBOUND:
            self.report.others[message.what] += 1
        elif self._is_bound(message, seen, digest):
            self.report.bound[message.what] += 1
        else:
            self.report.add("message_binding", seen.position)

    def _digest(self, message: KeptMessage) -> bytes | None:
        """Return the digest at the message's place in the list that the network signed."""
        if message.place is None or self._list is None:
            return None
        return self._list.digests[32 * message.place : 32 * message.place + 32] or None

    def _is_bound(self, message: KeptMessage, seen: _Seen, digest: bytes | None) -> bool:
        said = message.statement
        if said is None or message.nonce is None or salt_of(message.nonce, said) != seen.salt:
            return False
        leaf = None if message.permit is None else message.permit.leaf
        return (said.permit, said.received) == (leaf, digest)

    def _permitted(self, permit: PermitProof, fields: RecordFields) -> bool:
        root = inclusion_root(permit.leaf, permit.index, permit.size, permit.path)
        if root is None or not any(self._signed(permit, root, key) for key in self._network):
            return False
        self.report.permits += 1
        if permit.body is None:
            return True
        return leaf_hash(permit.body) == permit.leaf and _same_terms(permit.body, fields)

    def _signed(self, permit: PermitProof, root: bytes, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(permit.signature, signed_bytes(permit.list_id, permit.size, root))
        except InvalidSignature:
            return False
        return True


def _holds(evidence: Evidence, key: Ed25519PublicKey) -> bool:
    try:
        verify_evidence(evidence, key)
    except Problem:
        return False
    return True


def _same_terms(body: bytes, fields: RecordFields) -> bool:
    """Tell whether an inquirer's permit is the one of its record: parties, affair, kind, items, reference."""
    try:
        permit = _inquirer_permit.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return (
        permit.request,
        permit.inquirer,
        permit.provider,
        permit.affair,
        permit.procedure,
        permit.kind,
        permit.items,
        str(permit.permit),
    ) == (
        fields.amends or fields.id,
        fields.inquirer,
        fields.provider,
        fields.affair,
        fields.procedure,
        fields.kind,
        fields.items,
        fields.reference,
    )


def _names(message: KeptMessage, fields: RecordFields, digest: bytes | None) -> bool:
    """Tell whether an item that was kept whole is the one of the list, and names the record's line."""
    item = message.item or b""
    if hashlib.sha256(item).digest() != digest:
        return False
    try:
        named = (_receipt if message.what == "receipt" else _reply).decode(item).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return named == (fields.amends or fields.id)
