"""Growing and following the map of persons (記録の地図): the signer's side and the cosigner's.

``MapGrower`` makes the next map from the last signed one and the new leaves. ``MapFollower`` finds out, for a centre
that did not make it, whether a signed map follows from the log: it goes through the leaves since the map it found right
last, and computes from the same pages both that one and the new one. So a map that leaves a person's leaf out is never
cosigned.

A log older than its map is gone through once from its beginning, in steps. Invariant: no map is signed, and none
is found right, that does not follow from leaves whose hashes give the log's own root, each continuing its person's
chain. Nothing here is believed because it rests.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from chukan import log
from chukan.tenants import checkpoint as forms
from chukan.tenants import label_map, merkle
from chukan.tenants.label_map import LabelMap, MapError, PagesMissing
from chukan.tenants.merkle import Frontier

STEP_LEAVES: Final = 1_000
"""Leaves read at once."""
LABELS_MAX: Final = 1_000_000
"""Persons of a log that is gone through as a whole (about 300 MB): past it the log goes on without a map, loudly."""
KEYS_AT_ONCE: Final = 1_000

_LEAF_BYTES: Final = 105
_ORDINAL_END: Final = 1 << 53
_LABEL: Final = slice(33, 65)
_ORDINAL: Final = slice(65, 73)
_PREVIOUS: Final = slice(73, 105)

_log = log.get("map")
Leaf = tuple[int, bytes]
"""Position (from 1) and data."""


class MapUnfit(Exception):  # noqa: N818 - what was found, not what went wrong here
    """Pages at rest, leaves and the signed root of a map do not fit. Holds no value of them."""


class MapSets(Protocol):
    """What reads an agency's map and log."""

    async def map_pages(self, agency: int, paths: Sequence[str]) -> dict[str, bytes]:
        """Return pages by name."""
        ...

    async def evidence_leaves(self, agency: int, after: int, limit: int) -> list[Leaf]:
        """Return the next leaves after a position."""
        ...


class MapMemory(Protocol):
    """Where a cosigner remembers the maps that it found right."""

    async def witness_map(self, signer: str, origin: str) -> tuple[int, bytes] | None:
        """Return the last one."""
        ...

    async def witness_map_keep(self, signer: str, origin: str, size: int, root: bytes) -> None:
        """Remember one."""
        ...


class Touched(NamedTuple):
    """What new leaves change: by the label's key, the value before them (None: no such label) and after them."""

    before: dict[bytes, bytes | None]
    after: dict[bytes, bytes]


class Tally:
    """Follows the chains of labels through leaves; of each label it knows the first and the last new leaf."""

    def __init__(self) -> None:
        self._before: dict[bytes, bytes | None] = {}
        self._last: dict[bytes, tuple[int, bytes]] = {}

    def add(self, data: bytes, own: bytes) -> None:
        """Take the next leaf (its data and hash); ``MapUnfit`` where it does not continue its label's new ones."""
        ordinal, previous = int.from_bytes(data[_ORDINAL]), data[_PREVIOUS]
        if len(data) != _LEAF_BYTES or ordinal >= _ORDINAL_END:
            raise MapUnfit("a leaf of another form")
        key = label_map.key_of(data[_LABEL])
        known = self._last.get(key)
        if known is None:
            self._before[key] = label_map.value_of(ordinal, previous) if ordinal else None
        elif known != (ordinal, previous):
            raise MapUnfit("a leaf does not continue its chain")
        self._last[key] = (ordinal + 1, own)

    def take(self) -> Touched:
        """Return what has changed since the last call, and begin anew."""
        after = {key: label_map.value_of(*end) for key, end in self._last.items()}
        found = Touched(self._before, after)
        self._before, self._last = {}, {}
        return found


async def read_map(sets: MapSets, agency: int, keys: Iterable[bytes]) -> LabelMap:
    """Return a map as far as it is needed for keys.

    Raises ``MapUnfit`` where pages have another form. Pages that are missing show when the map is used.
    """
    wanted = list(keys)
    found = LabelMap()
    try:
        for begin in range(0, max(1, len(wanted)), KEYS_AT_ONCE):
            some = wanted[begin : begin + KEYS_AT_ONCE]
            found.add_pages(await sets.map_pages(agency, sorted(label_map.paths_of(some))))
            try:
                for key in some:
                    found.value(key)
            except PagesMissing:
                # Deeper than chance lets a map become, or a map with holes: this shows which.
                deep = label_map.paths_of(some, label_map.DIGITS)
                found.add_pages(await sets.map_pages(agency, sorted(deep)))
    except MapError:
        raise MapUnfit("a page of the map has another form") from None
    return found


class Grown(NamedTuple):
    """The next map: its root, and the pages that it has otherwise."""

    root: bytes
    pages: dict[str, bytes]


class MapGrower:
    """Makes the maps of one cell's logs for their signer."""

    def __init__(self, sets: MapSets) -> None:
        self._sets = sets
        self._older: tuple[int, WholeMap] | None = None
        """The log without a map that was gone through last; one, for it takes memory."""
        self._too_large: set[int] = set()

    async def grow(self, agency: int, last: forms.Checkpoint | None, leaves: Sequence[Leaf]) -> Grown | None:
        """Return a log's map after new leaves; None where it gets none (an older log, without a new leaf or too large).

        Args:
            agency: whose log.
            last: its last checkpoint, verified; None where there is none.
            leaves: the new leaves, in their order.

        Raises:
            MapUnfit: the map at rest is not the one that was signed, or a leaf does not continue its person's chain.
            CheckpointError: the checkpoint signs two maps.
        """
        tally = Tally()
        for _, data in leaves:
            tally.add(data, merkle.leaf_hash(data))
        touched = tally.take()
        signed = label_map.EMPTY if last is None else label_map.root_in(last.extensions)
        if last is not None and signed is None:
            return await self._first(agency, last, last.size + len(leaves)) if leaves else None
        held = LabelMap() if last is None else await read_map(self._sets, agency, touched.after)
        try:
            if held.root_with(touched.before) != signed:
                raise MapUnfit("the map is not the one that was signed")
            return Grown(*held.put(touched.after))
        except PagesMissing:
            raise MapUnfit("a page of the map is missing") from None

    async def _first(self, agency: int, last: forms.Checkpoint, size: int) -> Grown | None:
        """Return the first map of a log that is older than maps: all of it is gone through, all pages are given."""
        if agency in self._too_large:
            return None
        known, whole = self._older or (agency, WholeMap())
        if known != agency or whole.frontier.size > last.size:
            whole = WholeMap()
        self._older = agency, whole
        await whole.go_on(self._sets, agency, last.size)
        if not whole.is_too_large and whole.frontier.root() != last.root:
            raise MapUnfit("the leaves are not those that were signed")
        await whole.go_on(self._sets, agency, size)
        if whole.is_too_large:
            self._older = None
            self._too_large.add(agency)
            _log.critical("a log without a map has more persons than are held at once", agency=agency)
            return None
        return Grown(whole.held.root_with({}), whole.pages)


class WholeMap:
    """A log that is gone through from its beginning: its tree and its map, as far as it went."""

    def __init__(self) -> None:
        self.frontier = Frontier()
        self.held = LabelMap()
        self.pages: dict[str, bytes] = {}

    @property
    def is_too_large(self) -> bool:
        """Whether it has more labels than are held at once."""
        return self.held.labels > LABELS_MAX

    async def go_on(self, sets: MapSets, agency: int, size: int) -> None:
        """Go through the leaves up to ``size``; ``MapUnfit`` where leaves or chains have gaps."""
        while self.frontier.size < size and not self.is_too_large:
            at = self.frontier.size
            tally = Tally()
            for data in await read_leaves(sets, agency, at, min(STEP_LEAVES, size - at)):
                own = merkle.leaf_hash(data)
                tally.add(data, own)
                self.frontier.append(own)
            touched = tally.take()
            if any(self.held.value(key) != value for key, value in touched.before.items()):
                raise MapUnfit("a leaf does not continue its chain")
            self.pages.update(self.held.put(touched.after)[1])


async def read_leaves(sets: MapSets, agency: int, after: int, count: int) -> list[bytes]:
    """Return exactly so many leaves after a position; ``MapUnfit`` where there are gaps or fewer."""
    found = await sets.evidence_leaves(agency, after, count)
    if [position for position, _ in found] != list(range(after + 1, after + 1 + count)):
        raise MapUnfit("a position of the log is missing")
    return [data for _, data in found]


class MapFollower:
    """Finds out for a cosigner whether signed maps follow from their logs."""

    def __init__(self, sets: MapSets, memory: MapMemory) -> None:
        self._sets = sets
        self._memory = memory
        self._judged: dict[int, tuple[forms.Checkpoint, bool]] = {}

    async def follows(self, agency: int, signer: str, said: forms.Checkpoint, seen: Frontier | None) -> bool | None:
        """Tell whether a signed map follows from the log; None where the pages at rest are those of no such map.

        Args:
            agency: whose log.
            signer: the cosigner's name.
            said: the checkpoint, verified.
            seen: the tree that this cosigner has seen last, taken up; None where there was none, or another one.

        Raises:
            MapUnfit: the leaves are not those of the checkpoint, or do not continue their chains.
            CheckpointError: the checkpoint signs two maps.
        """
        root = label_map.root_in(said.extensions)
        if root is None:
            return True
        known = await self._memory.witness_map(signer, said.origin)
        if known == (said.size, root):
            return True
        if known is not None and seen is not None and known[0] == seen.size < said.size:
            return await self._step(agency, said, (known[1], root), seen)
        # The whole log: for its first map, after a restore, or without a memory. Judged once for each checkpoint.
        judged = self._judged.get(agency)
        if judged is None or judged[0] != said:
            self._judged[agency] = judged = (said, await self._whole(agency, said, root))
        return judged[1]

    async def keep(self, signer: str, said: forms.Checkpoint) -> None:
        """Remember that a checkpoint's map was found right."""
        root = label_map.root_in(said.extensions)
        if root is not None:
            await self._memory.witness_map_keep(signer, said.origin, said.size, root)

    async def _step(
        self, agency: int, said: forms.Checkpoint, roots: tuple[bytes, bytes], seen: Frontier
    ) -> bool | None:
        tally = Tally()
        while seen.size < said.size:
            for data in await read_leaves(self._sets, agency, seen.size, min(STEP_LEAVES, said.size - seen.size)):
                own = merkle.leaf_hash(data)
                tally.add(data, own)
                seen.append(own)
        if seen.root() != said.root:
            raise MapUnfit("the leaves are not those that were signed")
        touched = tally.take()
        try:
            held = await read_map(self._sets, agency, touched.after)
            before, after = held.root_with(touched.before), held.root_with(touched.after)
        except (MapUnfit, PagesMissing):
            return None
        return before == roots[0] if after == roots[1] else None

    async def _whole(self, agency: int, said: forms.Checkpoint, root: bytes) -> bool:
        whole = WholeMap()
        await whole.go_on(self._sets, agency, said.size)
        if whole.is_too_large:
            raise MapUnfit("more persons than are held at once")
        if whole.frontier.root() != said.root:
            raise MapUnfit("the leaves are not those that were signed")
        return whole.held.root_with({}) == root
