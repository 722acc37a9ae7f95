"""The port to one set of tunnels: what the controller asks of WireGuard interfaces and of IPsec alike.

A kind reads what its back end has, compares it with the links that are its own, repairs by the smallest change, and
reads again. What of the differences is drift and who hears of it is the controller's business: a kind tells all of
them.

Promises of every kind: ``reconcile`` twice is the same as once, and touches no session of a link that did not change;
with ``repair`` off it touches nothing; ``cut`` ends sessions at once and needs no reading; no call waits without a
deadline; a back end that is away raises ``Problem``, and nothing that was sent or read stands in it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

import msgspec

from chukan.tenants.links import DesiredPeer
from chukan.vpn.gateway.desired import Goal, LinkGoal
from chukan.vpn.gateway.rotation import Progress
from chukan.vpn.model import Drift

UP_S: Final = 180.0
"""A link whose last handshake is younger is up: a session ends that long after it."""
COUNTING: Final = ("wireguard", "service")
"""Names of the kinds that count all that came into a tunnel, refused or not."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one link's device: where from, when it last shook hands (seconds since 1970), bytes."""

    endpoint: str | None = None
    handshake_at: float | None = None
    rx: int = 0
    tx: int = 0

    def __repr__(self) -> str:
        return "Sighting()"


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """One pass, as a kind is told of it."""

    goal: Goal
    links: Mapping[str, LinkGoal]
    """Those of the goal's links that are this kind's."""
    progress: Mapping[str, Progress]
    endpoints: Mapping[str, str]
    """Where each link's device was last seen, as far as anybody knows."""
    now_s: float
    """Seconds since 1970."""
    repair: bool
    hurried: Callable[[], bool] = lambda: False
    """Whether the next pass waits already: what takes its time is left to it, once a part is done."""

    def __repr__(self) -> str:
        return f"Pass({len(self.links)} links)"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass found and did."""

    differences: tuple[Drift, ...] = ()
    """All that differed before the repair, also what is simply new."""
    left: tuple[Drift, ...] = ()
    """What differed still when it was read again; without repair the same as ``differences``."""
    steps: int = 0
    marks: Mapping[str, str] = {}
    """What each link was given, as a word that changes with it: who has the same word and differs has drifted."""
    progress: Mapping[str, Progress] = {}
    rotated: tuple[str, ...] = ()
    """Links whose next key or next pre-shared key was seen in use."""
    sightings: Mapping[str, Sighting] = {}

    def __repr__(self) -> str:
        return f"Report({self.steps} steps)"


class Kind(Protocol):
    """One set of tunnels."""

    @property
    def name(self) -> str:
        """A short name for logs and metrics: ``wireguard``, ``service``, ``ipsec``."""
        ...

    def mine(self, peer: DesiredPeer) -> bool:
        """Tell whether a link is to be served by this kind now."""
        ...

    async def ensure(self) -> bool:
        """Bring the back end up, with interfaces, addresses and routes; tell whether it was started anew.

        Raises ``Problem``.
        """
        ...

    async def cut(self, goal: Goal, links: Collection[str]) -> None:
        """End the sessions of links at once; ``goal.known`` names their keys. Raises ``Problem``."""
        ...

    async def reconcile(self, now: Pass) -> Report:
        """Compare, and repair where told to. Raises ``Problem``."""
        ...

    async def died(self) -> None:
        """Return when the back end is gone; a kind that cannot tell waits for ever (it is cancelled)."""
        ...

    async def close(self) -> None:
        """Let go of what this process holds; tunnels and sessions go on."""
        ...


def merge_sightings(first: Sighting | None, second: Sighting) -> Sighting:
    """Return what is known of a link that was seen under two keys: the newer handshake says where it is."""
    if first is None:
        return second
    newer = max(first, second, key=lambda each: each.handshake_at or 0.0)
    return Sighting(
        endpoint=newer.endpoint or first.endpoint or second.endpoint,
        handshake_at=newer.handshake_at,
        rx=first.rx + second.rx,
        tx=first.tx + second.tx,
    )
