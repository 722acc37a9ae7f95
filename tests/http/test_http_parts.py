"""Load parts: NDJSON and CSV, UTF-8 and CP932, line by line, with numbers and reasons, within bounds."""

import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.errors import Problem
from chukan.platform.http import parts
from chukan.platform.http.parts import CSV, NDJSON, PartReader, ReceivedPart
from chukan.platform.http.ports import PartLine
from chukan.platform.wire.agency import Gap

HEADER = "addressee,effective_from,review,TKX0020000000001,TKX0020000000001.gap,TKX0010000000003\r\n"
GOOD = {"addressee": "A1", "effective_from": "2026-06-01", "items": {"TKX0020000000001": "2026"}}


def _read(text: bytes | str, kind: str = CSV, charset: str | None = None, **bounds: int) -> list[PartLine]:
    reader = PartReader(kind, charset, **bounds)
    data = text.encode() if isinstance(text, str) else text
    return [*reader.feed(data), *reader.finish()]


def _codes(lines: list[PartLine]) -> list[tuple[int, str | None]]:
    return [(line.number, None if line.problem is None else line.problem.code) for line in lines]


@pytest.mark.requirement("CON-03", "REP-02")
def test_a_csv_line_is_a_copy() -> None:
    lines = _read(HEADER + "A1,2026-06-01,1,2026,,世帯主\r\nA2,2026-06-02,,,01,\r\n")
    assert lines[0] == PartLine(
        number=2,
        addressee="A1",
        effective_from=dt.date(2026, 6, 1),
        items={"TKX0020000000001": "2026", "TKX0010000000003": "世帯主"},
        review=True,
    )
    assert lines[1].items == {"TKX0020000000001": Gap(gap="01")}
    assert not lines[1].review


def test_an_ndjson_line_is_a_copy() -> None:
    text = json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"items": {"T": {"gap": "01"}}, "review": True})
    first, second = _read(text, NDJSON)
    assert (first.number, first.items, first.review) == (1, {"TKX0020000000001": "2026"}, False)
    assert (second.number, second.items, second.review) == (2, {"T": Gap(gap="01")}, True)


@pytest.mark.requirement("CON-03")
@pytest.mark.parametrize("charset", ["cp932", "windows-31j", "shift_jis"])
def test_cp932_is_read_as_declared(charset: str) -> None:
    # ソ and 表 end in a backslash byte, 髙 and ① exist in CP932 only.
    names = ["ソ表十", "髙﨑①", '予,"能\n力']
    text = HEADER + "".join(f'A1,2026-06-01,,2026,,"{name.replace(chr(34), chr(34) * 2)}"\r\n' for name in names)
    lines = _read(text.encode("cp932"), CSV, charset)
    assert [line.items["TKX0010000000003"] for line in lines if line.items] == names
    record = json.dumps(GOOD | {"items": {"T": "ソ髙"}}, ensure_ascii=False).encode("cp932")
    assert _read(record, NDJSON, charset)[0].items == {"T": "ソ髙"}


def test_text_is_stored_as_it_was_sent() -> None:
    name = "\u304b\u3099\uf9dc\u2f00"  # a decomposed kana, a compatibility kanji, a radical
    lines = _read(HEADER + f"A1,2026-06-01,,2026,,{name}\r\n")
    assert lines[0].items == {"TKX0020000000001": "2026", "TKX0010000000003": name}


def test_a_byte_order_mark_is_no_text() -> None:
    assert _codes(_read(b"\xef\xbb\xbf" + HEADER.encode() + b"A1,2026-06-01,,2026,,\r\n")) == [(2, None)]
    assert _codes(_read(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), NDJSON)) == [(1, None)]


@pytest.mark.requirement("REP-02")
@pytest.mark.parametrize(
    ("record", "code"),
    [
        ("A1,2026-06-01,,2026", "bad_line"),
        ("A1,2026-06-01,,2026,,,", "bad_line"),
        ('A1,2026-06-01,,"20"26,,', "bad_line"),
        ("A-1,2026-06-01,,2026,,", "invalid_field"),
        (",2026-06-01,,2026,,", "invalid_field"),
        ("A1,20260601,,2026,,", "invalid_field"),
        ("A1,2026-06-31,,2026,,", "invalid_field"),
        ("A1,,,2026,,", "invalid_field"),
        ("A1,2026-06-01,yes,2026,,", "invalid_field"),
        ("A1,2026-06-01,,2026,01,", "invalid_field"),
    ],
)
def test_a_bad_csv_line_is_named_and_the_others_go_on(record: str, code: str) -> None:
    lines = _read(f"{HEADER}A1,2026-06-01,,2026,,\r\n{record}\r\n\r\nA3,2026-06-01,,2026,,\r\n")
    assert _codes(lines) == [(2, None), (3, code), (5, None)]
    assert lines[1].problem is not None
    assert lines[1].problem.line == 3


@pytest.mark.requirement("REP-02")
@pytest.mark.parametrize(
    ("record", "code"),
    [
        (b"{", "bad_line"),
        (b"[1]", "invalid_field"),
        (b'{"addressee": "A1"}', "invalid_field"),
        (b"[" * 5000, "bad_line"),
        (b"\xff\xfe", "bad_line"),
        (json.dumps(GOOD | {"kind": "TM00000000000002"}).encode(), "unknown_field"),
        (json.dumps(GOOD | {"effective_from": "1.6.2026"}).encode(), "invalid_field"),
        (json.dumps(GOOD | {"items": {"T": None}}).encode(), "invalid_field"),
    ],
)
def test_a_bad_ndjson_line_is_named_and_the_others_go_on(record: bytes, code: str) -> None:
    good = json.dumps(GOOD).encode()
    assert _codes(_read(good + b"\n" + record + b"\n" + good + b"\n", NDJSON)) == [(1, None), (2, code), (3, None)]


def test_bytes_of_another_charset_are_a_bad_line() -> None:
    lines = _read(HEADER.encode() + "A1,2026-06-01,,2026,,世帯主\r\n".encode("cp932"))
    assert _codes(lines) == [(2, "bad_line")]
    assert lines[0].problem is not None
    assert lines[0].problem.expected == "utf-8"


@pytest.mark.parametrize(
    "header",
    ["addressee,review\r\n", "addressee,effective_from,addressee\r\n", "A1,2026-06-01,0\r\n", "a,effective_from\r\n"],
)
def test_a_csv_without_its_header_is_refused_whole(header: str) -> None:
    with pytest.raises(Problem) as raised:
        _read(header + "A1,2026-06-01\r\n")
    assert (raised.value.code, raised.value.line) == ("bad_line", 1)


def test_a_quotation_mark_that_never_closes_is_refused_whole() -> None:
    with pytest.raises(Problem) as raised:
        _read(HEADER + 'A1,2026-06-01,,"2026,,\r\nA2,2026-06-01,,2026,,\r\n')
    assert (raised.value.code, raised.value.line) == ("bad_line", 2)


@pytest.mark.requirement("CON-04")
def test_beyond_the_limit_a_part_is_refused_with_the_limit() -> None:
    text = HEADER + "A1,2026-06-01,,2026,,\r\n" * 4
    assert len(_read(text, lines_max=4)) == 4
    with pytest.raises(Problem) as raised:
        _read(text, lines_max=3)
    assert (raised.value.code, raised.value.limit) == ("too_many_lines", 3)


def test_a_line_without_end_is_refused_before_it_fills_memory() -> None:
    reader = PartReader(NDJSON, None)
    for _ in range(parts.RECORD_BYTES_MAX // 1024):
        reader.feed(b"x" * 1024)
    with pytest.raises(Problem) as raised:
        reader.feed(b"x")
    assert (raised.value.code, raised.value.line, raised.value.limit) == ("bad_line", 1, parts.RECORD_BYTES_MAX)


def test_what_cannot_be_read_is_refused_at_the_start() -> None:
    for kind, charset, code in (
        ("application/json", None, "unsupported_media_type"),
        (CSV, "euc-jp", "unsupported_encoding"),
        (NDJSON, "utf-16", "unsupported_encoding"),
    ):
        with pytest.raises(Problem) as raised:
            ReceivedPart(kind, charset)
        assert raised.value.code == code


def test_a_received_part_knows_its_digest_and_is_read_more_than_once() -> None:
    data = (HEADER + "A1,2026-06-01,,2026,,\r\n" * 3000).encode()
    part = ReceivedPart(CSV, "utf-8")
    for start in range(0, len(data), 777):
        part.add(data[start : start + 777])
    assert part.digest == hashlib.sha256(data).digest()
    for _ in range(2):
        assert sum(len(bunch) for bunch in part.bunches()) == 3000


@given(st.data())
def test_how_the_bytes_are_cut_makes_no_difference(data: Any) -> None:
    text = HEADER + 'A1,2026-06-01,,2026,,"予, 能\n力"\r\nA-,2026-06-01,,2026,,\r\n\r\nA2,2026-06-01,1,,01,ソ'
    charset = data.draw(st.sampled_from(["utf-8", "cp932"]))
    whole = text.encode(charset)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reader = PartReader(CSV, charset)
    lines: list[PartLine] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        lines += reader.feed(whole[start:end])
    lines += reader.finish()
    assert _codes(lines) == [(2, None), (4, "invalid_field"), (6, None)]
    assert lines[0].items == {"TKX0020000000001": "2026", "TKX0010000000003": "予, 能\n力"}
    assert lines[2].items == {"TKX0020000000001": Gap(gap="01"), "TKX0010000000003": "ソ"}


@given(st.binary(max_size=400), st.sampled_from([CSV, NDJSON]), st.sampled_from(["utf-8", "cp932"]))
def test_no_bytes_raise_anything_but_a_problem(noise: bytes, kind: str, charset: str) -> None:
    data = HEADER.encode() + noise if kind == CSV else noise
    lines: list[PartLine] = []
    refusal = None
    try:
        lines = _read(data, kind, charset)
    except Problem as problem:
        refusal = problem.code
    assert refusal in {None, "bad_line"}
    assert all(line.problem is None or line.problem.line == line.number for line in lines)
