"""Merkle trees against the published vectors of RFC 6962, a naive implementation, and every change to a proof."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chukan.tenants import merkle
from chukan.tenants.merkle import Frontier, TileName

# The eight leaves, roots and paths of the tests of certificate-transparency (merkletree/merkle_tree_test.cc).
LEAVES = [bytes.fromhex(each) for each in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [bytes.fromhex(each) for each in (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)]  # fmt: skip
PATHS = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (3, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (2, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENT = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
SIZES = st.integers(1, 700)


def leaf_hashes(count):
    return [merkle.leaf_hash(n.to_bytes(4)) for n in range(count)]


def naive_root(leaves):
    """§2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m, leaves):
    """§2.1.3.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_consistency(m, leaves, *, known=True):
    """§2.1.4.1, word for word."""
    if m == len(leaves):
        return [] if known else [naive_root(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_consistency(m, leaves[:k], known=known), naive_root(leaves[k:])]
    return [*naive_consistency(m - k, leaves[k:], known=False), naive_root(leaves[:k])]


class Store:
    """Complete tiles, and leaves, as they rest; counts what is read."""

    def __init__(self, leaves):
        self.leaves = leaves
        self.size = len(leaves)
        self.tiles = {}
        self.read = 0
        for name in merkle.tiles_completed(0, self.size):
            width = 1 << (4 * name.level)
            self.tiles[name] = b"".join(
                naive_root(leaves[(16 * name.n + i) * width : (16 * name.n + i + 1) * width]) for i in range(16)
            )

    def hash(self, ranges):
        result = []
        for begin, end in ranges:
            wanted = merkle.spans(begin, end)
            need = merkle.need_of(wanted, self.size)
            self.read += len(need.tiles) + len(need.leaves)
            tiles = {name: self.tiles[name] for name in need.tiles}
            leaves = {place: self.leaves[place] for place in need.leaves}
            result.append(merkle.fold(merkle.hash_spans(wanted, self.size, tiles, leaves)))
        return result


def hexes(hashes):
    return [each.hex() for each in hashes]


def test_roots_are_the_published_ones():
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for size, root in enumerate(ROOTS, 1):
        assert merkle.root_of(map(merkle.leaf_hash, LEAVES[:size])) == root


@pytest.mark.parametrize(("leaf", "size"), PATHS)
def test_inclusion_paths_are_the_published_ones(leaf, size):
    leaves = [merkle.leaf_hash(each) for each in LEAVES[:size]]
    path = Store(leaves).hash(merkle.inclusion_ranges(leaf - 1, size))
    assert hexes(path) == PATHS[leaf, size]
    assert merkle.verify_inclusion(leaves[leaf - 1], leaf - 1, size, path, ROOTS[size - 1])


@pytest.mark.parametrize(("old", "new"), CONSISTENT)
def test_consistency_proofs_are_the_published_ones(old, new):
    proof = Store([merkle.leaf_hash(each) for each in LEAVES[:new]]).hash(merkle.consistency_ranges(old, new))
    assert hexes(proof) == CONSISTENT[old, new]
    assert merkle.verify_consistency(old, ROOTS[old - 1], new, ROOTS[new - 1], proof)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_proofs_from_tiles_are_those_of_the_naive_tree(size, data):
    place, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    leaves = leaf_hashes(size)
    store = Store(leaves)
    assert store.hash(merkle.inclusion_ranges(place, size)) == naive_path(place, leaves)
    assert store.hash(merkle.consistency_ranges(old, size)) == naive_consistency(old, leaves)
    assert store.hash([(0, size)]) == [naive_root(leaves)] == [merkle.root_of(leaves)]


def test_a_proof_in_a_large_log_reads_little():
    size = 5_000
    store = Store(leaf_hashes(size))
    store.hash(merkle.inclusion_ranges(4_990, size))
    store.hash(merkle.consistency_ranges(2_501, size))
    assert store.read < 160


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 700))
def test_a_frontier_goes_on_where_it_stood(size, more):
    leaves = leaf_hashes(size + more)
    store = Store(leaves[:size])
    frontier = Frontier(size, [store.hash([(s.n << s.level, (s.n + 1) << s.level)])[0] for s in merkle.spans(0, size)])
    assert frontier.root() == naive_root(leaves[:size])
    for leaf in leaves[size:]:
        frontier.append(leaf)
    assert (frontier.size, frontier.root()) == (size + more, naive_root(leaves))


def test_a_frontier_has_one_hash_for_each_subtree():
    with pytest.raises(ValueError, match="one hash"):
        Frontier(3, [b"\0" * 32])


@given(st.integers(0, 5_000), st.integers(0, 5_000))
def test_tiles_are_completed_once(one, other):
    before, after = sorted((one, other))
    begun, ended = (set(merkle.tiles_completed(0, size)) for size in (before, after))
    assert set(merkle.tiles_completed(before, after)) == ended - begun
    assert ended == {
        TileName(level, n) for level in range(4) for n in range(5_000) if TileName(level, n).end() <= after
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 80), st.data())
def test_no_changed_inclusion_proof_verifies(size, data):
    place = data.draw(st.integers(0, size - 1))
    leaves = leaf_hashes(size)
    root, path = naive_root(leaves), naive_path(place, leaves)
    assert merkle.verify_inclusion(leaves[place], place, size, path, root)
    other = merkle.leaf_hash(b"another")
    for at in range(len(path)):
        assert not merkle.verify_inclusion(leaves[place], place, size, [*path[:at], other, *path[at + 1 :]], root)
        assert not merkle.verify_inclusion(leaves[place], place, size, [*path[:at], *path[at + 1 :]], root)
        assert not merkle.verify_inclusion(leaves[place], place, size, [*path[:at], path[at][:-1]], root)
    assert not merkle.verify_inclusion(leaves[place], place, size, [*path, other], root)
    assert not merkle.verify_inclusion(other, place, size, path, root)
    assert not merkle.verify_inclusion(leaves[place], place, size, path, other)
    for wrong in {place - 1, place + 1, size, -1}:
        assert not merkle.verify_inclusion(leaves[place], wrong, size, path, root)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 80), st.data())
def test_no_changed_consistency_proof_verifies(new, data):
    old = data.draw(st.integers(1, new))
    leaves = leaf_hashes(new)
    first, last, proof = naive_root(leaves[:old]), naive_root(leaves), naive_consistency(old, leaves)
    assert merkle.verify_consistency(old, first, new, last, proof)
    other = merkle.leaf_hash(b"another")
    for at in range(len(proof)):
        assert not merkle.verify_consistency(old, first, new, last, [*proof[:at], other, *proof[at + 1 :]])
        assert not merkle.verify_consistency(old, first, new, last, [*proof[:at], *proof[at + 1 :]])
    assert not merkle.verify_consistency(old, first, new, last, [*proof, other])
    assert not merkle.verify_consistency(old, other, new, last, proof)
    assert not merkle.verify_consistency(old, first, new, other, proof)
    assert not merkle.verify_consistency(new + 1, first, new, last, proof)


def test_every_tree_continues_the_empty_one_and_itself():
    root = naive_root(leaf_hashes(3))
    assert merkle.verify_consistency(0, merkle.EMPTY_ROOT, 3, root, [])
    assert merkle.verify_consistency(3, root, 3, root, [])
    assert not merkle.verify_consistency(0, root, 3, root, [])
    assert not merkle.verify_consistency(0, merkle.EMPTY_ROOT, 0, root, [])
    assert not merkle.verify_consistency(0, merkle.EMPTY_ROOT, 3, root, [root])


def test_what_is_no_tree_is_refused():
    for place, size in ((1, 1), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="leaf"):
            merkle.inclusion_ranges(place, size)
    for old, new in ((0, 1), (2, 1)):
        with pytest.raises(ValueError, match="trees"):
            merkle.consistency_ranges(old, new)
    with pytest.raises(ValueError, match="16"):
        merkle.split_tile(b"\0" * 511)
