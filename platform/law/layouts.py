"""Layouts of kinds (データ標準レイアウト) and the check of a copy against one; illustrative data, real rules.

A layout is one version of the items of a kind, with the days on which it may be used; several may be in force at once.

Invariant: missing is never zero (DESIGN §3, invariant 9). Each required item carries a value or a reason code
(未設定事由); an empty text is a missing value. No problem raised here holds what stood in a field.
"""

import enum
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from chukan.errors import Problem
from chukan.platform.law.tables import Kind, Source
from chukan.platform.wire.agency import Gap
from chukan.tenants.numbers import find_forbidden

Value = str | Gap
"""What an item carries on the wire: its text, or the reason why it has none."""

NOT_IN_LAYOUT: Final = "07"
"""Reason code of an item that the copy's layout did not have."""
NOT_REGISTERED: Final = "90"
"""Reason code of an optional item that was not registered."""

_ITEM_CODE: Final = re.compile(r"TK[0-9X][0-9]{13}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class ItemType(enum.StrEnum):
    """How an item's text is formed; all values travel as text."""

    AMOUNT = "amount"
    """Signed whole yen."""
    COUNT = "count"
    """Whole number, not negative."""
    FLAG = "flag"
    """0 or 1."""
    DATE = "date"
    """YYYY-MM-DD."""
    CODE = "code"
    """Latin letters, digits, hyphen."""
    TEXT = "text"
    """Any characters but controls, not only spaces."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item (項目) of a layout; ``length_max`` counts characters (digits for numbers, without the sign)."""

    code: str
    name_ja: str
    type: ItemType
    length_max: int
    required: bool
    personal_text: bool
    """Free text or an identifier: scanned for individual numbers and resident codes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One version of a kind's items; days are inclusive, ``valid_until`` None means until superseded."""

    kind: str
    version: int
    valid_from: date
    valid_until: date | None
    items: Mapping[str, Item]
    gap_codes: frozenset[str]
    _checks: Mapping[str, Callable[[str], object]] = field(repr=False, compare=False)
    _required: frozenset[str] = field(repr=False, compare=False)
    _scanned: frozenset[str] = field(repr=False, compare=False)

    def covers(self, day: date) -> bool:
        """Tell whether the layout may be used on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


def validate_copy(layout: Layout, values: Mapping[str, str | Gap | None]) -> None:
    """Check the items of one copy (副本) against its layout.

    Raises:
        Problem: ``unknown_item``, ``missing_reason_code`` (a required item is absent, null or empty),
            ``unauthorised_gap_code``, ``invalid_field`` (the text does not fit the item's type or length),
            ``individual_number_present`` or ``resident_code_present``; each with the pointer ``/items/<code>``.
    """
    checks, scanned = layout._checks, layout._scanned  # noqa: SLF001 (this function is the layout's own check)
    for code, value in values.items():
        check = checks.get(code)
        if check is None:
            raise Problem("unknown_item", pointer=_pointer(code))
        if isinstance(value, str) and value:
            if not check(value):
                raise Problem("invalid_field", pointer=_pointer(code), expected=_expected(layout.items[code]))
            if code in scanned:
                _refuse_numbers(code, value)
        elif isinstance(value, Gap):
            if value.gap not in layout.gap_codes:
                raise Problem("unauthorised_gap_code", pointer=_pointer(code))
        elif value is None or value == "":
            raise Problem("missing_reason_code", pointer=_pointer(code))
        else:
            raise Problem("invalid_field", pointer=_pointer(code), expected=_expected(layout.items[code]))
    if not layout._required <= values.keys():  # noqa: SLF001 (the same)
        absent = min(layout._required - values.keys())  # noqa: SLF001 (the same)
        raise Problem("missing_reason_code", pointer=_pointer(absent))


def select_items(
    layout: Layout,
    values: Mapping[str, Value],
    allowed: Collection[str],
    requested: Collection[str] | None = None,
) -> tuple[dict[str, Value], bool]:
    """Return what an answer may carry of a copy, in the layout's order, and whether it has gaps.

    Only items that are allowed are returned, and only those requested where any are (None: all). An item that was
    requested but is not in the copy's layout, and an optional one that was not registered, carry a reason code.
    """
    wanted = set(allowed) if requested is None else set(allowed) & set(requested)
    chosen: dict[str, Value] = {
        code: values.get(code) or Gap(gap=NOT_REGISTERED) for code in layout.items if code in wanted
    }
    if requested is not None:
        chosen.update((code, Gap(gap=NOT_IN_LAYOUT)) for code in sorted(wanted - layout.items.keys()))
    return chosen, any(isinstance(value, Gap) for value in chosen.values())


def _refuse_numbers(code: str, value: str) -> None:
    found = find_forbidden(value)
    if found is not None:
        raise Problem(f"{found}_present", pointer=_pointer(code))


def _pointer(code: str) -> str:
    # What the caller sent as a name is repeated only where it has the form of an item code: a name can be a value too.
    return f"/items/{code}" if _ITEM_CODE.fullmatch(code) else "/items"


def _expected(item: Item) -> str:
    return f"{item.type.value}, at most {item.length_max} characters"


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_of(item: Item) -> Callable[[str], object]:
    if item.type is ItemType.DATE:
        return _is_day
    most = item.length_max
    patterns = {
        ItemType.AMOUNT: rf"0|-?[1-9][0-9]{{0,{most - 1}}}",
        ItemType.COUNT: rf"0|[1-9][0-9]{{0,{most - 1}}}",
        ItemType.FLAG: "[01]",
        ItemType.CODE: rf"[0-9A-Za-z-]{{1,{most}}}",
        ItemType.TEXT: rf"(?=.*\S)[^\x00-\x1f\x7f-\x9f]{{1,{most}}}",
    }
    return re.compile(patterns[item.type]).fullmatch


def _make(key: tuple[str, int, date, date | None], items: dict[str, Item], gap_codes: frozenset[str]) -> Layout:
    kind, version, valid_from, valid_until = key
    return Layout(
        kind=kind,
        version=version,
        valid_from=valid_from,
        valid_until=valid_until,
        items=items,
        gap_codes=gap_codes,
        _checks={code: _check_of(item) for code, item in items.items()},
        _required=frozenset(code for code, item in items.items() if item.required),
        _scanned=frozenset(code for code, item in items.items() if item.personal_text),
    )


def read_layouts(source: Source, kinds: dict[str, Kind], gap_codes: frozenset[str]) -> dict[tuple[str, int], Layout]:
    """Return the layouts by (kind, version).

    Raises:
        ValueError: an item stands twice in a layout, a version has two periods, or a kind does not exist.
    """
    if not {NOT_IN_LAYOUT, NOT_REGISTERED} <= gap_codes:
        raise ValueError("the platform's own reason codes are missing from gap_codes.csv")
    grouped: dict[tuple[str, int, date, date | None], dict[str, Item]] = {}
    for row in source.rows("layouts.csv"):
        until = date.fromisoformat(row["valid_until"]) if row["valid_until"] else None
        key = (row["kind"], int(row["version"]), date.fromisoformat(row["valid_from"]), until)
        item = Item(
            code=row["item"],
            name_ja=row["name_ja"],
            type=ItemType(row["type"]),
            length_max=int(row["length_max"]),
            required=row["required"] == "yes",
            personal_text=row["personal_text"] == "yes",
        )
        items = grouped.setdefault(key, {})
        if item.code in items or row["kind"] not in kinds:
            raise ValueError(f"layouts.csv: {item.code} stands twice in a layout or belongs to no kind")
        items[item.code] = item
    layouts = {key[:2]: _make(key, items, gap_codes) for key, items in grouped.items()}
    if len(layouts) != len(grouped):
        raise ValueError("layouts.csv: one version of a kind has two periods of validity")
    return layouts
