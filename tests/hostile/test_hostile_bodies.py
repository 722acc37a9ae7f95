"""What no caller should send: each gets its problem document (RFC 9457) and leaves both cells as they were."""

import codecs
import json
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from chukan.errors import REGISTRY
from chukan.platform.http.routes import ROUTES
from chukan.tenants import numbers
from chukan.tests.support.nation import AFFAIR, ASKS, GIVES, GIVES_WEST, PROCEDURE, TAX

from .conftest import Api, digests, problems_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY = {
    "addressee": "A1",
    "kind": TAX,
    "provider": GIVES,
    "affair": AFFAIR,
    "procedure": PROCEDURE,
    "department": "福祉課",
}
COPY = {
    "addressee": "A1",
    "kind": TAX,
    "layout": 202506,
    "effective_from": "2026-06-01",
    "items": {"TKX0020000000001": "2026"},
    "period": "2026",
}
ELSEWHERE = str(uuid.uuid4())
WITH_BODY = [route for route in ROUTES if route.body is not None and route.examples]
OFFICERS = {"reviews.prepare", "reviews.approve", "order"}


def path_of(route: Any) -> str:
    """A path of a route, with ids that nobody has."""
    return "/" + "/".join(ELSEWHERE if part.startswith("{") else part for part in route.path.split("/")[1:])


def caller_of(route: Any) -> dict[str, str]:
    """Who may call a route: an officer of the provider where it needs one."""
    if OFFICERS.issuperset(route.right.functions):
        return {"agency": GIVES, "by": "officer-first"}
    return {"agency": ASKS}


def is_problem(answer: tuple[int, Any, Any], *codes: str) -> str:
    """Check a problem document, and return its code."""
    status, headers, document = answer
    assert 400 <= status < 500, document
    assert headers["Content-Type"].startswith("application/problem+json")
    assert REGISTRY[document["code"]].status == status == document["status"]
    if codes:
        assert document["code"] in codes
    return str(document["code"])


@pytest_asyncio.fixture(loop_scope="module", scope="module", autouse=True)
async def unchanged(api: Api) -> Any:
    """Whatever is sent here, what rests in both cells is the same afterwards, and nothing was an internal fault."""
    before = await digests(api.world)
    yield
    assert await digests(api.world) == before
    assert problems_of(api.world, "internal") == 0


# ---------------------------------------------------------------- encodings and forms

TEXT = json.dumps({"lines": [QUERY]}, ensure_ascii=False)
LINE = TEXT[len('{"lines": [') : -2]
FORMS: dict[str, tuple[bytes, set[str]]] = {
    "empty": (b"", {"malformed_json"}),
    "no value": (b" ", {"malformed_json"}),
    "utf-16 with a mark": (TEXT.encode("utf-16"), {"malformed_json"}),
    "utf-16-le": (TEXT.encode("utf-16-le"), {"malformed_json"}),
    "utf-32": (TEXT.encode("utf-32"), {"malformed_json"}),
    "utf-8 with a mark": (codecs.BOM_UTF8 + TEXT.encode(), {"malformed_json"}),
    "cp932 as utf-8": (TEXT.encode("cp932"), {"malformed_json"}),
    "euc-jp as utf-8": (TEXT.encode("euc-jp"), {"malformed_json"}),
    "a surrogate in bytes": (TEXT.replace("福", "@").encode().replace(b"@", b"\xed\xa0\x80"), {"malformed_json"}),
    "a surrogate escaped": (TEXT.replace("福", r"\ud800").encode(), {"malformed_json"}),
    "an overlong slash": (TEXT.replace("福", "@").encode().replace(b"@", b"\xc0\xaf"), {"malformed_json"}),
    "beyond unicode": (TEXT.replace("福", "@").encode().replace(b"@", b"\xf4\x90\x80\x80"), {"malformed_json"}),
    "cut off": (TEXT.encode()[:-20], {"malformed_json"}),
    "two values": (TEXT.encode() * 2, {"malformed_json"}),
    "a comment": (b"/* x */" + TEXT.encode(), {"malformed_json"}),
    "single quotes": (TEXT.replace('"', "'").encode(), {"malformed_json"}),
    "NaN": (b'{"lines": NaN}', {"malformed_json"}),
    "NaN as a flag": (TEXT.replace('"department"', '"withheld": NaN, "department"').encode(), {"malformed_json"}),
    "Infinity": (b'{"lines": -Infinity}', {"malformed_json"}),
    "a name twice": (TEXT.replace('"addressee"', '"addressee": "A2", "addressee"').encode(), {"malformed_json"}),
    "a list twice": ((TEXT[:-1] + f', "lines": [{LINE}]}}').encode(), {"malformed_json"}),
    "a name twice, once escaped": (
        TEXT.replace('"kind"', r'"\u006bind": "TM00000000000001", "kind"').encode(),
        {"malformed_json"},
    ),
    "a huge number": (b'{"lines": 1' + b"0" * 100_000 + b"}", {"malformed_json", "invalid_field"}),
    "deep lists": (b"[" * 100_000, {"too_deep"}),
    "deep objects": (b'{"lines":' * 50_000, {"too_deep"}),
    "deep inside": (f'{{"lines": [{{"condition": {"[" * 500}{"]" * 500}}}]}}'.encode(), {"too_deep"}),
    "many lines": (f'{{"lines": [{", ".join([LINE] * 1001)}]}}'.encode(), {"too_many_lines"}),
    "a bare list": (f"[{LINE}]".encode(), {"invalid_field"}),
    "null": (b"null", {"invalid_field"}),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_body_of_another_form_is_refused(api: Api, form: str) -> None:
    body, codes = FORMS[form]
    is_problem(await api.send("POST", "/queries", body), *codes)


@pytest.mark.parametrize("form", ["utf-8 with a mark", "cp932 as utf-8", "a surrogate escaped", "deep lists", "NaN"])
async def test_no_call_takes_a_body_of_another_form(api: Api, form: str) -> None:
    for route in WITH_BODY:
        who = caller_of(route)
        answer = await api.send(route.method, path_of(route), FORMS[form][0], **who)
        # A decoder may meet a name that this call does not know before it meets the fault.
        is_problem(answer, "unknown_field", "invalid_field", *FORMS[form][1])


@pytest.mark.parametrize("charset", ["utf-16", "cp932", "shift_jis", "us-ascii", "UTF-7", "x"])
async def test_another_charset_is_unsupported_whatever_the_bytes_are(api: Api, charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    is_problem(await api.send("POST", "/queries", TEXT.encode(), headers=headers), "unsupported_encoding")


async def test_more_bytes_than_the_limit_are_refused(api: Api) -> None:
    body = b'{"lines": ["' + b"x" * (16 * 1024 * 1024) + b'"]}'
    is_problem(await api.send("POST", "/queries", body), "too_large")


# ---------------------------------------------------------------- wrong types


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body where a value stands."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield (*at, name)
            yield from places(child, (*at, name))
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield (*at, number)
            yield from places(child, (*at, number))


def with_value(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The body with another value at a place."""
    changed = json.loads(json.dumps(body))
    target = changed
    for step in at[:-1]:
        target = target[step]
    target[at[-1]] = value
    return changed


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.name)
async def test_a_value_of_another_type_is_refused_by_its_place(api: Api, route: Any) -> None:
    body = msgspec.to_builtins(route.examples[0].value) or {"note": "x"}
    for at in places(body):
        for value in ({"unheard_of": []}, [[[]]], 1.5):
            answer = await api.send(route.method, path_of(route), with_value(body, at, value), **caller_of(route))
            is_problem(answer, "invalid_field", "unknown_field", "malformed_json")
            assert str(value) not in json.dumps(answer[2])


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.name)
async def test_a_field_that_nobody_knows_is_refused(api: Api, route: Any) -> None:
    body = msgspec.to_builtins(route.examples[0].value) | {"__proto__": {"admin": True}}
    is_problem(await api.send(route.method, path_of(route), body, **caller_of(route)), "unknown_field")


# ---------------------------------------------------------------- numbers that must not come in (invariant 7)

BODY = "99912345678"
INDIVIDUAL = BODY + numbers.individual_check(BODY)
RESIDENT = "9912345678" + numbers.resident_check("9912345678")
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
SHAPES = {
    "plain": lambda digits: digits,
    "full width": lambda digits: digits.translate(WIDE),
    "hyphens": lambda digits: "-".join((digits[:4], digits[4:8], digits[8:])),
    "full-width hyphens": lambda digits: "－".join((digits[:4], digits[4:8], digits[8:])).translate(WIDE),
    "spaces": lambda digits: "　".join((digits[:4], digits[4:8], digits[8:])),
}
LOAD = {"kind": TAX, "layout": 202506, "mode": "full", "expected": 1, "period": "2026"}
FREE_TEXTS: dict[str, tuple[str, Any, dict[str, str]]] = {
    "department": ("/queries", lambda text: {"lines": [QUERY | {"department": text}]}, {}),
    "item": ("/queries", lambda text: {"lines": [QUERY | {"items": [text]}]}, {}),
    "source of copies": ("/copies", lambda text: {"lines": [COPY], "source": text}, {}),
    "period of a load": ("/loads", lambda text: LOAD | {"period": text}, {}),
    "source of a load": ("/loads", lambda text: LOAD | {"source": text}, {}),
    "note of a review": (
        f"/reviews/{ELSEWHERE}/prepare",
        lambda text: {"decision": "refuse", "note": text},
        {"agency": GIVES, "by": "officer-first"},
    ),
    "note of a decision": (
        f"/reviews/{ELSEWHERE}/approve",
        lambda text: {"note": text},
        {"agency": GIVES, "by": "officer-second"},
    ),
}
ADDRESSEES: dict[str, tuple[str, Any]] = {
    "a query": ("/queries", lambda text: {"lines": [QUERY | {"addressee": text}]}),
    "a code": ("/codes", lambda text: {"lines": [{"addressee": text}]}),
    "a code looked up": ("/codes/search", lambda text: {"lines": [{"addressee": text}]}),
    "a copy looked up": ("/copies/search", lambda text: {"keys": [{"addressee": text}]}),
    "a copy deleted": ("/copies/delete", lambda text: {"keys": [{"addressee": text}]}),
    "a hold": ("/holds", lambda text: {"lines": [{"addressee": text}]}),
    "a person's records": ("/records/search", lambda text: {"addressee": text}),
}


def carries(answer: Any, number: str) -> bool:
    """Whether a number, or its digits in any dress, stands in an answer."""
    text = json.dumps(answer[2], ensure_ascii=False) + str(answer[1])
    return number in text or number[:8] in text or number.translate(WIDE) in text


@pytest.mark.requirement("TEN-01")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("field", FREE_TEXTS)
async def test_an_individual_number_in_a_free_text_is_refused_and_not_repeated(
    api: Api, field: str, shape: str
) -> None:
    path, body, who = FREE_TEXTS[field]
    for number, code in ((INDIVIDUAL, "individual_number_present"), (RESIDENT, "resident_code_present")):
        answer = await api.send("POST", path, body(SHAPES[shape](number)), **who)
        is_problem(answer, code)
        assert not carries(answer, number)


@pytest.mark.parametrize("field", ADDRESSEES)
async def test_an_individual_number_as_an_addressee_number_is_refused_and_not_repeated(api: Api, field: str) -> None:
    path, body = ADDRESSEES[field]
    for number, code in ((INDIVIDUAL, "individual_number_present"), (RESIDENT, "resident_code_present")):
        answer = await api.send("POST", path, body(number))
        is_problem(answer, code)
        assert not carries(answer, number)
        for shape in ("full width", "hyphens"):
            is_problem(await api.send("POST", path, body(SHAPES[shape](number))), "invalid_field", code)


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_number_hides_in_a_parameter(api: Api, shape: str) -> None:
    for name in ("after", "state", "addressee", "q"):
        status, headers, document = await api.send("GET", f"/queries?{name}={SHAPES[shape](INDIVIDUAL)}")
        is_problem((status, headers, document), "invalid_field", "unknown_field")
        assert not carries((status, headers, document), INDIVIDUAL)


# ---------------------------------------------------------------- nonsense in headers


@pytest.mark.requirement("CON-01", "CON-03")
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Idempotency-Key": "short"}, "invalid_field"),
        ({"Idempotency-Key": "x" * 65}, "invalid_field"),
        ({"Idempotency-Key": "鍵" * 8}, "invalid_field"),
        ({"Idempotency-Key": "00000000-0000-7000-8000-000000000000"}, "idempotency_key_too_old"),
        ({"Idempotency-Key": "ffffffff-ffff-7000-8000-000000000000"}, "idempotency_key_too_old"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, "unsupported_encoding"),
        ({"Content-Encoding": "identity, br"}, "unsupported_encoding"),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, "malformed_request"),
        ({"Expect": "everything"}, "malformed_request"),
    ],
)
async def test_headers_that_make_no_sense_are_refused(api: Api, headers: dict[str, str], code: str) -> None:
    is_problem(await api.send("POST", "/queries", TEXT.encode(), headers=headers), code)


@pytest.mark.requirement("CON-01")
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "10.0.0.1", "X-Original-URL": f"/v1/agencies/{ASKS}/queries", "Forwarded": "for=x"},
        {"X-HTTP-Method-Override": "GET", "X-Agency": ASKS, "X-Client-Cert": "tax", "Authorization": "Bearer x"},
        {"Host": "127.0.0.1:1", "Prefer": "wait=99999999999999999999, wait=-1; respond-async"},
    ],
)
async def test_what_a_request_says_about_itself_opens_no_door(api: Api, headers: dict[str, str]) -> None:
    answer = await api.send("POST", "/queries", TEXT.encode(), agency=GIVES_WEST, by=f"system-{ASKS}", headers=headers)
    is_problem(answer, "wrong_agency")


# ---------------------------------------------------------------- what would not rest well

CONTROLS = {
    "a line feed at the end": "福祉課\n",
    "a zero": "a\u0000b",
    "an escape": "\u001b[2J",
    "a line feed": "a\nb",
    "a delete": "\u007f",
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("field", ["department", "source of copies", "period of a load", "source of a load"])
async def test_a_control_character_is_refused(api: Api, field: str, control: str) -> None:
    path, body, who = FREE_TEXTS[field]
    is_problem(await api.send("POST", path, body(CONTROLS[control]), **who), "invalid_field")


@pytest.mark.parametrize("field", ADDRESSEES)
async def test_a_line_feed_after_an_addressee_number_is_refused(api: Api, field: str) -> None:
    path, body = ADDRESSEES[field]
    is_problem(await api.send("POST", path, body("A1\n")), "invalid_field")


@pytest.mark.parametrize("field", ["department", "source of copies", "period of a load", "source of a load"])
async def test_a_text_without_end_is_refused(api: Api, field: str) -> None:
    path, body, who = FREE_TEXTS[field]
    is_problem(await api.send("POST", path, body("あ" * 1000), **who), "invalid_field")
