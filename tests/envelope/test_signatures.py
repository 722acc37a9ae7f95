"""A message is opened only as it was sent: by whom, to where, when, and every byte of it (TXR-04)."""

import json
import uuid
from collections.abc import Callable
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chukan.chance import SeededChance
from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.envelope import NOBODY, Opener, Signed, Signer, message_id

pytestmark = pytest.mark.requirement("TXR-04")

PATH = "/exchange/v1/notices"
ITEMS = [b'{"id":"01a20700-0000-7000-8000-000000000001"}', b'{"id":"01a20700-0000-7000-8000-000000000002"}']


class Ends(Protocol):
    clock: ManualClock
    network: Signer
    exchange: Signer
    stranger: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


def refused(opener: Opener, signed: Signed, code: str = "signature_invalid") -> None:
    with pytest.raises(Problem, match=f"^{code}$"):
        opener.request("POST", PATH, signed.headers, signed.body)


def with_header(signed: Signed, name: str, change: Callable[[str], str]) -> Signed:
    return signed._replace(headers={**signed.headers, name: change(signed.headers[name])})


def test_a_request_opens_as_it_was_sent(ends: Ends) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    opened = ends.opener.request("POST", PATH, signed.headers, signed.body)
    assert opened.sender == "network"
    assert opened.message == signed.message
    assert opened.items == ITEMS
    assert opened.sent_at == ends.clock.now()


def test_header_names_may_come_in_any_case(ends: Ends) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    shouted = {name.upper(): value for name, value in signed.headers.items()}
    assert ends.opener.request("POST", PATH, shouted, signed.body).items == ITEMS


def test_a_reply_opens_for_the_request_that_it_answers(ends: Ends) -> None:
    asked = ends.network.request("POST", PATH, ITEMS)
    reply = ends.exchange.reply([b'{"id":1}'], asked.message)
    opened = ends.opener.reply(200, reply.headers, reply.body, to=asked.message)
    assert (opened.sender, opened.items) == ("exchange-east", [b'{"id":1}'])


def test_a_reply_to_another_request_is_invalid(ends: Ends) -> None:
    asked, other = (ends.network.request("POST", PATH, ITEMS) for _ in range(2))
    reply = ends.exchange.reply([b"{}"], other.message)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.reply(200, reply.headers, reply.body, to=asked.message)
    renamed = {**reply.headers, "chukan-in-reply-to": str(asked.message)}
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.reply(200, renamed, reply.body, to=asked.message)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.reply(201, reply.headers, reply.body, to=other.message)


def test_a_request_is_no_reply_and_a_reply_no_request(ends: Ends) -> None:
    asked = ends.network.request("POST", PATH, ITEMS)
    reply = ends.exchange.reply(ITEMS, asked.message)
    refused(ends.opener, reply)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.reply(200, asked.headers, asked.body, to=asked.message)
    refusal = ends.exchange.refusal(Problem("busy"), asked.message)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.reply(503, refusal.headers, refusal.body, to=asked.message)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.refusal(200, reply.headers, reply.body, to=asked.message)


def test_a_refusal_says_who_what_and_to_which_request(ends: Ends) -> None:
    asked = ends.network.request("POST", PATH, ITEMS)
    refusal = ends.exchange.refusal(Problem("busy", retry_after_s=7), asked.message)
    assert (refusal.status, refusal.headers["retry-after"]) == (503, "7")
    assert refusal.headers["content-type"] == "application/problem+json"
    sender, document = ends.opener.refusal(503, refusal.headers, refusal.body, to=asked.message)
    assert (sender, document.code, document.retry_after_s) == ("exchange-east", "busy", 7)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.refusal(503, refusal.headers, refusal.body, to=uuid.UUID(int=1))
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.refusal(503, refusal.headers, refusal.body.replace(b"busy", b"full"), to=asked.message)


def test_what_can_be_retried_says_when(ends: Ends) -> None:
    assert ends.exchange.refusal(Problem("unavailable"), NOBODY).headers["retry-after"] == "1"
    assert "retry-after" not in ends.exchange.refusal(Problem("not_found"), NOBODY).headers


@pytest.mark.parametrize(("method", "path"), [("PUT", PATH), ("POST", PATH + "/"), ("POST", "/exchange/v1/answers")])
def test_a_request_cannot_be_led_elsewhere(ends: Ends, method: str, path: str) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    with pytest.raises(Problem, match="signature_invalid"):
        ends.opener.request(method, path, signed.headers, signed.body)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_of_the_body_is_invalid(ends: Ends, data: st.DataObject) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    bit = data.draw(st.integers(0, len(signed.body) * 8 - 1))
    body = bytearray(signed.body)
    body[bit // 8] ^= 1 << bit % 8
    refused(ends.opener, signed._replace(body=bytes(body)))


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_character_of_a_signed_header_is_invalid(ends: Ends, data: st.DataObject) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    name = data.draw(st.sampled_from([name for name in sorted(signed.headers) if name != "content-type"]))
    value = signed.headers[name]
    place = data.draw(st.integers(0, len(value) - 1))
    letter = data.draw(st.characters(max_codepoint=0x2FF).filter(lambda new: new != value[place]))
    refused(ends.opener, with_header(signed, name, lambda old: old[:place] + letter + old[place + 1 :]))


@pytest.mark.parametrize(
    "name",
    ["content-digest", "chukan-item-digests", "chukan-message", "signature-input", "signature"],
)
def test_a_signed_header_stands_once(ends: Ends, name: str) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    refused(ends.opener, signed._replace(headers={key: v for key, v in signed.headers.items() if key != name}))
    refused(ends.opener, signed._replace(headers={**signed.headers, name.title(): signed.headers[name]}))
    refused(ends.opener, with_header(signed, name, lambda _: ""))
    refused(ends.opener, with_header(signed, name, lambda old: f"{old}, {old}"))
    refused(ends.opener, with_header(signed, name, lambda old: f"{old}\n"))


PARAMETERS: dict[str, tuple[str, str]] = {
    "other label": ("chukan=", "sig1="),
    "fewer components": (' "chukan-message"', ""),
    "no path": (' "@path"', ""),
    "no components": ('("@method" "@path" "content-digest" "chukan-item-digests" "chukan-message")', "()"),
    "other order": ('"@method" "@path"', '"@path" "@method"'),
    "other algorithm": ('alg="ed25519"', 'alg="rsa-v1_5-sha256"'),
    "no algorithm": (';alg="ed25519"', ""),
    "other tag": ("chukan-network-v1", "chukan-network-v2"),
    "no tag": (';tag="chukan-network-v1"', ""),
    "unknown parameter": (";alg=", ";nonce=1;alg="),
    "two parameters": (";alg=", ';keyid="network";alg='),
    "known other sender": ('keyid="network"', 'keyid="exchange-east"'),
    "unknown sender": ('keyid="network"', 'keyid="somebody"'),
    "no sender": ('keyid="network"', 'keyid=""'),
    "zero in front": (";created=", ";created=0"),
    "negative time": (";created=", ";created=-"),
}


@pytest.mark.parametrize("how", PARAMETERS)
def test_other_parameters_are_invalid(ends: Ends, how: str) -> None:
    before, after = PARAMETERS[how]
    signed = ends.network.request("POST", PATH, ITEMS)
    assert before in signed.headers["signature-input"]
    refused(ends.opener, with_header(signed, "signature-input", lambda old: old.replace(before, after)))


def test_a_second_spelling_of_the_signature_is_invalid(ends: Ends) -> None:
    """The last letter of 64 bytes in base64 has four bits that mean nothing; only zeros are accepted there."""
    signed = ends.network.request("POST", PATH, ITEMS)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(signed.headers["signature"][-4]) + 1]
    refused(ends.opener, with_header(signed, "signature", lambda old: old[:-4] + last + old[-3:]))


def test_an_unsigned_message_is_invalid(ends: Ends) -> None:
    signed = ends.network.request("POST", PATH, ITEMS)
    refused(ends.opener, signed._replace(headers={"content-type": "application/json"}))


def test_a_stranger_who_signs_in_the_networks_name_is_invalid(ends: Ends) -> None:
    refused(ends.opener, ends.stranger.request("POST", PATH, ITEMS))


@pytest.mark.parametrize(("shift_s", "code"), [(300, None), (301, "message_stale"), (100_000, "message_stale")])
def test_an_old_message_is_stale(ends: Ends, shift_s: int, code: str | None) -> None:
    ends.clock.advance(0.75)  # to a whole second, for a signature's time has no fraction
    signed = ends.network.request("POST", PATH, ITEMS)
    ends.clock.advance(shift_s)
    if code is None:
        ends.opener.request("POST", PATH, signed.headers, signed.body)
    else:
        refused(ends.opener, signed, code)


@pytest.mark.parametrize(("ahead_s", "stale"), [(30, False), (31, True), (100_000, True)])
def test_a_message_from_the_future_is_stale(ends: Ends, ahead_s: int, stale: bool) -> None:  # noqa: FBT001
    ahead = ManualClock(ends.clock.now())
    ahead.advance(ahead_s + 0.75)
    ends.clock.advance(0.75)
    signed = Signer("network", ends.network_key, ahead, SeededChance(3, ahead)).request("POST", PATH, ITEMS)
    if stale:
        refused(ends.opener, signed, "message_stale")
    else:
        ends.opener.request("POST", PATH, signed.headers, signed.body)


def test_a_stale_message_with_a_bad_signature_is_told_nothing_about_its_time(ends: Ends) -> None:
    signed = ends.stranger.request("POST", PATH, ITEMS)
    ends.clock.advance(1000)
    refused(ends.opener, signed)


def test_a_sender_may_have_a_second_key_while_it_changes_them(ends: Ends) -> None:
    second = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    opener = Opener({"network": ends.network_key.public_key(), "network#2": second.public_key()}, ends.clock)
    signer = Signer("network", second, ends.clock, SeededChance(5, ends.clock), key_id="network#2")
    signed = signer.request("POST", PATH, ITEMS)
    opened = opener.request("POST", PATH, signed.headers, signed.body)
    assert (opened.sender, opened.evidence.key) == ("network", "network#2")
    refused(ends.opener, signed)


@pytest.mark.parametrize("key_id", ["other", "network2", 'network"', "#1", "network#", "Network"])
def test_a_key_id_belongs_to_its_sender(ends: Ends, key_id: str) -> None:
    with pytest.raises(ValueError, match="key id"):
        Signer("network", ends.network_key, ends.clock, SeededChance(5, ends.clock), key_id=key_id)


def resigned(ends: Ends, change: Callable[[dict[str, object]], None]) -> Signed:
    """Return a message whose body says something else than its headers, with a good signature of the network."""
    genuine = ends.network.request("POST", PATH, ITEMS)
    envelope = json.loads(genuine.body)
    change(envelope)

    class Forger(Signer):
        def _wrap(self, items: object) -> tuple[bytes, uuid.UUID, object]:
            return json.dumps(envelope, separators=(",", ":")).encode(), genuine.message, ends.clock.now()

    return Forger("network", ends.network_key, ends.clock, SeededChance(1, ends.clock)).request("POST", PATH, ITEMS)


STATEMENTS: dict[str, Callable[[dict[str, object]], None]] = {
    "sender": lambda e: e.update(sender="exchange-east"),
    "message": lambda e: e.update(message=str(uuid.UUID(int=5))),
    "time": lambda e: e.update(sent_at="2026-11-23T03:00:01Z"),
    "an item": lambda e: e.update(items=[{"id": 1}, {"id": 2}]),
    "an item less": lambda e: e.update(items=[{"id": "01a20700-0000-7000-8000-000000000001"}]),
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_body_and_headers_make_one_statement(ends: Ends, what: str) -> None:
    refused(ends.opener, resigned(ends, STATEMENTS[what]))


def test_a_claimed_message_id_is_only_named_when_it_is_one() -> None:
    claimed = "01a20700-0000-7000-8000-000000000001"
    assert message_id({"Chukan-Message": claimed}) == uuid.UUID(claimed)
    for nonsense in (
        {},
        {"chukan-message": "x"},
        {"chukan-message": claimed.upper()},
        {"chukan-message": f"{{{claimed}}}"},
    ):
        assert message_id(nonsense) == NOBODY
    assert message_id({"chukan-message": claimed, "Chukan-Message": claimed}) == NOBODY
