"""Set functions of the operations log (操作記録): entering acts, giving them their places, signing and cosigning.

They see sealed bytes, labels and hashes; of the operators' log also its entries, which are in the clear and name nobody
but operators, registered ids and codes.
"""

from collections.abc import Sequence

from chukan.tenants.merkle import Need, TileName, leaf_hash
from chukan.tenants.operations import OperationRow
from chukan.tenants.sets.common import SetCaller, columns, same_length
from chukan.tenants.sets.evidence import Growth, LastCheckpoint


class OperationSets(SetCaller):
    """Set functions of operations; an agency's number, or ``operations.OPERATORS``, names the log."""

    async def operations_append(self, rows: Sequence[OperationRow]) -> int:
        """Enter at most 200 acts in one commit; return how many of them are there now: all, or ``Problem``."""
        if not rows:
            return 0
        return int((await self._words("operations_append", *columns(rows, *OperationRow._fields)))[0])

    async def operations_sequence(self, limit: int) -> int:
        """Give up to ``limit`` waiting entries their places; return how many, -1 where another one is at it."""
        return int((await self._words("operations_sequence", limit))[0])

    async def operations_age(self) -> tuple[float, int]:
        """Return for how many seconds the longest waiting entry has no place or signature, and how many are lost."""
        (row,) = await self._call("operations_age")
        return float(row["seconds"]), int(row["lost"])

    async def operations_grown(self, limit: int) -> dict[int, int]:
        """Return logs that have grown since their checkpoint, the longest unsigned first, with their lengths."""
        return {row["agency"]: row["head"] for row in await self._call("operations_grown", limit)}

    async def operations_signed(self, after: int, limit: int) -> dict[int, int]:
        """Return the sizes of the last checkpoints of the next logs after a number."""
        return {row["agency"]: row["size"] for row in await self._call("operations_signed", after, limit)}

    async def operations_last(self, agency: int) -> LastCheckpoint | None:
        """Return a log's last checkpoint, None where it has none."""
        rows = await self._call("operations_last", agency)
        return LastCheckpoint(rows[0]["size"], rows[0]["root"], rows[0]["note"]) if rows else None

    async def operations_leaves(self, agency: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (position, leaf data) of the next leaves after a position (from 1)."""
        return [(row["seq"], row["leaf_data"]) for row in await self._call("operations_leaves", agency, after, limit)]

    async def operations_restored(self, agency: int) -> list[tuple[int, bytes]]:
        """Return (position, leaf data) of the leaves of restores of a log (``restored``), in their order."""
        return [(row["seq"], row["leaf_data"]) for row in await self._call("operations_restored", agency)]

    async def operations_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles, and leaf hashes by place from 0, as needed; what is not there is left out."""
        names = sorted(need.tiles)
        tiles = {}
        if names:
            levels, numbers = [name.level for name in names], [name.n for name in names]
            rows = await self._call("operations_tiles", agency, levels, numbers)
            tiles = {TileName(row["level"], row["n"]): row["hashes"] for row in rows}
        leaves = {}
        if need.leaves:
            first, last = min(need.leaves), max(need.leaves)
            found = await self.operations_leaves(agency, first, last - first + 1)
            leaves = {position - 1: leaf_hash(data) for position, data in found}
        return tiles, leaves

    async def operations_sign(self, grown: Sequence[Growth]) -> list[str]:
        """Keep checkpoints in one commit; words as ``evidence_sign``."""
        if not grown:
            return []
        tiles = [(each.agency, name, each.tiles[name]) for each in grown for name in sorted(each.tiles)]
        words = await self._words(
            "operations_sign",
            *columns(grown, "agency", "before", "size", "root", "note"),
            [agency for agency, _, _ in tiles],
            [name.level for _, name, _ in tiles],
            [name.n for _, name, _ in tiles],
            [hashes for _, _, hashes in tiles],
        )
        return same_length(words, grown)

    async def operations_cosign(self, agency: int, size: int, signer: str, line: bytes) -> bool:
        """Keep a cosigner's signature line beside a checkpoint; False where there is no such checkpoint."""
        return bool((await self._words("operations_cosign", agency, size, signer, line))[0])
