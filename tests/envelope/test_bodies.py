"""Bodies: items keep their bytes, and hostile bodies meet a plain refusal."""

import json
import uuid
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chukan.chance import SeededChance
from chukan.clock import ManualClock
from chukan.errors import Problem
from chukan.platform.envelope import Opener, Signed, Signer

PATH = "/exchange/v1/notices"


class Ends(Protocol):
    clock: ManualClock
    network: Signer
    opener: Opener
    network_key: Ed25519PrivateKey


SPELLINGS = [
    b"{}",
    b'{ "id" : 1 }',
    b'{"id":1.50,"id":1e2}',
    b'{"a":"\\u6f22\\/","b":"\xe6\xbc\xa2"}',
    b'{"a":"\\ud83d\\ude00"}',
    b'{"n":123456789012345678901234567890,"m":-0,"f":1E-400}',
    b'{"nested":[[[{"x":[]}]]],\n\t"y":null}',
    b'{"n":"' + b"x" * 70_000 + b'"}',
]


@pytest.mark.parametrize("item", SPELLINGS, ids=range(len(SPELLINGS)))
def test_an_items_bytes_survive_unchanged(ends: Ends, item: bytes) -> None:
    signed = ends.network.request("POST", PATH, [b"{}", item, b"{}"])
    opened = ends.opener.request("POST", PATH, signed.headers, signed.body)
    assert opened.items == [b"{}", item, b"{}"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([None, 2]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_items_bytes_survive_unchanged(
    ends: Ends,
    values: list[dict[str, object]],
    ascii_only: bool,  # noqa: FBT001
    indent: int | None,
) -> None:
    text = [json.dumps(value, ensure_ascii=ascii_only, indent=indent) for value in values]
    items = [item.encode("utf-8", "replace") for item in text]
    signed = ends.network.request("POST", PATH, items)
    assert ends.opener.request("POST", PATH, signed.headers, signed.body).items == items


@pytest.mark.parametrize("item", [b"", b" {}", b"{}\n", b"[]", b"1", b'"x"'])
def test_what_would_not_survive_is_not_sent(ends: Ends, item: bytes) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        ends.network.request("POST", PATH, [item])


@pytest.mark.parametrize("count", [0, 1001])
def test_an_envelope_has_one_to_a_thousand_items(ends: Ends, count: int) -> None:
    with pytest.raises(ValueError, match="1 to 1,000"):
        ends.network.request("POST", PATH, [b"{}"] * count)
    with pytest.raises(ValueError, match="1 to 1,000"):
        ends.network.reply([b"{}"] * count, uuid.UUID(int=1))


def signed_body(ends: Ends, body: bytes) -> Signed:
    """Return a body of any kind under a good signature of the network."""

    class Forger(Signer):
        def _wrap(self, items: object) -> tuple[bytes, uuid.UUID, object]:
            return body, uuid.UUID(int=1), ends.clock.now()

    return Forger("network", ends.network_key, ends.clock, SeededChance(1, ends.clock)).request("POST", PATH, [b"{}"])


HEAD = b'{"message":"00000000-0000-0000-0000-000000000001","sender":"network","sent_at":"2026-11-23T03:00:00Z","items":'
HOSTILE = {
    "nothing": (b"", "malformed_json"),
    "no JSON": (b"envelope", "malformed_json"),
    "cut off": (HEAD + b"[{}", "malformed_json"),
    "more behind": (HEAD + b"[{}]}{}", "malformed_json"),
    "not UTF-8": (HEAD.replace(b"network", b"n\xffetwork") + b"[{}]}", "malformed_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + HEAD + b"[{}]}", "malformed_json"),
    "UTF-16": ((HEAD + b"[{}]}").decode().encode("utf-16"), "malformed_json"),
    "a list": (b"[]", "malformed_json"),
    "null": (b"null", "malformed_json"),
    "wrong types": (HEAD.replace(b'"network"', b"7") + b"[{}]}", "malformed_json"),
    "items as an object": (HEAD + b"{}}", "malformed_json"),
    "items as a text": (HEAD + b'"[{}]"}', "malformed_json"),
    "no items": (HEAD + b"[]}", "malformed_json"),
    "a naive time": (HEAD.replace(b"00Z", b"00") + b"[{}]}", "malformed_json"),
    "an unknown field": (HEAD + b'[{}],"more":1}', "malformed_json"),
    "a lone quote": (HEAD + b'["]}', "malformed_json"),
    "NaN": (HEAD + b"[NaN]}", "malformed_json"),
    "too many items": (HEAD + b"[" + b",".join([b"{}"] * 1001) + b"]}", "too_many_lines"),
    "very many items": (HEAD + b"[" + b",".join([b"0"] * 1_000_000) + b"]}", "too_many_lines"),
    "deep": (HEAD + b"[" * 100_000, "too_deep"),
    "deep objects": (HEAD + b"[" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}", "too_deep"),
    "deep in an unknown field": (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed_json"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_body_is_refused_plainly(ends: Ends, what: str) -> None:
    body, code = HOSTILE[what]
    signed = signed_body(ends, body)
    with pytest.raises(Problem, match=rf"^{code}$"):
        ends.opener.request("POST", PATH, signed.headers, signed.body)


def test_the_limit_is_told(ends: Ends) -> None:
    signed = signed_body(ends, HOSTILE["too many items"][0])
    with pytest.raises(Problem) as caught:
        ends.opener.request("POST", PATH, signed.headers, signed.body)
    assert caught.value.limit == 1000


def test_no_byte_is_parsed_before_the_signature(ends: Ends) -> None:
    """A bomb without a good signature meets the same plain refusal as anything else without one."""
    signed = signed_body(ends, HOSTILE["deep"][0])
    with pytest.raises(Problem, match=r"^signature_invalid$"):
        ends.opener.request("POST", PATH, signed.headers, signed.body + b"]")
