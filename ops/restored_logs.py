"""Marking the logs of a restored cell before it is opened (復元の葉): provision records, and operations.

Each log is ended by a leaf that names what any cosigner has seen of it beyond what was restored, or the last that was
seen, or nothing; so whoever holds a checkpoint of what was lost finds in the log itself that it was.

Invariant: nothing of a log is changed or left out; only leaves are added, and a repeat adds none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chukan.tenants import reopening
from chukan.tenants.merkle import EMPTY_ROOT
from chukan.tenants.operations import OPERATORS
from chukan.tenants.operations_tree import agency_log, operators_log

if TYPE_CHECKING:
    from chukan.replication.primary import Connection
    from chukan.tenants.directory import AgencyRow
    from chukan.tenants.sets import CellSets


@dataclass(frozen=True, slots=True)
class RestoredLogs:
    """The logs of a restored cell, and who remembers what was seen of them."""

    cell: str
    epoch: int
    admin: Connection
    agencies: Sequence[AgencyRow]
    witnesses: Sequence[CellSets]
    """All cells in which cosigners remember."""
    origin: Callable[[str], str]
    """The name of a log, by what stands for the code in it."""

    async def mark(self) -> None:
        """End each log as it was restored.

        Raises ``Problem`` as the cells do: what any cosigner has seen must be known, for the leaf is how it goes on.
        """
        heads = await reopening.log_heads(self.admin)
        for agency in self.agencies:
            if agency.number in heads:
                trees = await self._trees(agency.code, heads[agency.number])
                await reopening.mark_restored(self.admin, agency.number, self.epoch, trees)
        names = {agency.number: agency_log(agency.code) for agency in self.agencies}
        names[OPERATORS] = operators_log(self.cell)
        for number, length in sorted((await reopening.operations_heads(self.admin, sorted(names))).items()):
            await reopening.mark_operations(self.admin, number, self.epoch, await self._trees(names[number], length))

    async def _trees(self, name: str, length: int) -> list[tuple[int, bytes]]:
        """Return the trees that a log's leaves shall name, where ``length`` leaves of it were restored."""
        origin = self.origin(name)
        seen: set[tuple[int, bytes]] = set()
        for sets in self.witnesses:
            seen.update((await sets.witness_all([origin])).get(origin, []))
        return sorted(tree for tree in seen if tree[0] > length) or sorted(seen)[-1:] or [(0, EMPTY_ROOT)]
