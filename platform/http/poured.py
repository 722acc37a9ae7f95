"""Replies that are written piece by piece: results of files, and events (DESIGN §6).

The status and the headers leave with the first piece; what fails later can no longer be told by a problem document. It
cuts the connection instead: the client sees that the reply has no end, and goes on from where it was.

Invariant: a piece is made only when the one before has left, and a reader who does not read is dropped after a time,
so a reply costs the memory of one piece and a connection for a bounded time a piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

from aiohttp import web

from chukan import log
from chukan.errors import Problem
from chukan.platform.http.calls import Pieces

WRITE_DEADLINE_S: Final = 30.0
"""How long a piece may take to leave; a slow link takes the next piece later, a dead one never."""

_log = log.get("http.poured")


class PouredResponse(web.StreamResponse):
    """A reply whose body is not there yet; ``pour`` writes it once the headers are settled."""

    def __init__(self, pieces: Pieces, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers={**headers, "Content-Type": pieces.media_type})
        self._pieces = pieces.of

    async def pour(self, request: web.Request, request_id: str) -> None:
        """Write the pieces to their end; on any trouble drop the connection."""
        try:
            async with aclosing(self._pieces) as pieces:
                await self.prepare(request)
                async for piece in pieces:
                    async with asyncio.timeout(WRITE_DEADLINE_S):
                        await self.write(piece)
        except (Problem, TimeoutError, ConnectionError) as error:
            _log.info("reply cut off", request_id=request_id, code=getattr(error, "code", "deadline_exceeded"))
            _drop(request)
        except Exception as error:  # noqa: BLE001 - the task boundary of what comes after the headers
            _log.error("reply cut off", request_id=request_id, exc_info=error)
            _drop(request)


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
