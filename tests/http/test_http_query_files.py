"""Query files over HTTP: read line by line, refused line by line, bounded, and a result that is cut off visibly."""

import asyncio
import csv
import hashlib
import io
import uuid
from typing import Any

import aiohttp
import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.platform.exchange.query_files import FileLine
from chukan.platform.http.query_lines import ResultWriter, count_lines, read_parts
from chukan.platform.law import Law
from chukan.platform.wire.agency import AnswerContent, AnsweredCopy, Gap, QueryLineView
from chukan.platform.wire.files import QUERY_FIELDS
from chukan.tenants.numbers import synthetic_individual_number

CITY = "1310100000000001"
HERE = "9901131016000001"
WORDS = {
    1: "01",
    2: "000000000000042",
    3: "",
    4: "20261123093000123",
    5: "FUKUSHI".ljust(20),
    6: "user01".ljust(20),
    7: HERE,
    8: "1",
    9: "JM01000000121000",
    10: "JT01010000000214",
    11: "",
    12: "",
    13: "9901271004000001",
    14: "TM00000000000002",
    15: "0",
    16: "0",
    17: "",
    18: "",
}


def line(changes: dict[int, str] | None = None) -> str:
    words = {**WORDS, **(changes or {})}
    return ",".join(words[field.number] or (" " * field.width if field.number % 2 else "") for field in QUERY_FIELDS)


def text(*lines: str, charset: str = "utf-8") -> bytes:
    return "".join(each + "\r\n" for each in lines).encode(charset)


def read(content: bytes, charset: str = "utf-8") -> list[FileLine]:
    return [each for part in read_parts(content, charset, HERE) for each in part]


def problem_of(changes: dict[int, str]) -> tuple[str, str | None]:
    (only,) = read(text(line(changes)))
    assert only.problem is not None
    return only.problem.code, only.problem.pointer


@pytest.mark.requirement("CON-03", "INQ-06")
@pytest.mark.parametrize("charset", ["utf-8", "cp932"])
def test_a_line_is_read_as_a_query_line_in_both_charsets(charset: str) -> None:
    words = {5: "福祉課".ljust(17 if charset == "cp932" else 20), 8: "2"}
    (only,) = read(text(line(words), charset=charset), charset)
    assert only.problem is None
    assert only.line is not None
    assert (only.number, only.line.addressee, only.line.department) == (1, "000000000000042", "福祉課")
    assert (only.line.kind, only.line.affair, only.line.procedure) == (WORDS[14], WORDS[9], WORDS[10])
    assert (only.line.provider, only.line.withheld, only.line.condition.period) == (WORDS[13], True, "0")


@pytest.mark.requirement("INQ-11")
@pytest.mark.parametrize("charset", ["utf-8", "cp932"])
def test_a_line_may_say_in_a_nineteenth_field_that_the_person_consents(charset: str) -> None:
    lines = [line() + end for end in ("", ",", ", ", ",0", ",1", ",2", ",１", ",01", ",1,1")]
    found = read(text(*lines, charset=charset), charset)
    consents = [each.line.consent for each in found if each.line is not None]
    assert consents == [False, False, False, False, True]
    refused = [(each.number, each.problem.code, each.problem.pointer) for each in found if each.problem is not None]
    wide = ("bad_line", "/19") if charset == "cp932" else ("invalid_field", "/19")
    assert refused == [(6, "invalid_field", "/19"), (7, *wide), (8, "bad_line", "/19"), (9, "bad_line", None)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("27100".ljust(16), "9901271004000001"),
        ("271004".rjust(16), "9901271004000001"),
        ("27102".ljust(16), "9901271004000001"),
        ("9901271021000001", "9901271004000001"),
        ("1234567890123456", "1234567890123456"),
    ],
    ids=["five digits", "six digits", "a ward", "a ward's own code", "a code that is not known here"],
)
def test_a_municipality_may_be_named_by_its_code_and_a_ward_stands_for_its_city(written: str, meant: str) -> None:
    (only,) = read(text(line({13: written})))
    assert only.line is not None
    assert only.line.provider == meant


@pytest.mark.requirement("INQ-07")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({15: "1"}, ("1", "2026", None, None)),
        ({15: "1", 16: "1"}, ("1", "2025", None, None)),
        ({15: "1", 16: "0", 4: "20270331235959000"}, ("1", "2026", None, None)),
        ({15: "2", 17: "20260401", 18: "20261031"}, ("2", None, "2026-04-01", "2026-10-31")),
    ],
)
def test_conditions_are_read_from_their_four_fields(changes: dict[int, str], expected: tuple[Any, ...]) -> None:
    (only,) = read(text(line(changes)))
    assert only.line is not None
    condition = only.line.condition
    days = [None if day is None else day.isoformat() for day in (condition.start, condition.end)]
    assert (condition.period, condition.year, *days) == expected


def test_codes_of_a_list_that_has_letters_in_them_are_read_as_they_are_in_a_list_of_queries() -> None:
    words = {9: "JMX0000000000001", 10: "JTX0000000000099", 14: "TMX0000000000013"}
    (only,) = read(text(line(words)))
    assert only.line is not None
    assert (only.line.affair, only.line.procedure, only.line.kind) == (words[9], words[10], words[14])


@pytest.mark.requirement("INQ-07", "CON-03")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({1: "02"}, ("invalid_field", "/1")),
        ({2: ""}, ("invalid_field", "/2")),
        ({3: "000000000000042"}, ("invalid_field", "/2")),
        ({2: "00000000000004A"}, ("invalid_field", "/2")),
        ({4: "20261323093000123"}, ("invalid_field", "/4")),
        ({4: "2026112309300012x"}, ("invalid_field", "/4")),
        ({5: " " * 20}, ("invalid_field", "/5")),
        ({7: "9901271004000001"}, ("wrong_agency", "/7")),
        ({8: "0"}, ("invalid_field", "/8")),
        ({9: "TM01000000121000"}, ("invalid_field", "/9")),
        ({10: "JT0101000000021x"}, ("invalid_field", "/10")),
        ({11: "990127100400000x"}, ("unknown_agency", "/11")),
        ({12: "990127100400000x"}, ("unknown_agency", "/12")),
        ({13: "nobody".ljust(16)}, ("unknown_agency", "/13")),
        ({14: "tm00000000000002"}, ("invalid_field", "/14")),
        ({15: "3"}, ("bad_condition", "/15")),
        ({16: "1"}, ("bad_condition", "/16")),
        ({15: "1", 16: "x"}, ("bad_condition", "/16")),
        ({15: "2", 17: "20260230"}, ("invalid_field", "/17")),
        ({15: "2", 17: "20260201", 18: "2026 2 1"}, ("invalid_field", "/18")),
        ({14: "TM0000000000002"}, ("bad_line", "/14")),
        ({6: "user01"}, ("bad_line", "/6")),
    ],
)
def test_a_wrong_field_is_named_by_its_number(changes: dict[int, str], expected: tuple[str, str]) -> None:
    assert problem_of(changes) == expected


@pytest.mark.requirement("CON-03")
def test_lines_that_cannot_be_read_are_refused_by_number_and_the_others_go_on() -> None:
    content = b"\xef\xbb\xbf" + text(line(), "", "a,b") + b"\xff\xfe\r\n" + b"x" * 2000 + b"\n" + line().encode()
    lines = read(content)
    codes = [(each.number, each.problem.code if each.problem else None) for each in lines]
    assert codes == [(1, None), (3, "bad_line"), (4, "bad_line"), (5, "bad_line"), (6, None)]
    assert count_lines(content) == 6
    assert (count_lines(b""), count_lines(b"a"), count_lines(b"a\n")) == (0, 1, 1)


def test_lines_come_a_thousand_numbers_at_a_time() -> None:
    content = text(*[line()] * 1500, *[""] * 1000, *[line()] * 10)
    parts = [[each.number for each in part] for part in read_parts(content, "utf-8", HERE)]
    assert [len(part) for part in parts] == [1000, 500, 10]
    assert (parts[1][-1], parts[2][0]) == (1500, 2501)
    sparse = list(read_parts(text(line(), *[""] * 1999, line()), "utf-8", HERE))
    assert [[each.number for each in part] for part in sparse] == [[1], [], [2001]]


def test_an_individual_number_in_a_field_refuses_its_line_without_quoting_it() -> None:
    number = synthetic_individual_number(7)
    (only,) = read(text(line({6: number.ljust(20)})))
    assert only.problem is not None
    assert (only.problem.code, only.problem.pointer) == ("individual_number_present", "/6")
    assert number not in repr(only)


@pytest.mark.requirement("INQ-06")
def test_a_result_has_a_row_a_copy_with_content_by_item_code() -> None:
    law = Law.load()
    layout = law.layout("TM00000000000002", max(v for kind, v in law.layouts if kind == "TM00000000000002"))
    assert layout is not None
    first, second = sorted(layout.items)[:2]
    copies = [
        AnsweredCopy(
            layout=layout.version,
            effective_from=SystemClock().now().date(),
            items={first: "値,1", second: Gap(gap="01")},
            period=period,
        )
        for period in ("2025", "2026")
    ]
    lines = [
        QueryLineView(
            line=6, state="collected", outcome="provided", content=AnswerContent(kind="TM00000000000002", copies=copies)
        ),
        QueryLineView(line=7, state="no_code", outcome="no_code", reason="no_code"),
    ]
    writer = ResultWriter(law, "cp932", ["TM00000000000002"])
    written = writer.header() + writer.page(lines)
    assert written.count(b"\n") == written.count(b"\r\n") == 4
    rows = list(csv.DictReader(io.StringIO(written.decode("cp932"), newline="")))
    assert [(row["line"], row["copy"], row["state"], row["period"]) for row in rows] == [
        ("7", "1", "collected", "2025"),
        ("7", "2", "collected", "2026"),
        ("8", "", "no_code", ""),
    ]
    assert (rows[0][first], rows[0][f"{first}.gap"]) == ("値,1", "")
    assert (rows[0][second], rows[0][f"{second}.gap"]) == ("", "01")
    assert rows[2]["reason"] == "no_code"


async def _post(served: Any, content: bytes, **given: Any) -> tuple[int, Any, dict[str, Any]]:
    kind = given.pop("kind", "text/plain; charset=utf-8")
    key = str(SystemChance(SystemClock()).uuid7())
    headers = {"Idempotency-Key": key, "Content-Type": kind, **given.pop("headers", {})}
    url = served.url(f"/query-files?name={given.pop('name', 'P640R110_20261123093000_0001.DAT')}")
    async with served.client() as client, client.post(url, data=content, headers=headers) as answer:
        return answer.status, answer.headers, await answer.json(content_type=None)


@pytest.mark.requirement("CON-03")
async def test_a_file_is_taken_with_its_name_its_digest_and_its_lines(served: Any) -> None:
    content = text(line({7: CITY}), line({7: CITY, 1: "99"}))
    digest = hashlib.sha256(content).digest()
    status, headers, file = await _post(served, content)
    assert (status, file["lines"], file["refused"]) == (202, 1, 1)
    assert headers["Location"] == f"/v1/agencies/{CITY}/query-files/{file['id']}"
    ((_, agency, caller, sent),) = served.exchange.files.calls
    assert (agency, caller, sent.name, sent.charset) == (CITY, "tax", "P640R110_20261123093000_0001.DAT", "utf-8")
    assert sent.digest == digest
    async with served.client() as client, client.get(served.url(f"/query-files/{file['id']}")) as answer:
        assert (await answer.json())["states"] == {"accepted": 1}


@pytest.mark.requirement("CON-04")
@pytest.mark.parametrize("last", [b"", b"x"], ids=["one line end too many", "a line without an end"])
async def test_a_file_beyond_the_limit_is_refused_with_the_limit_and_nothing_is_kept(served: Any, last: bytes) -> None:
    content = b"\r\n" * (10_000 if last else 10_001) + last
    status, _, problem = await _post(served, content)
    assert (status, problem["code"], problem["limit"]) == (413, "too_many_lines", 10_000)
    status, _, problem = await _post(served, b"x" * (4 * 1024 * 1024 + 1))
    assert (status, problem["code"], problem["limit"]) == (413, "too_large", 4 * 1024 * 1024)
    assert served.exchange.files.calls == []
    assert (await _post(served, b"\r\n" * 10_000))[0] == 202


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"kind": "text/plain"}, "unsupported_encoding"),
        ({"kind": "text/plain; charset=euc-jp"}, "unsupported_encoding"),
        ({"kind": "application/json"}, "unsupported_media_type"),
        ({"name": "%20"}, "invalid_field"),
        ({"name": "a/b"}, "invalid_field"),
        ({"name": synthetic_individual_number(3)}, "individual_number_present"),
        ({"headers": {"Content-Digest": "sha-256=:AAAA:"}}, "truncated_body"),
    ],
)
async def test_a_file_that_does_not_say_what_it_is_is_refused(served: Any, given: dict[str, Any], code: str) -> None:
    _, _, problem = await _post(served, text(line()), **given)
    assert problem["code"] == code
    assert served.exchange.files.calls == []


@pytest.mark.requirement("INQ-06", "CON-03")
async def test_a_result_is_fetched_whole_and_from_any_line_on(served: Any) -> None:
    await _post(served, text(*[line()] * 2500))
    for after, count in ((0, 2500), (2400, 100)):
        url = served.url(f"/query-files/{uuid.uuid4()}/result?after={after}")
        async with served.client() as client, client.get(url) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/csv; charset=shift_jis; header=present"
            rows = list(csv.DictReader(io.StringIO((await answer.read()).decode("cp932"), newline="")))
        assert [row["line"] for row in rows] == [str(n) for n in range(after + 1, after + count + 1)]
    assert served.services.admission.at_work == 0


@pytest.mark.requirement("CON-03")
async def test_a_result_that_fails_on_the_way_has_no_end(served: Any) -> None:
    await _post(served, text(*[line()] * 2500))
    served.exchange.files.fails_after = 2
    async with served.client() as client, client.get(served.url(f"/query-files/{uuid.uuid4()}/result")) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert served.services.admission.at_work == 0


async def test_who_does_not_wait_for_the_rest_of_a_result_holds_nothing(served: Any) -> None:
    await _post(served, text(*[line()] * 2500))
    async with served.socket() as (reader, writer):
        path = f"/v1/agencies/{CITY}/query-files/{uuid.uuid4()}/result"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await writer.drain()
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
    async with served.client() as client, client.get(served.url("/queries")) as answer:
        assert answer.status == 200
    assert served.services.admission.at_work == 0
