"""Which WireGuard this machine has: the kernel's where it has one, wireguard-go elsewhere. Found out by trying.

Invariant: whatever the trial makes is taken away again.
"""

import errno
import os
from pathlib import Path
from typing import Final, Literal, Protocol

from chukan.errors import Problem
from chukan.vpn.netdev import NetDev
from chukan.vpn.wireguard.kernel import KernelWireGuard
from chukan.vpn.wireguard.port import Tunnels
from chukan.vpn.wireguard.userspace import Userspace

Kind = Literal["kernel", "userspace"]
_NO_SUCH_KIND: Final = f": {errno.errorcode[errno.EOPNOTSUPP]}"
"""How the kernel's word ends that it knows no interfaces of a kind."""


class Device(Protocol):
    """A WireGuard interface and what makes it be there."""

    @property
    def kind(self) -> Kind:
        """Which of the two it is."""
        ...

    @property
    def tunnels(self) -> Tunnels:
        """The port to the interface."""
        ...

    async def ensure(self) -> bool:
        """Make the interface be there; return whether it was made anew, so that it knows no peer."""
        ...

    async def gone(self) -> None:
        """Wait until the interface has gone away."""
        ...

    async def stop(self) -> None:
        """Take the interface away; its sessions end."""
        ...

    def close(self) -> None:
        """Let go of the interface, which stays."""
        ...


class KernelDevice:
    """An interface of the kernel's own."""

    kind: Final = "kernel"

    def __init__(self, interface: str, *, netns: str | None) -> None:
        """``netns`` names the namespace of the interface and of its UDP socket."""
        self._interface = interface
        self._netns = netns
        self._tunnels = KernelWireGuard(interface, netns)

    @property
    def tunnels(self) -> Tunnels:
        """The port to the interface."""
        return self._tunnels

    async def ensure(self) -> bool:
        """Make the interface, unless it is there; return whether it was made. ``Problem`` link_network_refused."""
        async with NetDev(self._netns) as netdev:
            return await netdev.ensure_link(self._interface, "wireguard")

    async def gone(self) -> None:
        """Wait until somebody took the interface away."""
        async with NetDev(self._netns) as netdev:
            await netdev.link_gone(self._interface)

    async def stop(self) -> None:
        """Take the interface away; its sessions end."""
        async with NetDev(self._netns) as netdev:
            await netdev.ensure_no_link(self._interface)
        self.close()

    def close(self) -> None:
        """Let go of the interface, which stays."""
        self._tunnels.close()


async def probe(netns: str | None = None) -> Kind:
    """Return what a namespace can have. Raises ``Problem`` link_network_refused where it cannot be tried (no right)."""
    name = f"wgp{os.getpid() % 10**9}"
    async with NetDev(netns) as netdev:
        try:
            await netdev.ensure_link(name, "wireguard")
        except Problem as problem:
            if problem.expected is not None and problem.expected.endswith(_NO_SUCH_KIND):
                return "userspace"
            raise
        await netdev.ensure_no_link(name)
        return "kernel"


async def choose(interface: str, *, netns: str | None, log: Path) -> Device:
    """Return the device of an interface by what this machine has; it is made by its ``ensure``.

    ``netns`` is where its UDP sockets shall stand; ``log`` takes why wireguard-go did not come up.
    """
    if await probe(netns) == "kernel":
        return KernelDevice(interface, netns=netns)
    return Userspace(interface, netns=netns, log=log)
