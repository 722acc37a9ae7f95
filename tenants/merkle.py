"""Merkle trees of RFC 9162 (§2.1; the same as RFC 6962's): roots, proofs made from stored tiles, proofs verified.

Leaf ``SHA-256(0x00 ‖ data)``, node ``SHA-256(0x01 ‖ left ‖ right)``. The tree of an agency's log is kept as *tiles*:
tile (level, n) holds the 16 hashes of tree level 4·level from place 16·n on, and is kept once all of them stand: it
never changes. A proof then costs a few tiles for each 16-fold of the log's size, never the whole log.

Pure: no I/O and no clock. Invariant: whatever verifies here was hashed here; malformed proofs (a step too many, a step
of another length, places out of range) are refused like wrong ones, with False or None, never an exception. This module
must never trust a hash that it was given for a leaf whose data it has.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
TILE_HEIGHT: Final = 4
TILE_WIDTH: Final = 1 << TILE_HEIGHT
SIZE_MAX: Final = (1 << 63) - 1
PROOF_MAX: Final = 128
"""No proof of a tree of up to 2^63 leaves has more steps."""


class Span(NamedTuple):
    """The complete subtree of the 2^level leaves from place n·2^level on (places from 0)."""

    level: int
    n: int


class TileName(NamedTuple):
    """Tile ``n`` of level ``level``: 16 hashes of tree level 4·level."""

    level: int
    n: int

    def end(self) -> int:
        """Return how many leaves a tree has at least when this tile is complete."""
        return (self.n + 1) << (TILE_HEIGHT * (self.level + 1))


class Need(NamedTuple):
    """What must be read before spans can be hashed."""

    tiles: frozenset[TileName]
    leaves: frozenset[int]
    """Places from 0."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over neighbouring complete subtrees, the largest first; of none, the empty root."""
    if not hashes:
        return EMPTY_ROOT
    result = hashes[-1]
    for left in reversed(hashes[:-1]):
        result = node_hash(left, result)
    return result


class Frontier:
    """The complete subtrees that a tree of some size falls into: all that is needed to append, and its root."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Begin with a tree of ``size`` leaves; ``ValueError`` unless there is one hash for each bit of the size."""
        self._size = size
        self._hashes = list(hashes)
        if len(self._hashes) != size.bit_count():
            raise ValueError("a frontier has one hash for each complete subtree")

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    def append(self, leaf: bytes) -> None:
        """Append one leaf, given by its hash."""
        self._hashes.append(leaf)
        rest = self._size
        while rest & 1:
            right = self._hashes.pop()
            self._hashes.append(node_hash(self._hashes.pop(), right))
            rest >>= 1
        self._size += 1

    def root(self) -> bytes:
        """Return the root of the tree."""
        return fold(self._hashes)


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root of a tree over these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


# ------------------------------------------------------------ which subtrees a proof is made of


def spans(begin: int, end: int) -> list[Span]:
    """Return the complete subtrees of the leaves ``begin … end-1``, as RFC 9162 divides them, from the largest on.

    ``begin`` is a place at which a subtree of that size begins: every range that the recursion of §2.1 comes to is one.
    """
    found = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        found.append(Span(level, begin >> level))
        begin += 1 << level
    return found


def inclusion_ranges(place: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges of leaves whose hashes are the inclusion path of a leaf, in its order (§2.1.3.1).

    ``ValueError`` unless 0 ≤ place < size.
    """
    if not 0 <= place < size:
        raise ValueError("no such leaf")
    ranges: list[tuple[int, int]] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if place < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[tuple[int, int]]:
    """Return the ranges whose hashes are the consistency proof between two sizes (§2.1.4.1); of equal sizes, none.

    ``ValueError`` unless 0 < old ≤ new.
    """
    if not 0 < old <= new:
        raise ValueError("no such trees")
    ranges: list[tuple[int, int]] = []
    begin, end, known = 0, new, True
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin, known = middle, False
    if not known:
        ranges.append((begin, end))
    return ranges[::-1]


def _split(count: int) -> int:
    """Return the largest power of two that is smaller than ``count`` (> 1)."""
    return 1 << ((count - 1).bit_length() - 1)


# ------------------------------------------------------------ hashes of subtrees, from tiles and leaves


def need_of(wanted: Iterable[Span], size: int) -> Need:
    """Return what must be read to hash these spans of a tree of ``size`` leaves whose complete tiles are kept."""
    tiles: set[TileName] = set()
    leaves: set[int] = set()
    for span in wanted:
        for source in _sources(span, size):
            if isinstance(source, TileName):
                tiles.add(source)
            else:
                leaves.add(source)
    return Need(frozenset(tiles), frozenset(leaves))


def hash_spans(
    wanted: Iterable[Span], size: int, tiles: Mapping[TileName, bytes], leaves: Mapping[int, bytes]
) -> list[bytes]:
    """Return the hashes of spans.

    ``tiles`` and ``leaves`` (leaf hashes by place) hold what ``need_of`` named. Raises ``KeyError`` where one is
    missing, ``ValueError`` for a tile of a wrong length.
    """
    return [_hash_span(span, size, tiles, leaves) for span in wanted]


def tiles_completed(before: int, after: int) -> list[TileName]:
    """Return the tiles that are complete at ``after`` leaves and were not at ``before``, the lower levels first."""
    found = []
    level, covered = 0, TILE_WIDTH
    while covered <= after:
        found += [TileName(level, n) for n in range(before // covered, after // covered)]
        level, covered = level + 1, covered << TILE_HEIGHT
    return found


def split_tile(tile: bytes) -> list[bytes]:
    """Return a tile's 16 hashes; ``ValueError`` unless it has 512 bytes."""
    if len(tile) != TILE_WIDTH * HASH_BYTES:
        raise ValueError("a tile has 16 hashes")
    return [tile[start : start + HASH_BYTES] for start in range(0, len(tile), HASH_BYTES)]


def tile_root(tile: bytes) -> bytes:
    """Return the hash over a whole tile; ``ValueError`` unless it has 512 bytes."""
    return _full(split_tile(tile))


def _sources(span: Span, size: int) -> list[TileName | int]:
    """Return the one tile in which the span's hashes stand, or the tiles (or leaves) just below while it has gaps."""
    level, above = divmod(span.level, TILE_HEIGHT)
    first = span.n << above
    tile = TileName(level, first >> TILE_HEIGHT)
    if tile.end() <= size:
        return [tile]
    places = range(first, first + (1 << above))
    return [TileName(level - 1, n) for n in places] if level else list(places)


def _hash_span(span: Span, size: int, tiles: Mapping[TileName, bytes], leaves: Mapping[int, bytes]) -> bytes:
    sources = _sources(span, size)
    level, above = divmod(span.level, TILE_HEIGHT)
    hashes: list[bytes] = []
    for source in sources:
        if not isinstance(source, TileName):
            hashes.append(leaves[source])
        elif source.level == level:
            start = (span.n << above) % TILE_WIDTH
            hashes += split_tile(tiles[source])[start : start + (1 << above)]
        else:
            hashes.append(tile_root(tiles[source]))
    return _full(hashes)


def _full(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over 1, 2, 4, 8 or 16 neighbours of one level."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


# ------------------------------------------------------------ verifying


def inclusion_root(leaf: bytes, place: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that an inclusion path leads to (§2.1.3.2); None unless place, size and path fit exactly."""
    if not 0 <= place < size <= SIZE_MAX or not _well_formed(path):
        return None
    left, last, root = place, size - 1, leaf
    for step in path:
        if last == 0:
            return None
        if left & 1 or left == last:
            root = node_hash(step, root)
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            root = node_hash(root, step)
        left, last = left >> 1, last >> 1
    return root if last == 0 else None


def verify_inclusion(leaf: bytes, place: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether a leaf (its hash) stands at a place (from 0) of the tree with this size and root."""
    return inclusion_root(leaf, place, size, path) == root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether the larger tree begins with all leaves of the smaller one (§2.1.4.2).

    Every tree continues the empty one: then, and where both are the same, the proof must be empty.
    """
    if not 0 <= old <= new <= SIZE_MAX or not _well_formed(proof):
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT and (new > 0 or new_root == EMPTY_ROOT)
    if old == new:
        return not proof and old_root == new_root
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    return bool(steps) and _roots_along(old, new, steps) == (old_root, new_root)


def _roots_along(old: int, new: int, steps: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    left, last = old - 1, new - 1
    while left & 1:
        left, last = left >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return None
        if left & 1 or left == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            after = node_hash(after, step)
        left, last = left >> 1, last >> 1
    return (before, after) if last == 0 else None


def _well_formed(proof: Sequence[bytes]) -> bool:
    return len(proof) <= PROOF_MAX and all(len(step) == HASH_BYTES for step in proof)
