"""What the agent of a device asks of its machine: ports, so that its loops can be tried without one.

Invariant: whatever stands behind them never changes a route or an interface that is not the device's own.
"""

from collections.abc import Collection
from typing import Protocol

from chukan.vpn.device.folder import Tunnel
from chukan.vpn.device.health import Answer
from chukan.vpn.model import Peer


class Ways(Protocol):
    """The device's interfaces and its service route. Every call raises ``Problem`` and ends within its own time."""

    async def ensure(self, tunnel: Tunnel) -> None:
        """Make the tunnel's interface be there and be as it shall be; what is right already is not touched."""
        ...

    async def renew(self, tunnel: Tunnel) -> None:
        """Give the interface this tunnel's keys, and let it begin a session anew."""
        ...

    async def peer(self, centre: str) -> Peer | None:
        """Return the gateway's peer as the interface has it."""
        ...

    async def gone(self, centre: str) -> None:
        """Wait until the interface has gone away."""
        ...

    async def active(self) -> str | None:
        """Return the centre to which the service route leads; None where there is no such route."""
        ...

    async def point(self, centre: str, gone: Collection[str]) -> bool:
        """Let the service route lead through the centre's tunnel, and connections of ``gone`` centres too.

        Return whether it did not already.
        """
        ...

    async def remove(self) -> None:
        """Take the route and the interfaces away."""
        ...


class Asking(Protocol):
    """The probes of all centres."""

    async def echo(self, centre: str, timeout_s: float) -> bool:
        """Tell whether an echo was answered through the centre's tunnel."""
        ...

    async def ready(self, centre: str, timeout_s: float) -> Answer:
        """Return what the centre says of itself."""
        ...
