"""What is sealed opens in its own place and nowhere else; digests of two agencies, or two domains, never meet."""

import hashlib
import hmac
import os
import struct
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from chukan.tenants.sealing import DOMAINS, TABLES, AgencyKeys, KeySet, SealError, answer_id

DATA, INDEX, ANSWER = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
OTHER = b"\x07" * 32


def agency(number: int = 42, **changes: object) -> AgencyKeys:
    made: dict[str, object] = {"data": {1: DATA}, "index": INDEX, "answer": {1: ANSWER}} | changes
    return AgencyKeys(KeySet(agency=number, **made), os.urandom)  # type: ignore[arg-type]


tables = st.sampled_from(sorted(TABLES))
rows = st.binary(min_size=1, max_size=40)
values = st.binary(max_size=200)


def test_a_sealed_value_has_exactly_the_bytes_of_the_format() -> None:
    nonce = bytes(range(12))
    keys = AgencyKeys(KeySet(agency=42, data={3: DATA}, index=INDEX, answer={1: ANSWER}), lambda n: nonce[:n])
    aad = struct.pack(">I", 42) + b"\0\x04copy" + b"\0\x03row" + struct.pack(">I", 3)
    expected = b"\x01" + struct.pack(">I", 3) + nonce + AESGCM(DATA).encrypt(nonce, b"clear", aad)
    assert keys.seal("copy", b"row", b"clear") == expected
    assert expected.hex() == ("0100000003000102030405060708090a0b" + AESGCM(DATA).encrypt(nonce, b"clear", aad).hex())


def test_a_digest_is_an_hmac_of_length_prefixed_domain_and_value() -> None:
    message = b"\x09addressee" + struct.pack(">I", 5) + b"A0001"
    assert agency().digest("addressee", b"A0001") == hmac.new(INDEX, message, hashlib.sha256).digest()


@given(table=tables, row=rows, value=values)
def test_what_was_sealed_opens_in_its_place(table: str, row: bytes, value: bytes) -> None:
    sealed = agency().seal(table, row, value)
    assert agency().open(table, row, sealed) == value
    assert len(sealed) == len(value) + 33


@pytest.mark.requirement("TEN-01")
@given(table=tables, row=rows, value=values, other=tables, other_row=rows)
def test_another_agency_table_or_row_opens_nothing(
    table: str, row: bytes, value: bytes, other: str, other_row: bytes
) -> None:
    sealed = agency().seal(table, row, value)
    # The same keys on purpose: the place alone must be enough to refuse.
    with pytest.raises(SealError):
        agency(43).open(table, row, sealed)
    if other != table:
        with pytest.raises(SealError):
            agency().open(other, row, sealed)
    if other_row != row:
        with pytest.raises(SealError):
            agency().open(table, other_row, sealed)
    with pytest.raises(SealError):
        agency(data={1: OTHER}).open(table, row, sealed)


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    keys = agency(data={1: DATA, 0x80000001: OTHER})
    keys_one = agency()
    sealed = keys_one.seal("answer", b"row", b"a value of some length")
    for place in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(SealError):
            keys.open("answer", b"row", bytes(flipped))
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            keys.open("answer", b"row", sealed[:length])
    with pytest.raises(SealError):
        keys.open("answer", b"row", sealed + b"\0")


def test_two_sealings_of_one_value_share_nothing_but_the_head() -> None:
    keys = agency()
    seen = {keys.seal("code", b"row", b"value")[5:] for _ in range(100)}
    assert len({each[:12] for each in seen}) == 100
    assert len({each[12:] for each in seen}) == 100


def test_the_newest_version_seals_and_every_version_opens() -> None:
    old = agency().seal("copy", b"row", b"old")
    keys = agency(data={1: DATA, 2: OTHER})
    new = keys.seal("copy", b"row", b"new")
    assert new[1:5] == struct.pack(">I", 2)
    assert keys.open("copy", b"row", old) == b"old"
    assert keys.open("copy", b"row", new) == b"new"
    with pytest.raises(SealError):
        agency().open("copy", b"row", new)


def test_a_version_made_by_another_process_is_fetched_and_an_unknown_one_is_asked_for_once() -> None:
    asked = count()
    both = KeySet(agency=42, data={1: DATA, 2: OTHER}, index=INDEX, answer={1: ANSWER})

    def reload() -> KeySet:
        next(asked)
        return both

    keys = AgencyKeys(KeySet(agency=42, data={1: DATA}, index=INDEX, answer={1: ANSWER}), os.urandom, reload)
    new = agency(data={2: OTHER}).seal("copy", b"row", b"new")
    assert keys.open("copy", b"row", new) == b"new"
    unknown = agency(data={9: OTHER}).seal("copy", b"row", b"new")
    for _ in range(5):
        with pytest.raises(SealError):
            keys.open("copy", b"row", unknown)
    assert next(asked) == 2


@given(value=values)
def test_digests_of_two_domains_or_two_agencies_never_meet(value: bytes) -> None:
    here = {agency().digest(domain, value) for domain in DOMAINS}
    there = {agency(index=OTHER).digest(domain, value) for domain in DOMAINS}
    assert len(here) == len(DOMAINS)
    assert here.isdisjoint(there)
    assert all(len(each) == 32 for each in here)


def test_a_persons_label_is_stable_and_is_not_the_persons_digest() -> None:
    person = agency().digest("addressee", b"A0001")
    assert agency().label(person) == agency().label(person)
    assert agency().label(person) != person
    with pytest.raises(ValueError, match="32 bytes"):
        agency().label(b"A0001")


def test_answer_keys_are_found_by_id_old_ones_too() -> None:
    keys = agency(answer={1: ANSWER, 2: OTHER})
    public = X25519PrivateKey.from_private_bytes(OTHER).public_key().public_bytes_raw()
    assert keys.answer_public() == public
    assert keys.answer_key_id() == answer_id(public)
    old = agency().answer_key_id()
    assert keys.answer_private(old).private_bytes_raw() == ANSWER
    with pytest.raises(SealError):
        keys.answer_private("ak-0000000000000000")


def test_nothing_works_after_the_keys_were_forgotten() -> None:
    keys = agency()
    sealed = keys.seal("copy", b"row", b"value")
    keys.forget()
    with pytest.raises(SealError):
        keys.open("copy", b"row", sealed)
    with pytest.raises(SealError):
        keys.seal("copy", b"row", b"value")
    with pytest.raises(SealError):
        keys.digest("code", b"value")
    with pytest.raises(SealError):
        keys.answer_key_id()


def test_a_misspelt_table_domain_or_an_empty_row_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="known table"):
        agency().seal("copies", b"row", b"")
    with pytest.raises(ValueError, match="known table"):
        agency().seal("copy", b"", b"")
    with pytest.raises(ValueError, match="domain"):
        agency().digest("person", b"")


def test_neither_errors_nor_representations_show_a_value_or_a_key() -> None:
    keys = agency()
    sealed = bytearray(keys.seal("copy", b"A0001", b"secret"))
    sealed[-1] ^= 1
    with pytest.raises(SealError) as caught:
        keys.open("copy", b"A0001", bytes(sealed))
    shown = f"{caught.value!r} {caught.value} {keys!r} {KeySet(42, {1: DATA}, INDEX, {1: ANSWER})!r}"
    assert "A0001" not in shown
    assert "secret" not in shown
    assert repr(DATA)[2:20] not in shown


def test_keys_of_a_wrong_length_or_none_are_refused() -> None:
    wrong: list[dict[str, Any]] = [{"data": {1: b"short"}}, {"data": {}}, {"index": b""}, {"answer": {}}]
    for changes in wrong:
        with pytest.raises(ValueError, match="key"):
            agency(**changes)
    with pytest.raises(ValueError, match="number"):
        agency(0)
