"""Messages between an exchange and the information-provision network (情報提供ネットワークシステム).

Every call carries a list of 1…1,000 items and is answered item by item. An item's bytes are self-contained: they
rest in an outbox and are re-sent unchanged; the envelope around them (list, digests, RFC 9421 signature) is made
anew at each send. Basis of the fields: 番号法施行令 20, 26, 27, 29; 命令85号 40-46.

No message carries an individual number or a resident code, except ``ResidentCode`` which only the registry network
(住基ネット) sends to the network and which no exchange ever sees.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Final, Literal

import msgspec

LINES_MAX: Final = 1000
HOLDERS_MAX: Final = 100
END: Final = r"$(?!\n)"
"""End of a pattern: a bare ``$`` would let one line feed after the text pass."""
AgencyCode = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{16}" + END)]
Code16 = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]{16}" + END)]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all messages: immutable, unknown fields are refused, defaults are left out."""


class Condition(Message, frozen=True):
    """What slice of the copy is asked for (照会条件)."""

    period: Annotated[
        Literal["0", "1", "2"],
        msgspec.Meta(
            description="照会条件区分: 0 the latest in force; 1 one year (needs year); 2 needs start and end."
        ),
    ] = "0"
    """照会条件区分: ``0`` the latest in force, ``1`` one year or period, ``2`` from ``start`` to ``end``."""
    year: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}" + END)] | None = None
    start: dt.date | None = None
    end: dt.date | None = None


# ---------------------------------------------------------------- permits


class InquirerPermit(Message, frozen=True, tag_field="face", tag="inquirer"):
    """The inquirer's face of a permit (情報提供許可証): what may be received, until when."""

    permit: uuid.UUID
    request: uuid.UUID
    """The inquirer's own message id of the permit request (= its query line id)."""
    inquirer: AgencyCode
    provider: AgencyCode
    affair: Code16
    procedure: Code16
    kind: Code16
    items: list[str]
    issued_at: Instant
    expires_at: Instant
    withheld: bool = False
    replaces: uuid.UUID | None = None
    """Permit of the same request that is void: its provider's data were restored after it was issued."""


class ProviderPermit(Message, frozen=True, tag_field="face", tag="provider"):
    """The provider's face of a permit: the notice of 施行令26条1項 with the provider-side linkage code."""

    permit: uuid.UUID
    code: bytes
    """Provider-side linkage code (提供側の符号), base64 on the wire."""
    inquirer: AgencyCode
    provider: AgencyCode
    department: str
    affair: Code16
    procedure: Code16
    kind: Code16
    items: list[str]
    condition: Condition
    asked_at: Instant
    issued_at: Instant
    expires_at: Instant
    answer_key: str
    """Id of the inquirer's answer key."""
    answer_key_public: bytes
    """X25519 public key (32 bytes) to which the answer is sealed."""
    route: str
    """Where the answer goes; opaque, taken from here and never from a payload (PRV-08)."""
    withheld: bool = False
    replaces: uuid.UUID | None = None
    """As in the inquirer's face."""
    consent: bool = False
    """As in the request, like the two below: the network found the delegations registered."""
    on_behalf_of: AgencyCode | None = None
    provider_for: AgencyCode | None = None


class SignedPermit(Message, frozen=True):
    r"""One entry of a permit list with the proof that the network signed the list.

    The list is a Merkle tree (RFC 9162 hashing) of the entries' bytes; ``signature`` is Ed25519 over
    ``b"chukan-permit-list-v1\\n" + list_id.bytes + size (u32 big endian) + root``.
    """

    body: bytes
    """Exact bytes (JSON of InquirerPermit or ProviderPermit)."""
    list_id: uuid.UUID
    index: int
    size: Annotated[int, msgspec.Meta(ge=1, le=LINES_MAX)]
    path: Annotated[list[bytes], msgspec.Meta(max_length=10)]
    key: str
    """Id of the network's permit-signing key."""
    signature: bytes


# ---------------------------------------------------------------- exchange -> network


class PermitRequest(Message, frozen=True):
    """Asks for the provision of one kind about one person (提供の求め, 施行令20条1項, 命令85号40条2項)."""

    id: uuid.UUID
    inquirer: AgencyCode
    department: str
    affair: Code16
    procedure: Code16
    kind: Code16
    items: Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)]
    provider: AgencyCode
    code: bytes
    """Inquirer-side linkage code (照会側の符号)."""
    condition: Condition
    asked_at: Instant
    answer_key: str
    withheld: bool = False
    consent: bool = False
    """Whether the person's consent is held (条例事務で地方税関係情報を求めるときの同意)."""
    on_behalf_of: AgencyCode | None = None
    """Agency whose affair it is, where the inquirer asks under a delegation (情報照会者の委任元)."""
    provider_for: AgencyCode | None = None
    """Agency whose information it is, where the provider answers under a delegation (情報提供者の委任元)."""


class PermitReply(Message, frozen=True):
    """What the network decided about one permit request. Asking again with the same id gets the same reply."""

    id: uuid.UUID
    outcome: Literal["permitted", "no_code", "not_permitted", "stopped", "bad_request"]
    reference: str
    """The network's number for this line, the same for all three parties; for a permitted line the permit id."""
    decided_at: Instant
    reason: str | None = None
    """Stable word, e.g. ``not_on_list``, ``pia_unpublished``, ``provider_has_no_code``, ``kind_stopped``."""
    permit: SignedPermit | None = None


class SealedAnswer(Message, frozen=True):
    """Content that only the inquirer can open.

    One fresh 32-byte key per (provider, inquirer, batch) is HPKE-sealed (RFC 9180, X25519/HKDF-SHA256/AES-256-GCM)
    to the inquirer's answer key; each line is AES-256-GCM under it, nonce = counter (12 bytes big endian), AAD =
    permit id bytes.
    """

    key: str
    encapsulation: bytes
    counter: Annotated[int, msgspec.Meta(ge=0, le=LINES_MAX)]
    ciphertext: bytes


AnswerOutcome = Literal[
    "provided",
    "provided_with_gaps",
    "no_record",
    "no_code",
    "under_review",
    "refused",
    "stopped",
    "not_permitted",
    "failed",
]


class Answer(Message, frozen=True):
    """A provider's answer to a permit (提供, 施行令29条); ``under_review`` is interim and has no content."""

    id: uuid.UUID
    permit: uuid.UUID
    route: str
    provider: AgencyCode
    outcome: AnswerOutcome
    answered_at: Instant
    withheld: bool = False
    reason: str | None = None
    sealed: SealedAnswer | None = None


class Receipt(Message, frozen=True):
    """The network's receipt for one answer: its instant decides lapse (命令85号41条3項)."""

    id: uuid.UUID
    status: Literal["accepted", "lapsed", "refused"]
    at: Instant
    reason: str | None = None


class AcquisitionRequest(Message, frozen=True):
    """Asks for an acquisition number (取得番号, 番号法21条の2)."""

    id: uuid.UUID
    agency: AgencyCode


class AcquisitionReply(Message, frozen=True):
    """The acquisition number for one request; the same id always gets the same number while it is open."""

    id: uuid.UUID
    number: str


class AnswerKey(Message, frozen=True):
    """Announces an agency's answer key (public half) to the network."""

    id: str
    agency: AgencyCode
    public: bytes


class KeyReply(Message, frozen=True):
    """Acknowledges an announced answer key."""

    id: str
    status: Literal["accepted", "refused"]
    reason: str | None = None


class HolderRequest(Message, frozen=True):
    """Asks which agencies hold a linkage code of a person (通知先の通知の求め, 命令85号40条3項)."""

    id: uuid.UUID
    inquirer: AgencyCode
    affair: Code16
    procedure: Code16
    kind: Code16
    code: bytes
    """Inquirer-side linkage code (照会側の符号)."""


class HolderReply(Message, frozen=True):
    """Names providers that may be asked for this (命令85号40条4項); nothing is kept, asking again is a new look."""

    id: uuid.UUID
    outcome: Literal["answered", "not_permitted", "stopped", "bad_request"]
    answered_at: Instant
    providers: Annotated[list[AgencyCode], msgspec.Meta(max_length=HOLDERS_MAX)] = []
    reason: str | None = None


class InventoryRequest(Message, frozen=True):
    """Asks what was exchanged with one agency since an instant; a page of at most 1,000 entries."""

    id: uuid.UUID
    agency: AgencyCode
    since: Instant
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """``next`` of the page before."""


class InventoryEntry(Message, frozen=True):
    """One thing that the network and the agency have told each other; it names no counterpart and no person."""

    what: Literal["request", "notice", "code"]
    """A request for a permit by the agency; a notice to it, with its permit; a linkage code."""
    at: Instant
    """When the request was decided, or the push acknowledged."""
    request: uuid.UUID | None = None
    """With ``request``: its id."""
    permit: uuid.UUID | None = None
    """With ``notice``: its permit."""
    final: str | None = None
    """With ``request`` and ``notice``: what the line ended with; none while it is open."""
    push: uuid.UUID | None = None
    """Id of the message that was pushed and accepted (with ``request``: the final answer); it may be pushed again."""


class InventoryReply(Message, frozen=True):
    """One page of an inventory."""

    id: uuid.UUID
    outcome: Literal["answered", "bad_request"]
    entries: Annotated[list[InventoryEntry], msgspec.Meta(max_length=LINES_MAX)] = []
    next: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Where the next page begins; none on the last one."""
    reason: str | None = None


class RedeliveryRequest(Message, frozen=True):
    """Asks the network to push a message again that was accepted before."""

    id: uuid.UUID
    """``push`` of the inventory."""
    agency: AgencyCode


class RedeliveryReply(Message, frozen=True):
    """Whether a message will be pushed again."""

    id: uuid.UUID
    status: Literal["queued", "closed", "reopened", "unknown"]


# ---------------------------------------------------------------- network -> exchange


class Notice(Message, frozen=True):
    """Tells a provider that it is asked, with the permit (施行令26条1項, 命令85号41条1項)."""

    id: uuid.UUID
    permit: SignedPermit


class AnswerDelivery(Message, frozen=True):
    """Brings an answer to the inquirer; the permit comes along because an answer may overtake its permit reply."""

    id: uuid.UUID
    request: uuid.UUID
    inquirer: AgencyCode
    permit: SignedPermit
    outcome: AnswerOutcome
    answered_at: Instant
    received_at: Instant
    withheld: bool = False
    reason: str | None = None
    sealed: SealedAnswer | None = None


class AcquiredCode(Message, frozen=True):
    """Brings a linkage code, or that it was already acquired (施行令27条5・6項, 命令85号44条)."""

    id: uuid.UUID
    agency: AgencyCode
    number: str
    status: Literal["acquired", "already_acquired"]
    code: bytes | None = None


class Ack(Message, frozen=True):
    """Acknowledges one pushed item; ``again`` asks the network to push it once more later."""

    id: uuid.UUID
    status: Literal["accepted", "again", "refused"]
    reason: str | None = None


# ---------------------------------------------------------------- registry network -> network


class ResidentCode(Message, frozen=True):
    """From the registry network (機構) to the network: acquisition number and resident code (施行令27条3・4項)."""

    number: str
    resident_code: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{11}" + END)]


class Envelope(Message, frozen=True):
    """The body of every request and reply on this wire; items keep their exact bytes."""

    message: uuid.UUID
    sender: str
    sent_at: Instant
    items: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
