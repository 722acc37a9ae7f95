"""A desk for evidence that says what it was asked, and answers with the form alone."""

import uuid
from collections.abc import AsyncGenerator
from typing import Any

from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof, RecordProof
from chukan.platform.wire.operations import Operations
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

    async def export(self, agency: AgencyRow) -> AsyncGenerator[bytes, None]:
        self.calls.append(("export", agency.code))
        yield b'{"kind":"header","origin":"log","of":"log","records":true}\n'


class FakeOperations(FakeEvidence):
    """Implements ``ports.OperationsDesk``."""

    async def page(self, agency: AgencyRow, after: int, limit: int) -> Operations:
        self.calls.append(("operations", agency.code, after, limit))
        return Operations(entries=[])

    async def export(self, agency: AgencyRow) -> AsyncGenerator[bytes, None]:
        self.calls.append(("operations export", agency.code))
        yield b'{"kind":"header","origin":"log","of":"log","records":true}\n'


class FakeResidents:
    """Implements ``ports.ResidentDesk``."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    async def records(self, agency: AgencyRow, body: ResidentAsk) -> ResidentRecords:
        self.calls.append(("resident", agency.code, body))
        return ResidentRecords(shows="nothing", persons=[], cannot_show=[])
