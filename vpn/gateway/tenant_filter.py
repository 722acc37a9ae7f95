"""The packet filter as the controller uses it: who may pass now, and whether the centre is drained.

From day to day elements are added and removed by what was wanted last and is wanted now, without a listing; by the
timer the kernel's table is listed and compared. What is taken out stops at its next packet, open connections
included.

Invariant: what this gateway did not do is told: a table that is not as it was left (``firewall``), a link that was
let in (``let_in``) or shut out (``shut_out``) by somebody else.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from chukan.tenants import link_plan
from chukan.vpn.firewall import Ruleset
from chukan.vpn.gateway.drift import Found
from chukan.vpn.nft import Difference, Firewall

REFUSED: Final = "drained"
"""The reason under which resets of a drained centre are counted."""


class FilterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found, and the counts of dropped packets by reason."""

    found: tuple[Found, ...] = ()
    drops: Mapping[str, int] = {}


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

    async def reconcile(self, prefixes: frozenset[str], *, draining: bool, repair: bool) -> FilterReport:
        """Compare the kernel's table with what is wanted, and repair it where told to. Raises ``Problem``."""
        wanted = msgspec.structs.replace(self._ruleset, prefixes=prefixes, draining=draining)
        difference = await self._firewall.compare(wanted)
        if repair and difference:
            await self._firewall.repair(wanted, difference)
        found = tuple(self._drift(difference, repaired=repair))
        if repair:
            self._known = _Known(prefixes, draining)
        counters = await self._firewall.counters()
        return FilterReport(found=found, drops={**counters.drops, REFUSED: counters.resets})

    def _drift(self, difference: Difference, *, repaired: bool) -> Iterable[Found]:
        """Say what of a difference nobody of us made; at its first look a process that repairs cannot know."""
        if self._known is None and repaired:
            return
        if difference.table or difference.drain:
            yield Found(None, "firewall", repaired)
        for kind, prefixes in (("shut_out", difference.missing), ("let_in", difference.extra)):
            for link in sorted({_link(prefix) or "" for prefix in prefixes}):
                yield Found(link or None, kind, repaired)


def _link(prefix: str) -> str | None:
    """Return the link that a prefix belongs to by the plan of addresses."""
    address = prefix.partition("/")[0]
    found, body = link_plan.link_of(address), link_plan.owner_body(address)
    return None if found is None or body is None else f"{body}-{found[1]}"
