"""Messages between an agency's systems and an exchange, under ``/v1/agencies/{agency}``.

Identifiers of persons travel in bodies only. Every list has 1…1,000 lines and is answered line by line. A linkage
code is never in any of these messages (its status is). OpenAPI 3.1 is generated from these structs.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Final, Literal

import msgspec

from chukan.platform.wire.network import END, LINES_MAX, AgencyCode, Code16, Condition, Instant, Message

PLAIN: Final = r"^[^\x00-\x1f\x7f]*" + END
"""Text without control characters: it is shown on screens and in logs of others."""
Addressee = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,15}" + END, description="団体内統合宛名番号")]
Department = Annotated[str, msgspec.Meta(min_length=1, max_length=20, pattern=PLAIN)]
Source = Annotated[str, msgspec.Meta(max_length=100, pattern=PLAIN, description="Where copies came from (登録元)")]


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A problem document (RFC 9457); never quotes the offending value."""

    type: str
    title: str
    title_en: str
    status: int
    code: str
    side: str
    retryable: bool
    action: str
    action_en: str
    pointer: str | None = None
    line: int | None = None
    limit: int | None = None
    expected: str | None = None
    retry_after_s: int | None = None


# ---------------------------------------------------------------- copies


class Gap(Message, frozen=True):
    """Why an item has no value (未設定事由); missing is never zero."""

    gap: str


class CopyLine(Message, frozen=True):
    """One copy: a person's values of one kind, from a date on (副本)."""

    addressee: Addressee
    kind: Code16
    layout: int
    effective_from: dt.date
    items: dict[str, str | Gap]
    period: str = ""
    """Year or period the copy is about, e.g. ``2026``; empty where the kind has none."""
    review: bool = False
    """自動応答不可: this copy never leaves without an officer's decision."""


class Copies(Message, frozen=True):
    """``POST /copies``: register a difference (異動)."""

    lines: Annotated[list[CopyLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    source: Source = "api"


class CopyKey(Message, frozen=True):
    """Names copies of one person; ``None`` stands for all."""

    addressee: Addressee
    kind: Code16 | None = None


class CopySearch(Message, frozen=True):
    """``POST /copies/search``."""

    keys: Annotated[list[CopyKey], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class CopyDelete(Message, frozen=True):
    """``POST /copies/delete``: only the agency deletes (REP-08)."""

    keys: Annotated[list[CopyKey], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class CopyExport(Message, frozen=True):
    """``POST /copies/export`` for reconciliation with the original (原本照合); a page of at most 1,000 copies."""

    kind: Code16
    after: str | None = None
    """Opaque cursor of the previous page."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=LINES_MAX)] = LINES_MAX


class StoredCopy(Message, frozen=True):
    """A copy as it rests here, in the clear for its own agency only."""

    addressee: str
    kind: str
    layout: int
    effective_from: dt.date
    items: dict[str, str | Gap]
    period: str
    review: bool
    registered_at: Instant
    source: str


class CopyPage(Message, frozen=True):
    """A page of copies and the cursor of the next one."""

    copies: list[StoredCopy]
    next: str | None = None


class LineResult(Message, frozen=True):
    """What became of one line of a request."""

    line: int
    status: Literal["done", "unchanged", "refused"]
    problem: ProblemBody | None = None


class LineResults(Message, frozen=True):
    """Result per line."""

    lines: list[LineResult]


class HoldLine(Message, frozen=True):
    """Sets or lifts a flag on a person, a kind, or both; ``addressee`` None means all persons of the kind.

    With ``own_information`` (自己情報提供不可) a person's own query by a portal is refused; other agencies' queries are
    answered as before. It may stand on single copies of a person and kind, by their period or first day.
    """

    addressee: Addressee | None = None
    kind: Code16 | None = None
    held: bool = True
    flag: Literal["review", "own_information"] = "review"
    """``review`` is 自動応答不可: an answer waits for officers."""
    period: Annotated[str, msgspec.Meta(max_length=4)] | None = None
    effective_from: dt.date | None = None


class Holds(Message, frozen=True):
    """``POST /holds``."""

    lines: Annotated[list[HoldLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class LoadOpen(Message, frozen=True):
    """``POST /loads``: begin a load session (副本登録)."""

    kind: Code16
    layout: int
    mode: Literal["full", "difference"]
    expected: Annotated[int, msgspec.Meta(ge=0, le=5_000_000)]
    period: str = ""
    on_error: Literal["reject_line", "reject_file"] = "reject_file"
    source: Source = "file"


class Load(Message, frozen=True):
    """A load session as ``GET /loads/{id}`` shows it."""

    id: uuid.UUID
    kind: str
    layout: int
    mode: str
    period: str
    state: Literal["open", "held", "committed", "aborted"]
    expected: int
    staged: int
    refused: int
    parts: list[int]
    problems: tuple[ProblemBody, ...] = ()
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0


class LoadCommit(Message, frozen=True):
    """``POST /loads/{id}/commit``: the digest is SHA-256 over the parts' SHA-256 digests in order, hexadecimal."""

    digest: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[0-9a-f]{64}" + END,
            description="SHA-256 over the parts' raw SHA-256 digests (32 bytes each) in the order of their numbers.",
        ),
    ]


# ---------------------------------------------------------------- linkage


class CodeAsk(Message, frozen=True):
    """``POST /codes``: acquire a linkage code for each addressee number (符号取得)."""

    lines: Annotated[list[CodeLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]


class CodeLine(Message, frozen=True):
    """One addressee number."""

    addressee: Addressee


class CodeStatus(Message, frozen=True):
    """Status of one person's link; ``acquisition_number`` only while the acquisition is open."""

    line: int
    status: Literal["none", "requested", "active", "suspended", "merged", "duplicate", "refused"]
    acquisition_number: str | None = None
    problem: ProblemBody | None = None


class CodeStatuses(Message, frozen=True):
    """Result per line of ``POST /codes`` and ``POST /codes/search``."""

    lines: list[CodeStatus]


# ---------------------------------------------------------------- queries


class QueryLine(Message, frozen=True):
    """One person × one kind (INQ-01)."""

    addressee: Addressee
    kind: Code16
    provider: AgencyCode
    affair: Code16
    procedure: Code16
    department: Department
    condition: Condition = Condition()
    items: Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)] | None = None
    """Items asked for; None asks for all that the procedure allows."""
    withheld: bool = False
    """不開示 (法23条2項): hides the record from the person, not the answer from the inquirer."""
    consent: bool = False
    """The person's consent is held; an ordinance's affair (条例事務) needs it for local tax information."""
    on_behalf_of: AgencyCode | None = None
    """Agency whose affair it is, where this agency asks under a registered delegation (情報照会者の委任元)."""
    provider_for: AgencyCode | None = None
    """Agency whose information it is, where the provider answers for another one (情報提供者の委任元)."""


class Queries(Message, frozen=True):
    """``POST /queries``. With ``Prefer: wait=N`` and ``collect`` true the reply brings content that arrived in time."""

    lines: Annotated[list[QueryLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    collect: bool = False


class AnsweredCopy(Message, frozen=True):
    """Content of an answer: one copy's allowed items."""

    layout: int
    effective_from: dt.date
    items: dict[str, str | Gap]
    period: str = ""


class AnswerContent(Message, frozen=True):
    """What the provider sealed for the inquirer."""

    kind: str
    copies: list[AnsweredCopy]


class QueryLineView(Message, frozen=True):
    """A line as its own agency sees it. ``id`` is absent where the line was refused before acceptance."""

    line: int
    state: str
    outcome: str | None = None
    id: uuid.UUID | None = None
    reason: str | None = None
    withheld: bool = False
    updated_at: Instant | None = None
    content: AnswerContent | None = None
    problem: ProblemBody | None = None
    resends: uuid.UUID | None = None
    """The line in whose place an officer sent this one (再送); told where one line is shown alone."""


class Batch(Message, frozen=True):
    """A list of lines accepted together."""

    batch: uuid.UUID
    lines: list[QueryLineView]


class QueryPage(Message, frozen=True):
    """``GET /queries?state=``: lines of the agency by state."""

    lines: list[QueryLineView]
    next: str | None = None


# ---------------------------------------------------------------- reviews


class Review(Message, frozen=True):
    """A provision that waits for an officer."""

    id: uuid.UUID
    inquirer: str
    affair: str
    procedure: str
    kind: str
    items: list[str]
    asked_at: Instant
    expires_at: Instant
    state: Literal["held", "prepared", "decided"]
    prepared_by: str | None = None
    addressee: str | None = None
    """The agency's own number of the person, so that its officer can look; in bodies only."""
    escalated: bool = False
    """督促: the permit ends within five minutes; decide now, or the line lapses unanswered."""
    proposed: Literal["provide", "refuse"] | None = None
    """What the first officer proposed (起案), for the second one to judge."""
    withheld: bool = False
    """Whether it is proposed to withhold the record from the person (不開示)."""
    note: str = ""
    prepared_at: Instant | None = None
    """Names the proposal: the second officer gives it back."""
    stale: bool = False
    """A proposal was made, and what it was made on has changed since: a first officer has to look again."""


class Reviews(Message, frozen=True):
    """``GET /reviews``."""

    reviews: list[Review]


class ReviewPrepare(Message, frozen=True):
    """``POST /reviews/{id}/prepare`` by a first officer."""

    decision: Literal["provide", "refuse"]
    withheld: bool = False
    note: Annotated[str, msgspec.Meta(max_length=500)] = ""


class ReviewDecision(Message, frozen=True):
    """``POST /reviews/{id}/approve`` or ``/refuse`` by a second officer."""

    note: Annotated[str, msgspec.Meta(max_length=500)] = ""
    prepared_at: Instant | None = None
    """Of the proposal that was looked at; one that took its place meanwhile is then not carried out."""


# ---------------------------------------------------------------- records


class Record(Message, frozen=True):
    """A provision record as its own agency sees it (番号法23条). It never holds provided content (REC-07)."""

    id: uuid.UUID
    side: Literal["inquirer", "provider"]
    inquirer: str
    provider: str
    department: str
    affair: str
    procedure: str
    kind: str
    items: list[str]
    outcome: str
    asked_at: Instant
    closed_at: Instant
    withheld: bool
    provided_at: Instant | None = None
    reference: str | None = None
    """The network's number of the exchange, None for a line that closed before it reached the network."""
    reason: str | None = None
    pia_refusal: bool = False
    amends: uuid.UUID | None = None
    position: int | None = None
    """Place in the agency's log once sequenced."""
    consent: bool = False
    on_behalf_of: str | None = None
    provider_for: str | None = None


class Records(Message, frozen=True):
    """``GET /records``: a page in the order of the log."""

    records: list[Record]
    next: str | None = None
