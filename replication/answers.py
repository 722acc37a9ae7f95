"""Bodies of answers from other servers, read within a bound: what comes from outside may have no end."""

from typing import Final

import aiohttp

ANSWER_BYTES_MAX: Final = 1024 * 1024


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body; ``ValueError`` past the bound."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ValueError("an answer without end")
    return bytes(body)
