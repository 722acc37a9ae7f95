"""The leaf of a restore (復元の葉): how a restored log goes on from what it was, and says what was lost.

When a restored cell is opened, each of its logs gets a leaf that names a tree which a cosigner had seen before: size
and root. Leaves after the one before it were made and signed, and are lost; whoever holds a checkpoint of them finds
here that they were, and where. Its form is that of every leaf, 105 bytes: 0x02 ‖ root ‖ label ‖ ordinal ‖ previous; the
label is ``chukan restored leaf`` ‖ epoch (u32) ‖ size (u64), so that each has a chain of its own.

Pure. Invariant: a leaf of a restore excuses nothing by itself. A cosigner believes one only in the epoch that its own
settings name for the cell, once for each log; a verifier only when asked to.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from chukan.tenants.merkle import HASH_BYTES

VERSION: Final = 0x02
TAG: Final = b"chukan restored leaf"
_LEAF_BYTES: Final = 105
_ROOT: Final = slice(1, 1 + HASH_BYTES)
_EPOCH: Final = slice(1 + HASH_BYTES + len(TAG), 1 + HASH_BYTES + len(TAG) + 4)
_SIZE: Final = slice(_EPOCH.stop, _EPOCH.stop + 8)
_OWN_CHAIN: Final = bytes(8 + HASH_BYTES)


class Restored(NamedTuple):
    """What such a leaf says, and its position (from 1): leaves before it are those that were restored."""

    position: int
    epoch: int
    size: int
    root: bytes

    def explains(self, size: int, root: bytes) -> bool:
        """Tell whether this restore may have lost a tree that was seen before: the one named, or a part of it."""
        return self.position <= size < self.size or (size, root) == (self.size, self.root)


def read_leaf(position: int, data: bytes) -> Restored | None:
    """Return what a leaf says of a restore; None for one that says nothing of any."""
    tag = data[1 + HASH_BYTES : 1 + HASH_BYTES + len(TAG)]
    if len(data) != _LEAF_BYTES or data[0] != VERSION or tag != TAG or data[_SIZE.stop :] != _OWN_CHAIN:
        return None
    return Restored(position, int.from_bytes(data[_EPOCH]), int.from_bytes(data[_SIZE]), data[_ROOT])


def explaining(restores: Iterable[Restored], size: int, root: bytes) -> Restored | None:
    """Return the first restore by which a tree that was seen before may have been lost; None where none explains it."""
    return next((each for each in restores if each.explains(size, root)), None)
