"""What a run of the demo sent through the tunnels, counted where it arrived: at the exchanges, by the callers' address.

Invariant: what is told here was seen by an exchange; nothing is concluded from how the clients were set up.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

import aiohttp

from chukan.errors import Problem
from chukan.ops.centres.addresses import LabAddresses
from chukan.ops.centres.picture import Picture
from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.tally import LinksTally

_TIMEOUT_S: Final = 10.0
_LINES: Final = "chukan_query_lines_total"


async def count(addresses: LabAddresses, picture: Picture) -> tuple[LinksTally, int]:
    """Return what came through links, and how many lines came another way since the exchanges were started.

    Raises ``Problem`` unavailable where an exchange does not tell.
    """
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_metrics(session, addresses.health_url(name)) for name in EXCHANGES))
    ways = {way: sum(sum(_of(text, way)) for text in texts) for way in ("link", "other")}
    up = min((gateway.up for gateway in picture.links), default=0)
    return LinksTally(up=up, queries_through_tunnels=int(ways["link"])), int(ways["other"])


async def _metrics(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(f"{url}/metrics") as reply:
            return await reply.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        raise Problem("unavailable") from None


def _of(text: str, way: str) -> Iterator[float]:
    for line in text.splitlines():
        if line.startswith(f'{_LINES}{{way="{way}"}}'):
            yield float(line.rpartition(" ")[2])
