"""What a permit list proves, entry by entry, and that its tree is the one of RFC 9162."""

import datetime as dt
import hashlib
import uuid

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform import permits
from chukan.platform.permits import PermitVerifier, sign_list
from chukan.platform.wire.network import Condition, InquirerPermit, ProviderPermit
from chukan.tenants import merkle

NOON = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
LIST = uuid.UUID("01a20700-0000-7000-8000-000000000001")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

# The tree heads of the reference implementation of Certificate Transparency (RFC 6962, whose tree RFC 9162 keeps).
REFERENCE_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
REFERENCE_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def tree_head(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162 §2.1.1, word by word."""
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_head(entries[:split]) + tree_head(entries[split:])).digest()


def inclusion_path(place: int, entries: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162 §2.1.3.1, word by word."""
    if len(entries) == 1:
        return []
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if place < split:
        return [*inclusion_path(place, entries[:split]), tree_head(entries[split:])]
    return [*inclusion_path(place - split, entries[split:]), tree_head(entries[:split])]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_tree_has_the_roots_of_the_reference_implementation(size: int) -> None:
    leaves = [bytes.fromhex(leaf) for leaf in REFERENCE_LEAVES[:size]]
    [first, *_] = sign_list(leaves, list_id=LIST, key_id="k", key=KEY)
    message = (
        b"chukan-permit-list-v1\n" + LIST.bytes + size.to_bytes(4, "big") + bytes.fromhex(REFERENCE_ROOTS[size - 1])
    )
    KEY.public_key().verify(first.signature, message)


@pytest.mark.parametrize("size", [*range(1, 35), 63, 64, 65, 127, 128, 129, 999, 1000])
def test_every_entry_has_the_path_of_the_rfc(size: int) -> None:
    bodies = [str(number).encode() for number in range(size)]
    entries = sign_list(bodies, list_id=LIST, key_id="k", key=KEY)
    for index in {0, 1 % size, size // 2, size - 2 if size > 1 else 0, size - 1}:
        entry = entries[index]
        assert (entry.index, entry.size, entry.body) == (index, size, bodies[index])
        assert entry.path == inclusion_path(index, bodies)
        assert len(entry.path) <= 10
    assert len({entry.signature for entry in entries}) == 1


@given(st.integers(1, 1000), st.data())
def test_a_path_leads_to_the_root_from_its_own_place_only(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    levels = permits._levels(leaves)
    index = data.draw(st.integers(0, size - 1))
    elsewhere = data.draw(st.integers(-2, 1100))
    path = permits._path(levels, index)
    assert permits._root(leaves[index], index, size, path) == levels[-1][0]
    if elsewhere != index:
        assert permits._root(leaves[index], elsewhere, size, path) != levels[-1][0]


@given(st.integers(1, 1000), st.integers(0, 1100), st.integers(0, 12))
def test_index_size_and_path_length_must_fit(size: int, index: int, steps: int) -> None:
    fitting = len(inclusion_path(index, [b""] * size)) if index < size else -1
    root = permits._root(b"x" * 32, index, size, [b"y" * 32] * steps)
    assert (root is not None) == (steps == fitting)


def test_a_path_step_of_another_length_leads_nowhere() -> None:
    assert permits._root(b"x" * 32, 0, 2, [b"y" * 33]) is None
    assert permits._root(b"x" * 32, 0, 2, [b"y" * 31]) is None


@pytest.mark.parametrize("size", [0, 1001])
def test_a_list_has_one_to_a_thousand_entries(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 1,000"):
        sign_list([b"{}"] * size, list_id=LIST, key_id="k", key=KEY)


@pytest.mark.requirement("PRV-02")
def test_the_providers_face_carries_what_the_law_demands() -> None:
    """施行令26条1項, 命令85号41条1項: code, item, both names, time, organisation, affair, non-disclosure, validity."""
    demanded = {
        "code", "kind", "items", "inquirer", "provider", "asked_at", "department", "affair", "withheld", "expires_at",
    }  # fmt: skip
    fields = {field.name: field for field in msgspec.structs.fields(ProviderPermit)}
    assert demanded <= fields.keys()
    # Nothing but the flag may be left out of a notice.
    assert {name for name in demanded if not fields[name].required} == {"withheld"}


@pytest.mark.requirement("PRV-02")
def test_an_inquirers_face_has_no_code_of_the_provider() -> None:
    assert "code" not in {field.name for field in msgspec.structs.fields(InquirerPermit)}


def signed_permit(expires_at: dt.datetime) -> permits.SignedPermit:
    permit = ProviderPermit(
        permit=uuid.UUID(int=7), code=b"c", inquirer="1" * 16, provider="2" * 16, department="d", affair="A" * 16,
        procedure="P" * 16, kind="K" * 16, items=[], condition=Condition(), asked_at=NOON, issued_at=NOON,
        expires_at=expires_at, answer_key="a", answer_key_public=bytes(range(32)), route="r",
    )  # fmt: skip
    return sign_list([msgspec.json.encode(permit)], list_id=LIST, key_id="k", key=KEY)[0]


@pytest.mark.requirement("PRV-03")
@pytest.mark.parametrize(
    ("waited_s", "lapsed"), [(0.0, False), (597.999, False), (598.0, True), (600.0, True), (10_000.0, True)]
)
def test_a_permit_lapses_at_its_expiry_less_the_skew(waited_s: float, lapsed: bool) -> None:  # noqa: FBT001
    clock = ManualClock(NOON)
    verifier = PermitVerifier({"k": KEY.public_key()}, clock, skew_s=2.0)
    permit = verifier.verify(signed_permit(NOON + dt.timedelta(seconds=600)))
    clock.advance(waited_s)
    if lapsed:
        with pytest.raises(Problem, match="permit_expired"):
            verifier.check_current(permit)
    else:
        verifier.check_current(permit)


@pytest.mark.requirement("PRV-01")
def test_a_permit_whose_validity_ends_before_it_begins_is_forged() -> None:
    verifier = PermitVerifier({"k": KEY.public_key()}, ManualClock(NOON), skew_s=2.0)
    for expires_at in (NOON, NOON - dt.timedelta(seconds=1)):
        with pytest.raises(Problem, match="permit_forged"):
            verifier.verify(signed_permit(expires_at))
