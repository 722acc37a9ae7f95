"""Reading a request's body within bounds: a cap in bytes, a deadline, the declared type, nothing compressed.

A body is asked for (``100 Continue``) only when somebody is about to read it, so that a refused request costs no
transfer. Past the cap, the announced length or the deadline reading stops at once.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import hdrs, web

from chukan.errors import Problem
from chukan.platform.http import headers

JSON: Final = "application/json"
BODY_DEADLINE_S: Final = 30.0
"""A JSON body must have arrived by then."""
CHUNK_DEADLINE_S: Final = 20.0
"""A streamed body must show progress within this time, and reach ``STREAM_DEADLINE_S`` as a whole."""
STREAM_DEADLINE_S: Final = 900.0

_EMPTY: Final = (b"", b"{}")


def announced_bytes(request: web.Request, cap: int) -> int:
    """Return how many bytes a body may turn out to have. Raises ``Problem`` too_large where it announces too many."""
    length = request.content_length
    if length is not None and length > cap:
        raise Problem("too_large", limit=cap)
    if length is None and hdrs.TRANSFER_ENCODING not in request.headers:
        return 0
    return cap if length is None else length


async def read_json(request: web.Request, cap: int) -> bytes:
    """Return the bytes of a JSON body.

    Raises ``Problem``: unsupported_media_type, unsupported_encoding, too_large, body_timeout, truncated_body.
    """
    kind, charset, _ = headers.media_type(request)
    if kind != JSON:
        raise Problem("unsupported_media_type", expected=JSON)
    if charset not in (None, "utf-8", "utf8"):
        raise Problem("unsupported_encoding", expected="utf-8")
    return await _read(request, cap)


async def read_nothing(request: web.Request) -> None:
    """Accept the absence of a body, or an empty JSON object. Raises ``Problem`` too_large or invalid_field."""
    if await _read(request, 16) not in _EMPTY:
        raise Problem("invalid_field", pointer="", expected="no body")


async def _read(request: web.Request, cap: int) -> bytes:
    announced_bytes(request, cap)
    pieces = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            await _invite(request)
            async for piece in request.content.iter_any():
                pieces += piece
                if len(pieces) > cap:
                    raise Problem("too_large", limit=cap)
    except TimeoutError:
        raise Problem("body_timeout", limit=int(BODY_DEADLINE_S)) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem("truncated_body") from None
    return bytes(pieces)


async def stream(request: web.Request, cap: int) -> AsyncIterator[bytes]:
    """Yield a body piece by piece, as it comes.

    Raises ``Problem``: too_large, body_timeout (no progress, or not done in time), truncated_body.
    """
    announced_bytes(request, cap)
    total = 0
    ends_at = asyncio.get_running_loop().time() + STREAM_DEADLINE_S
    try:
        await _invite(request)
        while True:
            until = min(asyncio.get_running_loop().time() + CHUNK_DEADLINE_S, ends_at)
            async with asyncio.timeout_at(until):
                piece = await request.content.readany()
            if not piece:
                return
            total += len(piece)
            if total > cap:
                raise Problem("too_large", limit=cap)
            yield piece
    except TimeoutError:
        raise Problem("body_timeout", limit=int(CHUNK_DEADLINE_S)) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem("truncated_body") from None


async def _invite(request: web.Request) -> None:
    if hdrs.EXPECT in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # What follows is the answer itself; the framework must not think that it has begun.
        request.writer.output_size = 0


async def expect_later(_request: web.Request) -> None:
    """Leave ``Expect`` alone until the body is wanted; given to the router in place of its own handler."""
