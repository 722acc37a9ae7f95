"""Reading a load part (副本登録): NDJSON or CSV, UTF-8 or CP932 as declared, in bounded memory.

A part is taken in whole, as bytes, before a line of it is read, so that a slow link never holds a connection to the
database; then its lines come out in bunches, and only one bunch of them exists at a time.

Pure: bytes go in, bunches of lines come out, nothing is awaited. A line that cannot be read becomes a ``PartLine`` with
its problem and its number; what makes the whole part unreadable (its header, a record without end, too many lines) is
raised. Line numbers count from 1, and the header of a CSV part is line 1.

Bytes are split before they are decoded: neither in UTF-8 nor in CP932 can a line end, a comma or a quotation mark be
the second byte of a character. Text is stored as it was sent: nothing is normalised. Beyond the limits a part is
refused with the limit, never held back (CON-04).
"""

import csv
import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Final, Protocol

import msgspec

from chukan.errors import Problem
from chukan.platform.http import problems
from chukan.platform.http.ports import PartLine
from chukan.platform.wire.agency import Addressee, Gap
from chukan.platform.wire.network import Message
from chukan.tenants.loads import PART_LINES_MAX

LINES_MAX: Final = PART_LINES_MAX
BYTES_MAX: Final = 64 * 1024 * 1024
RECORD_BYTES_MAX: Final = 64 * 1024
"""Limits of one part: lines, bytes, and bytes of a line (of a record in CSV)."""

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
CHARSETS: Final = {
    None: "utf-8",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "cp932": "cp932",
    "windows-31j": "cp932",
    "ms932": "cp932",
    "shift_jis": "cp932",
}
"""Charsets as they may be declared, and how they are read: what is called Shift_JIS is CP932 in practice."""

_BOM: Final = b"\xef\xbb\xbf"
_COLUMNS: Final = ("addressee", "effective_from", "review")
_GAP_SUFFIX: Final = ".gap"
_ADDRESSEE: Final = re.compile(r"[0-9A-Za-z]{1,15}")
_REVIEWS: Final = {"": False, "0": False, "1": True}
_COLUMNS_MAX: Final = 1000
_BUNCH_BYTES: Final = 64 * 1024


class JsonLine(Message, frozen=True, kw_only=True):
    """One line of an NDJSON part: a copy without kind, layout and period, which the load says for all."""

    addressee: Addressee
    effective_from: dt.date
    items: Annotated[dict[str, str | Gap], msgspec.Meta(max_length=_COLUMNS_MAX)]
    review: bool = False


class LineFormat(Protocol):
    """Turns one record into a line."""

    def read(self, record: bytes, number: int) -> PartLine | None:
        """Return the line; None for a header. Raises ``Problem`` for that line, or ``PartError`` for the part."""
        ...


class PartError(Exception):
    """The part as a whole cannot be read; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


class Splitter:
    """Cuts a stream of bytes into records; ``quoted`` joins the lines inside quotation marks."""

    def __init__(self, *, quoted: bool) -> None:
        self._quoted = quoted
        self._rest = b""
        self._open = b""
        self._line = 0
        self._begins = 1
        self._started = False

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the records that are complete now, each with the line on which it begins. Raises ``PartError``."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._take(line)
        self._check(len(self._open) + len(self._rest))

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """Yield the last record where the part does not end with a line end. Raises ``PartError``."""
        last, self._rest = self._rest, b""
        if last:
            yield from self._take(last)
        if self._open:
            raise PartError(Problem("bad_line", line=self._begins, expected="a closing quotation mark"))

    def _take(self, line: bytes) -> Iterator[tuple[int, bytes]]:
        self._line += 1
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not self._open:
            self._begins = self._line
        record = self._open + b"\n" + line if self._open else line
        self._check(len(record))
        if self._quoted and record.count(b'"') % 2:
            self._open = record
            return
        self._open = b""
        record = record.removesuffix(b"\r")
        if record:
            yield self._begins, record

    def _check(self, size: int) -> None:
        if size > RECORD_BYTES_MAX:
            raise PartError(Problem("bad_line", line=self._begins, limit=RECORD_BYTES_MAX))


class JsonLines:
    """NDJSON: one JSON object a line."""

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._decoder = msgspec.json.Decoder(JsonLine)

    def read(self, record: bytes, number: int) -> PartLine:
        """Return the line. Raises ``Problem`` bad_line, invalid_field, unknown_field."""
        utf8 = record if self._charset == "utf-8" else _text(record, self._charset, number).encode()
        try:
            line = problems.decode(self._decoder, utf8)
        except Problem as problem:
            # Whatever the line was, it is this line; what is malformed inside a part is a bad line of it.
            code = problem.code if problem.code in {"invalid_field", "unknown_field"} else "bad_line"
            raise Problem(code, line=number, pointer=problem.pointer, expected=problem.expected) from None
        return PartLine(
            number=number,
            addressee=line.addressee,
            effective_from=line.effective_from,
            items=line.items,
            review=line.review,
        )


class CsvLines:
    """CSV (RFC 4180) with a header: addressee, effective_from, review, then item codes and ``<item code>.gap``."""

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._header: list[str] | None = None

    def read(self, record: bytes, number: int) -> PartLine | None:
        """Return the line, None for the header. Raises ``Problem`` bad_line or invalid_field; ``PartError``."""
        fields = self._fields(record, number)
        if self._header is None:
            self._header = self._checked(fields, number)
            return None
        if len(fields) != len(self._header):
            raise Problem("bad_line", line=number, limit=len(self._header), expected="as many fields as the header has")
        given = dict(zip(self._header, fields, strict=True))
        addressee, day, review = (given.pop(name, "") for name in _COLUMNS)
        if not _ADDRESSEE.fullmatch(addressee):
            raise Problem("invalid_field", line=number, pointer="/addressee")
        if review not in _REVIEWS:
            raise Problem("invalid_field", line=number, pointer="/review", expected="0 or 1")
        return PartLine(
            number=number,
            addressee=addressee,
            effective_from=_day(day, number),
            items=_items(given, number),
            review=_REVIEWS[review],
        )

    def _fields(self, record: bytes, number: int) -> list[str]:
        try:
            return next(csv.reader([_text(record, self._charset, number)], strict=True))
        except (csv.Error, StopIteration):
            raise Problem("bad_line", line=number, expected="CSV (RFC 4180)") from None

    @staticmethod
    def _checked(header: list[str], number: int) -> list[str]:
        if len(set(header)) != len(header) or not {"addressee", "effective_from"} <= set(header):
            expected = "a header with addressee, effective_from, and each column once"
            raise PartError(Problem("bad_line", line=number, expected=expected))
        if len(header) > _COLUMNS_MAX:
            raise PartError(Problem("bad_line", line=number, limit=_COLUMNS_MAX))
        return header


class PartReader:
    """Reads one part: feed it pieces, take bunches, finish it."""

    def __init__(self, media_type: str, charset: str | None, *, lines_max: int = LINES_MAX) -> None:
        """Choose the format. Raises ``Problem`` unsupported_media_type or unsupported_encoding."""
        if charset not in CHARSETS:
            raise Problem("unsupported_encoding", expected="utf-8 or cp932")
        if media_type not in {NDJSON, CSV}:
            raise Problem("unsupported_media_type", expected=f"{NDJSON} or {CSV}")
        name = CHARSETS[charset]
        self._format: LineFormat = JsonLines(name) if media_type == NDJSON else CsvLines(name)
        self._splitter = Splitter(quoted=media_type == CSV)
        self._lines_max = lines_max
        self._count = 0

    def feed(self, piece: bytes) -> list[PartLine]:
        """Return the lines that a piece completes. Raises ``Problem`` where the part cannot go on."""
        return self._read(self._splitter.feed(piece))

    def finish(self) -> list[PartLine]:
        """Return the last line, where it has no line end. Raises ``Problem`` as ``feed`` does."""
        return self._read(self._splitter.finish())

    def _read(self, records: Iterator[tuple[int, bytes]]) -> list[PartLine]:
        lines: list[PartLine] = []
        try:
            for number, record in records:
                try:
                    line = self._format.read(record, number)
                except Problem as problem:
                    line = PartLine(number=number, problem=problem)
                if line is not None:
                    lines.append(line)
                    self._count += 1
                    self._refuse_more()
        except PartError as error:
            raise error.problem from None
        return lines

    def _refuse_more(self) -> None:
        if self._count > self._lines_max:
            raise PartError(Problem("too_many_lines", limit=self._lines_max))


class ReceivedPart:
    """A part that has come in whole (``ports.PartSource``)."""

    def __init__(self, media_type: str, charset: str | None) -> None:
        """Choose the format. Raises ``Problem`` unsupported_media_type or unsupported_encoding."""
        PartReader(media_type, charset)
        self._form = (media_type, charset)
        self._pieces: list[bytes] = []
        self._sha = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(piece)
        self._sha.update(piece)

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the part's bytes."""
        return self._sha.digest()

    def bunches(self) -> Iterator[list[PartLine]]:
        """Yield the lines in bunches. Raises ``Problem`` where the part cannot be read on."""
        reader = PartReader(*self._form)
        for piece in self._pieces:
            for start in range(0, len(piece), _BUNCH_BYTES):
                yield reader.feed(piece[start : start + _BUNCH_BYTES])
        yield reader.finish()


def _text(record: bytes, charset: str, number: int) -> str:
    try:
        return record.decode(charset)
    except UnicodeDecodeError:
        raise Problem("bad_line", line=number, expected=charset) from None


def _day(text: str, number: int) -> dt.date:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise Problem("invalid_field", line=number, pointer="/effective_from", expected="YYYY-MM-DD")
    return day


def _items(given: dict[str, str], number: int) -> dict[str, str | Gap]:
    """Return values and gaps by item code; an empty cell is an absent item, never an empty value and never zero."""
    items: dict[str, str | Gap] = {}
    for column, text in given.items():
        if text:
            item = column.removesuffix(_GAP_SUFFIX)
            if item in items:
                raise Problem("invalid_field", line=number, pointer="/items", expected="a value or a gap, not both")
            items[item] = Gap(gap=text) if column.endswith(_GAP_SUFFIX) else text
    return items
