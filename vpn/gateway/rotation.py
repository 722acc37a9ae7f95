"""Which of a link's two keys counts at the gateway, while one gives way to the next: pure.

A device's next key is a second peer without prefixes: the device may shake hands with it, and no packet of it passes.
At its first handshake the prefixes move to it and the old peer goes; the database is told (``rotated``), and until it
has heard, the state file remembers.

A pre-shared key cannot be two at once, and a live session goes on whichever is set. So the gateway follows the
device: it stays with the one that brings handshakes. A device that turned to the next one asks for a new session 120
s after its last handshake, and is refused; at ``PSK_QUIET_S`` the gateway tries the other key, ``PSK_TRIAL_S`` long,
and again the other. That is before the session ends at 180 s: nothing is lost, and nobody need know when the device
turned. A handshake under the next key proves it.

Invariant: at most one peer of a link has its prefixes, and a peer that has them was either the link's key or was seen
in use.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from chukan.vpn.gateway.desired import LinkGoal
from chukan.vpn.model import Peer, Wanted

KEEPALIVE_S: Final = 25
"""Given to every peer with prefixes whose device was seen: after a restart the gateway itself opens the sessions to the
last endpoints. A device that was never seen could not be called, and trying costs a handshake for nothing."""
PSK_QUIET_S: Final = 130.0
"""A device at work shakes hands every 120 s (REKEY_AFTER_TIME), and tries again every 5 s (REKEY_TIMEOUT)."""
PSK_TRIAL_S: Final = 15.0
"""How long each key is tried while neither brings a handshake."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a link's rotation is, as this gateway remembers it."""

    promoted: bytes = b""
    """The next device key that was seen in use."""
    psk_of: bytes = b""
    """The sealed next pre-shared key that is on trial."""
    psk: Literal["old", "next"] = "old"
    psk_since: float | None = None
    """From when it holds for sure, in seconds since 1970; None until it was carried out (``done``)."""

    def __repr__(self) -> str:
        return "Progress()"


NONE: Final = Progress()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What one link is given now: one peer or two, what to remember, and whether the next key was seen in use."""

    wanted: tuple[Wanted, ...]
    progress: Progress
    rotated: bool

    def __repr__(self) -> str:
        return f"Choice({len(self.wanted)} peers)"


def choose(
    goal: LinkGoal, seen: Mapping[bytes, Peer], progress: Progress, endpoint: str | None, now_s: float
) -> Choice | None:
    """Return what a link is given; None for one without a key.

    Args:
        goal: the link.
        seen: the interface's peers by public key.
        progress: what was remembered of the link.
        endpoint: where its device was last seen, for a peer that has no endpoint.
        now_s: seconds since 1970.
    """
    key, following = goal.peer.public_key, goal.peer.next_public_key
    if key is None:
        return None
    if following is not None and following != key:
        return _device_key(goal, key, following, seen, progress, endpoint)
    if goal.next_psk and goal.peer.next_psk is not None:
        return _psk(goal, key, seen, progress, endpoint, now_s)
    return Choice(wanted=(_main(goal, key, goal.psk, endpoint),), progress=NONE, rotated=False)


def _device_key(
    goal: LinkGoal, key: bytes, following: bytes, seen: Mapping[bytes, Peer], progress: Progress, endpoint: str | None
) -> Choice:
    psk = goal.next_psk or goal.psk
    peer = seen.get(following)
    if progress.promoted == following or (peer is not None and peer.handshake_at is not None):
        wanted = (_main(goal, following, psk, endpoint),)
        return Choice(wanted=wanted, progress=Progress(promoted=following), rotated=True)
    # Without endpoint and keepalive: the gateway must not call a device under a key that it does not have yet.
    second = Wanted(link=goal.peer.link, public_key=following, preshared_key=psk)
    return Choice(wanted=(_main(goal, key, goal.psk, endpoint), second), progress=NONE, rotated=False)


def _psk(
    goal: LinkGoal, key: bytes, seen: Mapping[bytes, Peer], progress: Progress, endpoint: str | None, now_s: float
) -> Choice:
    sealed = goal.peer.next_psk or b""
    peer = seen.get(key)
    shook_at = peer.handshake_at if peer is not None and peer.handshake_at is not None else 0.0
    if progress.psk_of != sealed:
        progress = Progress(psk_of=sealed, psk_since=now_s)
    elif progress.psk_since is not None and now_s > max(shook_at + PSK_QUIET_S, progress.psk_since + PSK_TRIAL_S):
        progress = Progress(psk_of=sealed, psk="old" if progress.psk == "next" else "next")
    psk = goal.next_psk if progress.psk == "next" else goal.psk
    rotated = psk == goal.next_psk and progress.psk_since is not None and shook_at > progress.psk_since
    return Choice(wanted=(_main(goal, key, psk, endpoint),), progress=progress, rotated=rotated)


def _main(goal: LinkGoal, key: bytes, psk: bytes, endpoint: str | None) -> Wanted:
    return Wanted(
        link=goal.peer.link,
        public_key=key,
        preshared_key=psk,
        allowed=goal.prefixes,
        endpoint=endpoint,
        keepalive_s=0 if endpoint is None else KEEPALIVE_S,
    )


def done(progress: Progress, at_s: float) -> Progress:
    """Return what is remembered once the choice was carried out, at ``at_s``: later handshakes are under it."""
    if progress.psk_of and progress.psk_since is None:
        return msgspec.structs.replace(progress, psk_since=at_s)
    return progress


def rotating(goal: LinkGoal) -> bool:
    """Tell whether a link waits for its device's first handshake under a new key: then the gateway looks often."""
    return goal.peer.next_public_key is not None or goal.peer.next_psk is not None
