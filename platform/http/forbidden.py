"""Keeps individual numbers (個人番号) and resident codes (住民票コード) out of what is stored (DESIGN §3, invariant 7).

Scanned are the free texts and identifiers of every request: departments, notes, sources, periods, addressee numbers.
Amounts, dates, flags and codes are typed and exempt; the text items of a copy are scanned by their layout
(``platform.law``). A hit names the kind of number, the place and the line, and never the value.
"""

from collections.abc import Iterable

from chukan.errors import Problem
from chukan.platform.wire.agency import CopyLine, HoldLine, QueryLine
from chukan.tenants.numbers import find_forbidden

Field = tuple[str, str]
"""Name of a field and its text."""


def refuse(fields: Iterable[Field], root: str = "", line: int | None = None) -> None:
    """Raise ``Problem`` individual_number_present or resident_code_present for the first field that holds one."""
    for name, text in fields:
        found = find_forbidden(text)
        if found is not None:
            raise Problem(f"{found}_present", pointer=f"{root}/{name}", line=line)


def of_query(line: QueryLine) -> list[Field]:
    """Return the texts and identifiers of a query line that are not codes of a fixed form."""
    items = [("items", item) for item in line.items or ()]
    return [("addressee", line.addressee), ("department", line.department), *items]


def of_copy(line: CopyLine) -> list[Field]:
    """Return the identifiers of a copy; its items are scanned by their layout."""
    return [("addressee", line.addressee), ("period", line.period)]


def of_hold(line: HoldLine) -> list[Field]:
    """Return the identifiers of a hold."""
    return [("addressee", line.addressee or ""), ("period", line.period or "")]
