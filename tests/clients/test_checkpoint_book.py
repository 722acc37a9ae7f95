"""A kept checkpoint: what continues it takes its place; a log rolled back, forked or shown twice is refused."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.errors import Problem
from chukan.ops.sandbox.checkpoint_book import CheckpointBook, origin_of
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle

pytestmark = pytest.mark.requirement("REC-02")
ORIGIN = "log.example/sandbox/9901131016000001"
EAST, WEST = (Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word).digest()) for word in (b"e", b"w"))
KEYS = [forms.Key.of(ORIGIN, forms.LOG, EAST), forms.Key.of("log.example/sandbox/west", forms.COSIGNER, WEST)]


def leaves(count: int, word: str = "") -> list[bytes]:
    return [merkle.leaf_hash(f"{word}{n}".encode()) for n in range(count)]


class Log:
    """A log as an exchange shows it; it proves whatever it is asked from its own leaves."""

    def __init__(self, hashes: list[bytes], key: Ed25519PrivateKey = EAST) -> None:
        self.hashes, self.key = hashes, key

    async def checkpoint(self) -> CheckpointView:
        note = forms.sign(forms.Checkpoint(ORIGIN, len(self.hashes), merkle.root_of(self.hashes)), self.key)
        note = note.signed_too([forms.cosign(note.text, KEYS[1].name, WEST, 1_795_000_000)])
        return CheckpointView(note.encode().decode(), len(self.hashes), cosigned=True)

    async def consistency(self, first: int) -> ConsistencyProof:
        ranges = merkle.consistency_ranges(first, len(self.hashes))
        path = [merkle.root_of(self.hashes[begin:end]) for begin, end in ranges]
        return ConsistencyProof(await self.checkpoint(), first, path)


@pytest.fixture
def book(tmp_path: Path) -> CheckpointBook:
    return CheckpointBook(tmp_path / "kept", KEYS)


async def test_what_continues_takes_the_place_of_what_was_kept(book: CheckpointBook) -> None:
    whole = leaves(40)
    for count, before in ((3, 0), (3, 3), (17, 3), (40, 17)):
        seen = await book.look(Log(whole[:count]))
        assert (seen.origin, seen.size, seen.before, seen.cosigned) == (ORIGIN, count, before, True)
    assert book.kept() == (await Log(whole).checkpoint()).note.encode()
    assert book.path.stat().st_mode & 0o777 == 0o600


LIES = {
    "rolled back": leaves(9),
    "forked, of the same size": leaves(19) + leaves(1, "x"),
    "forked, longer": leaves(7) + leaves(30, "x"),
    "rewritten from the beginning": leaves(21, "x"),
}


@pytest.mark.parametrize("how", LIES)
async def test_what_does_not_continue_is_refused_and_the_evidence_stays(book: CheckpointBook, how: str) -> None:
    await book.look(Log(leaves(20)))
    kept = book.kept()
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(Log(LIES[how]))
    assert book.kept() == kept
    seen = await book.look(Log(LIES[how]), replace=True)
    beside = book.path.with_name(f"kept.before-{seen.size}")
    assert beside.read_bytes() == kept, "what proves it is not thrown away"


async def test_two_exchanges_that_show_two_logs_are_found_out(book: CheckpointBook) -> None:
    await book.look(Log(leaves(20)))
    await book.look(Log(leaves(25)))
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(Log([*leaves(24), *leaves(3, "only for you")]))


async def test_a_proof_of_something_else_is_no_proof(book: CheckpointBook) -> None:
    await book.look(Log(leaves(20)))

    class Liar(Log):
        async def consistency(self, first: int) -> ConsistencyProof:
            proof = await super().consistency(first - 1)
            return ConsistencyProof(proof.checkpoint, first, proof.path)

    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(Liar(leaves(30)))


async def test_what_no_known_key_has_signed_is_never_kept(book: CheckpointBook) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(Problem, match="checkpoint_unsigned"):
        await book.look(Log(leaves(3), stranger))
    assert book.kept() is None


def test_keys_of_two_logs_are_not_those_of_one() -> None:
    with pytest.raises(Problem, match="setting_invalid"):
        origin_of([*KEYS, forms.Key.of("log.example/sandbox/1", forms.LOG, EAST)])
