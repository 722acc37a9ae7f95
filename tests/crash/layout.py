"""Query files as an agency's system writes them, and their results as it reads them; pure.

Written from the public description of the 18 fields alone: what is sent here is what a reader of the platform must
understand, so none of the platform's own reading is used.
"""

import csv
import datetime as dt
import hashlib
import io
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from chukan.platform.wire.agency import QueryLine
from chukan.tests.crash.journal import Told

CHARSETS: Final = ("utf-8", "cp932")
_USER: Final = "crash01"
_NAMED, _WIDE, _CODE = 15, 20, 16
_APRIL: Final = 4


def written(lines: Sequence[QueryLine], inquirer: str, charset: str, asked_at: dt.datetime) -> bytes:
    """Return a file of these lines; ``asked_at`` is the local time that stands in each of them (照会依頼日時)."""
    return b"".join(_record(line, inquirer, charset, asked_at) for line in lines)


def _record(line: QueryLine, inquirer: str, charset: str, asked_at: dt.datetime) -> bytes:
    condition = line.condition
    fiscal = asked_at.year - (asked_at.month < _APRIL)
    # A condition that lacks its year leaves the field blank, for which the line is refused.
    back = "0" if condition.period != "1" else " " if condition.year is None else str(fiscal - int(condition.year))
    fields = (
        "01",
        line.addressee.rjust(_NAMED),
        "",
        f"{asked_at:%Y%m%d%H%M%S}000",
        _padded(line.department, charset),
        _padded(_USER, charset),
        inquirer.ljust(_CODE),
        "2" if line.withheld else "1",
        line.affair,
        line.procedure,
        "",
        " " * _CODE,
        line.provider.ljust(_CODE),
        line.kind,
        condition.period,
        back,
        "",
        "",
    )
    return (",".join(fields) + "\r\n").encode(charset)


def _padded(text: str, charset: str) -> str:
    """Fill a field of 20, counted in bytes of CP932 and in characters of UTF-8."""
    width = len(text.encode(charset)) if charset == "cp932" else len(text)
    return text + " " * (_WIDE - width)


class Result:
    """A result (CSV) as far as it came: whole lines only, so that it is known behind which one to go on."""

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._came = bytearray()
        self._known: list[Told] = []

    @property
    def after(self) -> int:
        """The number of the last whole line, from 1; 0 where none came."""
        return self._known[-1].line + 1 if self._known else 0

    def add(self, piece: bytes) -> None:
        """Take what came."""
        self._came += piece

    def end(self, *, cut: bool) -> None:
        """Read what came up to here; where it was cut off, the last line may have more rows and does not count."""
        whole = bytes(self._came)
        if cut:
            whole = whole[: whole.rfind(b"\r\n") + 2]
        self._came.clear()
        rows = list(csv.reader(io.StringIO(whole.decode(self._charset), newline="")))[1:]
        lines = [_told(list(same)) for _, same in groupby(rows, key=lambda row: (row[0], *row[2:7]))]
        self._known += lines[:-1] if cut else lines

    def lines(self) -> list[Told]:
        """Return what the result says of its lines; a line about which it says two things stands there twice."""
        return list(self._known)


def _told(rows: Sequence[Sequence[str]]) -> Told:
    """Return what the rows of one line say."""
    number, copy, state, outcome = rows[0][:4]
    content = _digest(row[7:] for row in rows) if copy else None
    return Told(int(number) - 1, state, outcome or None, None, content)


def _digest(rows: Iterable[Sequence[str]]) -> str:
    return hashlib.sha256(repr([list(row) for row in rows]).encode()).hexdigest()[:16]
