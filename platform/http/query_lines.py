"""Reads query files and writes their results: 18 or 19 fields of a fixed width, CSV back, UTF-8 or CP932 (CON-03).

Pure: bytes go in, lines or their problems come out; text goes back. A line that cannot be read is a problem with its
number and its field (``/13`` is field 13), never with a value, and the other lines go on.

Our reading of fields whose values no public document tells (docs/decisions/2026-11-23-query-file-fields.md): 不開示
コード ``1`` discloses and ``2`` withholds; 照会年度区分 counts fiscal years back from the one of 照会依頼日時; the
nineteenth field, which may be left out, is our own: ``1`` says that the person's consent is held.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Literal

from chukan.errors import Problem
from chukan.platform.exchange.query_files import FileLine
from chukan.platform.http import forbidden
from chukan.platform.law import Law
from chukan.platform.wire.agency import AnsweredCopy, Gap, QueryLine, QueryLineView
from chukan.platform.wire.files import CONSENT_FIELD, PART_LINES, QUERY_FIELDS
from chukan.platform.wire.network import Condition
from chukan.tenants import bodies

LINE_BYTES_MAX: Final = 1024

_BOM: Final = b"\xef\xbb\xbf"
_SCHEME: Final = "01"
_WITHHELD: Final = {"1": False, "2": True}
_CONSENT: Final = {"": False, "0": False, "1": True}
_APRIL: Final = 4
_INSTANT_FORM: Final = "YYYYMMDDHHmmssSSS"
_DAY_FORM: Final = "YYYYMMDD"
_COLUMNS: Final = (
    "line",
    "copy",
    "state",
    "outcome",
    "reason",
    "problem",
    "field",
    "layout",
    "effective_from",
    "period",
)


def read_parts(content: bytes, charset: str, inquirer: str) -> Iterator[list[FileLine]]:
    """Yield what stands in each thousand of line numbers, a thousand at a time; an empty line is passed over.

    Args:
        content: the whole file.
        charset: ``utf-8`` or ``cp932``.
        inquirer: 16-digit code of the agency that sends the file; a line that names another one is refused.
    """
    part: list[FileLine] = []
    for number, record in records(content):
        if number > 1 and number % PART_LINES == 1:
            yield part
            part = []
        if record:
            part.append(_line(record, charset, inquirer, number))
    yield part


def count_lines(content: bytes) -> int:
    """Return how many lines a file has; a last line without an end counts."""
    return content.count(b"\n") + (not content.endswith(b"\n") and bool(content))


def records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their numbers from 1, without their ends; CR LF or LF."""
    start = len(_BOM) if content.startswith(_BOM) else 0
    number = 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        number += 1
        yield number, content[start:end].removesuffix(b"\r")
        start = end + 1


def _line(record: bytes, charset: str, inquirer: str, number: int) -> FileLine:
    try:
        return FileLine(number, line=_query(_fields(record, charset), inquirer))
    except Problem as problem:
        return FileLine(number, problem=problem)


def _fields(record: bytes, charset: str) -> list[str]:
    """Cut a line into its fields. Raises ``Problem`` bad_line with the field where one has another width."""
    if len(record) > LINE_BYTES_MAX:
        raise Problem("bad_line", limit=LINE_BYTES_MAX)
    try:
        texts = record.decode(charset).split(",")
    except UnicodeDecodeError:
        raise Problem("bad_line", expected=charset) from None
    if len(texts) == len(QUERY_FIELDS):
        texts.append("")
    fields = (*QUERY_FIELDS, CONSENT_FIELD)
    if len(texts) != len(fields):
        raise Problem("bad_line", limit=len(fields), expected="18 or 19 fields")
    for field, text in zip(fields, texts, strict=True):
        width = len(text.encode(charset)) if charset == "cp932" else len(text)
        if width != field.width and not (field.blank and not text):
            raise Problem("bad_line", pointer=f"/{field.number}", limit=field.width)
    return [text.strip(" ") for text in texts]


def _query(fields: Sequence[str], inquirer: str) -> QueryLine:
    """Return the query line that the fields say. Raises ``Problem`` with the field."""
    scheme, own, common, asked, department, user, asker, disclosure, affair, procedure = fields[:10]
    of_asker, of_provider, provider, kind, period, years_back, start, end, consent = fields[10:]
    if scheme != _SCHEME:
        raise Problem("invalid_field", pointer="/1", expected=_SCHEME)
    named = [("2", own), ("3", common), ("5", department), ("6", user)]
    forbidden.refuse(named)
    if not department:
        raise Problem("invalid_field", pointer="/5")
    if _agency(asker, "/7") != inquirer:
        raise Problem("wrong_agency", pointer="/7")
    if disclosure not in _WITHHELD:
        raise Problem("invalid_field", pointer="/8", expected="1 or 2")
    if consent not in _CONSENT:
        raise Problem("invalid_field", pointer="/19", expected="1, 0 or empty")
    return QueryLine(
        addressee=_addressee(own, common),
        kind=_code(kind, "TM", "/14"),
        provider=_agency(provider, "/13"),
        affair=_code(affair, "JM", "/9"),
        procedure=_code(procedure, "JT", "/10"),
        department=department,
        condition=_condition(_asked_at(asked), period, years_back, start, end),
        withheld=_WITHHELD[disclosure],
        consent=_CONSENT[consent],
        on_behalf_of=_agency(of_asker, "/11") if of_asker else None,
        provider_for=_agency(of_provider, "/12") if of_provider else None,
    )


def _addressee(own: str, common: str) -> str:
    """One of the two numbers names the person; with neither or both nobody is named."""
    if bool(own) is bool(common):
        raise Problem("invalid_field", pointer="/2", expected="one of the fields 2 and 3")
    number, pointer = (own, "/2") if own else (common, "/3")
    if not (len(number) == QUERY_FIELDS[1].width and number.isascii() and number.isdigit()):
        raise Problem("invalid_field", pointer=pointer, expected="15 digits")
    return number


def _agency(named: str, pointer: str) -> str:
    """Return the 16-digit code of an agency, also where a municipality's code of 5 or 6 digits names its head."""
    found = bodies.resolve_agency(named)
    if found is not None:
        return found.code
    if not (len(named) == QUERY_FIELDS[6].width and named.isascii() and named.isdigit()):
        raise Problem("unknown_agency", pointer=pointer)
    return named


def _code(text: str, prefix: str, pointer: str) -> str:
    """Return a code of the law's list; a list that is not the national one has letters in its numbers."""
    rest = text.removeprefix(prefix)
    known = rest != text and rest.isascii() and rest.isalnum() and rest == rest.upper()
    if len(text) != QUERY_FIELDS[8].width or not known:
        raise Problem("invalid_field", pointer=pointer, expected=f"{prefix} and 14 digits or capital letters")
    return text


def _asked_at(text: str) -> dt.date:
    """Return the day of 照会依頼日時. Raises ``Problem`` invalid_field where it is no instant."""
    with suppress(ValueError):
        if text.isascii() and text.isdigit() and len(text) == len(_INSTANT_FORM):
            return dt.datetime.strptime(text[:14] + "+0900", "%Y%m%d%H%M%S%z").date()
    raise Problem("invalid_field", pointer="/4", expected=_INSTANT_FORM)


def _condition(asked_on: dt.date, period: str, years_back: str, start: str, end: str) -> Condition:
    """Return the condition (INQ-07); which parts of it a kind may have, the law says (``validate_condition``)."""
    known: dict[str, Literal["0", "1", "2"]] = {"0": "0", "1": "1", "2": "2"}
    if period not in known:
        raise Problem("bad_condition", pointer="/15")
    if not (years_back.isascii() and years_back.isdigit()) or (period != "1" and years_back != "0"):
        raise Problem("bad_condition", pointer="/16")
    year = None
    if period == "1":
        fiscal = asked_on.year - (asked_on.month < _APRIL)
        year = f"{fiscal - int(years_back):04d}"
    return Condition(period=known[period], year=year, start=_day(start, "/17"), end=_day(end, "/18"))


def _day(text: str, pointer: str) -> dt.date | None:
    if not text:
        return None
    with suppress(ValueError):
        if text.isascii() and text.isdigit() and len(text) == len(_DAY_FORM):
            return dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    raise Problem("invalid_field", pointer=pointer, expected=_DAY_FORM)


class ResultWriter:
    """Writes a result as CSV: a row a line, or a row a copy where an answer brought several; CR LF at the end."""

    def __init__(self, law: Law, charset: str, kinds: Iterable[str]) -> None:
        """Choose the columns: those of every line, then each item of the file's kinds and its reason code."""
        self._charset = charset
        wanted = frozenset(kinds)
        layouts = sorted(key for key in law.layouts if key[0] in wanted)
        found = [layout for kind, version in layouts if (layout := law.layout(kind, version)) is not None]
        self._items = list(dict.fromkeys(item for layout in found for item in layout.items))

    def header(self) -> bytes:
        """Return the header."""
        return self._text([[*_COLUMNS, *(name for item in self._items for name in (item, f"{item}.gap"))]])

    def page(self, lines: Iterable[QueryLineView]) -> bytes:
        """Return the rows of some lines."""
        return self._text(row for line in lines for row in self._rows(line))

    def _rows(self, line: QueryLineView) -> Iterator[list[str]]:
        problem = line.problem
        code, field = ("", "") if problem is None else (problem.code, (problem.pointer or "").removeprefix("/"))
        about = [line.state, line.outcome or "", line.reason or "", code, field]
        copies: Sequence[AnsweredCopy | None] = line.content.copies if line.content is not None else ()
        for number, copy in enumerate(copies or (None,), start=1):
            place = [str(line.line + 1), "" if copy is None else str(number)]
            yield [*place, *about, *self._content(copy)]

    def _content(self, copy: AnsweredCopy | None) -> Iterator[str]:
        if copy is None:
            yield from [""] * (3 + 2 * len(self._items))
            return
        yield from (str(copy.layout), copy.effective_from.isoformat(), copy.period)
        for item in self._items:
            value = copy.items.get(item, "")
            yield from ("", value.gap) if isinstance(value, Gap) else (value, "")

    def _text(self, rows: Iterable[Iterable[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        # A character that CP932 lacks is written by its code point: a value must not be lost, nor look like another.
        return text.getvalue().encode(self._charset, "xmlcharrefreplace")
