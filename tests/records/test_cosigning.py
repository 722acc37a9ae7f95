"""The other centre's cosigner on a real cell: it signs what continues, never a fork, and never forgets what it saw."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.clock import SystemClock
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle, reopening
from chukan.tenants.cosigning import Cosigner, Restores
from chukan.tenants.evidence import CentreKeys, Signer
from chukan.tenants.restored import TAG

PRIVATE = {
    centre: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(centre.encode()).digest())
    for centre in ("east", "west")
}
PUBLIC = {centre: key.public_key() for centre, key in PRIVATE.items()}
EAST, WEST = (CentreKeys("log.example", "sandbox", centre, PRIVATE[centre], PUBLIC) for centre in PRIVATE)


class Pair:
    """East signs, west cosigns; both know one agency only, under a code of its own."""

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf
        self.code = f"99{shelf.agency:014d}"
        self.signer = Signer(shelf.sets, EAST, {shelf.agency: self.code}.get, lambda _: None)
        self.cosigner = self.another(WEST)

    def another(self, keys: CentreKeys) -> Cosigner:
        return Cosigner(self.shelf.sets, self.shelf.sets, keys, {self.shelf.agency: self.code}.get, SystemClock())

    async def grow(self, count: int) -> None:
        await self.shelf.records(count)
        await self.shelf.sequence()
        assert await self.signer.sign_due() == 1

    async def sign(self, size: int, root: bytes, key: str = "east") -> None:
        """Put another last checkpoint in place, as somebody with all rights and the log's key could."""
        note = forms.sign(forms.Checkpoint(EAST.origin(self.code), size, root), PRIVATE[key]).encode()
        await self.shelf.admin.execute(f"DELETE FROM {self.shelf.schema}.checkpoints WHERE size >= $1", size)
        await self.shelf.admin.execute(
            f"INSERT INTO {self.shelf.schema}.checkpoints (size, root, note) VALUES ($1, $2, $3)", size, root, note
        )
        await self.shelf.admin.execute(
            "UPDATE chukan.evidence_heads SET size = $2 WHERE agency = $1", self.shelf.agency, size
        )

    async def cosigned(self) -> list[int]:
        rows = await self.shelf.admin.fetch(
            f"SELECT c.size, c.note || s.line AS note FROM {self.shelf.schema}.checkpoints c"
            f" JOIN {self.shelf.schema}.cosignatures s USING (size) ORDER BY size"
        )
        for row in rows:
            found = EAST.verify(row["note"], self.code)
            assert [each.key.name for each in found.cosigned] == [WEST.signer("west")]
            assert found.checkpoint.size == row["size"]
        return [row["size"] for row in rows]


@pytest.fixture
def pair(shelf: Any) -> Pair:
    return Pair(shelf)


async def test_what_continues_is_cosigned_once(pair: Pair) -> None:
    assert await pair.cosigner.cosign_due() == 0
    for count, sizes in ((3, [3]), (30, [3, 33]), (1, [3, 33, 34])):
        await pair.grow(count)
        assert await pair.cosigner.cosign_due() == 1
        assert await pair.cosigned() == sizes
        assert await pair.cosigner.cosign_due() == 0


async def test_steps_that_were_missed_are_one_step(pair: Pair) -> None:
    for count in (5, 20, 7):
        await pair.grow(count)
    assert await pair.cosigner.cosign_due() == 1
    assert await pair.cosigned() == [32]


async def test_a_centre_does_not_cosign_itself(pair: Pair) -> None:
    await pair.grow(2)
    await pair.another(EAST).cosign_due()
    assert await pair.cosigned() == []


@pytest.mark.parametrize("size", [15, 20, 25], ids=["shorter", "of the same size", "longer"])
async def test_a_fork_is_never_cosigned(pair: Pair, size: int) -> None:
    await pair.grow(20)
    assert await pair.cosigner.cosign_due() == 1
    await pair.shelf.records(5)
    await pair.shelf.sequence()
    await pair.shelf.admin.execute(f"DELETE FROM {pair.shelf.schema}.cosignatures")
    await pair.sign(size, hashlib.sha256(b"another log").digest())
    # Also a process that has just been started: what was seen rests in the database.
    for cosigner in (pair.cosigner, pair.another(WEST)):
        cosigner._done.clear()
        assert await cosigner.cosign_due() == 0
        assert cosigner.forked == {pair.shelf.agency}
    assert await pair.cosigned() == []


async def test_a_log_rewritten_whole_is_never_cosigned(pair: Pair) -> None:
    """Leaves, tiles and checkpoint fit one another; only what was seen before contradicts them."""
    await pair.grow(4)
    assert await pair.cosigner.cosign_due() == 1
    await pair.shelf.records(3)
    await pair.shelf.sequence()
    await pair.shelf.admin.execute(
        f"UPDATE {pair.shelf.schema}.log SET leaf_data = set_byte(leaf_data, 5, get_byte(leaf_data, 5) # 1)"
        " WHERE seq = 2"
    )
    rows = await pair.shelf.admin.fetch(f"SELECT leaf_data FROM {pair.shelf.schema}.log ORDER BY seq")
    await pair.sign(7, merkle.root_of(merkle.leaf_hash(row["leaf_data"]) for row in rows))
    assert await pair.cosigner.cosign_due() == 0
    assert pair.cosigner.forked == {pair.shelf.agency}
    assert 7 not in await pair.cosigned()


async def test_what_nobody_known_has_signed_is_not_cosigned(pair: Pair) -> None:
    await pair.grow(3)
    await pair.shelf.admin.execute(
        f"UPDATE {pair.shelf.schema}.checkpoints SET note = overlay(note placing 'A' from octet_length(note) - 20)"
    )
    assert await pair.cosigner.cosign_due() == 0
    assert await pair.cosigned() == []


async def test_the_memory_never_goes_back(pair: Pair) -> None:
    sets, name, origin = pair.shelf.sets, WEST.signer("west"), f"log.example/{pair.code}"
    one, two = (hashlib.sha256(word).digest() for word in (b"1", b"2"))
    assert not await sets.witness_keep(name, origin, 3, 5, one)
    assert await sets.witness_keep(name, origin, 0, 5, one)
    assert await sets.witness_keep(name, origin, 0, 5, one), "a repeat"
    for before, size, root in ((0, 5, two), (0, 9, two), (5, 4, two), (5, 5, two), (4, 9, two)):
        assert not await sets.witness_keep(name, origin, before, size, root)
    assert await sets.witness_recall(name, [origin, "another"]) == {origin: (5, one)}
    assert await sets.witness_keep(name, origin, 5, 9, two)
    assert await sets.witness_recall(name, [origin]) == {origin: (9, two)}
    assert await sets.witness_recall("another", [origin]) == {}


class Restoring:
    """A pair whose log is set back to what it was, as a restore of the cell does."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.shelf = pair, pair.shelf

    async def set_back(self, size: int) -> tuple[int, bytes]:
        """Take away all that came after a size, and return the tree that was seen of it."""
        seen = (await self.shelf.sets.witness_recall(WEST.signer("west"), [EAST.origin(self.pair.code)])).popitem()[1]
        for table, column in (("log", "seq"), ("checkpoints", "size"), ("cosignatures", "size")):
            await self.shelf.admin.execute(f"DELETE FROM {self.shelf.schema}.{table} WHERE {column} > $1", size)
        await self.shelf.admin.execute(f"DELETE FROM {self.shelf.schema}.tiles WHERE (n + 1) * 16 > $1", size)
        for table, column in (("log_heads", "seq"), ("evidence_heads", "size")):
            sql = f"UPDATE chukan.{table} SET {column} = $2 WHERE agency = $1"
            await self.shelf.admin.execute(sql, self.shelf.agency, size)
        return seen

    async def mark(self, epoch: int, seen: tuple[int, bytes]) -> list[int]:
        return await reopening.mark_restored(self.shelf.admin, self.shelf.agency, epoch, [seen])

    def cosigner(self, epoch: int) -> Cosigner:
        sets = self.shelf.sets
        restores = Restores(epoch, sets, sets)
        return Cosigner(sets, sets, WEST, {self.shelf.agency: self.pair.code}.get, SystemClock(), restores=restores)

    async def cosigns(self, epoch: int) -> bool:
        cosigner = self.cosigner(epoch)
        return await cosigner.cosign_due() == 1 and cosigner.forked == set()


@pytest.fixture
async def restoring(pair: Pair) -> Restoring:
    await pair.grow(18)
    assert await pair.cosigner.cosign_due() == 1
    await pair.grow(7)
    assert await pair.cosigner.cosign_due() == 1
    return Restoring(pair)


@pytest.mark.requirement("REC-02")
@pytest.mark.parametrize("more", [2, 30], ids=["shorter than what was seen", "longer"])
async def test_a_restored_log_goes_on_once_its_leaf_names_what_was_seen(restoring: Restoring, more: int) -> None:
    seen = await restoring.set_back(18)
    assert seen[0] == 25
    assert await restoring.mark(2, seen) == [19]
    assert await restoring.mark(2, seen) == [19], "a repeat"
    await restoring.pair.grow(more)
    assert not await restoring.cosigns(1), "nobody told this centre of a restore"
    assert await restoring.cosigns(2)
    await restoring.pair.grow(3)
    assert await restoring.cosigns(2), "from then on it only grows"


async def test_a_restore_is_believed_once_in_an_epoch(restoring: Restoring) -> None:
    await restoring.mark(2, await restoring.set_back(18))
    await restoring.pair.grow(9)
    assert await restoring.cosigns(2)
    again = await restoring.set_back(18)
    await restoring.mark(2, again)
    await restoring.pair.grow(1)
    assert not await restoring.cosigns(2)


@pytest.mark.parametrize("named", ["another root", "another size", "nothing"])
async def test_a_leaf_that_names_something_else_excuses_nothing(restoring: Restoring, named: str) -> None:
    size, root = await restoring.set_back(18)
    if named != "nothing":
        await restoring.mark(2, (size, bytes(32)) if named == "another root" else (size + 1, root))
    await restoring.pair.grow(10)
    assert not await restoring.cosigns(2)


async def test_a_leaf_that_is_not_in_the_signed_tree_excuses_nothing(restoring: Restoring) -> None:
    seen = await restoring.set_back(18)
    await restoring.mark(2, (1, bytes(32)))
    await restoring.pair.grow(10)
    leaf = b"\x02" + seen[1] + TAG + (2).to_bytes(4) + seen[0].to_bytes(8) + bytes(40)
    sql = f"UPDATE {restoring.shelf.schema}.log SET leaf_data = $1, label = $2 WHERE seq = 19"
    await restoring.shelf.admin.execute(sql, leaf, leaf[33:65])
    assert not await restoring.cosigns(2)
