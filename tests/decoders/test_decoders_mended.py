"""Faults that fuzzing found, each with the bytes that showed it."""

from typing import Any

import pytest

from chukan import toml_reading
from chukan.errors import Problem
from chukan.platform.law import calendar, masters
from chukan.tests.support.decoders import all_decoders

DEEP = "a = " + "[" * 5_000


def refused(call: Any, *given: Any) -> str:
    """Return the code of the problem that a call ends with."""
    with pytest.raises(Problem) as problem:
        call(*given)
    return problem.value.code


def test_a_permit_of_the_first_second_is_past_and_no_fault() -> None:
    permit = all_decoders()["permit"]
    assert refused(permit.call, permit.seeds[1]) == "permit_expired"


def test_a_cursor_of_what_the_database_does_not_take_is_none() -> None:
    records, copies = all_decoders()["cursor of records"], all_decoders()["cursor of copies"]
    assert [refused(records.call, seed) for seed in records.seeds[1:]] == ["invalid_field"] * 2
    assert [refused(copies.call, seed) for seed in copies.seeds[2:]] == ["invalid_field"] * 2
    for decoder in (records, copies):
        decoder.call(decoder.seeds[0])


def test_tables_that_nest_too_deeply_are_refused() -> None:
    assert refused(toml_reading.parse, DEEP) == "settings_unreadable"
    assert refused(masters.complete, {calendar.FILE: DEEP}, None) == "master_invalid"
    assert refused(masters.complete, {"lists.toml": DEEP}, None) == "master_invalid"


@pytest.mark.requirement("LAW-04")
@pytest.mark.parametrize("name", ["kinds.csv", "affairs.csv", "provider_limits.csv", "layouts.csv", "gap_codes.csv"])
def test_a_row_that_was_cut_off_or_has_too_much_is_refused(name: str) -> None:
    text = masters.complete({}, None)[name]
    for bent in (text.rstrip().rpartition(",")[0] + "\n", text.rstrip() + ",more\n"):
        assert refused(masters.complete, {name: bent}, None) == "master_invalid"


def test_a_list_that_is_none_is_refused() -> None:
    for text in ("list = 5\n", "list = [5]\n", 'list = ["x"]\n', ""):
        assert refused(masters.complete, {"lists.toml": text}, None) == "master_invalid"


def test_the_files_of_the_release_are_whole() -> None:
    assert masters.complete({}, None).keys() > {"lists.toml", "kinds.csv"}
