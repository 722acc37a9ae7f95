"""The agency API's services in memory, which remember what they were asked: queries, reviews, codes, copies."""

import asyncio
import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

from chukan.errors import Problem
from chukan.platform.http.params import RecordSearch
from chukan.platform.http.ports import PartSource, RequestKey
from chukan.platform.wire import agency as wire
from chukan.platform.wire.compare import LoadCompare, LoadDifferences
from chukan.platform.wire.incidents import Affected, AffectedSearch
from chukan.platform.wire.statistics import ProcedureCounts, Statistics, StatisticsLine
from chukan.tenants.directory import AgencyRow, ClientRow

AT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)
TOWN = "2710000000000003"


@dataclass
class Inquiries:
    """InquiryService in memory: lines stay ``accepted`` until ``answer`` is called."""

    calls: list[Any] = field(default_factory=list)
    batches: dict[uuid.UUID, tuple[int, list[wire.QueryLineView]]] = field(default_factory=dict)
    refuse_lines: set[int] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    fails_with: BaseException | None = None

    async def accept(
        self, agency: AgencyRow, caller: ClientRow, body: wire.Queries, key: str, raw: bytes
    ) -> wire.Batch:
        self.calls.append(("accept", agency.code, caller.id, key, len(body.lines)))
        if self.fails_with is not None:
            raise self.fails_with
        batch = uuid.uuid4()
        lines = [
            wire.QueryLineView(line=n, state="accepted", id=uuid.uuid4(), updated_at=AT)
            for n in range(len(body.lines))
            if n not in self.refuse_lines
        ]
        self.batches[batch] = (agency.number, lines)
        refused = [
            wire.QueryLineView(line=n, state="refused_before_acceptance", outcome="bad_request")
            for n in sorted(self.refuse_lines)
        ]
        return wire.Batch(batch=batch, lines=sorted([*lines, *refused], key=lambda line: line.line))

    def answer(self) -> None:
        for batch, (agency, lines) in self.batches.items():
            done = [
                wire.QueryLineView(line=line.line, state="answered", outcome="provided", id=line.id) for line in lines
            ]
            self.batches[batch] = (agency, done)
        self.changed.set()

    def _find(self, agency: AgencyRow, reference: uuid.UUID) -> wire.Batch:
        owner, lines = self.batches.get(reference, (0, []))
        if owner != agency.number:
            raise Problem("not_found")
        return wire.Batch(batch=reference, lines=lines)

    async def wait(self, agency: AgencyRow, batch: uuid.UUID, timeout_s: float) -> wire.Batch:
        self.calls.append(("wait", agency.code, timeout_s))
        self.waiting.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            pass
        return self._find(agency, batch)

    async def settled(self, agency: AgencyRow, known: wire.Batch, timeout_s: float) -> wire.Batch | None:
        await self.wait(agency, known.batch, timeout_s)
        found = self._find(agency, known.batch)
        return found if any(line.state == "accepted" for line in found.lines) else None

    async def view(self, agency: AgencyRow, reference: uuid.UUID) -> wire.Batch:
        self.calls.append(("view", agency.code))
        return self._find(agency, reference)

    async def collect(self, agency: AgencyRow, reference: uuid.UUID, known: wire.Batch | None = None) -> wire.Batch:
        self.calls.append(("collect", agency.code))
        batch = self._find(agency, reference)
        content = wire.AnswerContent(kind="TM00000000000002", copies=[])
        lines = [
            wire.QueryLineView(line=line.line, state="collected", outcome="provided", id=line.id, content=content)
            if line.state == "answered"
            else line
            for line in batch.lines
        ]
        return wire.Batch(batch=batch.batch, lines=lines)

    async def page(self, agency: AgencyRow, state: str | None, after: str | None, limit: int) -> wire.QueryPage:
        self.calls.append(("page", agency.code, state, after, limit))
        return wire.QueryPage(lines=[])

    async def cancel(self, agency: AgencyRow, caller: ClientRow, reference: uuid.UUID) -> wire.Batch:
        self.calls.append(("cancel", agency.code, caller.id))
        return self._find(agency, reference)

    async def resend(self, agency: AgencyRow, officer: ClientRow, reference: uuid.UUID) -> wire.Batch:
        self.calls.append(("resend", agency.code, officer.id))
        return self._find(agency, reference)


@dataclass
class Reviews:
    """ReviewService in memory."""

    calls: list[Any] = field(default_factory=list)

    def _review(self, review: uuid.UUID) -> wire.Review:
        return wire.Review(
            id=review,
            inquirer=TOWN,
            affair="JM01000000121000",
            procedure="JT01010000000214",
            kind="TM00000000000002",
            items=[],
            asked_at=AT,
            expires_at=AT,
            state="held",
        )

    async def list(self, agency: AgencyRow, affairs: Any = None) -> wire.Reviews:
        self.calls.append(("list", agency.code))
        return wire.Reviews(reviews=[])

    async def prepare(
        self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: Any, affairs: Any = None
    ) -> wire.Review:
        self.calls.append(("prepare", agency.code, officer.id, body.decision))
        return self._review(review)

    async def approve(
        self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: Any, affairs: Any = None
    ) -> wire.Review:
        self.calls.append(("approve", agency.code, officer.id))
        return self._review(review)

    async def refuse(
        self, agency: AgencyRow, officer: ClientRow, review: uuid.UUID, body: Any, affairs: Any = None
    ) -> wire.Review:
        self.calls.append(("refuse", agency.code, officer.id))
        return self._review(review)


@dataclass
class Codes:
    """CodeService in memory."""

    calls: list[Any] = field(default_factory=list)

    async def ask(self, agency: AgencyRow, body: wire.CodeAsk, key: str) -> wire.CodeStatuses:
        self.calls.append(("ask", agency.code, key))
        lines = [wire.CodeStatus(line=n, status="requested") for n in range(len(body.lines))]
        return wire.CodeStatuses(lines=lines)

    async def search(self, agency: AgencyRow, body: wire.CodeAsk) -> wire.CodeStatuses:
        self.calls.append(("search", agency.code))
        return wire.CodeStatuses(lines=[wire.CodeStatus(line=n, status="none") for n in range(len(body.lines))])


@dataclass
class Desk:
    """All three desks in memory."""

    calls: list[Any] = field(default_factory=list)
    parts: dict[int, list[Any]] = field(default_factory=dict)
    load_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def _results(self, count: int) -> wire.LineResults:
        return wire.LineResults(lines=[wire.LineResult(line=n, status="done") for n in range(count)])

    async def register(self, agency: AgencyRow, body: wire.Copies, key: RequestKey) -> wire.LineResults:
        self.calls.append(("register", agency.code, key.key))
        return self._results(len(body.lines))

    async def search(self, agency: AgencyRow, body: Any) -> Any:
        self.calls.append(("search", agency.code))
        return wire.Records(records=[]) if isinstance(body, RecordSearch) else wire.CopyPage(copies=[])

    async def export(self, agency: AgencyRow, body: wire.CopyExport) -> wire.CopyPage:
        self.calls.append(("export", agency.code, body.after, body.limit))
        return wire.CopyPage(copies=[])

    async def delete(self, agency: AgencyRow, body: wire.CopyDelete, key: RequestKey) -> wire.LineResults:
        self.calls.append(("delete", agency.code, key.key))
        return self._results(len(body.keys))

    async def hold(self, agency: AgencyRow, body: wire.Holds, key: RequestKey) -> wire.LineResults:
        self.calls.append(("hold", agency.code, key.key))
        return self._results(len(body.lines))

    def _load(self, load: uuid.UUID, state: Any = "open") -> wire.Load:
        return wire.Load(
            id=load,
            kind="TM00000000000002",
            layout=202506,
            mode="full",
            period="2026",
            state=state,
            expected=1,
            staged=sum(len(lines) for lines in self.parts.values()),
            refused=0,
            parts=sorted(self.parts),
        )

    async def open(self, agency: AgencyRow, body: wire.LoadOpen, key: RequestKey) -> wire.Load:
        self.calls.append(("open", agency.code, key.key))
        return self._load(self.load_id)

    async def get(self, agency: AgencyRow, load: uuid.UUID) -> wire.Load:
        self.calls.append(("get", agency.code))
        return self._load(load)

    async def part(self, agency: AgencyRow, load: uuid.UUID, part: int, source: PartSource) -> wire.Load:
        self.calls.append(("part", agency.code, part, source.digest.hex()))
        self.parts[part] = [line for bunch in source.bunches() for line in bunch]
        return self._load(load)

    async def commit(self, agency: AgencyRow, load: uuid.UUID, body: wire.LoadCommit) -> wire.Load:
        self.calls.append(("commit", agency.code, body.digest))
        return self._load(load, "committed")

    async def release(self, agency: AgencyRow, officer: ClientRow, load: uuid.UUID, body: wire.LoadCommit) -> wire.Load:
        self.calls.append(("release", agency.code, officer.id))
        return self._load(load, "committed")

    async def compare(self, agency: AgencyRow, load: uuid.UUID, body: LoadCompare) -> LoadDifferences:
        self.calls.append(("compare", agency.code, body.after, body.limit))
        return LoadDifferences(load=load, differences=[])

    async def abort(self, agency: AgencyRow, load: uuid.UUID) -> wire.Load:
        self.calls.append(("abort", agency.code))
        return self._load(load, "aborted")

    async def statistics(self, agency: AgencyRow, first: dt.date, last: dt.date) -> Statistics:
        self.calls.append(("statistics", agency.code, first, last))
        month = f"{first:%Y-%m}"
        line = StatisticsLine(
            month=month, fiscal_year=2026, side="inquirer", outcome="provided", records=0, amendments=1
        )
        return Statistics(first=month, last=f"{last:%Y-%m}", records=0, amendments=1, lines=[line])

    async def affected(self, agency: AgencyRow, body: AffectedSearch) -> Affected:
        self.calls.append(("affected", agency.code, body))
        return Affected(
            agency=agency.code, since=body.since, until=body.until, looked_at=0, records=0, persons=0, unnamed=0,
            kinds=[], counterparts=[],
        )  # fmt: skip

    async def procedures(
        self, agency: AgencyRow, first: dt.date, last: dt.date, after: int, limit: int
    ) -> ProcedureCounts:
        self.calls.append(("procedures", agency.code, first, last, after, limit))
        return ProcedureCounts(first=f"{first:%Y-%m}", last=f"{last:%Y-%m}", lines=[])

    async def page(self, agency: AgencyRow, after: str | None, limit: int) -> wire.Records:
        self.calls.append(("page", agency.code, after, limit))
        return wire.Records(records=[])
