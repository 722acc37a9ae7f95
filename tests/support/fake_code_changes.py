"""Repair of links and requests to acquire, in memory, for tests of the agency API."""

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

from chukan.platform.wire.acquisition_asks import (
    AcquisitionAnswer,
    AcquisitionAnswered,
    AcquisitionAskView,
    AcquisitionAskViews,
    AskedToAcquire,
    PersonFacts,
)
from chukan.platform.wire.code_changes import (
    CodeChangeLine,
    CodeChangeLines,
    CodeChanges,
    CodeConfirm,
    CodeMerge,
    CodeRelink,
)
from chukan.tenants.directory import AgencyRow, ClientRow

AT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)
FACTS = PersonFacts(name="見本 花子", birth_date=dt.date(1980, 4, 1), sex="female", address="見本県見本市一丁目一番")


@dataclass
class CodeChangeService:
    """Remembers what it was asked, and says that everything is open."""

    calls: list[Any] = field(default_factory=list)

    def _lines(self, count: int) -> CodeChangeLines:
        return CodeChangeLines(lines=[CodeChangeLine(line=n, status="open", change=uuid.uuid4()) for n in range(count)])

    async def relink(
        self, agency: AgencyRow, officer: ClientRow, body: CodeRelink, key: str, content: bytes
    ) -> CodeChangeLines:
        self.calls.append(("relink", agency.code, officer.id, key))
        return self._lines(len(body.lines))

    async def merge(
        self, agency: AgencyRow, officer: ClientRow, body: CodeMerge, key: str, content: bytes
    ) -> CodeChangeLines:
        self.calls.append(("merge", agency.code, officer.id, key))
        return self._lines(len(body.lines))

    async def confirm(self, agency: AgencyRow, officer: ClientRow, body: CodeConfirm) -> CodeChangeLines:
        self.calls.append(("confirm", agency.code, officer.id))
        return self._lines(len(body.lines))

    async def waiting(self, agency: AgencyRow) -> CodeChanges:
        self.calls.append(("waiting", agency.code))
        return CodeChanges(changes=[])

    async def history(self, agency: AgencyRow, addressee: str) -> CodeChanges:
        self.calls.append(("history", agency.code))
        return CodeChanges(changes=[])


@dataclass
class AcquisitionAskService:
    """Remembers what it was asked; there is one request."""

    calls: list[Any] = field(default_factory=list)

    async def request(
        self, agency: AgencyRow, caller: ClientRow, line: uuid.UUID, facts: PersonFacts
    ) -> AskedToAcquire:
        self.calls.append(("request", agency.code, line, facts))
        return AskedToAcquire(id=line, provider="1" * 16, status="requested")

    async def list(self, agency: AgencyRow) -> AcquisitionAskViews:
        self.calls.append(("list", agency.code))
        view = AcquisitionAskView(
            id=uuid.uuid4(), inquirer="1" * 16, affair="J", kind="T", facts=FACTS, received_at=AT, until=AT
        )
        return AcquisitionAskViews(requests=[view])

    async def answer(
        self, agency: AgencyRow, caller: ClientRow, ask: uuid.UUID, body: AcquisitionAnswer, key: str
    ) -> AcquisitionAnswered:
        self.calls.append(("answer", agency.code, ask, body.addressee))
        return AcquisitionAnswered(id=ask, status="fulfilled" if body.addressee else "declined")
