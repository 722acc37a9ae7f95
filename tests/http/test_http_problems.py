"""Every way to say no is a problem document (RFC 9457), names the place, and never quotes what was sent."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from chukan.errors import REGISTRY, Problem
from chukan.platform.http import bodies, problems
from chukan.platform.wire.agency import LoadOpen, Queries, ReviewPrepare

CITY = "1310100000000001"
VALUE = "314159265358"


def _check(answer: tuple[int, dict[str, str], dict[str, Any]], code: str) -> None:
    status, fields, document = answer
    kind = REGISTRY[code]
    assert document["code"] == code
    assert (status, document["status"]) == (kind.status, kind.status)
    assert fields["content-type"] == "application/problem+json; charset=utf-8"
    assert document["type"] == f"urn:chukan:error:{code}"
    assert document["title"] == kind.title_ja
    assert document["retryable"] == kind.retryable
    assert fields["cache-control"] == "no-store"
    assert VALUE not in json.dumps(document)


def _request(text: str, body: bytes = b"", *headers: str) -> bytes:
    method, path = text.split()
    lines = [f"{method} /v1/agencies/{CITY}{path} HTTP/1.1", "Host: localhost", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"
KEY = "Idempotency-Key: abcdefgh"


async def test_an_unknown_path_is_not_found(served: Any) -> None:
    _check(await served.send(_request("GET /nothing")), "not_found")
    _check(await served.send(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n"), "not_found")


async def test_a_wrong_method_says_which_are_allowed(served: Any) -> None:
    status, fields, document = await served.send(_request("DELETE /queries"))
    _check((status, fields, document), "method_not_allowed")
    assert set(fields["allow"].split(",")) == {"GET", "POST"}


@pytest.mark.parametrize("reference", [VALUE, "0199d8d4000070008000000000000001", "..", "%00", "{a}"])
async def test_an_id_that_is_none_is_not_found(served: Any, reference: str) -> None:
    _check(await served.send(_request(f"GET /queries/{reference}")), "not_found")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"{", "malformed_json", None),
        (b'{"lines": [}', "malformed_json", None),
        (b'{"lines": [{"addressee": "\xff\xfe"}]}', "malformed_json", None),
        (b'{"a":1}{"a":2}', "unknown_field", ""),
        (b"[]", "invalid_field", ""),
        (b"{}", "invalid_field", "/lines"),
        (b'{"lines": []}', "invalid_field", "/lines"),
        (b'{"lines": [{"addressee": "1", "unheard_of": 1}]}', "unknown_field", "/lines/0"),
        (b'{"lines": [{"addressee": 314159265358}]}', "invalid_field", "/lines/0/addressee"),
        (b'{"lines": [{"addressee": "-314159265358"}]}', "invalid_field", "/lines/0/addressee"),
        (b"[" * 100_000, "too_deep", None),
        (b'{"lines": ' + b"[" * 40 + b"]" * 40 + b"}", "too_deep", None),
        (b'{"lines": [' + b",".join([b'{"addressee":"1"}'] * 1001) + b"]}", "invalid_field", "/lines/0/kind"),
    ],
)
async def test_a_body_that_does_not_fit_says_where(served: Any, body: bytes, code: str, pointer: str | None) -> None:
    status, fields, document = await served.send(_request("POST /queries", body, JSON, KEY))
    _check((status, fields, document), code)
    assert document.get("pointer") == pointer
    assert served.exchange.calls == []


async def test_a_field_s_line_counts_from_one(served: Any, line: Any) -> None:
    body = json.dumps({"lines": [line(), line(kind=VALUE)]}).encode()
    _, _, document = await served.send(_request("POST /queries", body, JSON, KEY))
    assert (document["line"], document["pointer"]) == (2, "/lines/1/kind")


async def test_more_lines_than_the_limit_are_refused_with_the_limit(served: Any, line: Any) -> None:
    body = json.dumps({"lines": [line()] * 1001}).encode()
    status, fields, document = await served.send(_request("POST /queries", body, JSON, KEY))
    _check((status, fields, document), "too_many_lines")
    assert document["limit"] == 1000


async def test_no_text_of_a_decoder_leads_a_value_out() -> None:
    hostile = [
        json.dumps({"decision": VALUE}),
        json.dumps({VALUE: 1}),
        json.dumps({f"a` - at `$.u{VALUE}": 1}),
        json.dumps({f"a` - at `$.decision{VALUE}": 1}),
        json.dumps({"decision": f"x' - at `$.u{VALUE}`"}),
    ]
    for text in hostile:
        with pytest.raises(Problem) as raised:
            problems.decode(msgspec.json.Decoder(ReviewPrepare), text.encode())
        assert VALUE not in json.dumps(raised.value.as_dict())


async def test_a_body_over_the_cap_is_refused_before_it_is_sent(serve: Any) -> None:
    served = await serve(request_bytes_max=1000)
    status, fields, document = await served.send(
        _request("POST /queries", b"", JSON, KEY, "Content-Length: 1001", "Expect: 100-continue")
    )
    _check((status, fields, document), "too_large")
    assert document["limit"] == 1000


async def test_a_chunked_body_over_the_cap_is_cut_off(serve: Any) -> None:
    served = await serve(request_bytes_max=1000)
    chunk = b"190\r\n" + b"x" * 400 + b"\r\n"
    body = chunk * 3 + b"0\r\n\r\n"
    answer = await served.send(_request("POST /queries", body, JSON, KEY, "Transfer-Encoding: chunked"))
    _check(answer, "too_large")


async def test_a_body_is_asked_for_when_it_is_wanted(served: Any, line: Any) -> None:
    body = json.dumps({"lines": [line()]}).encode()
    head = _request("POST /queries", b"", JSON, KEY, f"Content-Length: {len(body)}", "Expect: 100-continue")
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()).split()[1] == b"202"
    wrong = head.replace(CITY.encode(), b"2710000000000003")
    _check(await served.send(wrong), "wrong_agency")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_another_content_type_is_unsupported(served: Any, kind: str) -> None:
    status, fields, document = await served.send(_request("POST /queries", b"{}", f"Content-Type: {kind}", KEY))
    _check((status, fields, document), "unsupported_media_type")
    assert document["expected"] == "application/json"


async def test_another_charset_is_unsupported(served: Any) -> None:
    request = _request("POST /queries", b"{}", "Content-Type: application/json; charset=cp932", KEY)
    _check(await served.send(request), "unsupported_encoding")


async def test_compressed_bodies_are_not_unpacked(served: Any) -> None:
    request = _request("POST /queries", b"\x1f\x8b\x08\x00", JSON, KEY, "Content-Encoding: gzip")
    _check(await served.send(request), "unsupported_encoding")


@pytest.mark.parametrize(
    "extra",
    [
        ("Content-Type: application/json", "Content-Type: text/plain"),
        ("Idempotency-Key: abcdefgh", "Idempotency-Key: ijklmnop"),
        ("Host: elsewhere",),
        ("Expect: 200-ok",),
        ("Upgrade: websocket", "Connection: upgrade"),
    ],
)
async def test_headers_that_contradict_each_other_are_refused(served: Any, extra: tuple[str, ...]) -> None:
    _check(await served.send(_request("POST /queries", b"{}", *extra)), "malformed_request")


@pytest.mark.parametrize(
    "text",
    [
        f"GET /{VALUE} HTTP/9.9\r\nHost: x\r\n\r\n",
        f"NONSENSE {VALUE}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\n{VALUE}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX: {'y' * 20_000}\r\n\r\n",
        f"GET /{'z' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n" + "".join(f"X-{n}: 1\r\n" for n in range(200)) + "\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_a_problem_document_too(served: Any, text: str) -> None:
    _check(await served.send(text.encode()), "malformed_request")


async def test_a_slow_body_ends_at_its_deadline(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_DEADLINE_S", 0.1)
    request = _request("POST /queries", b"", JSON, KEY, "Content-Length: 100")
    _check(await served.send(request + b'{"lines"'), "body_timeout")


async def test_what_nobody_foresaw_is_internal_and_says_nothing(served: Any, line: Any) -> None:
    served.exchange.inquiries.fails_with = RuntimeError(f"a text with {VALUE}")
    body = json.dumps({"lines": [line()]}).encode()
    _check(await served.send(_request("POST /queries", body, JSON, KEY)), "internal")


async def test_a_deadline_that_passes_is_said(served: Any, line: Any) -> None:
    served.exchange.inquiries.fails_with = TimeoutError()
    body = json.dumps({"lines": [line()]}).encode()
    _check(await served.send(_request("POST /queries", body, JSON, KEY)), "deadline_exceeded")


@pytest.mark.parametrize("code", ["busy", "no_primary", "rate_limited", "common_data_stale", "network_unavailable"])
async def test_who_may_come_back_is_told_when(served: Any, line: Any, code: str) -> None:
    served.exchange.inquiries.fails_with = Problem(code)
    body = json.dumps({"lines": [line()]}).encode()
    status, fields, document = await served.send(_request("POST /queries", body, JSON, KEY))
    _check((status, fields, document), code)
    assert int(fields["retry-after"]) == document["retry_after_s"] >= 1


async def test_every_code_of_the_registry_makes_a_document() -> None:
    for code, kind in REGISTRY.items():
        answer = problems.response(Problem(code, line=3, pointer="/lines/2", limit=5, expected="a form"))
        assert answer.status == kind.status
        assert problems.body_of(Problem(code)).code == code


async def test_answers_carry_an_id_of_their_own_and_hide_the_server(served: Any) -> None:
    _, first, _ = await served.send(_request("GET /queries"))
    _, second, _ = await served.send(_request("GET /queries", b"", f"X-Request-Id: {VALUE}"))
    assert first["x-request-id"] != second["x-request-id"]
    assert VALUE not in second["x-request-id"]
    assert first["server"] == "chukan"


async def test_parameters_that_are_not_declared_are_refused(served: Any) -> None:
    for query, code in (
        (f"?addressee={VALUE}", "unknown_field"),
        ("?limit=0", "invalid_field"),
        ("?limit=1001", "invalid_field"),
        ("?limit=1&limit=2", "invalid_field"),
        (f"?state={VALUE}", "invalid_field"),
        ("?after=%0a", "invalid_field"),
    ):
        _check(await served.send(_request(f"GET /queries{query}")), code)
    assert served.exchange.calls == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"kind": 1}, "str"),
        ({"kind": "x"}, "str of another form, see /openapi.json"),
        ({"layout": "1"}, "int"),
        ({"expected": -1}, "int >= 0"),
        ({"expected": 5_000_001}, "int <= 5000000"),
        ({"mode": "both"}, None),
    ],
)
def test_the_form_that_was_expected_is_told_where_it_is_ours(body: dict[str, Any], expected: str | None) -> None:
    load = {"kind": "TM00000000000002", "layout": 202506, "mode": "full", "expected": 1}
    with pytest.raises(Problem) as raised:
        problems.decode(msgspec.json.Decoder(LoadOpen), msgspec.json.encode(load | body))
    assert (raised.value.pointer, raised.value.expected) == (f"/{next(iter(body))}", expected)


def test_only_a_list_s_own_limit_is_a_line_limit() -> None:
    many = {"lines": [{"items": ["x"] * 501}]}
    with pytest.raises(Problem) as raised:
        problems.decode(msgspec.json.Decoder(Queries), msgspec.json.encode(many))
    assert raised.value.code == "invalid_field"
