"""What a centre's gateway shall have at this instant: of the database's rows, of what was seen before, and of the time.

Three judgements, all pure:

- ``merge``: a restored or stale database never brings back what was taken away. A row of a lower generation than the
  one that is kept counts for nothing, unless the database began a new history (its number fell, to a ``floor``) and
  the row was written in it. A link that was seen revoked stays revoked whatever a database says, and one that is
  missing is kept as it was. Each such row is told (``went_back``).
- ``goal_of``: who may pass now. Validity in time is honoured by the clock, without anybody's act; ``next_turn`` says
  when to look again.
- A link whose pre-shared key does not open here, or whose key another link has too, is ``held``: neither made nor
  taken away, for a bad row must not end a good session. Where the next pre-shared key opens and the present one does
  not (it was sealed for a key that this gateway has lost), the next one is given at once.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec

from chukan.tenants.links import Desired, DesiredPeer, GatewayRow
from chukan.vpn.model import canonical_prefixes

_canonical = lru_cache(maxsize=32768)(canonical_prefixes)

Open = Callable[[str, bytes], bytes | None]
"""``open(link, sealed)``: the pre-shared key, or None where it does not open."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state that counts, as a controller keeps it on its own disk; pre-shared keys stay sealed."""

    number: int = 0
    """The number of the state that was heard last."""
    highest: int = 0
    floor: int | None = None
    """Since the database went back: the lowest number heard. Rows of higher generations are of its new history."""
    gateway: GatewayRow | None = None
    peers: Mapping[str, DesiredPeer] = {}

    def __repr__(self) -> str:
        return f"Kept({self.number})"


class LinkGoal(msgspec.Struct, frozen=True, kw_only=True):
    """One link that may pass now, with its keys in the clear: lives in memory alone and shows nothing of itself."""

    peer: DesiredPeer
    prefixes: frozenset[str]
    psk: bytes
    next_psk: bytes

    def __repr__(self) -> str:
        return f"LinkGoal({self.peer.link})"


NOTHING: Final[Mapping[str, LinkGoal]] = MappingProxyType({})


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What shall be at this instant."""

    links: Mapping[str, LinkGoal]
    held: Mapping[str, str]
    """Links that are left as they are, with the reason: ``sealed`` or ``doubled``."""
    known: Mapping[bytes, str]
    """The link of every public key that any kept row has, tombstones included: who is not in it is nobody's."""
    draining: bool
    number: int
    next_turn: datetime | None
    """When the next link's validity begins or ends."""

    def __repr__(self) -> str:
        return f"Goal({len(self.links)} links)"


def merge(kept: Kept, heard: Desired) -> tuple[Kept, tuple[str, ...]]:
    """Return what counts after a state was heard, and the links of which it told something that is over."""
    floor = _floor(kept, heard.number)
    peers: dict[str, DesiredPeer] = {}
    back: list[str] = []
    for told in heard.peers:
        mine = kept.peers.get(told.link)
        if mine is None or _counts(mine, told, floor):
            peers[told.link] = told
        else:
            # From where a device was seen is no act and has no generation.
            peers[told.link] = msgspec.structs.replace(mine, endpoint=told.endpoint or mine.endpoint)
            back.append(told.link)
    for link, mine in kept.peers.items():
        if link not in peers:
            peers[link] = mine
            back.append(link)
    gateway = _gateway(kept.gateway, heard.gateway, floor)
    highest = max(kept.highest, heard.number)
    merged = Kept(number=heard.number, highest=highest, floor=floor, gateway=gateway, peers=peers)
    return merged, tuple(sorted(back))


def _floor(kept: Kept, number: int) -> int | None:
    """Return where the database's new history begins, as long as it is not past the old one."""
    if number < kept.number:
        return number if kept.floor is None else min(number, kept.floor)
    return None if number > kept.highest else kept.floor


def _counts(mine: DesiredPeer, told: DesiredPeer, floor: int | None) -> bool:
    if mine.state == "revoked":
        return told.state == "revoked"
    return told.generation >= mine.generation or (floor is not None and told.generation > floor)


def _gateway(mine: GatewayRow | None, told: GatewayRow | None, floor: int | None) -> GatewayRow | None:
    if mine is None or told is None:
        return told or mine
    newer = told.generation >= mine.generation or (floor is not None and told.generation > floor)
    return told if newer else mine


def goal_of(kept: Kept, now: datetime, open_psk: Open, last: Mapping[str, LinkGoal] = NOTHING) -> Goal:
    """Return what shall be at ``now``; the work is that of opening the pre-shared keys that were not opened before.

    A link that is as it was in ``last`` is the same object, so that who asks what changed need not compare.
    """
    allowed = [peer for peer in kept.peers.values() if _may_pass(peer, now)]
    doubled = _doubled(allowed)
    links: dict[str, LinkGoal] = {}
    held: dict[str, str] = {}
    for peer in allowed:
        before = last.get(peer.link)
        if peer.link in doubled:
            held[peer.link] = "doubled"
            continue
        if before is not None and before.peer == peer:
            links[peer.link] = before
            continue
        psk, next_psk = _opened(peer, peer.psk, open_psk), _opened(peer, peer.next_psk, open_psk)
        psk = psk if psk is not None else next_psk or None
        if psk is None or next_psk is None:
            held[peer.link] = "sealed"
        else:
            prefixes = _canonical(peer.prefixes)
            links[peer.link] = LinkGoal(peer=peer, prefixes=prefixes, psk=psk, next_psk=next_psk)
    return Goal(
        links=links,
        held=held,
        known={key: peer.link for peer in kept.peers.values() for key in _keys(peer)},
        draining=kept.gateway is not None and kept.gateway.draining,
        number=kept.number,
        next_turn=_next_turn(kept.peers.values(), now),
    )


def _may_pass(peer: DesiredPeer, now: datetime) -> bool:
    began = peer.valid_from is None or peer.valid_from <= now
    return peer.state == "active" and began and (peer.valid_until is None or now < peer.valid_until)


def _next_turn(peers: Iterable[DesiredPeer], now: datetime) -> datetime | None:
    turns = (at for peer in peers if peer.state == "active" for at in (peer.valid_from, peer.valid_until))
    return min((at for at in turns if at is not None and at > now), default=None)


def _opened(peer: DesiredPeer, sealed: bytes | None, open_psk: Open) -> bytes | None:
    """Return the clear key, empty where there is none, None where it does not open."""
    return b"" if sealed is None else open_psk(peer.link, sealed)


def _keys(peer: DesiredPeer) -> list[bytes]:
    return [key for key in (peer.public_key, peer.next_public_key) if key is not None]


def _doubled(peers: Iterable[DesiredPeer]) -> set[str]:
    """Return the links that share a key with another one: two names of one peer would be repaired for ever."""
    owners: dict[bytes, str] = {}
    doubled: set[str] = set()
    for peer in peers:
        for key in _keys(peer):
            owner = owners.setdefault(key, peer.link)
            if owner != peer.link:
                doubled |= {owner, peer.link}
    return doubled
