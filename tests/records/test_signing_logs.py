"""The signer on a real cell: checkpoints follow the log, tiles make proofs cheap, no bent tree is signed on."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.tenants import evidence, merkle
from chukan.tenants.evidence import CentreKeys, EvidenceError, Signer

PRIVATE = {
    centre: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(centre.encode()).digest())
    for centre in ("east", "west")
}
PUBLIC = {centre: key.public_key() for centre, key in PRIVATE.items()}
EAST = CentreKeys("log.example", "sandbox", "east", PRIVATE["east"], PUBLIC)
CODE = "9901131016000001"


def signer(shelf: Any) -> Signer:
    """A signer that knows no agency but this one: others of the cell stay unsigned."""
    return Signer(shelf.sets, EAST, {shelf.agency: CODE}.get, lambda _: None)


async def grow(shelf: Any, count: int) -> None:
    await shelf.records(count)
    await shelf.sequence()


async def leaves(shelf: Any) -> list[bytes]:
    rows = await shelf.admin.fetch(f"SELECT leaf_data FROM {shelf.schema}.log ORDER BY seq")
    return [merkle.leaf_hash(row["leaf_data"]) for row in rows]


async def said(shelf: Any) -> Any:
    last = await shelf.sets.evidence_last(shelf.agency)
    return EAST.verify(last.note, CODE).checkpoint


async def test_each_growth_is_signed_over_the_whole_log(shelf: Any) -> None:
    at = signer(shelf)
    assert await at.sign_due() == 0
    for count in (1, 3, 14, 40):
        await grow(shelf, count)
        assert await at.sign_due() == 1
        hashes = await leaves(shelf)
        assert await said(shelf) == (EAST.origin(CODE), len(hashes), merkle.root_of(hashes), ())
        assert await at.sign_due() == 0
    tiles = await shelf.admin.fetch(f"SELECT level, n, hashes FROM {shelf.schema}.tiles ORDER BY level, n")
    assert [(row["level"], row["n"]) for row in tiles] == [(0, 0), (0, 1), (0, 2)]
    assert b"".join(row["hashes"] for row in tiles) == b"".join(hashes[:48])


async def test_proofs_come_from_tiles_and_verify(shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LEAVES_MAX", 150)
    at = signer(shelf)
    await grow(shelf, 300)
    roots = {}
    while await at.sign_due():
        now = await said(shelf)
        roots[now.size] = now.root
    assert sorted(roots) == [150, 300]
    hashes = await leaves(shelf)

    async def read(need: Any) -> Any:
        assert len(need.tiles) + len(need.leaves) < 80
        return await shelf.sets.evidence_read(shelf.agency, need)

    for place in (0, 17, 255, 256, 288, 299):
        path = await evidence.hash_ranges(read, merkle.inclusion_ranges(place, 300), 300)
        assert merkle.verify_inclusion(hashes[place], place, 300, path, roots[300])
    proof = await evidence.hash_ranges(read, merkle.consistency_ranges(150, 300), 300)
    assert merkle.verify_consistency(150, roots[150], 300, roots[300], proof)


async def test_a_checkpoint_that_was_kept_is_kept_once(shelf: Any) -> None:
    at = signer(shelf)
    await grow(shelf, 2)
    growth = await at.grow(shelf.agency, CODE, 2)
    assert await shelf.sets.evidence_sign([growth]) == ["signed"]
    assert await shelf.sets.evidence_sign([growth]) == ["signed"]
    other = evidence.Growth(shelf.agency, 0, 2, bytes(32), b"another", {})
    assert await shelf.sets.evidence_sign([other]) == ["stale"]
    assert await shelf.admin.fetchval(f"SELECT count(*) FROM {shelf.schema}.checkpoints") == 1


async def test_one_signer_at_a_time(shelf: Any) -> None:
    await grow(shelf, 1)
    other = shelf.admin.transaction()
    await other.start()
    await shelf.admin.fetch("SELECT pg_advisory_xact_lock(4851205431603)")
    assert await signer(shelf).sign_due() == 0
    await other.rollback()
    assert await signer(shelf).sign_due() == 1


async def test_a_lost_hint_is_made_anew(shelf: Any) -> None:
    """As after a move: what counts is the agency's own checkpoints."""
    at = signer(shelf)
    await grow(shelf, 5)
    assert await at.sign_due() == 1
    await shelf.admin.execute("DELETE FROM chukan.evidence_heads WHERE agency = $1", shelf.agency)
    await at.sign_due()
    assert shelf.agency not in await shelf.sets.evidence_due(1000)
    assert (await shelf.sets.evidence_signed(shelf.agency - 1, 1)) == {shelf.agency: 5}


BENT = {
    "a leaf at the end": "UPDATE {schema}.log SET leaf_data = set_byte(leaf_data, 40, 7) WHERE seq = 18",
    "a tile": "UPDATE {schema}.tiles SET hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)",
    "a tile gone": "DELETE FROM {schema}.tiles",
    "the log shorter": "DELETE FROM {schema}.log WHERE seq > 17",
    "a gap in what is new": "DELETE FROM {schema}.log WHERE seq = 20",
    "the note": "UPDATE {schema}.checkpoints SET note = set_byte(note, 40, 7)",
    "another size": "UPDATE {schema}.checkpoints SET size = 17",
}


@pytest.mark.parametrize("how", BENT)
async def test_a_tree_that_was_bent_is_not_signed_on(shelf: Any, how: str) -> None:
    at = signer(shelf)
    await grow(shelf, 18)
    assert await at.sign_due() == 1
    await grow(shelf, 4)
    await shelf.admin.execute(BENT[how].format(schema=shelf.schema))
    assert await at.sign_due() == 0
    assert at.broken == {shelf.agency}
    assert await shelf.admin.fetchval(f"SELECT count(*) FROM {shelf.schema}.checkpoints") == 1


async def test_a_tile_that_is_missing_is_an_error_of_its_own(shelf: Any) -> None:
    async def read(_: Any) -> Any:
        return {}, {}

    with pytest.raises(EvidenceError):
        await evidence.take_up(read, 16)


async def test_the_age_is_that_of_the_oldest_leaf_without_a_checkpoint(shelf: Any) -> None:
    await grow(shelf, 1)
    await shelf.admin.execute(f"UPDATE {shelf.schema}.log SET at = now() - interval '90 s'")
    assert 90 <= await shelf.sets.evidence_age() < 200
