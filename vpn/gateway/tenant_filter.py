"""The packet filter as the controller uses it: who may pass now, and whether the centre is drained.

From day to day elements are added and removed by what was wanted last and is wanted now, without a listing; by the
timer the kernel's table is listed and compared. What is taken out stops at its next packet, open connections
included.

Invariant: what this gateway did not do is told: a table that is not as it was left (``firewall``), a link that was
let in (``let_in``) or shut out (``shut_out``) by somebody else. The port of the service for devices of one tunnel is
open as long as the lease was known to last, by the kernel's own clock (``vpn.firewall``).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from chukan.errors import Problem
from chukan.tenants import link_plan
from chukan.vpn.firewall import Ruleset
from chukan.vpn.gateway.astray import Passed
from chukan.vpn.gateway.drift import Found
from chukan.vpn.nft import Counters, Difference, Firewall

REFUSED: Final = "drained"
"""The reason under which resets of a drained centre are counted."""


_BEFORE_TENANT: Final = ("between_bodies", "unknown")
"""Dropped before the packet is counted as a link's."""


class FilterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found, and the counts of dropped packets by reason."""

    found: tuple[Found, ...] = ()
    drops: Mapping[str, int] = {}
    link_drops: Mapping[str, Mapping[str, int]] = {}
    """By link and reason, what its own packets were dropped for."""
    passed: Mapping[str, Passed] = {}
    """By link, all that came out of its tunnel: what was let through, and what was dropped then."""


class _Known(NamedTuple):
    """What changes from day to day, as it was left last."""

    prefixes: frozenset[str]
    draining: bool


class TenantFilter:
    """The table of this gateway; ``ruleset`` is all of it that does not change from day to day."""

    def __init__(self, firewall: Firewall, ruleset: Ruleset) -> None:
        self._firewall = firewall
        self._ruleset = ruleset
        self._known: _Known | None = None
        self._left_s: Callable[[], float] | None = None
        self._open = False

    @property
    def known(self) -> bool:
        """Whether this process has seen the table as it shall be."""
        return self._known is not None

    async def cut(self, prefixes: Collection[str]) -> None:
        """Let prefixes in no longer. Raises ``Problem``."""
        await self._firewall.remove(prefixes)
        if self._known is not None:
            self._known = _Known(self._known.prefixes - frozenset(prefixes), self._known.draining)

    async def change(self, prefixes: frozenset[str], *, draining: bool) -> None:
        """Make what changed since the last time; nothing is listed. Raises ``Problem``."""
        last, wanted = self._known, _Known(prefixes, draining)
        if last is None or last == wanted:
            return
        added, removed = wanted.prefixes - last.prefixes, last.prefixes - wanted.prefixes
        if removed:
            await self._firewall.remove(removed)
        if added:
            await self._firewall.add(added)
        if last.draining != draining:
            await self._firewall.drain(self._ruleset, on=draining)
        self._known = wanted

    async def hold(self, left_s: Callable[[], float]) -> None:
        """Have the leased ports open for ``left_s()`` seconds from now. Raises ``Problem``.

        Where the table is not there yet it is done as soon as it is.
        """
        self._left_s = left_s
        if self._known is not None:
            await self._hold(left_s)

    async def let_go(self) -> None:
        """Shut the leased ports at once. Raises ``Problem``."""
        self._left_s, self._open = None, False
        await self._firewall.shut(self._ruleset.leased)

    async def _hold(self, left_s: Callable[[], float]) -> None:
        ports, renew = self._ruleset.leased, self._open
        self._open = False
        if renew:
            try:
                await self._firewall.hold(ports, left_s, renew=True)
            except Problem:
                # It was shut meanwhile: by its time, or with a table that somebody took away.
                renew = False
        if not renew and self._left_s is not None:
            await self._firewall.hold(ports, left_s, renew=False)
        self._open = True

    async def reconcile(self, prefixes: frozenset[str], *, draining: bool, repair: bool) -> FilterReport:
        """Compare the kernel's table with what is wanted, and repair it where told to. Raises ``Problem``."""
        wanted = msgspec.structs.replace(self._ruleset, prefixes=prefixes, draining=draining)
        difference = await self._firewall.compare(wanted)
        if repair and difference:
            await self._firewall.repair(wanted, difference)
        found = tuple(self._drift(difference, repaired=repair))
        if repair:
            self._known = _Known(prefixes, draining)
            self._open = self._open and not difference.table
            if self._left_s is not None and not self._open:
                await self._hold(self._left_s)
        counters = await self._firewall.counters()
        return FilterReport(
            found=found,
            drops={**counters.drops, REFUSED: counters.resets},
            link_drops=_by_link(counters),
            passed=_passed(counters),
        )

    def _drift(self, difference: Difference, *, repaired: bool) -> Iterable[Found]:
        """Say what of a difference nobody of us made; at its first look a process that repairs cannot know."""
        if self._known is None and repaired:
            return
        if difference.table or difference.drain:
            yield Found(None, "firewall", repaired)
        for kind, prefixes in (("shut_out", difference.missing), ("let_in", difference.extra)):
            for link in sorted({_link(prefix) or "" for prefix in prefixes}):
                yield Found(link or None, kind, repaired)


def _by_link(counters: Counters) -> Mapping[str, Mapping[str, int]]:
    """Add up what the two prefixes of a link count; what is no link's by the plan of addresses is nobody's."""
    found: dict[str, Counter[str]] = {}
    for prefix, reasons in counters.body_drops.items():
        link = _link(prefix)
        if link is not None:
            found.setdefault(link, Counter()).update({reason: each.packets for reason, each in reasons.items()})
    return found


def _passed(counters: Counters) -> Mapping[str, Passed]:
    """Add up, by link, what its sets counted, and what was dropped before they were asked."""
    seen = [(prefix, Passed(each.packets_in, each.bytes_in)) for prefix, each in counters.traffic.items()]
    for prefix, reasons in counters.body_drops.items():
        seen += [(prefix, Passed(*reasons[reason])) for reason in _BEFORE_TENANT if reason in reasons]
    found: dict[str, Passed] = {}
    for prefix, more in seen:
        link = _link(prefix)
        if link is not None:
            last = found.get(link, Passed())
            found[link] = Passed(last.packets + more.packets, last.bytes + more.bytes)
    return found


def _link(prefix: str) -> str | None:
    """Return the link that a prefix belongs to by the plan of addresses."""
    address = prefix.partition("/")[0]
    found, body = link_plan.link_of(address), link_plan.owner_body(address)
    return None if found is None or body is None else f"{body}-{found[1]}"
