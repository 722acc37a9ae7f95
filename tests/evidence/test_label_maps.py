"""The map of persons: its root follows from the labels alone, and its proofs say what is there and what is not."""

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chukan.tenants import label_map
from chukan.tenants.checkpoint import CheckpointError
from chukan.tenants.label_map import EMPTY, LabelMap, MapError, MapProof, PagesMissing


def key(n: int) -> bytes:
    return label_map.key_of(n.to_bytes(32))


def value(n: int, count: int = 1) -> bytes:
    return label_map.value_of(count, hashlib.sha256(b"%d" % n).digest())


def naive(entries: dict[bytes, bytes], depth: int = 0) -> bytes:
    """The root by its definition, in another way than the module goes."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        ((one, said),) = entries.items()
        return hashlib.sha256(b"\x12" + one + said).digest()
    sides: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for one, said in entries.items():
        sides[int.from_bytes(one) >> (255 - depth) & 1][one] = said
    return hashlib.sha256(b"\x13" + naive(sides[0], depth + 1) + naive(sides[1], depth + 1)).digest()


def test_the_root_follows_from_the_labels_alone() -> None:
    """Whatever the order and the size of the steps; and every page is read again as it was written."""
    entries = {key(n): value(n) for n in range(700)}
    for step in (1, 7, 700):
        order = sorted(entries.items(), key=lambda each: hashlib.sha256(each[0] + bytes([step % 256])).digest())
        made, kept = LabelMap(), {}
        for begin in range(0, len(order), step):
            root, pages = made.put(dict(order[begin : begin + step]))
            kept.update(pages)
        assert root == naive(entries)
        assert made.labels == 700
        assert LabelMap(kept).root_with({}) == root
        assert max(map(len, kept.values())) <= 1025
    root, _ = made.put({key(3): value(3, 2)})
    assert root == naive({**entries, key(3): value(3, 2)}) != naive(entries)
    assert made.labels == 700


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 400), max_size=60), st.sets(st.integers(0, 400), max_size=20))
def test_a_step_is_checked_by_undoing_it(before: set[int], touched: set[int]) -> None:
    """With the values from before, the pages of after give the root of before: nothing else was changed."""
    held = LabelMap()
    old_root, pages = held.put({key(n): value(n) for n in before})
    new_root, more = held.put({key(n): value(n, 9) for n in touched})
    known = {**pages, **more}
    partial = LabelMap({path: body for path, body in known.items() if path in label_map.paths_of(map(key, touched))})
    assert partial.root_with({key(n): value(n, 9) for n in touched}) == new_root
    undone = {key(n): value(n) if n in before else None for n in touched}
    assert partial.root_with(undone) == old_root == naive({key(n): value(n) for n in before})


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 2000), max_size=120), st.integers(0, 2000))
def test_what_is_there_and_what_is_not_is_proved(there: set[int], asked: int) -> None:
    held = LabelMap()
    root, _ = held.put({key(n): value(n) for n in there})
    proof = held.prove(key(asked))
    assert label_map.verify(root, key(asked), proof)
    found = proof.found is not None and proof.found == (key(asked), value(asked))
    assert found == (asked in there)
    assert (held.value(key(asked)) == value(asked)) == (asked in there)


def bent(proof: MapProof) -> Iterator[MapProof]:
    """Proofs that differ from a right one by something."""
    siblings, found = proof
    yield MapProof(siblings, None if found else label_map.Entry(key(1), value(1)))
    yield MapProof(siblings[1:], found)
    yield MapProof((*siblings, EMPTY), found)
    yield MapProof((*siblings[:-1], siblings[-1][:31]), found)
    for n, each in enumerate(siblings):
        yield MapProof((*siblings[:n], hashlib.sha256(each).digest(), *siblings[n + 1 :]), found)
    if found is not None:
        yield MapProof(siblings, found._replace(value=value(0, 5)))
        yield MapProof(siblings, found._replace(key=key(5000)))


def test_no_other_proof_verifies() -> None:
    held = LabelMap()
    root, _ = held.put({key(n): value(n) for n in range(300)})
    for asked in (*range(0, 300, 37), *range(1000, 1040)):
        proof = held.prove(key(asked))
        for other in bent(proof):
            assert not label_map.verify(root, key(asked), other)
        assert not label_map.verify(hashlib.sha256(root).digest(), key(asked), proof)
        # A proof of another label's place says nothing of this one's.
        foreign = held.prove(key(asked + 7))
        says_absent = foreign.found is None or foreign.found.key != key(asked)
        assert not (asked < 300 and says_absent and label_map.verify(root, key(asked), foreign))
    assert not label_map.verify(root, key(1), MapProof((EMPTY,) * 257, None))


def test_nothing_that_is_there_is_proved_absent_by_a_shorter_way() -> None:
    held = LabelMap()
    root, _ = held.put({key(n): value(n) for n in range(50)})
    for asked in range(50):
        siblings, found = held.prove(key(asked))
        assert found is not None
        for length in range(len(siblings) + 1):
            for end in (None, *(label_map.Entry(key(n), value(n)) for n in range(50) if n != asked)):
                assert not label_map.verify(root, key(asked), MapProof(siblings[:length], end))


def test_pages_that_are_missing_or_bent_are_named() -> None:
    held = LabelMap()
    root, pages = held.put({key(n): value(n) for n in range(100)})
    with pytest.raises(PagesMissing) as missing:
        LabelMap({"": pages[""]}).value(key(3))
    assert missing.value.paths == {key(3).hex()[:1]}
    for body in (b"", b"\x02", pages[""][:-1], b"\x01" + bytes([255]) * 516, b"\x00" + key(1) + value(1) + key(1) * 2):
        with pytest.raises(MapError):
            LabelMap({"": body})
    with pytest.raises(MapError):
        LabelMap({"f": b"\x00" + bytes(64)})
    (path,) = [p for p in pages if p == key(3).hex()[:1]]
    changed = {**pages, path: pages[path][:40] + bytes([pages[path][40] ^ 1]) + pages[path][41:]}
    assert LabelMap(changed).root_with({key(n): value(n) for n in range(100)} | {key(3): None}) != root


def test_the_line_of_a_checkpoint() -> None:
    root = hashlib.sha256(b"root").digest()
    line = label_map.line_of(root)
    assert label_map.root_in(["other 1", line]) == root
    assert label_map.root_in(["other 1"]) is None
    for lines in ([line, line], ["chukan-map-1 AAAA"], ["chukan-map-1 !"], [line + "x"]):
        with pytest.raises(CheckpointError):
            label_map.root_in(lines)
