"""The scan of free text for individual numbers and resident codes, both ways: what it must see and must let pass."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chukan.tenants.numbers import (
    SYNTHETIC_RANGE,
    find_forbidden,
    is_individual_number,
    is_resident_code,
    synthetic_individual_number,
    synthetic_resident_code,
)

FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
HYPHENS = "-－‐‑‒–—―−ーｰ"
SPACES = " \u3000\u00a0"
SERIALS = st.integers(0, SYNTHETIC_RANGE - 1)
WORDS = st.text(
    alphabet=st.characters(exclude_categories=["Nd", "Zs", "Pd", "Cf", "Cs"], exclude_characters="ーｰ−"), max_size=8
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("123456789018", "individual_number"),
        ("12345678903", "resident_code"),
        ("番号は123456789018です", "individual_number"),
        ("１２３４５６７８９０１８", "individual_number"),
        ("1234 5678 9018", "individual_number"),
        ("1234\u30005678\u30009018", "individual_number"),
        ("1234-5678-9018", "individual_number"),
        ("１２３４ー５６７８ー９０１８", "individual_number"),
        ("1234−5678–9018", "individual_number"),
        ("1 2 3 4 5 6 7 8 9 0 1 8", "individual_number"),
        ("1234\u200b5678\u200b9018", "individual_number"),
        ("12345-67890-3", "resident_code"),
        ("電話03-1234-5678 番号123456789018", "individual_number"),
        ("令和7 123456789018", "individual_number"),
        ("令和7 1234 5678 9018", "individual_number"),
        ("2025 1234-5678-9018", "individual_number"),
        ("1234 5678 9018-01", "individual_number"),
        ("ID123456789018", "individual_number"),
        ("\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660\u0661\u0668", "individual_number"),
        ("", None),
        ("山田太郎", None),
        ("123456789017", None),
        ("12345678904", None),
        ("1123456789018", None),
        ("1234567890189", None),
        ("1234  5678  9018", None),
        ("1234\n5678\n9018", None),
        ("1234,5678,9018", None),
        ("1234.5678.9018", None),
        ("1234 5678 9018 1234", None),
        ("中央1丁目2番3号", None),
        ("03-1234-5678", None),
        ("2024-06-17 2024-07-01", None),
        ("TM00000000000002", None),
        ("9901131121000001", None),
        ("8000020130001", None),
        ("000000058341694", None),
    ],
)
def test_examples(text: str, found: str | None) -> None:
    assert find_forbidden(text) == found


@given(SERIALS, st.sampled_from([None, FULL_WIDTH]), WORDS, WORDS)
def test_an_individual_number_is_found_in_any_words_and_any_width(
    serial: int,
    width: dict[int, int] | None,
    before: str,
    after: str,
) -> None:
    number = synthetic_individual_number(serial)
    text = before + (number.translate(width) if width else number) + after
    assert find_forbidden(text) == "individual_number"


@given(SERIALS, WORDS, WORDS)
def test_a_resident_code_is_found_in_any_words(serial: int, before: str, after: str) -> None:
    assert find_forbidden(before + synthetic_resident_code(serial) + after) == "resident_code"


@given(SERIALS, st.lists(st.sampled_from(["", *HYPHENS, *SPACES]), min_size=11, max_size=11))
def test_single_separators_anywhere_hide_nothing(serial: int, separators: list[str]) -> None:
    number = synthetic_individual_number(serial)
    text = number[0] + "".join(separator + digit for separator, digit in zip(separators, number[1:], strict=True))
    assert find_forbidden(text) == "individual_number"


@given(SERIALS, st.sampled_from([*HYPHENS, *SPACES]), st.text(alphabet="0123456789", min_size=1, max_size=10))
def test_digits_beside_a_number_do_not_hide_it(serial: int, separator: str, neighbour: str) -> None:
    number = synthetic_individual_number(serial)
    assert find_forbidden(neighbour + separator + number) == "individual_number"
    assert find_forbidden(number + separator + neighbour) == "individual_number"


@given(st.text(alphabet="0123456789", min_size=11, max_size=12))
def test_a_run_is_refused_exactly_when_its_check_digit_is_valid(run: str) -> None:
    valid = is_individual_number(run) or is_resident_code(run)
    assert (find_forbidden(run) is not None) == valid


@given(st.text(alphabet="0123456789", max_size=40))
def test_an_unbroken_run_of_another_length_passes(run: str) -> None:
    assume(len(run) not in {11, 12})
    assert find_forbidden(run) is None


@given(st.text(alphabet="0123456789-ー ", max_size=10))
def test_few_digits_are_never_refused(text: str) -> None:
    assert find_forbidden(text) is None


@given(st.text(max_size=200))
def test_any_text_can_be_scanned(text: str) -> None:
    assert find_forbidden(text) in {None, "individual_number", "resident_code"}


@pytest.mark.parametrize("unit", ["1", "1 ", "1234 ", "12345678901 ", "ー", "1ー"], ids=range(6))
def test_long_hostile_text_is_scanned_in_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    begun = time.perf_counter()
    find_forbidden(text)
    assert time.perf_counter() - begun < 5
