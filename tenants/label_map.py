"""The map of persons (記録の地図): how many leaves each label has, and which is the last; a sparse Merkle tree.

Each checkpoint signs the map's root beside the log's (an extension line), so that a resident's answer can prove that
none of their leaves is missing, or that there is none at all. A label's place follows from its hash: ``key`` =
SHA-256(0x10 ‖ label), ``value`` = SHA-256(0x11 ‖ count ‖ last leaf hash). A subtree without a label is 32 zero bytes;
one with a single label is SHA-256(0x12 ‖ key ‖ value), at whatever depth; any other SHA-256(0x13 ‖ left ‖ right).

It is kept in *pages*, named by the key's first hexadecimal digits: a bucket holds up to 16 labels (key ‖ value); a fork
the 16 subtrees one digit further down. Which pages there are follows from the set of labels alone.

Pure: no I/O. Invariant: for one root and one key there is one terminal, so nothing that is there can be proven absent,
nor two things of one label. A proof tells of another label its hashes only. This module must never need a label.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from chukan.tenants.checkpoint import CheckpointError, from_base64, to_base64

EMPTY: Final = bytes(32)
HASH_BYTES: Final = 32
BUCKET_MAX: Final = 16
"""Labels of a bucket; with one more it becomes a fork."""
DEPTH_MAX: Final = 256
DIGITS: Final = 64
"""Hexadecimal digits of a key: the longest name that a page can have."""
DIGITS_FIRST: Final = 8
"""How far down pages are read at first: a map of some billion labels is not deeper."""

_BUCKET, _FORK = b"\x00", b"\x01"
_ENTRY_BYTES: Final = 2 * HASH_BYTES
_FORK_BYTES: Final = 1 + 4 + 16 * HASH_BYTES
_LINE: Final = "chukan-map-1 "


class MapError(Exception):
    """Pages do not fit one another. Holds no value of them."""


class PagesMissing(Exception):  # noqa: N818 - what is needed, not what went wrong
    """These pages must be read first; whoever has read them and still gets this has a map with holes."""

    def __init__(self, paths: Iterable[str]) -> None:
        super().__init__("pages of a map are missing")
        self.paths = frozenset(paths)


class Entry(NamedTuple):
    """A label as the map knows it."""

    key: bytes
    value: bytes


class MapProof(NamedTuple):
    """What stands at a key's place: the hashes beside the way to it, from the root on, and the only label there."""

    siblings: tuple[bytes, ...]
    found: Entry | None
    """The label asked for, another one whose key begins alike (then this one is absent), or None: there is none."""


class _Node(NamedTuple):
    """A subtree: how many labels it has (0, 1, or 2 for more), and its hash."""

    labels: int
    hash: bytes


_NONE: Final = _Node(0, EMPTY)
Change = Mapping[bytes, bytes | None]
"""By key: the value to be there, None for no such label."""


def key_of(label: bytes) -> bytes:
    """Return the place of a label (32 bytes)."""
    return hashlib.sha256(b"\x10" + label).digest()


def value_of(count: int, last: bytes) -> bytes:
    """Return what the map says of a label with ``count`` leaves (> 0) of which ``last`` is the hash of the last."""
    return hashlib.sha256(b"\x11" + count.to_bytes(8) + last).digest()


def line_of(root: bytes) -> str:
    """Return a checkpoint's extension line for a map's root."""
    return _LINE + to_base64(root)


def root_in(extensions: Sequence[str]) -> bytes | None:
    """Return the map's root that a checkpoint signs, None where there is none; ``CheckpointError`` for two."""
    lines = [line for line in extensions if line.startswith(_LINE)]
    if not lines:
        return None
    root = from_base64(lines[0].removeprefix(_LINE))
    if len(lines) > 1 or len(root) != HASH_BYTES:
        raise CheckpointError("not the root of a map")
    return root


def paths_of(keys: Iterable[bytes], digits: int = DIGITS_FIRST) -> set[str]:
    """Return the names of all pages that may stand on the way to keys, down to a length."""
    return {"", *(key.hex()[:length] for key in keys for length in range(1, digits + 1))}


class LabelMap:
    """A map as far as its pages are at hand: those on the way to the keys that are asked for."""

    def __init__(self, pages: Mapping[str, bytes] | None = None) -> None:
        """Begin with pages by name; without any, with the empty map. ``MapError`` for a body of another form."""
        self._buckets: dict[str, list[Entry]] = {}
        self._forks: dict[str, list[_Node]] = {}
        self.labels = 0
        """How many labels were added here."""
        self.add_pages(pages or {})

    def add_pages(self, pages: Mapping[str, bytes]) -> None:
        """Take further pages; ``MapError`` for a body of another form."""
        for path, body in pages.items():
            if body[:1] == _FORK and len(body) == _FORK_BYTES:
                self._forks[path] = _decode_fork(body)
            elif body[:1] == _BUCKET and len(body) % _ENTRY_BYTES == 1:
                self._buckets[path] = _decode_bucket(body, path)
            else:
                raise MapError("a page of another form")

    def root_with(self, changes: Change) -> bytes:
        """Return the root of the map with the labels of ``changes`` as they say; nothing is changed.

        What stands on the way to these labels is computed from its pages, the rest is taken as it rests: two roots for
        two sets of values of the same labels show that nothing else differs. Raises ``PagesMissing``.
        """
        return self._walk("", sorted(changes.items()), None).hash

    def put(self, values: Mapping[bytes, bytes]) -> tuple[bytes, dict[str, bytes]]:
        """Put labels in; return the root and the pages that changed. Raises ``PagesMissing``, putting nothing in."""
        changed: dict[str, bytes] = {}
        before = sum(self.value(key) is None for key in values)
        root = self._walk("", sorted(values.items()), changed).hash
        for path in changed:
            self._buckets.pop(path, None)
        self.add_pages(changed)
        self.labels += before
        return root, changed

    def value(self, key: bytes) -> bytes | None:
        """Return what the map says of a label; raises ``PagesMissing``."""
        path = self._down(key)
        return next((entry.value for entry in self._buckets.get(path, ()) if entry.key == key), None)

    def prove(self, key: bytes) -> MapProof:
        """Return what stands at a key's place; raises ``PagesMissing``."""
        siblings: list[bytes] = []
        path = ""
        while path in self._forks:
            digit = self._pass_fork(path, key, siblings)
            if digit is None:
                return MapProof(tuple(siblings), None)
            path = f"{path}{digit:x}"
            self._need(path)
        entries, depth = self._buckets.get(path, []), len(siblings)
        while len(entries) > 1:
            middle = _split(entries, depth)
            right = _bit(key, depth)
            siblings.append(_fold_entries(entries[:middle] if right else entries[middle:], depth + 1).hash)
            entries, depth = entries[middle:] if right else entries[:middle], depth + 1
        return MapProof(tuple(siblings), entries[0] if entries else None)

    def _pass_fork(self, path: str, key: bytes, siblings: list[bytes]) -> int | None:
        """Go down a fork towards a key and note the hashes beside; return where to go on, None where there is nothing.

        It ends early at a subtree of a single label: its page is then where to go on, for what that label is.
        """
        nodes = self._forks[path]
        begin, end = 0, len(nodes)
        while (labels := _fold(nodes[begin:end]).labels) > 1 and end - begin > 1:
            middle = (begin + end) // 2
            right = _bit(key, len(siblings))
            siblings.append(_fold(nodes[begin:middle] if right else nodes[middle:end]).hash)
            begin, end = (middle, end) if right else (begin, middle)
        return next((n for n in range(begin, end) if nodes[n].labels), None) if labels else None

    def _down(self, key: bytes) -> str:
        """Return the page in which a key's label stands or would stand."""
        path = ""
        while (nodes := self._forks.get(path)) is not None:
            child = key.hex()[: len(path) + 1]
            if not nodes[_nibble(key, len(path))].labels:
                return child
            self._need(child)
            path = child
        return path

    def _need(self, path: str) -> None:
        if path not in self._forks and path not in self._buckets:
            raise PagesMissing([path])

    def _walk(self, path: str, changes: Sequence[tuple[bytes, bytes | None]], out: dict[str, bytes] | None) -> _Node:
        """Return the subtree of a page with changes made; write into ``out`` what pages become."""
        fork = self._forks.get(path)
        if fork is None:
            entries = {entry.key: entry.value for entry in self._buckets.get(path, ())}
            for key, value in changes:
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value
            return _place(path, [Entry(*each) for each in sorted(entries.items())], out)
        children = list(fork)
        for digit, inside in _by_digit(changes, len(path)):
            child = f"{path}{digit:x}"
            if fork[digit].labels:
                self._need(child)
            children[digit] = self._walk(child, inside, out)
        if out is not None:
            out[path] = _encode_fork(children)
        return _fold(children)


def verify(root: bytes, key: bytes, proof: MapProof) -> bool:
    """Tell whether a proof shows what stands at a key's place in the map with this root."""
    siblings, found = proof
    depth = len(siblings)
    if depth > DEPTH_MAX or any(len(each) != HASH_BYTES for each in (root, key, *siblings, *(found or ()))):
        return False
    if found is not None and not _begins_alike(found.key, key, depth):
        return False
    node = EMPTY if found is None else _leaf(found).hash
    for place in range(depth - 1, -1, -1):
        beside = siblings[place]
        node = _inner(beside, node) if _bit(key, place) else _inner(node, beside)
    return node == root


# ------------------------------------------------------------ hashes


def _leaf(entry: Entry) -> _Node:
    return _Node(1, hashlib.sha256(b"\x12" + entry.key + entry.value).digest())


def _inner(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x13" + left + right).digest()


def _join(left: _Node, right: _Node) -> _Node:
    if left.labels + right.labels < 2:  # noqa: PLR2004 - none or one
        return left if left.labels else right
    return _Node(2, _inner(left.hash, right.hash))


def _fold(nodes: Sequence[_Node]) -> _Node:
    """Return the subtree over 1, 2, 4, 8 or 16 neighbours."""
    level = list(nodes)
    while len(level) > 1:
        level = [_join(level[n], level[n + 1]) for n in range(0, len(level), 2)]
    return level[0]


def _fold_entries(entries: Sequence[Entry], depth: int) -> _Node:
    """Return the subtree over labels in their order, whose keys are alike up to ``depth`` bits."""
    if len(entries) < 2:  # noqa: PLR2004 - none or one
        return _leaf(entries[0]) if entries else _NONE
    middle = _split(entries, depth)
    return _join(_fold_entries(entries[:middle], depth + 1), _fold_entries(entries[middle:], depth + 1))


def _split(entries: Sequence[Entry], depth: int) -> int:
    """Return how many of the labels (in their order) go to the left at this depth."""
    return bisect_left(entries, 1, key=lambda entry: _bit(entry.key, depth))


def _bit(key: bytes, place: int) -> int:
    return key[place >> 3] >> (7 - (place & 7)) & 1


def _nibble(key: bytes, place: int) -> int:
    return key[place >> 1] >> 4 if place % 2 == 0 else key[place >> 1] & 15


def _begins_alike(one: bytes, other: bytes, bits: int) -> bool:
    shift = DEPTH_MAX - bits
    return int.from_bytes(one) >> shift == int.from_bytes(other) >> shift


# ------------------------------------------------------------ pages


def _by_digit(
    changes: Sequence[tuple[bytes, bytes | None]], place: int
) -> list[tuple[int, Sequence[tuple[bytes, bytes | None]]]]:
    groups: dict[int, list[tuple[bytes, bytes | None]]] = {}
    for change in changes:
        groups.setdefault(_nibble(change[0], place), []).append(change)
    return list(groups.items())


def _place(path: str, entries: Sequence[Entry], out: dict[str, bytes] | None) -> _Node:
    """Return the subtree of these labels; write into ``out`` the pages that hold them."""
    if out is None or not entries:
        return _fold_entries(entries, 4 * len(path))
    if len(entries) <= BUCKET_MAX:
        out[path] = _BUCKET + b"".join(entry.key + entry.value for entry in entries)
        return _fold_entries(entries, 4 * len(path))
    children = [
        _place(f"{path}{digit:x}", [e for e in entries if _nibble(e.key, len(path)) == digit], out)
        for digit in range(16)
    ]
    out[path] = _encode_fork(children)
    return _fold(children)


def _encode_fork(children: Sequence[_Node]) -> bytes:
    """Return a fork's body: how many labels each child has (two bits each), and their hashes."""
    counts = sum(child.labels << (2 * n) for n, child in enumerate(children))
    return _FORK + counts.to_bytes(4) + b"".join(child.hash for child in children)


def _decode_fork(body: bytes) -> list[_Node]:
    counts = int.from_bytes(body[1:5])
    nodes = []
    for n in range(16):
        start = 5 + n * HASH_BYTES
        labels = counts >> (2 * n) & 3
        if labels > 2 or (labels == 0) != (body[start : start + HASH_BYTES] == EMPTY):  # noqa: PLR2004 - none, one, more
            raise MapError("a page of another form")
        nodes.append(_Node(labels, body[start : start + HASH_BYTES]))
    return nodes


def _decode_bucket(body: bytes, path: str) -> list[Entry]:
    entries = [
        Entry(body[start : start + HASH_BYTES], body[start + HASH_BYTES : start + _ENTRY_BYTES])
        for start in range(1, len(body), _ENTRY_BYTES)
    ]
    keys = [entry.key for entry in entries]
    # In their order: where the first and the last begin with the page's name, all between them do.
    ends = keys[:1] + keys[-1:]
    if keys != sorted(set(keys)) or len(keys) > BUCKET_MAX or not all(key.hex().startswith(path) for key in ends):
        raise MapError("a page of another form")
    return entries
