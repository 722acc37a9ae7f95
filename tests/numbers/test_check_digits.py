"""Check digits of the four numbers, by worked examples and by what a check digit is for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.tenants import numbers

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))
TELLS: dict[str, Callable[[str], bool]] = {
    "individual_number": numbers.is_individual_number,
    "resident_code": numbers.is_resident_code,
    "corporate_number": numbers.is_corporate_number,
    "body_code": numbers.is_body_code,
}
CASES = [(name, full) for name in TELLS for full in VECTORS[name]]


@pytest.mark.parametrize(("name", "full"), CASES)
def test_worked_examples_pass_and_any_other_check_digit_fails(name: str, full: str) -> None:
    tells = TELLS[name]
    assert tells(full)
    at = 0 if name == "corporate_number" else len(full) - 1
    others = [full[:at] + digit + full[at + 1 :] for digit in "0123456789" if digit != full[at]]
    assert not any(tells(other) for other in others)


@pytest.mark.parametrize("name", TELLS)
@pytest.mark.parametrize(
    "wrong", ["", "1", "x" * 12, "１２３４５６７８９０１８", "1234 5678 9018", "²" * 12, "-12345678901"]
)
def test_what_has_not_the_form_is_no_number(name: str, wrong: str) -> None:
    assert not TELLS[name](wrong)


@pytest.mark.parametrize(
    ("check", "length"),
    [
        (numbers.individual_check, 11),
        (numbers.resident_check, 10),
        (numbers.corporate_check, 12),
        (numbers.body_check, 5),
    ],
)
def test_a_check_digit_is_made_of_ascii_digits_of_the_right_length_only(
    check: Callable[[str], str], length: int
) -> None:
    assert check("1" * length).isdigit()
    for wrong in ("1" * (length + 1), "1" * (length - 1), "１" * length, "a" * length):
        with pytest.raises(ValueError, match="ASCII digits") as caught:
            check(wrong)
        assert wrong not in str(caught.value)


@given(st.integers(0, 10**11 - 1), st.integers(0, 11), st.integers(1, 9))
def test_one_mistyped_digit_of_an_individual_number_is_nearly_always_seen(body: int, at: int, by: int) -> None:
    """The rule folds remainders 0 and 1 into 0, so a change can only hide when both sides fold to the same digit."""
    text = f"{body:011d}"
    full = text + numbers.individual_check(text)
    wrong = full[:at] + str((int(full[at]) + by) % 10) + full[at + 1 :]
    if numbers.is_individual_number(wrong):
        assert full[-1] == wrong[-1] == "0"


@pytest.mark.requirement("TST-04")
@given(st.integers(0, numbers.SYNTHETIC_RANGE - 1))
def test_synthetic_numbers_are_valid_and_from_the_range(serial: int) -> None:
    individual, resident = numbers.synthetic_individual_number(serial), numbers.synthetic_resident_code(serial)
    assert numbers.is_individual_number(individual)
    assert individual.startswith(numbers.SYNTHETIC_INDIVIDUAL_PREFIX)
    assert numbers.is_resident_code(resident)
    assert resident.startswith(numbers.SYNTHETIC_RESIDENT_PREFIX)


@pytest.mark.requirement("TST-04")
def test_no_two_serials_share_a_number() -> None:
    serials = [*range(20_000), *range(numbers.SYNTHETIC_RANGE - 20_000, numbers.SYNTHETIC_RANGE)]
    assert len({numbers.synthetic_individual_number(serial) for serial in serials}) == len(serials)
    assert len({numbers.synthetic_resident_code(serial) for serial in serials}) == len(serials)


@pytest.mark.requirement("TST-04")
@pytest.mark.parametrize("serial", [-1, numbers.SYNTHETIC_RANGE])
def test_outside_the_range_there_is_no_number(serial: int) -> None:
    with pytest.raises(ValueError, match="lies between"):
        numbers.synthetic_individual_number(serial)
    with pytest.raises(ValueError, match="lies between"):
        numbers.synthetic_resident_code(serial)
