"""Calls of the agency API that repair links (付替・統合・確認) and ask others to acquire. Part of ``AgencyClient``."""

import uuid
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from chukan.ops.sandbox.transport import Request, Transport
from chukan.platform.wire.acquisition_asks import (
    AcquisitionAnswer,
    AcquisitionAnswered,
    AcquisitionAskViews,
    AskedToAcquire,
    PersonFacts,
)
from chukan.platform.wire.code_changes import (
    CodeChangeLines,
    CodeChanges,
    CodeConfirm,
    CodeHistoryAsk,
    CodeMerge,
    CodeRelink,
    ConfirmLine,
    MergeLine,
    RelinkLine,
)

T = TypeVar("T")


class CodeCalls:
    """These calls, on the transport of the client that they belong to."""

    _transport: Transport

    async def relink(self, lines: Sequence[RelinkLine]) -> CodeChangeLines:
        """Propose that codes belong to other addressee numbers, as a first officer; the links are suspended."""
        return await self._sent("/codes/relink", CodeRelink(lines=list(lines)), CodeChangeLines)

    async def merge(self, lines: Sequence[MergeLine]) -> CodeChangeLines:
        """Propose that two addressee numbers each are one person, as a first officer; the links are suspended."""
        return await self._sent("/codes/merge", CodeMerge(lines=list(lines)), CodeChangeLines)

    async def confirm_changes(
        self, changes: Sequence[uuid.UUID], decision: Literal["apply", "withdraw"]
    ) -> CodeChangeLines:
        """Decide about changes, as another officer than who proposed them."""
        lines = [ConfirmLine(change=change, decision=decision) for change in changes]
        return await self._sent("/codes/confirm", CodeConfirm(lines=lines), CodeChangeLines)

    async def code_changes(self) -> CodeChanges:
        """What waits for another officer."""
        return await self._transport.call(Request("GET", "/codes/changes"), CodeChanges)

    async def code_history(self, addressee: str) -> CodeChanges:
        """Everything that was changed about one link."""
        return await self._sent("/codes/history", CodeHistoryAsk(addressee=addressee), CodeChanges)

    async def request_acquisition(self, line: uuid.UUID, facts: PersonFacts) -> AskedToAcquire:
        """Ask the provider of a line that ended with ``provider_has_no_code`` to acquire one."""
        return await self._sent(f"/queries/{line}/request-acquisition", facts, AskedToAcquire)

    async def acquisition_requests(self) -> AcquisitionAskViews:
        """The open requests that came to this agency."""
        return await self._transport.call(Request("GET", "/acquisition-requests"), AcquisitionAskViews)

    async def answer_acquisition(self, request: uuid.UUID, addressee: str | None) -> AcquisitionAnswered:
        """Acquire a code for the person that was found, or decline without a number."""
        body = AcquisitionAnswer(addressee=addressee)
        return await self._sent(f"/acquisition-requests/{request}/fulfil", body, AcquisitionAnswered)

    async def _sent(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        return await self._transport.call(Request("POST", path, msgspec.json.encode(body)), kind)
