"""One device's agent as a process: folder, probes and interfaces put together, and run until it is told to end.

Invariant: two agents never work on one folder: the second is refused while the first lives, and a killed one's lock is
gone with it.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.tenants.link_plan import inner_v4
from chukan.vpn.device import settings as agent_settings
from chukan.vpn.device.agent import Agent
from chukan.vpn.device.folder import DeviceFolder
from chukan.vpn.device.health import Answer
from chukan.vpn.device.interfaces import Interfaces
from chukan.vpn.device.probes import EchoProbe, ReadyProbe


class Probes:
    """The ``Asking`` of an agent: two probes a centre."""

    def __init__(self, echoes: dict[str, EchoProbe], readies: dict[str, ReadyProbe]) -> None:
        self._echoes = echoes
        self._readies = readies

    async def echo(self, centre: str, timeout_s: float) -> bool:
        """Tell whether an echo was answered through the centre's tunnel."""
        return await self._echoes[centre].ask(timeout_s)

    async def ready(self, centre: str, timeout_s: float) -> Answer:
        """Return what the centre says of itself."""
        return await self._readies[centre].ask(timeout_s)


async def run(folder: DeviceFolder, told: asyncio.Event, clock: Clock, chance: Chance) -> None:
    """Run the agent until told to end.

    Raises ``Problem``: device_not_ready, device_damaged, grant_invalid, already_running, setting_*.
    """
    grant = folder.grant()
    told_settings = agent_settings.read(folder)
    source = inner_v4(grant.link)
    with _alone(folder):
        async with contextlib.AsyncExitStack() as stack:
            echoes: dict[str, EchoProbe] = {}
            readies: dict[str, ReadyProbe] = {}
            for centre, name in folder.identity.interfaces.items():
                tunnel = folder.tunnel(centre)
                if tunnel is None:
                    raise Problem("device_not_ready", expected="chukan device accept")
                echoes[centre] = EchoProbe(name, source, tunnel.address, chance)
                stack.callback(echoes[centre].close)
                ready = ReadyProbe(name, source, tunnel.address, grant.health_port, cell=told_settings.cell)
                readies[centre] = await stack.enter_async_context(ready)
            ways = await stack.enter_async_context(Interfaces(folder, grant, told_settings))
            agent = Agent(folder, told_settings, ways, Probes(echoes, readies), clock, chance)
            await agent.run(told, pid=os.getpid())


@contextlib.contextmanager
def _alone(folder: DeviceFolder) -> Iterator[None]:
    descriptor = os.open(folder.path / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem("already_running") from None
        yield
    finally:
        os.close(descriptor)
