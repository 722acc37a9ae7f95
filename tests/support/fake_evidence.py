"""A desk for evidence that says what it was asked, and answers with the form alone."""

import uuid
from typing import Any

from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.platform.wire.resident import ResidentAsk, ResidentRecords
from chukan.tenants.directory import AgencyRow


class FakeEvidence:
    """Implements ``ports.EvidenceDesk``."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    async def checkpoint(self, agency: AgencyRow) -> CheckpointView:
        self.calls.append(("checkpoint", agency.code))
        return CheckpointView("log\n1\nAAAA\n\n— log AAAAAAAA\n", 1, cosigned=False)

    async def proof(self, agency: AgencyRow, record: uuid.UUID) -> RecordProof:
        self.calls.append(("proof", agency.code, record))
        return RecordProof(await self.checkpoint(agency), 1, bytes(105), [], bytes(32), b"{}")

    async def consistency(self, agency: AgencyRow, first: int) -> ConsistencyProof:
        self.calls.append(("consistency", agency.code, first))
        return ConsistencyProof(await self.checkpoint(agency), first, [])


class FakeResidents:
    """Implements ``ports.ResidentDesk``."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    async def records(self, agency: AgencyRow, body: ResidentAsk) -> ResidentRecords:
        self.calls.append(("resident", agency.code, body))
        return ResidentRecords(shows="nothing", persons=[], cannot_show=[])
