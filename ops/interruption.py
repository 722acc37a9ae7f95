"""Work that ends by itself or when a signal tells it to (Ctrl-C, SIGTERM, SIGHUP): a demo, a benchmark.

Invariant: what is being taken down is not disturbed by a second signal.
"""

import asyncio
import signal
from typing import Protocol


class Interruptible(Protocol):
    """``run`` takes everything down before it returns; ``stopping`` while it does."""

    stopping: bool

    async def run(self) -> int:
        """Do everything, and return the exit status."""
        ...


async def until_told(work: Interruptible) -> int | None:
    """Run until done or told to end; return the exit status, None when told."""
    working = asyncio.ensure_future(work.run())
    loop = asyncio.get_running_loop()

    def told() -> None:
        if not work.stopping:
            working.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told)
    try:
        return await working
    except asyncio.CancelledError:
        return None
