"""Two network namespaces for links: in one stands a gateway, in the other a whole country of synthetic devices.

The devices' namespace takes 198.18.0.0/15 (RFC 2544) for its own, so that any of its addresses may send and receive
without being configured; the gateway's has one address and a way there.

Invariant: nothing outside these two namespaces is changed, and leaving the context takes both away with all that runs
in them. The names bear this process's number; two may stand side by side.
"""

import ipaddress
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from chukan.errors import Problem
from chukan.ops import namespaces
from chukan.ops.bench import swarm
from chukan.ops.namespaces import standing

GATEWAY: Final = "198.51.100.1"
_UPLINK: Final = "198.51.100.2"
_COUNTRY: Final = ipaddress.IPv4Network("198.18.0.0/15")
_FIRST: Final = 10


class Ground:
    """Both namespaces; a context manager that makes them and takes them away. Needs root."""

    def __init__(self, suffix: str = "") -> None:
        """Name them; nothing is made."""
        prefix = f"ckl-{os.getpid()}{suffix}"
        self.gateway, self.devices = f"{prefix}-gw", f"{prefix}-dev"

    def __enter__(self) -> Self:
        """Make both. Raises ``Problem`` process_failed or runtime_missing."""
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.remove()

    def _build(self) -> None:
        for name in (self.gateway, self.devices):
            namespaces.ip(f"netns add {name}")
        pair = f"link add uplink type veth peer name uplink netns {self.devices}"
        wide = "link set uplink up txqueuelen 10000"
        namespaces.batch(
            self.gateway,
            ["link set lo up", pair, f"addr add {GATEWAY}/24 dev uplink", wide, f"route add {_COUNTRY} via {_UPLINK}"],
        )
        namespaces.batch(
            self.devices,
            ["link set lo up", f"addr add {_UPLINK}/24 dev uplink", wide, f"route add local {_COUNTRY} dev lo"],
        )

    def remove(self) -> None:
        """End what runs in the namespaces, and take them away; there may be none."""
        for name in (self.gateway, self.devices):
            with suppress(Problem):
                self.kill_all(name)
            with suppress(Problem):
                namespaces.ip(f"netns delete {name}")

    @staticmethod
    def kill_all(name: str) -> None:
        """Kill every process that stands in a namespace, and wait until it is gone. Raises ``Problem``."""
        namespaces.kill_all(name)

    @staticmethod
    def address(number: int) -> str:
        """Return the outer address of the device with this number (0, 1, …); ``IndexError`` past the last one."""
        return str(_COUNTRY[_FIRST + number])

    def listener(self, port: int) -> socket.socket:
        """Return the devices' socket, ready for a ``Swarm``. Raises ``Problem`` not_possible_here."""
        with standing(self.devices):
            return swarm.listener(port)

    def set(self, commands: Sequence[str]) -> None:
        """Carry out commands of ip(8) at the gateway. Raises ``Problem`` process_failed."""
        namespaces.batch(self.gateway, commands)

    def cut(self) -> None:
        """Take the cable out: nothing passes between gateway and devices."""
        namespaces.batch(self.devices, ["link set uplink down"])

    def mend(self) -> None:
        """Put the cable back, and with it the way that the gateway lost."""
        namespaces.batch(self.devices, ["link set uplink up"])
        namespaces.batch(self.gateway, [f"route replace {_COUNTRY} via {_UPLINK}"])


def command(namespace: str, words: Sequence[str]) -> list[str]:
    """Return a command as it is run in a namespace."""
    return ["/usr/sbin/ip", "netns", "exec", namespace, *words]
