"""Personnel files (人事異動ファイル): CSV lines that become the entries of one change of officers' accounts.

A header names the columns, in any order: ``act, officer, name, department, function, affair, first, last, card``; an
empty cell says nothing. UTF-8, with or without a mark at its beginning, or CP932 where that is said. At most 1,000
lines. Invariant: what is wrong is told by line and column, and nothing of what stands in the file is quoted.
"""

import csv
import io
from pathlib import Path
from typing import Final

import msgspec

from chukan.errors import Problem
from chukan.platform.wire.network import LINES_MAX
from chukan.platform.wire.officers import OfficerEntry

COLUMNS: Final = ("act", "officer", "name", "department", "function", "affair", "first", "last", "card")
_NEEDED: Final = frozenset({"act", "officer"})
_BYTES_MAX: Final = 4 * 1024 * 1024


def read(path: Path, *, charset: str = "utf-8") -> list[OfficerEntry]:
    """Return a file's entries. Raises ``Problem``: settings_unreadable, too_large, too_many_lines, invalid_field."""
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError:
        raise Problem("settings_unreadable", expected=f"a readable file in {charset}") from None
    if len(content) > _BYTES_MAX:
        raise Problem("too_large", limit=_BYTES_MAX)
    try:
        text = content.decode("utf-8-sig" if charset == "utf-8" else charset)
    except (LookupError, UnicodeError):
        raise Problem("settings_unreadable", expected=f"a readable file in {charset}") from None
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        raise Problem("settings_unreadable", expected="CSV (RFC 4180)") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    if not set(header) <= set(COLUMNS) or not set(header) >= _NEEDED or len(set(header)) != len(header):
        raise Problem("invalid_field", line=1, expected=f"a header of {', '.join(COLUMNS)}")
    numbered = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(row)]
    if not 1 <= len(numbered) <= LINES_MAX:
        raise Problem("too_many_lines", limit=LINES_MAX)
    return [_entry(number, header, row) for number, row in numbered]


def _entry(number: int, header: list[str], row: list[str]) -> OfficerEntry:
    if len(row) != len(header):
        raise Problem("invalid_field", line=number, expected="as many cells as the header has")
    given = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
    try:
        return msgspec.convert(given, OfficerEntry)
    except msgspec.ValidationError as error:
        # Its text names the column behind the last "$."; what stands before may quote a value.
        _, _, column = str(error).rpartition("$.")
        known = column.rstrip("`") if column.rstrip("`") in COLUMNS else None
        pointer = None if known is None else f"/{known}"
        raise Problem("invalid_field", line=number, pointer=pointer, expected="see the guide of officers") from None
