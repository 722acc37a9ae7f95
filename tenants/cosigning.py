"""Cosigning (連署): the other centre signs a checkpoint once it has seen that the log only grew.

A ``Cosigner`` is one centre's driver for one cell. It looks for checkpoints that another centre signed, reads the
consistency proof from the last tree that it remembers to the new one, remembers the new one, and only then signs.

Invariant: of each log, this centre's key cosigns trees of which each continues the one before. The memory is committed
before a signature is made, in a cell of this centre's own choosing, apart from the log where there are two; it never
goes back. What contradicts it is never cosigned, and is said loudly. One thing alone may replace a memory: the leaf of
a restore (``restored``) that names it, in the epoch that this centre's own settings give the cell, once for each log.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from chukan import log
from chukan.clock import Clock
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle
from chukan.tenants.evidence import CentreKeys, EvidenceError, hash_ranges, take_up
from chukan.tenants.map_growth import MapFollower, MapUnfit
from chukan.tenants.merkle import Need, TileName
from chukan.tenants.repeating import Repeating
from chukan.tenants.restored import Restored, read_leaf
from chukan.tenants.sets.evidence import LastCheckpoint

PAGE: Final = 500
AT_ONCE: Final = 4
"""Agencies cosigned side by side: each takes two commits."""

_log = log.get("cosigning")


class Forked(Exception):  # noqa: N818 - what happened, not what went wrong here
    """A signed checkpoint does not continue the tree that this centre has seen."""


class LogSets(Protocol):
    """What a cosigner reads and writes in the cell where the logs are."""

    async def evidence_signed(self, after: int, limit: int) -> dict[int, int]:
        """Return the sizes of the last checkpoints of the next agencies."""
        ...

    async def evidence_last(self, agency: int) -> LastCheckpoint | None:
        """Return an agency's last checkpoint."""
        ...

    async def confirm(self) -> None:
        """Return once everything that was read so far is durable."""
        ...

    async def evidence_read(self, agency: int, need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
        """Return tiles and leaf hashes."""
        ...

    async def evidence_cosign(self, agency: int, size: int, signer: str, line: bytes) -> bool:
        """Keep a cosignature."""
        ...


class MemorySets(Protocol):
    """Where a cosigner remembers what it has seen."""

    async def witness_recall(self, signer: str, origins: list[str]) -> dict[str, tuple[int, bytes]]:
        """Return what was seen last of logs."""
        ...

    async def witness_keep(self, signer: str, origin: str, before: int, size: int, root: bytes) -> bool:
        """Remember a larger tree."""
        ...


class RestoreSets(Protocol):
    """What a cosigner asks where logs may have been restored."""

    async def evidence_restored(self, agency: int) -> list[tuple[int, bytes]]:
        """Return the leaves of restores, with their positions."""
        ...


class RestoreMemory(Protocol):
    """Where it remembers which restores it believed."""

    async def witness_restore(
        self, signer: str, origin: str, before: tuple[int, bytes], now: tuple[int, bytes], epoch: int
    ) -> bool:
        """Remember a restored log's tree in place of the one before."""
        ...


@dataclass(frozen=True, slots=True)
class Restores:
    """By what a cosigner believes that a log was restored: the epoch of the cell in this centre's own settings."""

    epoch: int
    sets: RestoreSets
    memory: RestoreMemory


class Cosigner(Repeating):
    """Cosigns the checkpoints of one cell's agencies."""

    def __init__(
        self,
        sets: LogSets,
        memory: MemorySets,
        keys: CentreKeys,
        code_of: Callable[[int], str | None],
        clock: Clock,
        *,
        restores: Restores | None = None,
        on_forked: Callable[[int], None] = lambda _: None,
        maps: MapFollower | None = None,
    ) -> None:
        """Cosign with this centre's key; ``on_forked`` is told of how many logs the last checkpoint contradicts it.

        With ``maps`` no checkpoint is cosigned whose map of persons does not follow from the log.
        """
        if keys.private is None:
            raise ValueError("a cosigner has a key")
        self._restores = restores
        self._on_forked = on_forked
        self._maps = maps
        self._private = keys.private
        self._sets = sets
        self._memory = memory
        self._keys = keys
        self._name = keys.signer(keys.centre)
        self._code_of = code_of
        self._clock = clock
        super().__init__()
        self._done: dict[int, int] = {}
        self.forked: set[int] = set()
        """Agencies whose last checkpoint contradicts what this centre has seen."""

    async def _turn(self) -> bool:
        await self.cosign_due()
        self._on_forked(len(self.forked))
        return False

    def _failed(self, error: Exception) -> None:
        _log.warning("checkpoints were not cosigned", exc_info=error)

    async def cosign_due(self) -> int:
        """Look at all agencies of the cell once; return how many checkpoints were taken in."""
        count, after = 0, 0
        while page := await self._sets.evidence_signed(after, PAGE):
            after = max(page)
            count += await self._cosign_page({a: size for a, size in page.items() if self._done.get(a) != size})
        return count

    async def _cosign_page(self, due: Mapping[int, int]) -> int:
        if not due:
            return 0
        places = asyncio.Semaphore(AT_ONCE)
        lasts = {agency: await self._sets.evidence_last(agency) for agency in due}
        # What was read may be there for all to see before it is safe: a tree that was then lost must not be remembered.
        await self._sets.confirm()

        async def one(agency: int, last: LastCheckpoint | None) -> bool:
            code = self._code_of(agency)
            if code is None or last is None:
                return False
            async with places:
                return await self._attempt(agency, code, last)

        return sum(await asyncio.gather(*(one(agency, last) for agency, last in lasts.items())))

    async def _attempt(self, agency: int, code: str, last: LastCheckpoint) -> bool:
        try:
            done = await self._cosign(agency, code, last)
        except (Forked, EvidenceError, MapUnfit, forms.CheckpointError) as error:
            if agency not in self.forked:
                _log.critical("a checkpoint is not cosigned", agency=agency, reason=type(error).__name__)
            self.forked.add(agency)
            return False
        self.forked.discard(agency)
        return done

    async def _cosign(self, agency: int, code: str, last: LastCheckpoint) -> bool:
        """Cosign a durable checkpoint, or only remember this centre's own; False where another process was quicker.

        Raises:
            Forked: it does not continue what this centre has seen.
            EvidenceError: the tree at rest does not give the proof.
            CheckpointError: no known key of another centre has signed it.
        """
        note = forms.parse_note(last.note)
        found = forms.verify(note, self._keys.known(code), origin=self._keys.origin(code))
        said = found.checkpoint
        seen = (await self._memory.witness_recall(self._name, [said.origin])).get(said.origin, (0, merkle.EMPTY_ROOT))
        if not await self._map_follows(agency, seen, said) or not await self._remember(agency, seen, said):
            return False  # another process was quicker: the next look finds what it signed or remembers
        if self._maps is not None:
            await self._maps.keep(self._name, said)
        if self._keys.centre_of(found.log_key) != self._keys.centre:
            line = forms.cosign(note.text, self._name, self._private, int(self._clock.now().timestamp())).line()
            if not await self._sets.evidence_cosign(agency, said.size, self._name, line.encode()):
                return False
        self._done[agency] = said.size
        return True

    async def _map_follows(self, agency: int, seen: tuple[int, bytes], said: forms.Checkpoint) -> bool:
        """Tell whether a checkpoint's map of persons follows from the log; False where it was signed on meanwhile.

        Raises ``Forked``, ``EvidenceError``, ``MapUnfit``.
        """
        if self._maps is None or not said.extensions:
            return True
        frontier = None
        if 0 < seen[0] < said.size:
            frontier = await take_up(partial(self._sets.evidence_read, agency), seen[0])
            if frontier.root() != seen[1]:
                frontier = None
        found = await self._maps.follows(agency, self._name, said, frontier)
        if found is None:
            now = await self._sets.evidence_last(agency)
            if now is None or now.size != said.size:
                return False
        if not found:
            raise Forked("a map that does not follow from its log")
        return True

    async def _remember(self, agency: int, seen: tuple[int, bytes], said: forms.Checkpoint) -> bool:
        """Remember a tree that continues the one seen, or that was restored; False where another process was quicker.

        Raises ``Forked``, ``EvidenceError``.
        """
        if await self._continues(agency, seen, said):
            return seen == (said.size, said.root) or await self._memory.witness_keep(
                self._name, said.origin, seen[0], said.size, said.root
            )
        restores = self._restores
        if restores is None or not await self._was_restored(agency, restores, seen, said):
            raise Forked("a tree that does not continue the one seen before")
        now = (said.size, said.root)
        if not await restores.memory.witness_restore(self._name, said.origin, seen, now, restores.epoch):
            raise Forked("a log is restored once in an epoch")
        _log.critical("a log goes on from a restore", agency=agency, epoch=restores.epoch)
        return True

    async def _was_restored(
        self, agency: int, restores: Restores, seen: tuple[int, bytes], said: forms.Checkpoint
    ) -> bool:
        """Tell whether the tree holds a leaf of a restore that names the one seen, in the epoch of our own settings."""
        for position, data in await restores.sets.evidence_restored(agency):
            found = read_leaf(position, data)
            if found is not None and (found.epoch, found.size, found.root) == (restores.epoch, *seen):
                return position <= said.size and await self._holds(agency, found, data, said)
        return False

    async def _holds(self, agency: int, found: Restored, data: bytes, said: forms.Checkpoint) -> bool:
        async def read(need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
            return await self._sets.evidence_read(agency, need)

        place = found.position - 1
        path = await hash_ranges(read, merkle.inclusion_ranges(place, said.size), said.size)
        return merkle.verify_inclusion(merkle.leaf_hash(data), place, said.size, path, said.root)

    async def _continues(self, agency: int, seen: tuple[int, bytes], said: forms.Checkpoint) -> bool:
        """Tell whether a tree continues the one seen, by a proof from the tree at rest."""
        size, root = seen
        if size > said.size:
            return False
        if size in {0, said.size}:
            return size == 0 or root == said.root

        async def read(need: Need) -> tuple[dict[TileName, bytes], dict[int, bytes]]:
            return await self._sets.evidence_read(agency, need)

        proof = await hash_ranges(read, merkle.consistency_ranges(size, said.size), said.size)
        return merkle.verify_consistency(size, root, said.size, said.root, proof)
