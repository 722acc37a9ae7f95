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
from chukan.platform.wire.events import EventPage
from chukan.platform.wire.files import CodeFile, QueryFile
from chukan.platform.wire.holders import HolderAsk, HolderViews
from chukan.platform.wire.links import LinkView, LinkViews
from chukan.tenants.directory import AgencyRow, ClientRow

OfficersAct = Literal["suspend", "resume", "revoke"]
"""What officers of a body may do to its links by themselves."""


class InquiryService(Protocol):
    """The inquirer's side (情報照会)."""

    async def accept(self, agency: AgencyRow, caller: ClientRow, body: Queries, key: str, raw: bytes) -> Batch:
        """Make a list durable, answer line by line; ``raw`` is the request body, whose digest idempotency compares."""
        ...

    async def wait(self, agency: AgencyRow, batch: uuid.UUID, timeout_s: float) -> Batch:
        """The batch once every line is final, or as it stands after ``timeout_s``."""
        ...

    async def view(self, agency: AgencyRow, reference: uuid.UUID) -> Batch:
        """A batch by its id, or the batch of one line by the line's id. Raises Problem ``not_found``."""
        ...

    async def collect(self, agency: AgencyRow, reference: uuid.UUID) -> Batch:
        """The same with content, marking answered lines as collected; repeatable until purged."""
        ...

    async def page(self, agency: AgencyRow, state: str | None, after: str | None, limit: int) -> QueryPage:
        """Lines by state."""
        ...

    async def cancel(self, agency: AgencyRow, caller: ClientRow, reference: uuid.UUID) -> Batch:
        """Take back the open lines of a batch, or one line (中断)."""
        ...


class ReviewService(Protocol):
    """Manual review of held provisions (自動応答不可): a first officer prepares, a second one decides."""

    async def list(self, agency: AgencyRow) -> Reviews:
        """What waits for a decision."""
        ...

    async def prepare(self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: ReviewPrepare) -> Review:
        """First officer's proposal; may be replaced until decided."""
        ...

    async def approve(self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: ReviewDecision) -> Review:
        """Second officer carries out the proposal. Raises Problem ``second_officer_required``."""
        ...

    async def refuse(self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: ReviewDecision) -> Review:
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
