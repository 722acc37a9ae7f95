"""Only the inquirer can open an answer, and only for the permit that it was given for (番号法2条15項, TXR-02)."""

import hashlib
import hmac
import uuid

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.platform.sealed import UnreadableAnswerError, is_answer_key, open_answer, open_batch, seal_batch
from chukan.platform.wire.network import SealedAnswer

pytestmark = pytest.mark.requirement("TXR-02")

CHANCE = SystemChance(SystemClock())
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
OTHER = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PERMITS = [uuid.UUID(int=number) for number in range(1, 6)]
LINES = [(permit, f"content of line {place}".encode()) for place, permit in enumerate(PERMITS)]
change = msgspec.structs.replace


def labelled_extract(salt: bytes, suite: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, hashlib.sha256)


def labelled_expand(prk: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    # Every output here is at most one block of HKDF-Expand (RFC 5869).
    return hmac.digest(prk, labelled + b"\x01", hashlib.sha256)[:length]


def open_by_the_rfc(encapsulation: bytes, private: X25519PrivateKey, info: bytes) -> bytes:
    """Single-shot HPKE open in base mode, written from RFC 9180 §4.1, §5.1 and §6.1 with nothing but primitives."""
    shared, ciphertext = encapsulation[:32], encapsulation[32:]
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    agreed = private.exchange(X25519PublicKey.from_public_bytes(shared))
    recipient = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    prk = labelled_extract(b"", kem, b"eae_prk", agreed)
    secret_shared = labelled_expand(prk, kem, b"shared_secret", shared + recipient, 32)
    psk_id = labelled_extract(b"", suite, b"psk_id_hash", b"")
    context = b"\x00" + psk_id + labelled_extract(b"", suite, b"info_hash", info)
    secret = labelled_extract(secret_shared, suite, b"secret", b"")
    key = labelled_expand(secret, suite, b"key", context, 32)
    nonce = labelled_expand(secret, suite, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def test_what_was_sealed_opens() -> None:
    sealed = seal_batch(PUBLIC, "answer-1", LINES, CHANCE)
    assert [open_answer(one, permit, PRIVATE) for one, permit in zip(sealed, PERMITS, strict=True)] == [
        content for _, content in LINES
    ]
    assert [one.counter for one in sealed] == [0, 1, 2, 3, 4]
    assert {one.key for one in sealed} == {"answer-1"}
    assert len({one.encapsulation for one in sealed}) == 1


def test_somebody_else_can_open_it_by_the_rfc_alone() -> None:
    sealed = seal_batch(PUBLIC, "answer-1", LINES, CHANCE)
    for one, (permit, content) in zip(sealed, LINES, strict=True):
        key = open_by_the_rfc(one.encapsulation, PRIVATE, b"chukan-answer-v1")
        assert len(key) == 32
        assert AESGCM(key).decrypt(one.counter.to_bytes(12, "big"), one.ciphertext, permit.bytes) == content


def test_the_network_and_the_transport_see_no_content() -> None:
    carried = b"".join(msgspec.json.encode(one) for one in seal_batch(PUBLIC, "answer-1", LINES, CHANCE))
    raw = b"".join(one.ciphertext + one.encapsulation for one in seal_batch(PUBLIC, "answer-1", LINES, CHANCE))
    assert b"content" not in carried
    assert b"content" not in raw


def test_every_call_draws_a_new_key() -> None:
    first, second = (seal_batch(PUBLIC, "answer-1", LINES[:1], CHANCE)[0] for _ in range(2))
    keys = {open_by_the_rfc(one.encapsulation, PRIVATE, b"chukan-answer-v1") for one in (first, second)}
    assert len(keys) == 2
    assert first.ciphertext != second.ciphertext


def test_another_key_opens_nothing() -> None:
    [sealed] = seal_batch(PUBLIC, "answer-1", LINES[:1], CHANCE)
    with pytest.raises(UnreadableAnswerError, match=r"^the answer cannot be opened$"):
        open_answer(sealed, PERMITS[0], OTHER)


def test_an_answer_cannot_be_moved_to_another_permit() -> None:
    sealed = seal_batch(PUBLIC, "answer-1", LINES, CHANCE)
    with pytest.raises(UnreadableAnswerError):
        open_answer(sealed[0], PERMITS[1], PRIVATE)
    with pytest.raises(UnreadableAnswerError):
        open_answer(change(sealed[0], counter=1), PERMITS[0], PRIVATE)
    with pytest.raises(UnreadableAnswerError):
        open_answer(change(sealed[0], ciphertext=sealed[1].ciphertext), PERMITS[0], PRIVATE)


@given(st.data())
def test_one_flipped_bit_anywhere_makes_it_unreadable(data: st.DataObject) -> None:
    [sealed] = seal_batch(PUBLIC, "answer-1", LINES[:1], CHANCE)
    field = data.draw(st.sampled_from(["encapsulation", "ciphertext"]))
    flipped = bytearray(getattr(sealed, field))
    # The highest bit of an X25519 key is ignored by RFC 7748; HPKE binds the encapsulation's bytes all the same.
    bit = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UnreadableAnswerError):
        open_answer(change(sealed, **{field: bytes(flipped)}), PERMITS[0], PRIVATE)


@given(st.binary(max_size=200), st.binary(max_size=100), st.integers(0, 1000))
def test_arbitrary_bytes_are_merely_unreadable(encapsulation: bytes, ciphertext: bytes, counter: int) -> None:
    sealed = SealedAnswer(key="k", encapsulation=encapsulation, counter=counter, ciphertext=ciphertext)
    with pytest.raises(UnreadableAnswerError):
        open_answer(sealed, PERMITS[0], PRIVATE)
    assert open_batch([(sealed, PERMITS[0])], {"k": PRIVATE}) == [None]


def test_a_batch_opens_what_can_be_opened() -> None:
    mine = seal_batch(PUBLIC, "answer-1", LINES, CHANCE)
    public = OTHER.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    old = seal_batch(public, "answer-0", LINES[:1], CHANCE)
    answers = [
        (mine[1], PERMITS[1]),
        (old[0], PERMITS[0]),
        (mine[0], PERMITS[1]),
        (change(mine[2], key="unknown"), PERMITS[2]),
        (change(mine[3], encapsulation=mine[3].encapsulation[::-1]), PERMITS[3]),
        (mine[4], PERMITS[4]),
    ]
    assert open_batch(answers, {"answer-1": PRIVATE, "answer-0": OTHER}) == [
        LINES[1][1], LINES[0][1], None, None, None, LINES[4][1],
    ]  # fmt: skip


def test_a_batch_opens_each_encapsulation_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from chukan.platform import sealed as module  # noqa: PLC0415 - the module itself is changed here

    opened: list[bytes] = []
    real = module._open_key

    def counting(encapsulation: bytes, private: X25519PrivateKey) -> AESGCM:
        opened.append(encapsulation)
        return real(encapsulation, private)

    monkeypatch.setattr(module, "_open_key", counting)
    sealed = seal_batch(PUBLIC, "answer-1", LINES, CHANCE)
    open_batch(list(zip(sealed, PERMITS, strict=True)), {"answer-1": PRIVATE})
    assert len(opened) == 1


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_has_one_to_a_thousand_lines(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 1,000"):
        seal_batch(PUBLIC, "answer-1", [(PERMITS[0], b"")] * count, CHANCE)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32)], ids=["none", "short", "long", "small order"])
def test_a_useless_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        seal_batch(public, "answer-1", LINES, CHANCE)


SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_point_of_small_order_is_no_answer_key(point: str) -> None:
    for highest in (0, 0x80):
        public = bytes.fromhex(point)[:-1] + bytes([bytes.fromhex(point)[-1] | highest])
        assert not is_answer_key(public)
        # The list is right: the library finds the same when it computes with the point.
        with pytest.raises(ValueError, match="shared key"):
            PRIVATE.exchange(X25519PublicKey.from_public_bytes(public))


@given(st.binary(max_size=40))
def test_a_key_that_is_accepted_can_be_sealed_to(public: bytes) -> None:
    if is_answer_key(public):
        assert len(seal_batch(public, "answer-1", LINES, CHANCE)) == 5
    else:
        with pytest.raises(ValueError, match="key"):
            seal_batch(public, "answer-1", LINES, CHANCE)
