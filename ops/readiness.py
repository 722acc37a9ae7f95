"""When a process of ours is ready: when what answers under its address is itself.

On a port that was lost to another program something else may answer just as well; so each tells its process id.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

_PROBE_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.1
_OK: Final = 200


class _Answering(msgspec.Struct, frozen=True):
    """What every process of ours answers with, among other things: its id."""

    pid: int


async def until_itself(url: str, pid: Callable[[], int | None]) -> None:
    """Wait until the process of that id answers with 200; whoever calls sets the deadline."""
    while not await answers_itself(url, pid):  # noqa: ASYNC110 - another process has no event of ours
        await asyncio.sleep(_POLL_S)


async def answers_itself(url: str, pid: Callable[[], int | None]) -> bool:
    """Tell whether a URL answers with 200, and who answers is the process of that id."""
    timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as reply:
            if reply.status != _OK:
                return False
            told = msgspec.json.decode(await reply.read(), type=_Answering)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
        return False
    return told.pid == pid()
