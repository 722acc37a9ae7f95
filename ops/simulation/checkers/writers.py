"""Never two writers (invariant 13, leases): no effect of a worker whose lease had passed to another, or whose epoch fell.

The leases are replayed from the cells' journal by rules of their own; the cell's check is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from chukan.ops.simulation.cell import Entry
from chukan.ops.simulation.checkers.evidence import Evidence
from chukan.tenants.rows import Grant
from chukan.tenants.states import Side, shard_of

_TTL_S = 10.0
_SIDES = {"settle_inquiries": Side.INQUIRER, "settle_provisions": Side.PROVIDER}
Place = tuple[str, Side, int]


class _Held(NamedTuple):
    owner: str
    epoch: int
    until_s: float


@dataclass
class _Replay:
    """Who holds what, by the journal alone."""

    held: dict[Place, _Held] = field(default_factory=dict)
    owners: dict[tuple[Place, int], str] = field(default_factory=dict)

    def leased(self, entry: Entry) -> Iterator[str]:
        """Somebody renewed, gave back and took."""
        owner, side = entry.given
        grants: list[Grant] = entry.result
        now = {(entry.cell, side, grant.shard): grant.epoch for grant in grants}
        for place in [place for place, held in self.held.items() if held.owner == owner]:
            if place[:2] == (entry.cell, side) and place not in now:
                del self.held[place]
        for place, epoch in now.items():
            before = self.held.get(place)
            if before is not None and before.owner != owner and before.until_s > entry.at_s + 1e-6:
                yield f"a shard was taken from {before.owner} before its term was over"
            if self.owners.setdefault((place, epoch), owner) != owner:
                yield "two workers were given one shard in one epoch"
            self.held[place] = _Held(owner, epoch, entry.at_s + _TTL_S)

    def lost(self, entry: Entry) -> None:
        """Somebody gave everything back, or nobody's grant stands any more."""
        for place, held in list(self.held.items()):
            if place[0] == entry.cell and entry.given in {None, held.owner}:
                del self.held[place]

    def wrote(self, entry: Entry) -> Iterator[str]:
        """A stage function moved lines."""
        grants, rows = entry.given
        side = _SIDES[entry.function]
        epochs = {grant.shard: grant.epoch for grant in grants}
        for shard in {shard_of(row.agency) for row in rows}:
            held = self.held.get((entry.cell, side, shard))
            if held is None or held.epoch != epochs.get(shard):
                yield f"{entry.process} wrote under a lease that was not its own any more"
            elif not held.owner.startswith(entry.process):
                yield f"{entry.process} wrote under the lease of {held.owner}"


def check(evidence: Evidence) -> Iterator[str]:
    """Replay."""
    replay = _Replay()
    for entry in evidence.world.journal.entries:
        if entry.function == "lease":
            yield from replay.leased(entry)
        elif entry.function in {"release", "raise_epochs"}:
            replay.lost(entry)
        elif entry.function in _SIDES:
            yield from replay.wrote(entry)
