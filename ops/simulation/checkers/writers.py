"""Never two writers (invariant 13, leases): no effect of a worker whose lease had passed to another.

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
    places: dict[tuple[str, Side, str], frozenset[Place]] = field(default_factory=dict)
    owners: dict[tuple[Place, int], str] = field(default_factory=dict)

    def leased(self, entry: Entry) -> Iterator[str]:
        """Somebody renewed, gave back and took."""
        owner, side = entry.given
        grants: list[Grant] = entry.result
        now = {(entry.cell, side, grant.shard): grant.epoch for grant in grants}
        mine = (entry.cell, side, owner)
        before = self.places.get(mine, frozenset())
        self.places[mine] = frozenset(now)
        for place in before - now.keys():
            if place in self.held and self.held[place].owner == owner:
                self._give_back(place)
        for place, epoch in now.items():
            last = self.held.get(place)
            if last is not None and last.owner != owner and last.until_s > entry.at_s + 1e-6:
                yield f"a shard was taken from {last.owner} before its term was over"
            if self.owners.setdefault((place, epoch), owner) != owner:
                yield "two workers were given one shard in one epoch"
            self.held[place] = _Held(owner, epoch, entry.at_s + _TTL_S)

    def _give_back(self, place: Place) -> None:
        """The shard is free; what its last holder has under way is still the only writer until somebody takes it."""
        self.held[place] = self.held[place]._replace(until_s=0.0)

    def released(self, entry: Entry) -> None:
        """Somebody gave everything back."""
        for place in [place for place, held in self.held.items() if held.owner == entry.given]:
            if place[0] == entry.cell:
                self._give_back(place)

    def succeeded(self, entry: Entry) -> None:
        """Somebody gave back what others of its name had held."""
        owner, side = entry.given
        name = owner.rpartition("-")[0]
        for place, held in list(self.held.items()):
            if place[:2] == (entry.cell, side) and held.owner != owner and held.owner.rpartition("-")[0] == name:
                self._give_back(place)

    def raised(self, entry: Entry) -> None:
        """Nobody's grant in this cell stands any more."""
        for place in [place for place in self.held if place[0] == entry.cell]:
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
        elif entry.function == "release":
            replay.released(entry)
        elif entry.function == "succeed":
            replay.succeeded(entry)
        elif entry.function == "raise_epochs":
            replay.raised(entry)
        elif entry.function in _SIDES:
            yield from replay.wrote(entry)
