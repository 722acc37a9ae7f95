"""The network keeps checkpoints: what continues is kept, what does not is refused and kept as evidence."""

import hashlib
import sqlite3
import uuid
from importlib import resources

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.clock import SystemClock
from chukan.ops.sandbox.kept_checkpoints import KeptCheckpoints
from chukan.platform.wire.checkpoints import CheckpointReply, CheckpointTold, RestoredLeaf
from chukan.tenants import checkpoint as forms
from chukan.tenants import merkle
from chukan.tenants.restored import TAG

pytestmark = pytest.mark.requirement("REC-02")
CODE = "9901131016000001"
ORIGIN = f"log.example/sandbox/{CODE}"
EAST, OTHER = (Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word).digest()) for word in (b"e", b"x"))


def leaves(count: int, word: str = "") -> list[bytes]:
    return [merkle.leaf_hash(f"{word}{n}".encode()) for n in range(count)]


class Network:
    """The jobs of the network on a store of its own."""

    def __init__(self) -> None:
        self.store = sqlite3.connect(":memory:", isolation_level=None)
        schema = resources.files("chukan.ops.sandbox").joinpath("network_schema.sql").read_text(encoding="utf-8")
        self.store.executescript(schema)
        self.store.execute("INSERT INTO agencies (code, name, route) VALUES (?, 'x', 'platform')", (CODE,))
        self.kept = KeptCheckpoints("log.example", {"east": EAST.public_key()}, SystemClock())

    def tell(
        self,
        hashes: list[bytes],
        first: int = 0,
        *,
        key: Ed25519PrivateKey = EAST,
        route: str = "platform",
        restored: RestoredLeaf | None = None,
    ) -> tuple[str, int]:
        note = forms.sign(forms.Checkpoint(ORIGIN, len(hashes), merkle.root_of(hashes)), key).encode().decode()
        spans = merkle.consistency_ranges(first, len(hashes)) if 0 < first < len(hashes) else []
        path = [merkle.root_of(hashes[begin:end]) for begin, end in spans]
        told = CheckpointTold(uuid.uuid4(), CODE, note, first, path, restored)
        (raw,) = self.kept.take(self.store, route, [told])
        reply = msgspec.json.decode(raw, type=CheckpointReply)
        assert reply.id == told.id
        return reply.status, reply.size

    def refused(self) -> list[int]:
        return [row[0] for row in self.store.execute("SELECT size FROM refused_checkpoints ORDER BY size")]


@pytest.fixture
def network() -> Network:
    return Network()


def test_what_continues_is_kept_once_it_is_proved(network: Network) -> None:
    assert network.tell(leaves(5)) == ("kept", 5)
    assert network.tell(leaves(5)) == ("kept", 5)
    assert network.tell(leaves(23)) == ("prove", 5)
    assert network.tell(leaves(23), 5) == ("kept", 23)
    assert network.refused() == []


@pytest.mark.parametrize(
    ("hashes", "first"),
    [(leaves(9), 20), (leaves(20, "x"), 20), (leaves(7) + leaves(30, "x"), 20)],
    ids=["rolled back", "forked", "forked and longer"],
)
def test_what_contradicts_is_refused_and_kept_as_evidence(network: Network, hashes: list[bytes], first: int) -> None:
    assert network.tell(leaves(20)) == ("kept", 20)
    for _ in "12":
        assert network.tell(hashes, first) == ("contradicted", 20)
    assert network.refused() == [len(hashes)]
    assert network.tell(leaves(21), 20) == ("kept", 21)


def test_nothing_is_kept_that_is_not_signed_by_a_known_key_or_not_this_routes(network: Network) -> None:
    assert network.tell(leaves(5), key=OTHER) == ("unknown", 0)
    assert network.tell(leaves(5), route="another") == ("unknown", 0)
    network.kept = KeptCheckpoints("log.example", {}, SystemClock())
    assert network.tell(leaves(5)) == ("unknown", 0)


def restored(hashes: list[bytes], epoch: int, named: int, root: bytes, size: int) -> tuple[list[bytes], RestoredLeaf]:
    """Return a log that was set back to these leaves and goes on, and the leaf that says so."""
    data = b"\x02" + root + TAG + epoch.to_bytes(4) + named.to_bytes(8) + bytes(40)
    whole = [*hashes, merkle.leaf_hash(data), *leaves(size, "new")]
    path = [merkle.root_of(whole[begin:end]) for begin, end in merkle.inclusion_ranges(len(hashes), len(whole))]
    return whole, RestoredLeaf(len(hashes) + 1, data, path)


def test_a_restored_log_is_kept_where_its_leaf_explains_it_once_in_an_epoch(network: Network) -> None:
    whole = leaves(20)
    network.tell(whole)
    back, leaf = restored(whole[:12], 2, 20, merkle.root_of(whole), 3)
    assert network.tell(back, 20) == ("contradicted", 20), "without its leaf"
    assert network.tell(back, 20, restored=leaf) == ("kept", 16)
    again, leaf = restored(back[:14], 2, 16, merkle.root_of(back), 9)
    assert network.tell(again, 16, restored=leaf) == ("contradicted", 16), "the same epoch once more"
    again, leaf = restored(back[:14], 3, 16, merkle.root_of(back), 9)
    assert network.tell(again, 16, restored=leaf) == ("kept", 24)


def test_a_leaf_that_does_not_explain_what_is_kept_excuses_nothing(network: Network) -> None:
    whole = leaves(20)
    network.tell(whole)
    other, leaf = restored(whole[:12], 2, 20, bytes(32), 3)
    assert network.tell(other, 20, restored=leaf) == ("contradicted", 20)
    back, leaf = restored(whole[:12], 2, 20, merkle.root_of(whole), 3)
    astray = msgspec.structs.replace(leaf, position=leaf.position - 1)
    assert network.tell(back, 20, restored=astray) == ("contradicted", 20)
