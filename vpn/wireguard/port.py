"""The port to a WireGuard interface: read it, set the interface, change some of its peers.

Every back end answers for the same promises, which ``tests/links/test_tunnels_contract.py`` tries on each:

- ``get`` is the whole interface, every peer exactly once, prefixes canonical;
- ``apply`` changes the named peers and what is flagged of them, in the order given, and nothing else: the sessions of
  others, and of a peer of which something else is changed, go on. A prefix has one owner: to set it takes it from
  another;
- applying twice is the same as once, also a ``Remove`` of a peer that is not there;
- no call waits longer than its deadline, and none logs or raises what it sent or read.

Never ``replace_peers``.
"""

from collections.abc import Sequence
from typing import Protocol

from chukan.vpn.model import Actual, Interface, Step


class Tunnels(Protocol):
    """One WireGuard interface. Every call raises ``Problem`` link_interface_away or link_interface_refused."""

    async def get(self) -> Actual:
        """Return what the interface has."""
        ...

    async def set_interface(self, interface: Interface) -> None:
        """Give the interface its private key and port; its peers stay, and sessions of the same key too."""
        ...

    async def apply(self, steps: Sequence[Step]) -> None:
        """Carry the steps out in their order; what was done before a step that is refused stays done."""
        ...
