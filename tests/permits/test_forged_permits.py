"""Every way to bend a permit that we could think of ends in ``permit_forged`` (PIA 不正な提供)."""

import datetime as dt
import uuid
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform import permits
from chukan.platform.permits import PermitVerifier, sign_list
from chukan.platform.wire.network import Condition, InquirerPermit, ProviderPermit, SignedPermit
from chukan.tenants import merkle

pytestmark = pytest.mark.requirement("PRV-01")

NOON = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
LIST = uuid.UUID("01a20700-0000-7000-8000-000000000001")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def provider_permit(number: int) -> ProviderPermit:
    return ProviderPermit(
        permit=uuid.UUID(int=number),
        code=b"provider-side code",
        inquirer="1310000000000001",
        provider="2820000000000001",
        department="福祉課",
        affair="JM0000000000001A",
        procedure="JT0000000000001A",
        kind="TM00000000000002",
        items=["TK00000000000001"],
        condition=Condition(),
        asked_at=NOON,
        issued_at=NOON,
        expires_at=NOON + dt.timedelta(minutes=10),
        answer_key="answer-1",
        answer_key_public=bytes(range(32)),
        route="r-1",
    )


def inquirer_permit(number: int) -> InquirerPermit:
    return InquirerPermit(
        permit=uuid.UUID(int=number),
        request=uuid.UUID(int=number + 1000),
        inquirer="1310000000000001",
        provider="2820000000000001",
        affair="JM0000000000001A",
        procedure="JT0000000000001A",
        kind="TM00000000000002",
        items=["TK00000000000001"],
        issued_at=NOON,
        expires_at=NOON + dt.timedelta(minutes=10),
    )


def listed(*bodies: bytes, list_id: uuid.UUID = LIST) -> list[SignedPermit]:
    return sign_list(bodies, list_id=list_id, key_id="network-1", key=KEY)


ENTRIES = listed(*(msgspec.json.encode(provider_permit(number)) for number in range(5)))
change = msgspec.structs.replace


@pytest.fixture
def verifier() -> PermitVerifier:
    fresh = PermitVerifier({"network-1": KEY.public_key()}, ManualClock(NOON), skew_s=2.0)
    # The genuine list is known, so that what follows also tries to profit from what is remembered.
    assert [fresh.verify_provider(entry).permit.int for entry in ENTRIES] == [0, 1, 2, 3, 4]
    return fresh


def refused(verifier: PermitVerifier, signed: SignedPermit) -> None:
    with pytest.raises(Problem, match=r"^permit_forged$"):
        verifier.verify(signed)


BENT: dict[str, Callable[[SignedPermit], SignedPermit]] = {
    "body with a blank": lambda e: change(e, body=e.body + b" "),
    "empty body": lambda e: change(e, body=b""),
    "other list": lambda e: change(e, list_id=uuid.UUID(int=LIST.int + 1)),
    "next index": lambda e: change(e, index=e.index + 1),
    "negative index": lambda e: change(e, index=-1),
    "index beyond": lambda e: change(e, index=e.index + 5),
    "enormous index": lambda e: change(e, index=1 << 70),
    "larger size": lambda e: change(e, size=6),
    "smaller size": lambda e: change(e, size=4),
    "size zero": lambda e: change(e, size=0),
    "size beyond a list": lambda e: change(e, size=5000),
    "shorter path": lambda e: change(e, path=e.path[:-1]),
    "longer path": lambda e: change(e, path=[*e.path, e.path[-1]]),
    "no path": lambda e: change(e, path=[]),
    "turned path": lambda e: change(e, path=e.path[::-1]),
    "path of a neighbour": lambda e: change(e, path=ENTRIES[0].path),
    "place of a neighbour": lambda e: change(e, path=ENTRIES[0].path, index=0),
    "joined path steps": lambda e: change(e, path=[b"".join(e.path)]),
    "unknown key": lambda e: change(e, key="network-2"),
    "empty signature": lambda e: change(e, signature=b""),
    "cut signature": lambda e: change(e, signature=e.signature[:-1]),
    "longer signature": lambda e: change(e, signature=e.signature + b"\0"),
    "zero signature": lambda e: change(e, signature=bytes(64)),
}


@pytest.mark.parametrize("how", BENT)
def test_a_bent_entry_is_forged(verifier: PermitVerifier, how: str) -> None:
    refused(verifier, BENT[how](ENTRIES[2]))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_anywhere_is_forged(verifier: PermitVerifier, data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from(ENTRIES))
    field = data.draw(st.sampled_from(["body", "signature", "list_id", "path"]))
    step = data.draw(st.integers(0, len(entry.path) - 1))
    value = {"body": entry.body, "signature": entry.signature, "list_id": entry.list_id.bytes, "path": entry.path[step]}
    flipped = bytearray(value[field])
    bit = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    changed: object = bytes(flipped)
    if field == "list_id":
        changed = uuid.UUID(bytes=bytes(flipped))
    if field == "path":
        changed = [*entry.path[:step], changed, *entry.path[step + 1 :]]
    refused(verifier, change(entry, **{field: changed}))


FIELDS: dict[str, object] = {
    "permit": uuid.UUID(int=99),
    "code": b"another code",
    "inquirer": "9990000000000001",
    "provider": "9990000000000001",
    "department": "税務課",
    "affair": "JM0000000000009Z",
    "procedure": "JT0000000000009Z",
    "kind": "TM00000000000009",
    "items": ["TK00000000000001", "TK00000000000002"],
    "condition": Condition(period="1", year="2020"),
    "asked_at": NOON - dt.timedelta(days=1),
    "issued_at": NOON - dt.timedelta(days=1),
    "expires_at": NOON + dt.timedelta(days=1),
    "answer_key": "answer-2",
    "answer_key_public": bytes(range(1, 33)),
    "route": "somewhere else",
    "withheld": True,
    "replaces": uuid.UUID(int=1),
    "consent": True,
    "on_behalf_of": "9990000000000001",
    "provider_for": "9990000000000001",
}


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(ProviderPermit)])
def test_no_field_can_be_changed(verifier: PermitVerifier, field: str) -> None:
    body = msgspec.json.encode(change(provider_permit(2), **{field: FIELDS[field]}))
    refused(verifier, change(ENTRIES[2], body=body))


@pytest.mark.requirement("PRV-08")
def test_the_destination_is_under_the_networks_signature(verifier: PermitVerifier) -> None:
    """Where the answer goes and for whom it is sealed stand in the permit, and nobody on the way can change either."""
    permit = verifier.verify_provider(ENTRIES[2])
    assert (permit.route, permit.answer_key_public) == ("r-1", bytes(range(32)))
    for body in (
        ENTRIES[2].body.replace(b'"r-1"', b'"r-2"'),
        msgspec.json.encode(change(provider_permit(2), answer_key_public=bytes(32))),
    ):
        assert body != ENTRIES[2].body
        refused(verifier, change(ENTRIES[2], body=body))


def test_the_other_face_is_forged(verifier: PermitVerifier) -> None:
    [entry] = listed(msgspec.json.encode(inquirer_permit(1)))
    assert verifier.verify_inquirer(entry) == inquirer_permit(1)
    with pytest.raises(Problem, match="permit_forged"):
        verifier.verify_provider(entry)
    with pytest.raises(Problem, match="permit_forged"):
        verifier.verify_inquirer(ENTRIES[0])


def test_a_list_of_somebody_else_is_forged(verifier: PermitVerifier) -> None:
    body = ENTRIES[2].body
    refused(verifier, sign_list([body], list_id=LIST, key_id="network-1", key=OTHER_KEY)[0])
    refused(verifier, sign_list([body], list_id=LIST, key_id="somebody", key=OTHER_KEY)[0])


def test_an_inner_node_does_not_pass_for_an_entry(verifier: PermitVerifier) -> None:
    """The two children of a node are 64 bytes that hash to it, were it not for the prefix of leaf and node."""
    left, right = (merkle.leaf_hash(entry.body) for entry in ENTRIES[:2])
    above = ENTRIES[0].path[1:]
    refused(verifier, change(ENTRIES[0], body=left + right, index=0, size=3, path=above))
    refused(verifier, change(ENTRIES[0], body=b"\x01" + left + right, index=0, size=3, path=above))


NONSENSE = {
    "no JSON": b"permit",
    "not UTF-8": b'{"face":"provider","route":"\xff"}',
    "a list": b"[]",
    "no face": msgspec.json.encode(provider_permit(1)).replace(b'"face":"provider",', b""),
    "a third face": msgspec.json.encode(provider_permit(1)).replace(b'"provider"', b'"network"', 1),
    "an unknown field": msgspec.json.encode(provider_permit(1))[:-1] + b',"note":""}',
    "a naive instant": msgspec.json.encode(provider_permit(1)).replace(b"03:00:00Z", b"03:00:00"),
    "a short public key": msgspec.json.encode(change(provider_permit(1), answer_key_public=bytes(31))),
    "a public key of small order": msgspec.json.encode(change(provider_permit(1), answer_key_public=bytes(32))),
    "no code": msgspec.json.encode(change(provider_permit(1), code=b"")),
    "deep": b'{"face":' + b"[" * 20_000,
    "deep inside": msgspec.json.encode(provider_permit(1))[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_even_with_a_good_signature(verifier: PermitVerifier, what: str) -> None:
    refused(verifier, listed(NONSENSE[what])[0])


def test_what_was_verified_is_remembered_within_a_bound(
    verifier: PermitVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permits, "_REMEMBERED_MAX", 3)
    counted: list[bytes] = []

    class CountingKey:
        def verify(self, signature: bytes, data: bytes) -> None:
            counted.append(data)
            KEY.public_key().verify(signature, data)

    fresh = PermitVerifier({"network-1": CountingKey()}, ManualClock(NOON), skew_s=2.0)  # type: ignore[dict-item]
    lists = [listed(ENTRIES[0].body, list_id=uuid.UUID(int=number)) for number in range(5)]
    for entry in ENTRIES:
        fresh.verify(entry)
    assert len(counted) == 1
    for entries in lists:
        fresh.verify(entries[0])
    assert len(fresh._verified) == 3
    fresh.verify(lists[-1][0])
    assert len(counted) == 6
    fresh.verify(ENTRIES[0])
    assert len(counted) == 7


def test_a_failure_is_never_remembered(verifier: PermitVerifier) -> None:
    bent = change(ENTRIES[2], signature=bytes(64))
    before = len(verifier._verified)
    for _ in range(3):
        refused(verifier, bent)
    assert len(verifier._verified) == before
