"""From what a device has to what it shall have, by the fewest steps, and what of it nobody of us did.

Pure. ``plan`` compares every peer and says what to remove, what to make, and of a peer that stays only what differs.
Carried out in order, removals first, the steps lead there in one round from any state whatever, although a prefix that
is given to one peer is silently taken from another (a prefix has one owner): each peer that differs gets its whole set
of prefixes, and those of the wanted are disjoint, so that no step undoes an earlier one.

Invariant: a peer that is as it shall be is in no step, so that its session goes on; and an endpoint is given only to a
peer that has none, never compared, for devices roam and the interface knows better than we do.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from chukan.vpn.model import (
    KEY_BYTES,
    Actual,
    Drift,
    DriftKind,
    Interface,
    Peer,
    Put,
    Remove,
    Step,
    Wanted,
    canonical_prefix,
)
from chukan.vpn.wireguard.keys import public_key_of

_NO_PSK: Final = bytes(KEY_BYTES)
"""A key of zeros is what "none" looks like inside WireGuard."""
_canonical = lru_cache(maxsize=32768)(canonical_prefix)


class Plan(msgspec.Struct, frozen=True):
    """The steps, removals first, and what the device had that was not wanted; both empty when all is as it shall be."""

    steps: tuple[Step, ...]
    drift: tuple[Drift, ...]


def plan(wanted: Mapping[bytes, Wanted], actual: Mapping[bytes, Peer]) -> Plan:
    """Return what leads from the actual peers to the wanted ones; both by public key.

    ``ValueError`` when two wanted peers claim one prefix: no device could satisfy both, and one of the two bodies would
    be given the other's traffic.
    """
    exact = {key: _tidy(one) for key, one in wanted.items()}
    _check_disjoint(exact)
    owners = {_canonical(prefix): key for key, peer in actual.items() for prefix in peer.allowed}
    steps: list[Step] = []
    drift: list[Drift] = []
    for key in actual:
        if key not in exact:
            steps.append(Remove(key))
            drift.append(Drift("rogue", None))
    for key, one in exact.items():
        peer = actual.get(key)
        put = _put(one, peer)
        if put is not None:
            steps.append(put)
        drift.extend(Drift(kind, one.link) for kind in _drift_kinds(one, peer, owners))
    return Plan(tuple(steps), tuple(drift))


def settled(interface: Interface, actual: Actual) -> bool:
    """Tell whether an interface already has its key and port: then leave it alone, to set a port binds it anew."""
    return actual.public_key == public_key_of(interface.private_key) and actual.listen_port == interface.listen_port


def _tidy(one: Wanted) -> Wanted:
    allowed = frozenset(_canonical(prefix) for prefix in one.allowed)
    psk = b"" if one.preshared_key == _NO_PSK else one.preshared_key
    if allowed == one.allowed and psk == one.preshared_key:
        return one
    return msgspec.structs.replace(one, allowed=allowed, preshared_key=psk)


def _check_disjoint(wanted: Mapping[bytes, Wanted]) -> None:
    owners: dict[str, str] = {}
    for key, one in wanted.items():
        if key != one.public_key:
            raise ValueError(f"{one.link} stands under a key that is not its own")
        for prefix in one.allowed:
            if prefix in owners:
                raise ValueError(f"{one.link} and {owners[prefix]} claim one prefix")
            owners[prefix] = one.link


def _put(one: Wanted, peer: Peer | None) -> Put | None:
    if peer is None:
        return Put(wanted=one, new=True, psk=True, allowed=True, endpoint=one.endpoint is not None, keepalive=True)
    put = Put(
        wanted=one,
        psk=_psk_differs(one, peer),
        allowed=_allowed_differs(one, peer),
        endpoint=one.endpoint is not None and peer.endpoint is None,
        keepalive=one.keepalive_s != peer.keepalive_s,
    )
    return put if put.psk or put.allowed or put.endpoint or put.keepalive else None


def _drift_kinds(one: Wanted, peer: Peer | None, owners: Mapping[str, bytes]) -> Iterator[DriftKind]:
    lost = one.allowed - (frozenset() if peer is None else _prefixes(peer))
    stolen = any(prefix in owners for prefix in lost)
    if peer is None:
        yield "missing"
    elif _psk_differs(one, peer):
        yield "psk"
    if stolen:
        yield "stolen"
    elif peer is not None and _allowed_differs(one, peer):
        yield "allowed"


def _prefixes(peer: Peer) -> frozenset[str]:
    return frozenset(_canonical(prefix) for prefix in peer.allowed)


def _psk_differs(one: Wanted, peer: Peer) -> bool:
    has = b"" if peer.preshared_key == _NO_PSK else peer.preshared_key
    return has != one.preshared_key


def _allowed_differs(one: Wanted, peer: Peer) -> bool:
    return _prefixes(peer) != one.allowed
