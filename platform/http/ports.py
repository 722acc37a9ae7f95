"""What the agency API asks of the rest: the exchange's services, and the desks at which an agency handles its own data.

The inquiry, review and code services are ``platform.exchange.services``; the desks below work in one agency's
partition (door 1, DESIGN §10) and stand in ``platform.http.desks``. Tests put others in their places.

Every method works for one agency for which the caller was already let in; every failure is a ``Problem``.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from chukan.errors import Problem
from chukan.platform.exchange.services import (
    AcquisitionAskService,
    CodeChangeService,
    CodeFileService,
    CodeService,
    CorrectionService,
    DelegationService,
    EventService,
    HolderService,
    InquiryService,
    LinkService,
    NoticeService,
    QueryFileService,
    ReviewService,
)
from chukan.platform.http.log_ports import EvidenceDesk, OperationsDesk
from chukan.platform.http.params import RecordSearch
from chukan.platform.wire import agency as wire
from chukan.platform.wire.compare import LoadCompare, LoadDifferences
from chukan.platform.wire.incidents import Affected, AffectedSearch
from chukan.platform.wire.resident import ResidentAsk, ResidentRecords
from chukan.platform.wire.statistics import ProcedureCounts, Statistics
from chukan.tenants.directory import AgencyRow, ClientRow, Directory


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request's Idempotency-Key and everything that must be the same when it comes again."""

    key: str
    content: bytes
    """Method, path and body: a key that comes back with another call is as wrong as one with another body."""


@dataclass(frozen=True, slots=True)
class PartLine:
    """One line of a load part as it was read: a copy without what the load itself says, or the reason why not."""

    number: int
    """Line of the part, from 1; in CSV the line on which the record begins."""
    addressee: str = ""
    effective_from: dt.date | None = None
    items: dict[str, str | wire.Gap] | None = None
    review: bool = False
    problem: Problem | None = None


class CopyDesk(Protocol):
    """Small changes to the agency's copies, and its own view of them (副本)."""

    async def register(self, agency: AgencyRow, body: wire.Copies, key: RequestKey) -> wire.LineResults:
        """Register a difference, line by line (異動)."""
        ...

    async def search(self, agency: AgencyRow, body: wire.CopySearch) -> wire.CopyPage:
        """Return the copies of the persons asked for."""
        ...

    async def export(self, agency: AgencyRow, body: wire.CopyExport) -> wire.CopyPage:
        """Return a page of all copies of a kind (原本照合)."""
        ...

    async def delete(self, agency: AgencyRow, body: wire.CopyDelete, key: RequestKey) -> wire.LineResults:
        """Delete copies by person and kind."""
        ...

    async def hold(self, agency: AgencyRow, body: wire.Holds, key: RequestKey) -> wire.LineResults:
        """Set or lift 自動応答不可."""
        ...


class LoadDesk(Protocol):
    """Load sessions (副本登録): what provision sees changes at commit only."""

    async def open(self, agency: AgencyRow, body: wire.LoadOpen, key: RequestKey) -> wire.Load:
        """Begin a session; a repeated key gets the first one."""
        ...

    async def get(self, agency: AgencyRow, load: uuid.UUID) -> wire.Load:
        """Return a session. Raises Problem not_found."""
        ...

    async def part(self, agency: AgencyRow, load: uuid.UUID, part: int, lines: "PartSource") -> wire.Load:
        """Stage one part; a part that came before with the same bytes changes nothing. Raises Problem part_conflict."""
        ...

    async def commit(self, agency: AgencyRow, load: uuid.UUID, body: wire.LoadCommit) -> wire.Load:
        """Put the session into force. Raises Problem load_held_for_officer where an officer has to look first."""
        ...

    async def release(self, agency: AgencyRow, officer: ClientRow, load: uuid.UUID, body: wire.LoadCommit) -> wire.Load:
        """Put a held session into force, on an officer's word."""
        ...

    async def compare(self, agency: AgencyRow, load: uuid.UUID, body: LoadCompare) -> LoadDifferences:
        """Say what an open load says otherwise than the copies in force (原本照合). Raises Problem load_not_open."""
        ...

    async def abort(self, agency: AgencyRow, load: uuid.UUID) -> wire.Load:
        """Drop what was staged."""
        ...


class PartSource(Protocol):
    """A part that has come in whole; it is read only where its digest says that it is new."""

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the part's bytes."""
        ...

    def bunches(self) -> Iterator[list[PartLine]]:
        """Yield the lines in bunches, in their order. Raises ``Problem`` where the part cannot be read on."""
        ...


class RecordDesk(Protocol):
    """The agency's own view of its provision records (情報提供等記録)."""

    async def page(self, agency: AgencyRow, after: str | None, limit: int) -> wire.Records:
        """Return a page in the order of the log."""
        ...

    async def search(self, agency: AgencyRow, body: RecordSearch) -> wire.Records:
        """Return the records of one person."""
        ...

    async def affected(self, agency: AgencyRow, body: AffectedSearch) -> Affected:
        """Return whom the records of a period are about."""
        ...

    async def statistics(self, agency: AgencyRow, first: dt.date, last: dt.date) -> Statistics:
        """Count the records of the months from ``first`` to ``last``, both first days of months (統計)."""
        ...

    async def procedures(
        self, agency: AgencyRow, first: dt.date, last: dt.date, after: int, limit: int
    ) -> ProcedureCounts:
        """Count those among the next leaves of the log by procedure and kind too."""
        ...


class ResidentDesk(Protocol):
    """A person's own records (本人開示)."""

    async def records(self, agency: AgencyRow, body: ResidentAsk) -> ResidentRecords:
        """Return them with their proof."""
        ...


class AgencyExchange(Protocol):
    """The parts of an exchange that the agency API calls."""

    @property
    def inquiries(self) -> InquiryService:
        """情報照会."""
        ...

    @property
    def corrections(self) -> CorrectionService:
        """訂正."""
        ...

    @property
    def delegations(self) -> DelegationService:
        """委任."""
        ...

    @property
    def reviews(self) -> ReviewService:
        """自動応答不可の審査."""
        ...

    @property
    def codes(self) -> CodeService:
        """符号取得."""
        ...

    @property
    def code_changes(self) -> CodeChangeService:
        """付替・統合・確認."""
        ...

    @property
    def acquisition_asks(self) -> AcquisitionAskService:
        """符号取得の依頼."""
        ...

    @property
    def files(self) -> QueryFileService:
        """照会ファイル."""
        ...

    @property
    def events(self) -> EventService:
        """状態の変化."""
        ...

    @property
    def notices(self) -> NoticeService:
        """お知らせ, 運用カレンダー."""
        ...

    @property
    def holders(self) -> HolderService:
        """通知先の通知."""
        ...

    @property
    def code_files(self) -> CodeFileService:
        """符号取得ファイル."""
        ...

    @property
    def links(self) -> LinkService:
        """団体の回線."""
        ...

    @property
    def directory(self) -> Directory:
        """The common data in force. Raises Problem common_data_stale."""
        ...


@dataclass(frozen=True, slots=True)
class Desks:
    """The desks of one exchange."""

    copies: CopyDesk
    loads: LoadDesk
    records: RecordDesk
    evidence: EvidenceDesk
    residents: ResidentDesk
    operations: OperationsDesk
