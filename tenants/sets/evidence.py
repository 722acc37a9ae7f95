"""Set functions of the evidence (証跡): what a signer and a cosigner read and keep of agencies' logs.

They see hashes, positions and leaf data (commitments and labels), never a record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chukan.tenants.merkle import Need, TileName, leaf_hash
from chukan.tenants.sets.common import SetCaller, columns, same_length


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """An agency's newest checkpoint, as it rests: size, root (32 bytes) and note."""

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class Growth:
    """A checkpoint to keep, what it continues (``before`` leaves), and the tiles that it completes."""

    agency: int
    before: int
    size: int
    root: bytes
    note: bytes
    tiles: Mapping[TileName, bytes]
    pages: Mapping[str, bytes] = field(default_factory=dict)
    """The pages of the map of persons that have changed, by name (``label_map``)."""


class EvidenceSets(SetCaller):
    """Set functions of signers and cosigners."""

    async def evidence_due(self, limit: int) -> dict[int, int]:
        """Return agencies whose log has grown since its checkpoint, the longest unsigned first, with its length."""
        return {row["agency"]: row["head"] for row in await self._call("evidence_due", limit)}

    async def evidence_signed(self, after: int, limit: int) -> dict[int, int]:
        """Return the sizes of the last checkpoints of the next agencies after a number."""
        return {row["agency"]: row["size"] for row in await self._call("evidence_signed", after, limit)}

    async def evidence_last(self, agency: int) -> LastCheckpoint | None:
        """Return an agency's last checkpoint, None where it has none."""
        rows = await self._call("evidence_last", agency)
        return LastCheckpoint(rows[0]["size"], rows[0]["root"], rows[0]["note"]) if rows else None

    async def evidence_leaves(self, agency: int, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (position, leaf data) of the next leaves after a position (from 1)."""
        return [(row["seq"], row["leaf_data"]) for row in await self._call("evidence_leaves", agency, after, limit)]

    async def evidence_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles, and leaf hashes by place from 0, as needed; what is not there is left out."""
        names = sorted(need.tiles)
        tiles = {}
        if names:
            rows = await self._call(
                "evidence_tiles", agency, [name.level for name in names], [name.n for name in names]
            )
            tiles = {TileName(row["level"], row["n"]): row["hashes"] for row in rows}
        leaves = {}
        if need.leaves:
            first, last = min(need.leaves), max(need.leaves)
            found = await self.evidence_leaves(agency, first, last - first + 1)
            leaves = {position - 1: leaf_hash(data) for position, data in found}
        return tiles, leaves

    async def evidence_sign(self, grown: Sequence[Growth]) -> list[str]:
        """Keep checkpoints in one commit, one word each, in order; an agency stands in it once.

        Returns ``signed``, also where it was kept before; ``stale`` (another one was); ``busy`` (another signer works).
        """
        if not grown:
            return []
        tiles = [(each.agency, name, each.tiles[name]) for each in grown for name in sorted(each.tiles)]
        pages = [(each.agency, path, each.pages[path]) for each in grown for path in sorted(each.pages)]
        words = await self._words(
            "evidence_sign_mapped",
            *columns(grown, "agency", "before", "size", "root", "note"),
            [agency for agency, _, _ in tiles],
            [name.level for _, name, _ in tiles],
            [name.n for _, name, _ in tiles],
            [hashes for _, _, hashes in tiles],
            [agency for agency, _, _ in pages],
            [path for _, path, _ in pages],
            [body for _, _, body in pages],
        )
        return same_length(words, grown)

    async def map_pages(self, agency: int, paths: Sequence[str]) -> dict[str, bytes]:
        """Return pages of an agency's map of persons by name; those that are not there are left out."""
        return {row["path"]: row["body"] for row in await self._call("map_pages", agency, list(paths))}

    async def witness_map(self, signer: str, origin: str) -> tuple[int, bytes] | None:
        """Return the map (its size and root) that a cosigner has found right last, None where there is none."""
        rows = await self._call("witness_map", signer, origin)
        return (rows[0]["size"], rows[0]["root"]) if rows else None

    async def witness_map_keep(self, signer: str, origin: str, size: int, root: bytes) -> None:
        """Remember a map that was found to follow from its log."""
        await self._words("witness_map_keep", signer, origin, size, root)

    async def evidence_cosign(self, agency: int, size: int, signer: str, line: bytes) -> bool:
        """Keep a cosigner's signature line beside a checkpoint; False where there is no such checkpoint."""
        return bool((await self._words("evidence_cosign", agency, size, signer, line))[0])

    async def witness_recall(self, signer: str, origins: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return what a cosigner has seen last (size, root) of logs, by origin."""
        rows = await self._call("witness_recall", signer, list(origins))
        return {row["origin"]: (row["size"], row["root"]) for row in rows}

    async def witness_keep(self, signer: str, origin: str, before: int, size: int, root: bytes) -> bool:
        """Remember a larger tree in place of one of ``before`` leaves; False where the memory is another one by now."""
        return bool((await self._words("witness_keep", signer, origin, before, size, root))[0])

    async def evidence_restored(self, agency: int) -> list[tuple[int, bytes]]:
        """Return (position, leaf data) of the leaves of an agency's log that say that it was restored."""
        return [(row["seq"], row["leaf_data"]) for row in await self._call("evidence_restored", agency)]

    async def witness_all(self, origins: Sequence[str]) -> dict[str, list[tuple[int, bytes]]]:
        """Return, by log, the trees (size, root) that any cosigner has seen last which remembers in this cell."""
        found: dict[str, list[tuple[int, bytes]]] = {}
        for row in await self._call("witness_all", list(origins)):
            found.setdefault(row["origin"], []).append((row["size"], row["root"]))
        return found

    async def witness_restore(
        self, signer: str, origin: str, before: tuple[int, bytes], now: tuple[int, bytes], epoch: int
    ) -> bool:
        """Remember a restored log's tree in place of the one ``before``; False where that was done in this epoch."""
        return bool((await self._words("witness_restore", signer, origin, *before, *now, epoch))[0])

    async def evidence_age(self) -> float:
        """Return how many seconds the longest waiting leaf has been without a checkpoint, 0 when none waits."""
        return float((await self._words("evidence_age"))[0])
