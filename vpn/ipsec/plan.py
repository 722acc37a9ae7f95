"""From what charon has to what it shall have, in the fewest steps: pure, and never a step that touches another's link.

What is taken away comes first (connection and secret, then whoever is connected by it, so that nobody can come back in
between), what is put after it. A change of what authenticates a device is another connection (see ``model``): here are
only names that are there and should not be, that should be and are not, and connections whose content differs.

Invariant: applied once, the plan of the result is empty. An IKE_SA of a link that is as wanted is never terminated.
``fresh`` names the connections that were loaded by this process: charon tells neither proposals nor keys, so what
somebody else loaded is loaded again once, which disturbs nobody who is connected.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from chukan.vpn.ipsec.model import (
    Actual,
    Association,
    DropSecret,
    Gateway,
    Loaded,
    PutConnection,
    PutSecret,
    Step,
    Terminate,
    TerminateOne,
    Unload,
    Wanted,
    expected,
    link_of,
    overlaps,
    remote_id,
    within,
)
from chukan.vpn.model import Drift, DriftKind

_THIEVES_MAX: Final = 50
"""So many connections that nobody wants are asked whom they rob; each is compared with every link."""


class Plan(NamedTuple):
    """Steps in their order, and what differed from what is wanted; a refresh of what cannot be seen is no drift."""

    steps: tuple[Step, ...]
    drift: tuple[Drift, ...]


def plan(
    wanted: Mapping[str, Wanted],
    gateway: Gateway,
    actual: Actual,
    fresh: AbstractSet[str] = frozenset(),
    ended: AbstractSet[str] = frozenset(),
) -> Plan:
    """Return how a charon becomes as wanted.

    Args:
        wanted: the connections that shall be, by name.
        gateway: what they have in common.
        actual: what charon has.
        fresh: names of connections that need not be loaded for the sake of what cannot be seen.
        ended: links that had a connection before: what is left of it is theirs. Other names are nobody's.
    """
    rogue = sorted(names(actual) - wanted.keys())
    owners = {one.link for one in wanted.values()} | ended
    drift = [_rogue(name, actual, wanted if n < _THIEVES_MAX else {}, owners) for n, name in enumerate(rogue)]
    secrets = {name for name, one in wanted.items() if one.auth == "psk"}
    steps: list[Step] = [Unload(name) for name in rogue if name in actual.connections]
    steps.extend(DropSecret(name) for name in sorted(actual.secrets - secrets))
    # Also where nobody was connected when it was read: somebody may have come since.
    steps.extend(Terminate(name) for name in rogue)
    for name, one in sorted(wanted.items()):
        found = tuple(_differences(one, expected(one, gateway), actual))
        drift.extend(Drift(kind, one.link) for kind in found)
        if (found or name not in fresh) and one.auth == "psk":
            steps.append(PutSecret(one))
        if "missing" in found or "allowed" in found or name not in fresh:
            steps.append(PutConnection(one))
    # A connection is in force before what was made under another's selectors is ended: the device comes back at once.
    strays = [each for each in actual.associations if _strays(each, wanted)]
    drift.extend(Drift("stolen", link) for link in sorted({wanted[each.name].link for each in strays}))
    steps.extend(TerminateOne(each.number) for each in strays)
    return Plan(tuple(steps), tuple(drift))


def names(actual: Actual) -> set[str]:
    """Return every name that charon knows, of connections, secrets and who is connected."""
    return {*actual.connections, *actual.secrets, *(one.name for one in actual.associations)}


def _differences(one: Wanted, shall: Loaded, actual: Actual) -> Iterator[DriftKind]:
    loaded = actual.connections.get(one.name)
    if loaded is None:
        yield "missing"
        return
    if loaded != shall:
        yield "allowed"
    if (one.auth == "psk") != (one.name in actual.secrets):
        yield "psk"


def _rogue(name: str, actual: Actual, wanted: Mapping[str, Wanted], owners: AbstractSet[str]) -> Drift:
    """Return what a name that nobody wants is: a thief, where its connection takes in a link's addresses."""
    loaded, link = actual.connections.get(name), link_of(name)
    if link in owners:
        return Drift("rogue", link)
    taken = frozenset() if loaded is None else loaded.remote
    robbed = next((one.link for _, one in sorted(wanted.items()) if overlaps(taken, one.remote)), None)
    return Drift("rogue" if robbed is None else "stolen", robbed)


def _strays(association: Association, wanted: Mapping[str, Wanted]) -> bool:
    """Tell whether somebody is connected by a wanted connection as another, or with more than its selectors give."""
    one = wanted.get(association.name)
    if one is None:
        return False
    if association.established and association.identity != remote_id(one):
        return True
    return any(
        not (within(child.remote, one.remote) and within(child.local, one.local)) for child in association.children
    )
