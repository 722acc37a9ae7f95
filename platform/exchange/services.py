"""The ports of the exchange: what the HTTP layer may ask of it. Implementations stand beside this file.

Every method works for one agency that the caller has already proved to act for (``platform.http.auth``); every
failure is a ``Problem``.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Literal, Protocol

from chukan.platform.exchange.code_files import CodeFileLine, CodeFileResult
from chukan.platform.exchange.query_files import FileLine, FileResult, SentFile
from chukan.platform.wire.acquisition_asks import (
    AcquisitionAnswer,
    AcquisitionAnswered,
    AcquisitionAskViews,
    AskedToAcquire,
    PersonFacts,
)
from chukan.platform.wire.agency import (
    Batch,
    CodeAsk,
    CodeStatuses,
    Queries,
    QueryPage,
    Review,
    ReviewDecision,
    ReviewPrepare,
    Reviews,
)
from chukan.platform.wire.code_changes import CodeChangeLines, CodeChanges, CodeConfirm, CodeMerge, CodeRelink
from chukan.platform.wire.corrections import CorrectionView, RecordCorrection
from chukan.platform.wire.delegations import DelegationTerms, DelegationView, DelegationViews
from chukan.platform.wire.events import EventPage
from chukan.platform.wire.files import CodeFile, QueryFile
from chukan.platform.wire.holders import HolderAsk, HolderViews
from chukan.platform.wire.links import LinkView, LinkViews
from chukan.platform.wire.notices import CalendarView, NoticeRead, Notices
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.officer_accounts import EVERY_AFFAIR, Affairs

OfficersAct = Literal["suspend", "resume", "revoke"]
"""What officers of a body may do to its links by themselves."""


class InquiryService(Protocol):
    """The inquirer's side (情報照会)."""

    async def accept(self, agency: AgencyRow, caller: ClientRow, body: Queries, key: str, raw: bytes) -> Batch:
        """Make a list durable, answer line by line; ``raw`` is the request body, whose digest idempotency compares."""
        ...

    async def settled(self, agency: AgencyRow, known: Batch, timeout_s: float) -> Batch | None:
        """Like ``wait``, for what was shown just now; None where all of its open lines were heard to be final."""
        ...

    async def wait(self, agency: AgencyRow, batch: uuid.UUID, timeout_s: float) -> Batch:
        """The batch once every line is final, or as it stands after ``timeout_s``."""
        ...

    async def view(self, agency: AgencyRow, reference: uuid.UUID) -> Batch:
        """A batch by its id, or the batch of one line by the line's id. Raises Problem ``not_found``."""
        ...

    async def collect(self, agency: AgencyRow, reference: uuid.UUID, known: Batch | None = None) -> Batch:
        """The same with content, marking answered lines as collected; repeatable until purged."""
        ...

    async def page(self, agency: AgencyRow, state: str | None, after: str | None, limit: int) -> QueryPage:
        """Lines by state."""
        ...

    async def cancel(self, agency: AgencyRow, caller: ClientRow, reference: uuid.UUID) -> Batch:
        """Take back the open lines of a batch, or one line (中断)."""
        ...

    async def resend(self, agency: AgencyRow, officer: ClientRow, reference: uuid.UUID) -> Batch:
        """Send the lines of a batch that ended without an answer, or one line, once more (再送).

        Raises Problem ``not_found``, ``not_resendable``.
        """
        ...


class CorrectionService(Protocol):
    """Corrections of records (訂正): an amendment, and notice to the network and the counterpart."""

    async def correct(
        self, agency: AgencyRow, officer: ClientRow, record: uuid.UUID, body: RecordCorrection, key: str
    ) -> CorrectionView:
        """Append the amendment, and tell. Raises Problem ``not_found``, ``correction_empty`` and others."""
        ...


class DelegationService(Protocol):
    """Delegations (委任): this agency's own halves, each made by two officers."""

    async def list(self, agency: AgencyRow, *, ended: bool) -> DelegationViews:
        """All halves that stand, and the ended ones where asked."""
        ...

    async def propose(
        self, agency: AgencyRow, officer: ClientRow, body: DelegationTerms, *, key: str, content: bytes
    ) -> DelegationView:
        """First officer's proposal. Raises Problem ``delegation_of_itself``, ``delegations_full`` and others."""
        ...

    async def approve(self, agency: AgencyRow, officer: ClientRow, half: uuid.UUID) -> DelegationView:
        """Second officer registers it. Raises Problem ``second_officer_required``, ``delegation_state`` and others."""
        ...

    async def end(self, agency: AgencyRow, officer: ClientRow, half: uuid.UUID) -> DelegationView:
        """End it at once."""
        ...


class ReviewService(Protocol):
    """Manual review of held provisions (自動応答不可): a first officer prepares, a second one decides."""

    async def list(self, agency: AgencyRow, affairs: Affairs = EVERY_AFFAIR) -> Reviews:
        """What waits for a decision, of these affairs."""
        ...

    async def prepare(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        review: uuid.UUID,
        body: ReviewPrepare,
        affairs: Affairs = EVERY_AFFAIR,
    ) -> Review:
        """First officer's proposal; may be replaced until decided."""
        ...

    async def approve(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        review: uuid.UUID,
        body: ReviewDecision,
        affairs: Affairs = EVERY_AFFAIR,
    ) -> Review:
        """Second officer carries out the proposal. Raises Problem ``second_officer_required``."""
        ...

    async def refuse(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        review: uuid.UUID,
        body: ReviewDecision,
        affairs: Affairs = EVERY_AFFAIR,
    ) -> Review:
        """Second officer refuses the provision (提供不可)."""
        ...


class CodeService(Protocol):
    """Acquisition of linkage codes (符号取得); a code itself never leaves."""

    async def ask(self, agency: AgencyRow, body: CodeAsk, key: str) -> CodeStatuses:
        """Open acquisitions (one open per person) and return their numbers."""
        ...

    async def search(self, agency: AgencyRow, body: CodeAsk) -> CodeStatuses:
        """Status per addressee number."""
        ...


class CodeChangeService(Protocol):
    """Repair of links (付替・統合・確認): one officer proposes, another one confirms (SYM-09)."""

    async def relink(
        self, agency: AgencyRow, officer: ClientRow, body: CodeRelink, key: str, content: bytes
    ) -> CodeChangeLines:
        """Propose other addressee numbers; the links are suspended at once."""
        ...

    async def merge(
        self, agency: AgencyRow, officer: ClientRow, body: CodeMerge, key: str, content: bytes
    ) -> CodeChangeLines:
        """Propose that two numbers are one person; the links are suspended at once."""
        ...

    async def confirm(self, agency: AgencyRow, officer: ClientRow, body: CodeConfirm) -> CodeChangeLines:
        """Carry changes out or withdraw them, as another officer than who proposed."""
        ...

    async def waiting(self, agency: AgencyRow) -> CodeChanges:
        """What waits for another officer."""
        ...

    async def history(self, agency: AgencyRow, addressee: str) -> CodeChanges:
        """Everything that was changed about one link."""
        ...


class AcquisitionAskService(Protocol):
    """Requests to acquire a code (符号取得の依頼, INQ-04)."""

    async def request(
        self, agency: AgencyRow, caller: ClientRow, line: uuid.UUID, facts: PersonFacts
    ) -> AskedToAcquire:
        """Ask a line's provider to acquire. Raises Problem ``acquisition_not_askable``, ``network_unavailable``."""
        ...

    async def list(self, agency: AgencyRow) -> AcquisitionAskViews:
        """The open requests of a provider."""
        ...

    async def answer(
        self, agency: AgencyRow, caller: ClientRow, ask: uuid.UUID, body: AcquisitionAnswer, key: str
    ) -> AcquisitionAnswered:
        """Acquire, or decline. Raises Problem ``not_found``, ``already_final``, ``network_unavailable``."""
        ...


class QueryFileService(Protocol):
    """Query files (照会ファイル)."""

    async def put(
        self, agency: AgencyRow, caller: ClientRow, sent: SentFile, parts: Iterable[Sequence[FileLine]]
    ) -> QueryFile:
        """Make a file durable, or find that it is. Raises Problem ``file_conflict``."""
        ...

    async def get(self, agency: AgencyRow, file: uuid.UUID) -> QueryFile:
        """A file and the progress of its lines. Raises Problem ``not_found``."""
        ...

    async def result(self, agency: AgencyRow, file: uuid.UUID, after: int) -> FileResult:
        """The result behind a line. Raises Problem ``not_found``, ``file_incomplete``."""
        ...


class EventService(Protocol):
    """Events of an agency's own lines (状態の変化)."""

    async def follow(self, agency: AgencyRow, cursor: str | None) -> AsyncGenerator[EventPage, None]:
        """Pages of events behind a cursor, or from now on. Raises Problem ``invalid_field``, ``rate_limited``."""
        ...


class HolderService(Protocol):
    """Which agencies hold a linkage code of a person (通知先の通知)."""

    async def ask(self, agency: AgencyRow, body: HolderAsk) -> HolderViews:
        """Answer line by line. Raises Problem ``network_unavailable``."""
        ...


class CodeFileService(Protocol):
    """Acquisition by file (符号取得ファイル)."""

    async def put(self, agency: AgencyRow, sent: SentFile, lines: Sequence[CodeFileLine]) -> CodeFile:
        """Open an acquisition for every line. Raises Problem ``file_conflict``, ``network_unavailable``."""
        ...

    async def get(self, agency: AgencyRow, file: uuid.UUID) -> CodeFile:
        """A file and the status of its lines. Raises Problem ``not_found``."""
        ...

    async def result(self, agency: AgencyRow, file: uuid.UUID, after: int) -> CodeFileResult:
        """The status of each line behind a line. Raises Problem ``not_found``, ``file_incomplete``."""
        ...


class NoticeService(Protocol):
    """What the operator tells the bodies (お知らせ), and the service calendar (運用カレンダー)."""

    async def list(self, agency: AgencyRow, after: uuid.UUID | None, limit: int) -> Notices:
        """A page of the notices to the agency's body, the newest first."""
        ...

    async def read(self, agency: AgencyRow, client: ClientRow, notice: uuid.UUID) -> NoticeRead:
        """Enter that the agency has read a notice. Raises Problem ``not_found``."""
        ...

    def calendar(self, _agency: AgencyRow) -> CalendarView:
        """The service calendar in force, the same for every agency, and how each function stands now."""
        ...


class LinkService(Protocol):
    """The links of a body (団体の回線), as the body's own systems and officers may see and stop them."""

    async def list(self, agency: AgencyRow) -> LinkViews:
        """All links of the agency's body."""
        ...

    async def act(
        self,
        agency: AgencyRow,
        officer: ClientRow,
        link: str,
        act: OfficersAct,
        reason: str,
        *,
        key: str,
        content: bytes,
    ) -> LinkView:
        """Carry out an officer's act on a link of the body; a repeated key has no second effect.

        Raises Problem ``not_found``, ``link_state``, ``second_officer_required``, ``link_of_operator``,
        ``idempotency_key_reused``.
        """
        ...
