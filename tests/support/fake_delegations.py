"""Services of delegations and corrections that live in memory and remember what they were asked."""

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

from chukan.platform.wire.corrections import CorrectionView, RecordCorrection
from chukan.platform.wire.delegations import DelegationTerms, DelegationView, DelegationViews
from chukan.tenants.directory import AgencyRow, ClientRow

_TERMS = DelegationTerms(role="taken", side="inquirer", counterpart="1" * 16, valid_from=dt.date(2026, 4, 1))


@dataclass
class Delegations:
    """DelegationService in memory."""

    calls: list[Any] = field(default_factory=list)

    async def list(self, agency: AgencyRow, *, ended: bool) -> DelegationViews:
        self.calls.append(("delegations", agency.code, ended))
        return DelegationViews(delegations=[])

    async def propose(
        self, agency: AgencyRow, officer: ClientRow, body: DelegationTerms, *, key: str, content: bytes
    ) -> DelegationView:
        self.calls.append(("propose", agency.code, officer.id, key, content))
        return DelegationView(id=uuid.uuid4(), state="proposed", terms=body, proposed_by=officer.id)

    async def approve(self, agency: AgencyRow, officer: ClientRow, half: uuid.UUID) -> DelegationView:
        self.calls.append(("approve", agency.code, officer.id))
        return DelegationView(id=half, state="in_force", terms=_TERMS, proposed_by="suzuki", approved_by=officer.id)

    async def end(self, agency: AgencyRow, officer: ClientRow, half: uuid.UUID) -> DelegationView:
        self.calls.append(("end", agency.code, officer.id))
        return DelegationView(id=half, state="ended", terms=_TERMS, proposed_by="suzuki", ended_by=officer.id)


@dataclass
class Corrections:
    """CorrectionService in memory."""

    calls: list[Any] = field(default_factory=list)

    async def correct(
        self, agency: AgencyRow, officer: ClientRow, record: uuid.UUID, body: RecordCorrection, key: str
    ) -> CorrectionView:
        self.calls.append(("correct", agency.code, officer.id, key))
        return CorrectionView(id=uuid.uuid4(), amends=record, notified=True)
