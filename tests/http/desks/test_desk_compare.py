"""Reconciliation with the original: every difference is told by its kind, page by page, and nothing is changed."""

import uuid
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.platform.http.parts import CSV, ReceivedPart
from chukan.platform.wire.agency import CopyKey, CopySearch, LoadCommit, LoadOpen
from chukan.platform.wire.compare import LoadCompare
from chukan.tenants import load_compare
from chukan.tenants.loads import digest_of_parts

KIND = "TM00000000000089"


def _part(account: dict[str, str], people: dict[str, dict[str, str]], *, review: str = "0") -> ReceivedPart:
    header = ["addressee", "effective_from", "review", *account]
    rows = [[person, "2026-04-01", review, *{**account, **changes}.values()] for person, changes in people.items()]
    part = ReceivedPart(CSV, "utf-8")
    part.add("".join(",".join(row) + "\r\n" for row in [header, *rows]).encode())
    return part


async def _stage(office: Any, key: Any, *parts: ReceivedPart, expected: int, mode: Any = "full") -> uuid.UUID:
    load = await office.loads.open(office.agency, LoadOpen(kind=KIND, layout=202506, mode=mode, expected=expected), key)
    for number, part in enumerate(parts):
        await office.loads.part(office.agency, load.id, number, part)
    return uuid.UUID(str(load.id))


async def _register(office: Any, key: Any, part: ReceivedPart, count: int) -> None:
    load = await _stage(office, key, part, expected=count)
    await office.loads.commit(office.agency, load, LoadCommit(digest=digest_of_parts([part.digest]).hex()))


def _other(account: dict[str, str]) -> tuple[str, str]:
    """An item that takes any text of digits, and another value for it."""
    code = next(code for code, value in account.items() if value.isdigit())
    return code, "".join("1" if digit == "0" else digit for digit in account[code][:-1]) + (
        "8" if account[code][-1] != "8" else "7"
    )


@pytest.mark.requirement("REP-04")
async def test_a_hundred_and_nineteen_differences_are_all_told_by_their_kind(
    office: Any, fresh: Any, account: dict[str, str]
) -> None:
    code, value = _other(account)
    here = {f"P{n:04d}": {} for n in range(500)}
    await _register(office, fresh("key-number-1"), _part(account, here), 500)
    original: dict[str, dict[str, str]] = {f"P{n:04d}": {} for n in range(34, 500)}
    original.update({f"P{n:04d}": {code: value} for n in range(100, 151)})
    original.update({f"N{n:04d}": {} for n in range(34)})
    load = await _stage(office, fresh("key-number-2"), _part(account, original), expected=500)

    found: list[Any] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        page = await office.loads.compare(office.agency, load, LoadCompare(after=after, limit=50))
        assert (page.counts is not None) is (pages == 0)
        if page.counts is not None:
            counts = page.counts
        found += page.differences
        after, pages = page.next, pages + 1
    assert (counts.missing_here, counts.missing_there, counts.differing) == (34, 34, 51)
    assert (len(found), pages) == (119, 3)
    by_kind = {
        kind: {each.addressee for each in found if each.difference == kind}
        for kind in ("missing_here", "missing_there", "differing")
    }
    assert by_kind == {
        "missing_here": {f"N{n:04d}" for n in range(34)},
        "missing_there": {f"P{n:04d}" for n in range(34)},
        "differing": {f"P{n:04d}" for n in range(100, 151)},
    }
    assert {tuple(each.items) for each in found if each.difference == "differing"} == {(code,)}
    # Nothing was changed: what is told is what a commit would do.
    keys = [CopyKey(addressee="P0000"), CopyKey(addressee="N0000")]
    copies = (await office.copies.search(office.agency, CopySearch(keys=keys))).copies
    assert [copy.addressee for copy in copies] == ["P0000"]
    await office.loads.abort(office.agency, load)
    with pytest.raises(Problem, match="load_not_open"):
        await office.loads.compare(office.agency, load, LoadCompare())


@pytest.mark.requirement("REP-04")
async def test_a_flag_that_differs_is_told_and_the_same_is_not(office: Any, fresh: Any, account: Any) -> None:
    await _register(office, fresh("key-number-1"), _part(account, {"A1": {}, "A2": {}}), 2)
    load = await _stage(
        office, fresh("key-number-2"), _part(account, {"A1": {}}, review="1"), _part(account, {"A2": {}}), expected=2
    )
    page = await office.loads.compare(office.agency, load, LoadCompare())
    assert [(each.addressee, each.items, each.review) for each in page.differences] == [("A1", [], True)]


async def test_a_load_of_differences_cannot_tell_what_the_original_lacks(office: Any, fresh: Any, account: Any) -> None:
    await _register(office, fresh("key-number-1"), _part(account, {"A1": {}, "A2": {}}), 2)
    part = _part(account, {"A2": {}, "A3": {}})
    load = await _stage(office, fresh("key-number-2"), part, expected=2, mode="difference")
    page = await office.loads.compare(office.agency, load, LoadCompare())
    assert page.counts == type(page.counts)(missing_here=1, missing_there=0, differing=0)
    assert [(each.addressee, each.difference) for each in page.differences] == [("A3", "missing_here")]


async def test_a_load_that_is_not_all_there_is_not_compared(office: Any, fresh: Any, account: Any) -> None:
    load = await _stage(office, fresh("key-number-1"), _part(account, {"A1": {}}), expected=2)
    with pytest.raises(Problem, match="load_count_mismatch"):
        await office.loads.compare(office.agency, load, LoadCompare())
    with pytest.raises(Problem, match="not_found"):
        await office.loads.compare(office.agency, uuid.UUID(int=1), LoadCompare())


@pytest.mark.parametrize("after", ["x", "AAAA", "!" * 48])
def test_a_cursor_that_is_none_is_refused(after: str) -> None:
    with pytest.raises(Problem, match="invalid_field"):
        load_compare._from_cursor(after)
