"""By what a kind may be asked: a table of conditions; whatever the table does not have is a format error."""

from datetime import date
from itertools import product

import pytest

from chukan.errors import Problem
from chukan.platform.law import Law

KINDS = {"year": "TM00000000000002", "date": "TM00000000000001", "none": "TM00000000000089"}
START, END = date(2026, 4, 1), date(2026, 6, 30)

# (period of the kind, 照会条件区分, year given, start given, end given): all that is right
RIGHT = {
    ("year", "0", False, False, False),
    ("year", "1", True, False, False),
    ("year", "2", False, True, True),
    ("date", "0", False, False, False),
    ("date", "2", False, True, True),
    ("none", "0", False, False, False),
}
ALL = list(
    product(("year", "date", "none"), ("0", "1", "2", "3", "", "x"), (False, True), (False, True), (False, True))
)


@pytest.mark.requirement("INQ-07")
@pytest.mark.parametrize("case", ALL, ids=str)
def test_each_combination_is_right_or_a_format_error(law: Law, case: tuple[str, str, bool, bool, bool]) -> None:
    period, condition, *given = case
    values = (
        KINDS[period],
        condition,
        "2026" if given[0] else None,
        START if given[1] else None,
        END if given[2] else None,
    )
    if case in RIGHT:
        law.validate_condition(*values)
        return
    with pytest.raises(Problem) as caught:
        law.validate_condition(*values)
    assert caught.value.code == "bad_condition"
    assert str(caught.value.pointer).startswith("/condition/")


@pytest.mark.requirement("INQ-07")
@pytest.mark.parametrize("year", ["", "26", "20267", "２０２６", "令和8年", "abcd", "-026"])
def test_a_year_has_four_digits(law: Law, year: str) -> None:
    with pytest.raises(Problem) as caught:
        law.validate_condition(KINDS["year"], "1", year, None, None)
    assert (caught.value.code, caught.value.pointer) == ("bad_condition", "/condition/year")
    assert str(caught.value) == "bad_condition"


@pytest.mark.requirement("INQ-07")
def test_a_period_ends_on_or_after_its_start(law: Law) -> None:
    law.validate_condition(KINDS["date"], "2", None, START, START)
    with pytest.raises(Problem) as caught:
        law.validate_condition(KINDS["date"], "2", None, END, START)
    assert caught.value.pointer == "/condition/end"


@pytest.mark.requirement("INQ-07")
def test_a_kind_that_does_not_exist_has_no_condition(law: Law) -> None:
    with pytest.raises(Problem) as caught:
        law.validate_condition("TM" + "9" * 14, "0", None, None, None)
    assert caught.value.code == "unknown_kind"


@pytest.mark.parametrize(("period", "good", "bad"), [("year", "2026", ""), ("date", "", "2026"), ("none", "", "2026")])
def test_a_copy_names_its_year_where_the_kind_is_asked_by_year(law: Law, period: str, good: str, bad: str) -> None:
    law.validate_period(KINDS[period], good)
    with pytest.raises(Problem) as caught:
        law.validate_period(KINDS[period], bad)
    assert (caught.value.code, caught.value.pointer) == ("invalid_field", "/period")
    with pytest.raises(Problem) as caught:
        law.validate_period("TM" + "9" * 14, good)
    assert caught.value.code == "unknown_kind"
