"""Evidence outlives content: digests and a signature still prove who sent how many items, and which (TXR-04)."""

import hashlib
from typing import Protocol

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chukan.errors import Problem
from chukan.platform.envelope import Evidence, Opener, Signer, verify_evidence

pytestmark = pytest.mark.requirement("TXR-04")

PATH = "/exchange/v1/answers"
ITEMS = [b'{"id":"1","secret":"content that will be removed"}', b'{"id":"2"}', b'{"id":"3"}']
change = msgspec.structs.replace


class Ends(Protocol):
    network: Signer
    exchange: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


@pytest.fixture
def evidence(ends: Ends) -> Evidence:
    signed = ends.network.request("POST", PATH, ITEMS)
    return ends.opener.request("POST", PATH, signed.headers, signed.body).evidence


def refused(evidence: Evidence, ends: Ends) -> None:
    with pytest.raises(Problem, match="signature_invalid"):
        verify_evidence(evidence, ends.network_key.public_key())


def test_it_verifies_without_the_content(ends: Ends, evidence: Evidence) -> None:
    stored = msgspec.json.encode(evidence)
    assert b"content" not in stored.replace(b"content-digest", b"")
    restored = msgspec.json.decode(stored, type=Evidence)
    verify_evidence(restored, ends.network_key.public_key())
    # Whoever still has an item can show that it was this one.
    assert restored.digests[1] == hashlib.sha256(ITEMS[1]).digest()


def test_a_replys_evidence_names_the_request(ends: Ends) -> None:
    asked = ends.exchange.request("POST", PATH, ITEMS)
    reply = ends.network.reply([b'{"id":"1","status":"accepted"}'], asked.message)
    kept = ends.opener.reply(200, reply.headers, reply.body, to=asked.message).evidence
    verify_evidence(kept, ends.network_key.public_key())
    assert f'"chukan-in-reply-to": {asked.message}\n'.encode() in kept.base
    assert kept.key == "network"


def test_an_item_can_neither_be_added_nor_removed_nor_moved(ends: Ends, evidence: Evidence) -> None:
    one, two, three = evidence.digests
    for digests in ([one, two], [one, two, three, three], [two, one, three], [], [one + two, three]):
        refused(change(evidence, digests=digests), ends)


def test_two_digests_do_not_pass_for_one(ends: Ends, evidence: Evidence) -> None:
    """The digests are hashed as one string; their borders must not be movable."""
    joined = b"".join(evidence.digests)
    refused(change(evidence, digests=[joined[:31], joined[31:63], joined[63:]]), ends)
    refused(change(evidence, digests=[joined]), ends)


def test_another_key_or_another_name_does_not_verify(ends: Ends, evidence: Evidence) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).public_key()
    with pytest.raises(Problem, match="signature_invalid"):
        verify_evidence(evidence, other)
    refused(change(evidence, key="exchange-east"), ends)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_does_not_verify(ends: Ends, evidence: Evidence, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["base", "signature", "digests"]))
    value = evidence.digests[1] if field == "digests" else getattr(evidence, field)
    flipped = bytearray(value)
    bit = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    changed: object = bytes(flipped)
    if field == "digests":
        changed = [evidence.digests[0], changed, evidence.digests[2]]
    refused(change(evidence, **{field: changed}), ends)


def test_a_signature_over_something_else_is_no_evidence(ends: Ends) -> None:
    """The network's key also signs other things; none of them may pass for a list of items."""
    for base in (b"", b"\xff\xfe", b'"chukan-item-digests": sha-256=:AAAA:', b"chukan-permit-list-v1\n" + bytes(52)):
        refused(Evidence(base, ends.network_key.sign(base), "network", [bytes(32)]), ends)
