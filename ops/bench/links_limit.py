"""The limit of links: the stock ``wg syncconf`` on a wireguard-go of its own, given the same peers in the same place.

``wg syncconf`` (wireguard-tools) reads a file and changes an interface to exactly that, without ending the sessions of
peers that stay. It knows no database, no audit, no packet filter and no seals; what it takes is what ours cannot avoid.

Invariant: a run that did not end well is no limit: ``Problem`` process_failed. The interface is gone afterwards.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from chukan.clock import Clock, SystemClock
from chukan.errors import Problem
from chukan.ops.bench.ground import Ground
from chukan.vpn.wireguard.userspace import Userspace

PROGRAM: Final = "wg syncconf"
_WG: Final = Path("/usr/bin/wg")
_TIMEOUT_S: Final = 60.0


class Stock:
    """A wireguard-go with nobody but ``wg`` at it."""

    def __init__(self, interface: str, clock: Clock) -> None:
        self._interface, self._clock = interface, clock

    async def syncconf(self, conf: Path) -> float:
        """Bring the interface to what a file says; return the seconds that it took. Raises ``Problem``."""
        begun = self._clock.monotonic()
        # The socket of wireguard-go is in the file system: wg need not stand where the interface does.
        words = [str(_WG), "syncconf", self._interface, str(conf)]
        process = await asyncio.create_subprocess_exec(*words, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            status = await process.wait()
        if status != 0:
            raise Problem("process_failed", expected="wg syncconf")
        return self._clock.monotonic() - begun


@asynccontextmanager
async def stock(ground: Ground, log: Path, clock: Clock | None = None) -> AsyncIterator[Stock]:
    """Run a wireguard-go at the gateway, up and without a peer. Raises ``Problem``."""
    interface = f"ckst{os.getpid()}"
    process = Userspace(interface, netns=ground.gateway, log=log)
    await process.ensure()
    try:
        ground.set([f"link set {interface} up mtu 1380"])
        yield Stock(interface, clock or SystemClock())
    finally:
        await process.stop()


def require_wg() -> None:
    """Raise ``Problem`` runtime_missing unless ``wg`` is there."""
    if not _WG.exists():
        raise Problem("runtime_missing", expected="wg (Debian's wireguard-tools)")
