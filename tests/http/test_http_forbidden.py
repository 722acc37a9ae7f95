"""No individual number and no resident code gets in, wherever a request has room for one (invariant 7)."""

import json
from typing import Any

import pytest

from chukan.tenants.numbers import synthetic_individual_number, synthetic_resident_code

CITY = "1310100000000001"
PERSON = synthetic_individual_number(4711)
RESIDENT = synthetic_resident_code(4711)
REVIEW = "/reviews/0199d8d4-0000-7000-8000-000000000001"
COPY = {"kind": "TM00000000000002", "layout": 202506, "effective_from": "2026-06-01", "items": {}}
LOAD = {"kind": "TM00000000000002", "layout": 202506, "mode": "full", "expected": 1}


def _wide(number: str) -> str:
    return "".join(chr(ord(digit) + 0xFEE0) for digit in number)


CASES = [
    ("/queries", "tax", {"lines": [{"department": f"福祉課 {PERSON}"}]}, "/lines/0/department"),
    ("/queries", "tax", {"lines": [{"department": _wide(PERSON)}]}, "/lines/0/department"),
    ("/queries", "tax", {"lines": [{}, {"addressee": PERSON}]}, "/lines/1/addressee"),
    ("/queries", "tax", {"lines": [{"items": ["TKX0020000000001", PERSON]}]}, "/lines/0/items"),
    ("/codes", "tax", {"lines": [{"addressee": "A1"}, {"addressee": PERSON}]}, "/lines/1/addressee"),
    ("/codes/search", "tax", {"lines": [{"addressee": PERSON}]}, "/lines/0/addressee"),
    ("/copies", "tax", {"lines": [COPY | {"addressee": "A1"}], "source": f"file {PERSON}"}, "/source"),
    ("/copies/search", "tax", {"keys": [{"addressee": PERSON}]}, "/keys/0/addressee"),
    ("/copies/delete", "tax", {"keys": [{"addressee": "A1"}, {"addressee": PERSON}]}, "/keys/1/addressee"),
    ("/holds", "tax", {"lines": [{"addressee": PERSON}]}, "/lines/0/addressee"),
    ("/loads", "tax", LOAD | {"source": PERSON}, "/source"),
    ("/loads", "tax", LOAD | {"period": PERSON}, "/period"),
    ("/records/search", "tax", {"addressee": PERSON}, "/addressee"),
    ("/resident/records", "tax", {"addressees": ["A1", PERSON]}, "/addressees/1"),
    (
        f"{REVIEW}/prepare",
        "suzuki",
        {"decision": "provide", "note": f"本人 {PERSON[:4]} {PERSON[4:8]} {PERSON[8:]}"},
        "/note",
    ),
    (f"{REVIEW}/approve", "tanaka", {"note": PERSON}, "/note"),
    (f"{REVIEW}/refuse", "tanaka", {"note": PERSON}, "/note"),
]


def _with(number: str, body: Any) -> Any:
    text = json.dumps(body, ensure_ascii=False)
    for form in (str, _wide):
        text = text.replace(form(PERSON), form(number))
    if number != PERSON:
        text = text.replace(f"{PERSON[:4]} {PERSON[4:8]} {PERSON[8:]}", number)
    return json.loads(text)


@pytest.mark.requirement("SYM-01")
@pytest.mark.parametrize(
    ("number", "code"), [(PERSON, "individual_number_present"), (RESIDENT, "resident_code_present")]
)
@pytest.mark.parametrize(("path", "name", "body", "pointer"), CASES)
async def test_a_number_is_refused_by_its_place(
    served: Any, line: Any, headers: Any, path: str, name: str, body: Any, pointer: str, number: str, code: str
) -> None:
    sent = _with(number, body)
    if path == "/queries":
        sent["lines"] = [line(**each) for each in sent["lines"]]
    async with served.client(name) as client, client.post(served.url(path), json=sent, headers=headers) as answer:
        document = await answer.json()
        text = await answer.text()
    assert (answer.status, document["code"], document["pointer"]) == (422, code, pointer)
    if "/0/" in pointer or "/1/" in pointer:
        assert document["line"] == int(pointer.split("/")[2]) + 1
    assert number not in text
    assert served.exchange.calls == []


@pytest.mark.parametrize("text", ["福祉課", "課 03-1234-5678", "係 20261123", "第131016-2026号", "1234567890123"])
async def test_what_only_resembles_one_passes(served: Any, line: Any, headers: Any, text: str) -> None:
    body = {"lines": [line(department=text)]}
    async with served.client() as client, client.post(served.url("/queries"), json=body, headers=headers) as answer:
        assert answer.status == 202
