"""The rows that set functions take and give: one frozen struct per row shape, the contract between Python and SQL.

A *set* is a list of such rows of one side in one cell; ``tenants.sets`` turns it into arrays, calls one function,
commits once. Everything personal in a row is already ciphertext or a keyed digest of its own agency (invariant 6):
this module must never hold a clear addressee number, linkage code, item or counterpart.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field

from chukan.tenants.states import InquiryState, LinkStatus, Outcome, ProvisionState, Side


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease on one shard of one side: every stage function checks it in its own transaction."""

    side: Side
    shard: int
    epoch: int


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A provision record (情報提供等記録) ready to rest. ``id`` is the line's own id: there cannot be two."""

    id: uuid.UUID
    label: bytes
    """Person label of this agency, 32 bytes."""
    month: dt.date
    """First day of the month (JST) of the final outcome."""
    sealed: bytes
    """Salt (32 bytes) and canonical record bytes under the agency's data key."""
    commitment: bytes
    """SHA-256(0x02 ‖ salt ‖ canonical record bytes)."""
    amends: uuid.UUID | None = None
    """The record that this one amends; then ``id`` is a new id."""


# ---------------------------------------------------------------- inquirer side


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A line's message as evidence (電文の証跡), kept in the commit of its effect: see ``tenants.messages``."""

    id: uuid.UUID
    line: uuid.UUID
    """Id of the record that it belongs to: the line's own, or the amendment's."""
    list: uuid.UUID | None
    """The row of the signed list that it stood in; None for what was only sent."""
    sealed: bytes
    list_sealed: bytes | None


@dataclass(frozen=True, slots=True)
class AcceptBatch:
    """One POSTed list with its idempotency key."""

    agency: int
    generation: int
    key: bytes
    """Keyed digest of the Idempotency-Key (32 bytes)."""
    body: bytes
    """Keyed digest of the request body (32 bytes)."""
    batch: uuid.UUID


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """What the idempotency table says: ``batch`` is the first one stored for the key."""

    batch: uuid.UUID
    fresh: bool
    same_body: bool
    again: bool = False
    """Nothing was stored: the link or the delegation of a line is not any more what it was decided on."""


@dataclass(frozen=True, slots=True)
class AcceptLine:
    """One line to make durable. A line that closes at once has a final state, a record and no outbox."""

    agency: int
    batch: uuid.UUID
    id: uuid.UUID
    ordinal: int
    """Line number in the POSTed list, from 0."""
    state: InquiryState
    outcome: Outcome
    reason: str | None
    due: dt.datetime
    deadline: dt.datetime
    person: bytes | None
    """Addressee digest, 32 bytes."""
    request: bytes
    """Sealed QueryLine and what was decided at acceptance."""
    outbox: bytes | None
    """Sealed exact bytes of the PermitRequest."""
    record: RecordRow | None = None
    link_version: int | None = None
    """Of the link by which the line asks; None for a line that asks nothing."""
    delegation: uuid.UUID | None = None
    """The agency's own half under which it asks (委任), None for a line of its own."""


@dataclass(frozen=True, slots=True)
class InquiryView:
    """State of a line, read from the work table."""

    id: uuid.UUID
    batch: uuid.UUID
    ordinal: int
    state: InquiryState
    outcome: Outcome
    reason: str | None
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How many lines of some batches stand in a state with an outcome."""

    state: InquiryState
    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True)
class InquiryWork:
    """A line whose ``due`` has come, with what its stage needs."""

    agency: int
    id: uuid.UUID
    state: InquiryState
    tries: int
    deadline: dt.datetime
    request: bytes
    outbox: bytes | None


@dataclass(frozen=True, slots=True)
class InquirySettle:
    """A step of a line by the worker that holds the lease: permitted, closed, expired, or tried again later."""

    agency: int
    id: uuid.UUID
    state: InquiryState
    outcome: Outcome
    reason: str | None
    due: dt.datetime
    deadline: dt.datetime
    permit: bytes | None = None
    """Sealed SignedPermit and reply, kept as evidence."""
    drop_outbox: bool = True
    record: RecordRow | None = None
    message: MessageRow | None = None


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """An answer pushed by the network. ``amendment`` is stored instead of ``record`` when the line is already final."""

    agency: int
    generation: int
    inbox: uuid.UUID
    id: uuid.UUID
    state: InquiryState
    outcome: Outcome
    reason: str | None
    answer: bytes | None
    """Sealed AnswerDelivery bytes; None for under_review and for outcomes without content."""
    record: RecordRow | None
    amendment: RecordRow | None
    message: MessageRow | None = None
    amending: MessageRow | None = None
    """The message that is kept with the amendment instead."""


@dataclass(frozen=True, slots=True)
class RequestHit:
    """A query line's own facts, read back to build its record: ``CellSets.read_requests`` takes (agency, id) pairs."""

    state: InquiryState
    person: bytes | None
    request: bytes
    deadline: dt.datetime


@dataclass(frozen=True, slots=True)
class Collected:
    """A line with its sealed answer."""

    id: uuid.UUID
    batch: uuid.UUID
    ordinal: int
    state: InquiryState
    outcome: Outcome
    reason: str | None
    updated_at: dt.datetime
    answer: bytes | None


# ---------------------------------------------------------------- provider side


@dataclass(frozen=True, slots=True)
class LookupRow:
    """Asks one provider's leaf for a person by code digest and for the copies that the condition selects."""

    agency: int
    code: bytes
    """Keyed digest of the provider-side linkage code."""
    kind: str
    period: str
    """``0`` latest in force on ``on``; ``1`` of ``year``; ``2`` in force between ``start`` and ``end``."""
    year: str | None
    on: dt.date
    start: dt.date | None
    end: dt.date | None


@dataclass(frozen=True, slots=True)
class CopyHit:
    """One copy found, sealed."""

    id: uuid.UUID
    """Row id of the copy: part of the AAD of its body."""
    layout: int
    effective_from: dt.date
    period: str
    body: bytes
    review: bool


@dataclass(frozen=True, slots=True)
class LookupHit:
    """What was found for one LookupRow; ``link`` None means that the code is unknown here."""

    link: LinkStatus | None
    person: bytes | None
    link_version: int
    held: bool
    """A hold stands on the person, the kind, or one of the copies."""
    hold_version: int
    snapshot: int
    copies: list[CopyHit] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProvideRow:
    """One notice's effect: from notice to sealed answer (or to a hold) in one commit."""

    agency: int
    generation: int
    inbox: uuid.UUID
    id: uuid.UUID
    """The provider's own line id."""
    permit: bytes
    """Keyed digest of the permit id: single use."""
    permit_until: dt.datetime
    permit_issued: dt.datetime
    """When the network issued it: a restored cell serves none that is older than its opening."""
    notice: bytes
    """Sealed notice (SignedPermit bytes) and what was decided."""
    state: ProvisionState
    outcome: Outcome
    reason: str | None
    person: bytes | None
    link_version: int
    hold_version: int
    snapshot: int
    deadline: dt.datetime
    outbox: bytes | None
    """Sealed exact bytes of the Answer (of the interim one where held); None where the permit had lapsed."""
    record: RecordRow | None
    message: MessageRow | None = None


@dataclass(frozen=True, slots=True)
class ProvisionWork:
    """A provision whose ``due`` has come."""

    agency: int
    id: uuid.UUID
    state: ProvisionState
    outcome: Outcome
    tries: int
    deadline: dt.datetime
    notice: bytes
    person: bytes | None
    outbox: bytes | None


@dataclass(frozen=True, slots=True)
class ProvisionSettle:
    """A step of a provision by the worker that holds the lease: receipted, lapsed, expired, or tried again later."""

    agency: int
    id: uuid.UUID
    state: ProvisionState
    outcome: Outcome
    due: dt.datetime
    drop_outbox: bool = True
    record: RecordRow | None = None
    """The final record where none stands yet (expired while held), or the amendment (``amends`` set)."""
    message: MessageRow | None = None


@dataclass(frozen=True, slots=True)
class DecideRow:
    """An officer's final decision on a held provision."""

    agency: int
    generation: int
    id: uuid.UUID
    outcome: Outcome
    reason: str | None
    person: bytes | None
    link_version: int
    hold_version: int
    snapshot: int
    outbox: bytes
    record: RecordRow
    message: MessageRow | None = None


@dataclass(frozen=True, slots=True)
class ProvisionView:
    """A provision as its agency's review list needs it."""

    id: uuid.UUID
    state: ProvisionState
    outcome: Outcome
    deadline: dt.datetime
    notice: bytes
    person: bytes | None


# ---------------------------------------------------------------- linkage codes


@dataclass(frozen=True, slots=True)
class CodeOpen:
    """Opens an acquisition for a person, or finds the open one (SYM-02)."""

    agency: int
    generation: int
    person: bytes
    addressee: bytes
    """Sealed addressee number."""
    request: uuid.UUID


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A person's link as it rests."""

    person: bytes
    status: LinkStatus
    version: int
    request: uuid.UUID | None
    number: bytes | None
    """Sealed acquisition number while the acquisition is open."""
    code: bytes | None
    """Sealed linkage code; its digest is the row's name in the seal."""
    code_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class CodeNumber:
    """The network's acquisition number for an open request."""

    agency: int
    person: bytes
    request: uuid.UUID
    number_digest: bytes
    number: bytes


@dataclass(frozen=True, slots=True)
class CodePut:
    """A linkage code that arrived, or the word that it was already acquired."""

    agency: int
    inbox: uuid.UUID
    number_digest: bytes
    code_digest: bytes | None
    code: bytes | None
