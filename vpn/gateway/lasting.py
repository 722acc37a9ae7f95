"""Loops that must not end: each is begun again when something ends it that nobody foresaw.

No session depends on any of them, and each is worth more broken and begun again than gone with its process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from chukan import log

AGAIN_S: Final = 2.0

_log = log.get("vpn.gateway.lasting")


async def lasting(work: Callable[[], Awaitable[None]], stage: str) -> None:
    """Do a work that should last until cancelled, again and again where it ends."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a task's boundary: whatever it was, the work is begun again
            _log.error("a loop of the gateway ended and is begun again", stage=stage, exc_info=error)
        await asyncio.sleep(AGAIN_S)
