"""The signatures are RFC 9421: its example verifies, and an independent implementation agrees in both directions."""

import datetime as dt
import json
from base64 import b64decode
from typing import NamedTuple, Protocol

import http_message_signatures
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform import envelope
from chukan.platform.envelope import Opener, Signer

pytestmark = pytest.mark.requirement("TXR-04")

PATH = "/exchange/v1/notices"


class Ends(Protocol):
    clock: ManualClock
    network: Signer
    exchange: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


class Request(NamedTuple):
    method: str
    url: str
    headers: dict[str, str]


class Response(NamedTuple):
    status_code: int
    headers: dict[str, str]
    request: Request


def test_the_example_of_the_rfc_verifies() -> None:
    """RFC 9421 B.2.6."""
    key = load_pem_public_key(
        b"-----BEGIN PUBLIC KEY-----\n"
        b"MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n"
        b"-----END PUBLIC KEY-----\n"
    )
    assert isinstance(key, Ed25519PublicKey)
    values = {
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "@method": "POST",
        "@path": "/foo",
        "@authority": "example.com",
        "content-type": "application/json",
        "content-length": "18",
    }
    parameters = f'{envelope._names(list(values))};created=1618884473;keyid="test-key-ed25519"'
    base = envelope._base(list(values), values, parameters)
    assert base.endswith(
        b'"content-length": 18\n"@signature-params": ("date" "@method" "@path" "@authority" "content-type" '
        b'"content-length");created=1618884473;keyid="test-key-ed25519"'
    )
    signature = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    key.verify(b64decode(signature), base)


class Keys(http_message_signatures.HTTPSignatureKeyResolver):
    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        return self._key.public_key()

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        return self._key


def library_verifies(message: Request | Response, key: Ed25519PrivateKey) -> set[str]:
    """Verify by the library and return the names of the components that it saw signed."""
    verifier = http_message_signatures.HTTPMessageVerifier(
        signature_algorithm=http_message_signatures.algorithms.ED25519, key_resolver=Keys(key)
    )
    # The library reads the machine's clock; the tests' clock stands in the past or the future of it.
    [result] = verifier.verify(message, max_age=dt.timedelta(days=36500))
    return {name.strip('"') for name in result.covered_components if "signature-params" not in name}


def past(ends: Ends) -> None:
    """Move both ends to an instant before now, because the library refuses signatures of the future."""
    ends.clock._now = dt.datetime(2025, 4, 1, tzinfo=dt.UTC)


def test_the_library_verifies_our_request(ends: Ends) -> None:
    past(ends)
    signed = ends.network.request("POST", PATH, [b'{"id":1}'])
    seen = library_verifies(Request("POST", f"https://exchange.test{PATH}", dict(signed.headers)), ends.network_key)
    assert seen == {"@method", "@path", "content-digest", "chukan-item-digests", "chukan-message"}


def test_the_library_verifies_our_reply_and_refusal(ends: Ends) -> None:
    past(ends)
    asked = ends.exchange.request("POST", PATH, [b"{}"])
    request = Request("POST", f"https://network.test{PATH}", dict(asked.headers))
    reply = ends.network.reply([b"{}"], asked.message)
    seen = library_verifies(Response(200, dict(reply.headers), request), ends.network_key)
    assert seen == {"@status", "content-digest", "chukan-item-digests", "chukan-message", "chukan-in-reply-to"}
    refusal = ends.network.refusal(Problem("busy"), asked.message)
    seen = library_verifies(Response(503, dict(refusal.headers), request), ends.network_key)
    assert seen == {"@status", "content-digest", "chukan-message", "chukan-in-reply-to"}


def test_we_open_what_the_library_signed(ends: Ends) -> None:
    item = b'{"id":"1"}'
    ours = ends.network.request("POST", PATH, [item])
    fields = ("content-digest", "chukan-item-digests", "chukan-message")
    request = Request("POST", f"https://exchange.test{PATH}", {name: ours.headers[name] for name in fields})
    signer = http_message_signatures.HTTPMessageSigner(
        signature_algorithm=http_message_signatures.algorithms.ED25519, key_resolver=Keys(ends.network_key)
    )
    signer.sign(
        request,
        key_id="network",
        created=ends.clock.now(),
        label="chukan",
        tag="chukan-network-v1",
        use_existing_digest=True,
        covered_component_ids=("@method", "@path", *fields),
    )
    opened = ends.opener.request("POST", PATH, request.headers, ours.body)
    assert opened.items == [item]
    # Ed25519 is deterministic: both made the same signature, byte for byte.
    assert request.headers["Signature"] == ours.headers["signature"]


def test_the_content_digest_is_the_one_of_rfc_9530(ends: Ends) -> None:
    """RFC 9530 appendix B.1: the digest of ``{"hello": "world"}`` and a line feed."""
    body = json.dumps({"hello": "world"}).encode() + b"\n"
    digest = "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg="
    assert envelope._content_fields(body, ends.network.request("POST", PATH, [b"{}"]).message)["content-digest"] == (
        f"sha-256=:{digest}:"
    )
