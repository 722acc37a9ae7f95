"""A copy fits its layout or is refused by item, never with its value; missing is never zero."""

from dataclasses import replace
from datetime import date
from typing import cast

import msgspec
import pytest

from chukan.errors import Problem
from chukan.platform.law import Gap, ItemType, Law, Layout, select_items, validate_copy
from chukan.tenants.numbers import synthetic_individual_number, synthetic_resident_code

TODAY = date(2026, 11, 23)
TAX, RESIDENT = "TM00000000000002", "TM00000000000001"
KINDS = ["TM00000000000001", TAX, "TM00000000000089", *(f"TMX{number:013d}" for number in range(11, 16))]

SAMPLES = {
    ItemType.AMOUNT: "120000",
    ItemType.COUNT: "2",
    ItemType.FLAG: "1",
    ItemType.DATE: "2026-02-28",
    ItemType.CODE: "1",
    ItemType.TEXT: "神",
}


def filled(layout: Layout) -> dict[str, str | Gap | None]:
    return {code: SAMPLES[item.type] for code, item in layout.items.items()}


def first(layout: Layout, kind: ItemType, *, required: bool = True) -> str:
    return next(code for code, item in layout.items.items() if item.type is kind and item.required is required)


@pytest.fixture(params=KINDS)
def layout(law: Law, request: pytest.FixtureRequest) -> Layout:
    return law.layouts_in_force(request.param, TODAY)[-1]


def refused(layout: Layout, values: dict[str, str | Gap | None]) -> tuple[str, str | None]:
    with pytest.raises(Problem) as caught:
        validate_copy(layout, values)
    return caught.value.code, caught.value.pointer


@pytest.mark.requirement("REP-01")
def test_a_full_copy_is_accepted_and_a_foreign_item_is_not(layout: Layout) -> None:
    validate_copy(layout, filled(layout))
    assert refused(layout, filled(layout) | {"TKX9990000000001": "1"}) == ("unknown_item", "/items/TKX9990000000001")


@pytest.mark.requirement("REP-01")
def test_the_name_of_an_unknown_item_is_not_repeated_unless_it_has_the_form_of_a_code(law: Law) -> None:
    layout = law.layout_for(RESIDENT, 202506, TODAY)
    assert refused(layout, filled(layout) | {"999000000009": "1"}) == ("unknown_item", "/items")


@pytest.mark.requirement("PRV-10")
@pytest.mark.parametrize("missing", [None, ""], ids=["null", "empty"])
def test_a_missing_value_needs_a_reason_and_is_never_zero(layout: Layout, missing: str | None) -> None:
    for code, item in layout.items.items():
        if item.required:
            assert refused(layout, filled(layout) | {code: missing}) == ("missing_reason_code", f"/items/{code}")
            absent = filled(layout)
            del absent[code]
            assert refused(layout, absent) == ("missing_reason_code", f"/items/{code}")
            validate_copy(layout, filled(layout) | {code: Gap(gap="02")})


@pytest.mark.requirement("PRV-10")
def test_null_needs_a_reason_in_an_optional_item_too(law: Law) -> None:
    layout = law.layout_for(TAX, 202606, TODAY)
    code = first(layout, ItemType.AMOUNT, required=False)
    assert refused(layout, filled(layout) | {code: None}) == ("missing_reason_code", f"/items/{code}")
    absent = filled(layout)
    del absent[code]
    validate_copy(layout, absent)


@pytest.mark.requirement("PRV-10")
def test_a_reason_must_be_one_that_exists(layout: Layout) -> None:
    code = next(iter(layout.items))
    assert refused(layout, filled(layout) | {code: Gap(gap="77")}) == ("unauthorised_gap_code", f"/items/{code}")


BAD = [
    (ItemType.AMOUNT, ["1,000", "1.5", "-0", "007", "１２０", "1e3", " 1", "1" * 14, "1\n"]),
    (ItemType.COUNT, ["-1", "123", "x", "01"]),
    (ItemType.FLAG, ["2", "yes", "01", "１"]),
    (ItemType.DATE, ["2026-02-29", "20260228", "2026-2-8", "令和8年", "2026-13-01", "2026-W09-6", "2026-02-28T00:00"]),
    (ItemType.CODE, ["あ", "a b", "1\n"]),
    (ItemType.TEXT, ["\u3000", "a\x00b", "a\nb", "あ" * 101]),
]


@pytest.mark.requirement("REP-01")
@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in BAD for value in values])
def test_a_value_that_does_not_fit_its_type_is_refused_without_it(law: Law, kind: ItemType, value: str) -> None:
    layout = law.layout_for(TAX if kind is not ItemType.DATE else "TMX0000000000012", 202506, TODAY)
    code = first(layout, kind, required=kind is not ItemType.TEXT)
    with pytest.raises(Problem) as caught:
        validate_copy(layout, filled(layout) | {code: value})
    problem = caught.value
    assert (problem.code, problem.pointer) == ("invalid_field", f"/items/{code}")
    assert value not in str(problem)
    assert kind.value in str(problem.expected)


@pytest.mark.requirement("REP-01")
def test_a_value_that_is_no_text_at_all_is_refused(law: Law) -> None:
    layout = law.layout_for(TAX, 202506, TODAY)
    code = first(layout, ItemType.AMOUNT)
    number = cast("str", 0)
    assert refused(layout, filled(layout) | {code: number}) == ("invalid_field", f"/items/{code}")


@pytest.mark.parametrize("value", ["0", "-120000", "9999999999999"])
def test_amounts_are_signed_whole_yen(law: Law, value: str) -> None:
    layout = law.layout_for(TAX, 202506, TODAY)
    validate_copy(layout, filled(layout) | {first(layout, ItemType.AMOUNT): value})


def test_text_is_taken_as_it_is_written(law: Law) -> None:
    layout = law.layout_for(RESIDENT, 202506, TODAY)
    for name in ("\ufa19谷\u3000\u8fbb\U000e0100", "\U00020bb7田", "髙﨑", "ｶﾐﾔ", "が"):
        validate_copy(layout, filled(layout) | {first(layout, ItemType.TEXT): name})


NUMBERS = [
    (synthetic_individual_number(4711), "individual_number_present"),
    (synthetic_resident_code(4711), "resident_code_present"),
]


@pytest.mark.parametrize(("number", "code"), NUMBERS, ids=["individual number", "resident code"])
def test_personal_numbers_are_refused_in_every_text_and_identifier_and_never_quoted(
    layout: Layout, number: str, code: str
) -> None:
    scanned = [one for one, item in layout.items.items() if item.personal_text and item.length_max >= len(number)]
    for item in scanned:
        with pytest.raises(Problem) as caught:
            validate_copy(layout, filled(layout) | {item: number})
        assert (caught.value.code, caught.value.pointer) == (code, f"/items/{item}")
        assert number not in repr(caught.value) + str(caught.value.as_dict())


@pytest.mark.parametrize("number", [number for number, _ in NUMBERS])
def test_typed_amounts_are_exempt_from_the_scan(law: Law, number: str) -> None:
    layout = law.layout_for(TAX, 202606, TODAY)
    validate_copy(layout, filled(layout) | {first(layout, ItemType.AMOUNT): number})


def test_every_text_is_scanned(law: Law) -> None:
    for kind in KINDS:
        for layout in law.layouts_in_force(kind, TODAY):
            open_texts = [
                item for item in layout.items.values() if item.type is ItemType.TEXT and not item.personal_text
            ]
            assert open_texts == []


@pytest.mark.requirement("REP-01")
def test_two_versions_of_the_tax_layout_coexist(law: Law) -> None:
    old, new = law.layouts_in_force(TAX, TODAY)
    assert (old.version, new.version) == (202506, 202606)
    assert min(len(old.items), len(new.items)) >= 40
    assert old.items.keys() - new.items.keys()
    assert new.items.keys() - old.items.keys()
    assert [one.version for one in law.layouts_in_force(TAX, date(2026, 5, 31))] == [202506]
    assert [one.version for one in law.layouts_in_force(TAX, date(2027, 6, 1))] == [202606]
    assert law.layouts_in_force(TAX, date(2025, 5, 31)) == ()


@pytest.mark.requirement("REP-01")
def test_a_layout_serves_on_its_days_only(law: Law) -> None:
    assert law.layout_for(TAX, 202606, TODAY).version == 202606
    for kind, version, day, code in (
        (TAX, 202606, date(2026, 5, 31), "unknown_layout"),
        (TAX, 202506, date(2027, 6, 1), "unknown_layout"),
        (TAX, 1, TODAY, "unknown_layout"),
        ("TM" + "9" * 14, 202606, TODAY, "unknown_kind"),
    ):
        with pytest.raises(Problem) as caught:
            law.layout_for(kind, version, day)
        assert caught.value.code == code


@pytest.mark.requirement("PRV-10")
def test_an_answer_holds_allowed_items_only_and_a_reason_for_each_gap(law: Law) -> None:
    layout = law.layout_for(TAX, 202506, TODAY)
    values = {code: value for code, value in filled(layout).items() if isinstance(value, str)}
    held, optional = first(layout, ItemType.AMOUNT), first(layout, ItemType.AMOUNT, required=False)
    del values[optional]
    later = next(iter(law.layout_for(TAX, 202606, TODAY).items.keys() - layout.items.keys()))

    assert select_items(layout, values, {held}) == ({held: values[held]}, False)
    assert select_items(layout, values, {held, optional}) == ({held: values[held], optional: Gap(gap="90")}, True)
    assert select_items(layout, values, {held, later}) == ({held: values[held]}, False)
    assert select_items(layout, values, {held, later}, {later}) == ({later: Gap(gap="07")}, True)
    assert select_items(layout, values, {held}, {held, optional}) == ({held: values[held]}, False)
    assert select_items(layout, values, {held}, {optional}) == ({}, False)
    zero = values | {held: "0"}
    assert select_items(layout, zero, {held}) == ({held: "0"}, False)


def test_values_travel_as_text_or_gap() -> None:
    wire = b'{"TKX0020000000001":"2026","TKX0020000000002":{"gap":"01"}}'
    values = msgspec.json.decode(wire, type=dict[str, str | Gap])
    assert values == {"TKX0020000000001": "2026", "TKX0020000000002": Gap(gap="01")}
    assert msgspec.json.encode(values) == wire


def test_a_layout_can_be_shown_without_its_checks(law: Law) -> None:
    layout = law.layout_for(TAX, 202506, TODAY)
    assert "_checks" not in repr(layout)
    assert replace(layout) == layout
