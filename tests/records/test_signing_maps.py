"""Maps of persons on a real cell: signed with each checkpoint, cosigned only where they follow from the log."""

import hashlib
from typing import Any

import pytest

from chukan.clock import SystemClock
from chukan.tenants import checkpoint as forms
from chukan.tenants import label_map, map_growth, merkle
from chukan.tenants.cosigning import Cosigner
from chukan.tenants.evidence import Overtaken, Signer
from chukan.tenants.label_map import LabelMap
from chukan.tenants.map_growth import MapFollower, MapGrower
from chukan.tests.records.test_cosigning import EAST, PRIVATE, WEST


class Town:
    """East signs with maps, west cosigns them; both know one agency only."""

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf
        self.code = f"77{shelf.agency:014d}"
        self.signer = self.another_signer()
        self.cosigner = self.another_cosigner()

    def another_signer(self, *, maps: bool = True) -> Signer:
        sets = self.shelf.sets
        return Signer(sets, EAST, self.code_of, lambda _: None, maps=MapGrower(sets) if maps else None)

    def another_cosigner(self, *, maps: bool = True) -> Cosigner:
        sets = self.shelf.sets
        follower = MapFollower(sets, sets) if maps else None
        return Cosigner(sets, sets, WEST, self.code_of, SystemClock(), maps=follower)

    def code_of(self, agency: int) -> str | None:
        return self.code if agency == self.shelf.agency else None

    async def grow(self, count: int, signer: Signer | None = None) -> None:
        await self.shelf.records(count)
        await self.shelf.sequence()
        assert await (signer or self.signer).sign_due() == 1

    async def run(self, sql: str, *values: Any) -> Any:
        return await self.shelf.admin.fetch(sql.replace("{s}", self.shelf.schema), *values)

    async def said(self) -> forms.Checkpoint:
        last = await self.shelf.sets.evidence_last(self.shelf.agency)
        return EAST.verify(last.note, self.code).checkpoint

    async def map_by_the_log(self) -> bytes:
        """The map's root, from all leaves at once."""
        values = {}
        for row in await self.run("SELECT leaf_data, leaf_hash FROM {s}.log ORDER BY seq"):
            data = row["leaf_data"]
            count = int.from_bytes(data[65:73]) + 1
            values[label_map.key_of(data[33:65])] = label_map.value_of(count, row["leaf_hash"])
        return LabelMap().put(values)[0]

    async def cosigned(self) -> list[int]:
        return [row["size"] for row in await self.run("SELECT size FROM {s}.cosignatures ORDER BY size")]

    async def sign_as(self, **changes: Any) -> None:
        """Put another last checkpoint in place, signed by the log's own key."""
        said = (await self.said())._replace(**changes)
        note = forms.sign(said, PRIVATE["east"]).encode()
        await self.run("UPDATE {s}.checkpoints SET note = $1, root = $2 WHERE size = $3", note, said.root, said.size)


@pytest.fixture
def town(shelf: Any) -> Town:
    return Town(shelf)


async def test_each_checkpoint_signs_the_map_of_the_whole_log(town: Town) -> None:
    for count in (1, 3, 14, 40):
        await town.grow(count)
        assert label_map.root_in((await town.said()).extensions) == await town.map_by_the_log()
        pages = {row["path"]: row["body"] for row in await town.run("SELECT path, body FROM {s}.map_pages")}
        assert LabelMap(pages).root_with({}) == await town.map_by_the_log()
        assert await town.cosigner.cosign_due() == 1
    assert await town.cosigned() == [1, 4, 18, 58]
    assert not town.signer.broken
    assert not town.cosigner.forked


async def test_many_persons_and_steps(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets become forks; a step reads only what it needs; the cosigner takes several steps as one."""
    monkeypatch.setattr(map_growth, "STEP_LEAVES", 16)
    monkeypatch.setattr(map_growth, "KEYS_AT_ONCE", 7)
    for round_ in range(3):
        for n in range(40):
            await town.shelf.record(f"B{round_}-{n}" if n % 3 else f"B{n}")
        await town.grow(5)
        if round_ != 1:
            assert await town.cosigner.cosign_due() == 1
    assert label_map.root_in((await town.said()).extensions) == await town.map_by_the_log()
    assert len(await town.run("SELECT path FROM {s}.map_pages WHERE path <> ''")) > 10
    assert await town.cosigned() == [45, 135]


async def test_a_log_older_than_its_map_gets_one_with_its_next_leaf(town: Town) -> None:
    await town.grow(25, town.another_signer(maps=False))
    assert await town.another_cosigner(maps=False).cosign_due() == 1
    assert (await town.said()).extensions == ()
    await town.grow(4)
    assert label_map.root_in((await town.said()).extensions) == await town.map_by_the_log()
    assert await town.cosigner.cosign_due() == 1
    await town.grow(6)
    assert await town.cosigner.cosign_due() == 1
    # An exchange of the release before signs on without a map; the next one of this release begins it anew.
    await town.grow(2, town.another_signer(maps=False))
    assert await town.cosigner.cosign_due() == 1
    await town.grow(2, town.another_signer())
    assert label_map.root_in((await town.said()).extensions) == await town.map_by_the_log()
    assert await town.cosigner.cosign_due() == 1
    assert await town.cosigned() == [25, 29, 35, 37, 39]


async def test_a_log_with_more_persons_than_are_held_goes_on_without_a_map(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_growth, "LABELS_MAX", 3)
    await town.grow(25, town.another_signer(maps=False))
    for _ in range(2):
        await town.grow(1)
        assert (await town.said()).extensions == ()


BENT = {
    "a key": "UPDATE {s}.map_pages SET body = set_byte(body, 5, get_byte(body, 5) # 1)",
    "a value": "UPDATE {s}.map_pages SET body = set_byte(body, 34, get_byte(body, 34) # 1)",
    "a page gone": "DELETE FROM {s}.map_pages",
    "another page": "INSERT INTO {s}.map_pages SELECT repeat('a', 64), body FROM {s}.map_pages WHERE path = ''",
    "a chain": "UPDATE {s}.log SET leaf_data = set_byte(leaf_data, 72, 9) WHERE seq = 19",
    "a label": "UPDATE {s}.log SET leaf_data = set_byte(leaf_data, 40, get_byte(leaf_data, 40) # 1) WHERE seq = 19",
}


@pytest.mark.parametrize("how", BENT)
async def test_a_map_that_was_bent_is_not_signed_on(town: Town, how: str) -> None:
    await town.grow(18)
    await town.shelf.record("A1" if "leaf_data" in BENT[how] else "A9")
    await town.shelf.sequence()
    await town.run(BENT[how])
    if how == "another page":
        # A page that no fork leads to and no label's path goes through is nobody's: it changes nothing.
        assert await town.signer.sign_due() == 1
        return
    assert await town.signer.sign_due() == 0
    assert town.signer.broken == {town.shelf.agency}


async def test_a_signer_that_was_overtaken_is_no_broken_map(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it read of the log is of before another signer's commit, the pages are of after it."""
    await town.grow(3)
    sets, agency = town.shelf.sets, town.shelf.agency
    stale = await sets.evidence_last(agency)
    await town.grow(2, town.another_signer())
    leaves = await sets.evidence_leaves(agency, 3, 2)
    await town.shelf.record("A9")
    await town.grow(0, town.another_signer())
    read = sets.evidence_last
    asked: list[int] = []

    async def evidence_last(agency: int) -> Any:
        asked.append(agency)
        return stale if len(asked) == 1 else await read(agency)

    leaves_of = sets.evidence_leaves

    async def evidence_leaves(agency: int, after: int, limit: int) -> Any:
        return leaves if after == 3 else await leaves_of(agency, after, limit)

    monkeypatch.setattr(sets, "evidence_last", evidence_last)
    monkeypatch.setattr(sets, "evidence_leaves", evidence_leaves)
    with pytest.raises(Overtaken):
        await town.signer.grow(agency, town.code, 5)


async def forged(town: Town) -> dict[str, tuple[bytes, dict[str, bytes]]]:
    """Maps (root, pages) that a dishonest signer could sign for the present log, by what they leave out."""
    ends: dict[bytes, list[bytes]] = {}
    rows = await town.run("SELECT leaf_data, leaf_hash FROM {s}.log ORDER BY seq")
    for row in rows:
        ends.setdefault(row["leaf_data"][33:65], []).append(row["leaf_hash"])
    values = {label_map.key_of(label): label_map.value_of(len(ls), ls[-1]) for label, ls in ends.items()}
    label, leaves = max(ends.items(), key=lambda each: len(each[1]))
    key = label_map.key_of(label)
    return {
        "a person": LabelMap().put({k: v for k, v in values.items() if k != key}),
        "a record": LabelMap().put({**values, key: label_map.value_of(len(leaves) - 1, leaves[-2])}),
        "everything": (hashlib.sha256(b"another").digest(), {}),
    }


@pytest.mark.requirement("REC-03")
@pytest.mark.parametrize("what", ["a person", "a record", "everything"])
@pytest.mark.parametrize("before", [0, 20], ids=["first map", "later map"])
async def test_a_map_that_leaves_something_out_is_never_cosigned(town: Town, what: str, before: int) -> None:
    if before:
        await town.grow(before)
        assert await town.cosigner.cosign_due() == 1
    await town.grow(9)
    root, pages = (await forged(town))[what]
    await town.sign_as(extensions=(label_map.line_of(root),))
    # As thorough as it gets: the pages at rest are those of the forged map.
    for path, body in pages.items():
        await town.run("UPDATE {s}.map_pages SET body = $2 WHERE path = $1", path, body)
    for cosigner in (town.cosigner, town.another_cosigner()):
        assert await cosigner.cosign_due() == 0
        assert cosigner.forked == {town.shelf.agency}
    assert await town.cosigned() == ([before] if before else [])


async def test_another_map_of_the_same_log_is_never_cosigned(town: Town) -> None:
    await town.grow(20)
    assert await town.cosigner.cosign_due() == 1
    await town.run("DELETE FROM {s}.cosignatures")
    await town.sign_as(extensions=(label_map.line_of(merkle.EMPTY_ROOT),))
    other = town.another_cosigner()
    assert await other.cosign_due() == 0
    assert other.forked == {town.shelf.agency}
    assert await town.cosigned() == []
