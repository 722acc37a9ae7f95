"""A kept checkpoint: what continues it takes its place; a log rolled back, forked or shown twice is refused."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.errors import Problem
from chukan.ops.sandbox.checkpoint_book import CheckpointBook, origin_of
from chukan.ops.sandbox.transport import ClientError
from chukan.platform.wire.agency import ProblemBody
from chukan.platform.wire.checkpoints import RestoredLeaf
from chukan.platform.wire.evidence import CheckpointView, ConsistencyProof
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle
from chukan.tenants.restored import TAG

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
        if first > len(self.hashes):
            refused = ProblemBody(
                type="", title="", title_en="", status=422, code="invalid_field", side="agency", retryable=False,
                action="", action_en="",
            )  # fmt: skip
            raise ClientError(refused, 422)
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
    # Nor because a person says that there was a restore: the log itself must say so.
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(Log(LIES[how]), replace=True)
    assert book.kept() == kept


class RestoredLog(Log):
    """A log that went back to ``back`` leaves, and says in the next one which tree was lost."""

    def __init__(self, back: int, size: int, root: bytes, more: int) -> None:
        label = TAG + (2).to_bytes(4) + size.to_bytes(8)
        self.data = b"\x02" + root + label + bytes(40)
        self.position = back + 1
        super().__init__([*leaves(back), merkle.leaf_hash(self.data), *leaves(more, "after")])

    async def consistency(self, first: int) -> ConsistencyProof:
        size = len(self.hashes)
        proof = await super().consistency(min(first, size))
        ranges = merkle.inclusion_ranges(self.position - 1, size)
        path = [merkle.root_of(self.hashes[begin:end]) for begin, end in ranges]
        return ConsistencyProof(proof.checkpoint, first, proof.path, RestoredLeaf(self.position, self.data, path))


@pytest.mark.parametrize("more", [2, 30], ids=["shorter than before", "longer than before"])
async def test_a_restored_log_is_kept_through_its_leaf_once_a_person_says_so(book: CheckpointBook, more: int) -> None:
    await book.look(Log(leaves(20)))
    kept = book.kept()
    log = RestoredLog(12, 23, merkle.root_of(leaves(23)), more)
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(log)
    seen = await book.look(log, replace=True)
    assert (seen.size, seen.before) == (13 + more, 20)
    assert book.path.with_name(f"kept.before-{seen.size}").read_bytes() == kept, "what proves it is not thrown away"


LEAVES = {
    "names a smaller tree": lambda: RestoredLog(12, 19, merkle.root_of(leaves(19)), 2),
    "stands behind what was kept": lambda: RestoredLog(21, 40, merkle.root_of(leaves(40)), 2),
    "names another tree of that size": lambda: RestoredLog(12, 20, merkle.root_of(leaves(20, "x")), 2),
    "is not in the tree": lambda: Elsewhere(12, 23, merkle.root_of(leaves(23)), 2),
}


class Elsewhere(RestoredLog):
    async def consistency(self, first: int) -> ConsistencyProof:
        proof = await super().consistency(first)
        assert proof.restored is not None
        bent = self.data[:52] + (3).to_bytes(4) + self.data[56:]
        return ConsistencyProof(proof.checkpoint, first, proof.path, RestoredLeaf(13, bent, proof.restored.path))


@pytest.mark.parametrize("how", LEAVES)
async def test_a_leaf_that_explains_nothing_of_what_was_kept_changes_nothing(book: CheckpointBook, how: str) -> None:
    await book.look(Log(leaves(20, "" if "behind" not in how else "y")))
    kept = book.kept()
    with pytest.raises(Problem, match="log_contradicted"):
        await book.look(LEAVES[how](), replace=True)
    assert book.kept() == kept


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
