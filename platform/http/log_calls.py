"""What a client may ask about one of its agency's two logs: checkpoint, consistency, a leaf's place, and all as a file.

The file is read part by part as the client takes it, each part in a place of its own and within a deadline: one that
takes slowly holds no place meanwhile. Nothing is changed or left out here, and no more than one part is gathered.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from chukan.platform.http.calls import Call, Pieces, Reply
from chukan.platform.http.log_ports import EvidenceDesk
from chukan.platform.wire.evidence import ConsistencyParams

NDJSON: Final = "application/x-ndjson"
LINES_AT_ONCE: Final = 500
PART_DEADLINE_S: Final = 30.0


class LogCalls:
    """The calls about one log; ``desk`` finds it, ``leaf`` names an entry's id in the path."""

    def __init__(self, desk: Callable[[Call], EvidenceDesk], leaf: str) -> None:
        self._desk = desk
        self._leaf = leaf

    async def checkpoint(self, call: Call) -> Reply:
        """Return the newest checkpoint of the log."""
        return Reply(await self._desk(call).checkpoint(call.agency))

    async def consistency(self, call: Call) -> Reply:
        """Prove that the log continues a checkpoint that the client has kept."""
        return Reply(await self._desk(call).consistency(call.agency, call.params_as(ConsistencyParams).first))

    async def proof(self, call: Call) -> Reply:
        """Prove that an entry stands in the log as it was made."""
        return Reply(await self._desk(call).proof(call.agency, call.id(self._leaf)))

    async def export(self, call: Call) -> Reply:
        """Return the whole log with its entries as an evidence file (証跡ファイル), read as it is taken."""
        return Reply(Pieces(NDJSON, _poured(call, self._desk(call).export(call.agency))))


async def _poured(call: Call, lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(lines) as coming:
        while True:
            part: list[bytes] = []
            async with call.place(), asyncio.timeout(PART_DEADLINE_S):
                while len(part) < LINES_AT_ONCE and (line := await anext(coming, None)) is not None:
                    part.append(line)
            if not part:
                return
            yield b"".join(part)
