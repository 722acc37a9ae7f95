"""The desk for copies: each line judged by itself, a repeat does nothing again, only the own agency is touched."""

import datetime as dt
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.platform.wire.agency import (
    Copies,
    CopyDelete,
    CopyExport,
    CopyKey,
    CopyLine,
    CopySearch,
    Gap,
    HoldLine,
    Holds,
)
from chukan.tenants.directory import AgencyRow
from chukan.tenants.numbers import synthetic_individual_number

KIND = "TM00000000000089"


def _line(items: Any, **changes: Any) -> CopyLine:
    given: dict[str, Any] = {
        "addressee": "A1",
        "kind": KIND,
        "layout": 202506,
        "effective_from": dt.date(2026, 4, 1),
        "items": items,
    }
    return CopyLine(**(given | changes))


def _states(results: Any) -> list[tuple[int, str, str | None]]:
    return [(line.line, line.status, None if line.problem is None else line.problem.code) for line in results.lines]


@pytest.mark.requirement("REP-02", "REP-06")
async def test_what_was_registered_is_seen_by_its_agency(office: Any, fresh: Any, account: Any) -> None:
    body = Copies(lines=[_line(account), _line(account, addressee="A2", review=True)], source="nightly")
    assert _states(await office.copies.register(office.agency, body, fresh())) == [(0, "done", None), (1, "done", None)]
    found = (await office.copies.search(office.agency, CopySearch(keys=[CopyKey(addressee="A2")]))).copies
    assert [(copy.addressee, copy.items, copy.review, copy.source) for copy in found] == [
        ("A2", account, True, "nightly")
    ]
    again = await office.copies.register(office.agency, body, fresh())
    assert _states(again) == [(0, "unchanged", None), (1, "unchanged", None)]


@pytest.mark.requirement("REP-01", "REP-02", "PRV-10")
async def test_bad_lines_are_refused_by_number_and_reason_and_the_rest_is_taken(
    office: Any, fresh: Any, account: Any
) -> None:
    number = synthetic_individual_number(99)
    short = {name: value for name, value in account.items() if name != "TKX0890000000006"}
    lines = [
        _line(account),
        _line(short),
        _line(account | {"TKX0890000000099": "1"}),
        _line(account | {"TKX0890000000006": ""}),
        _line(account | {"TKX0890000000006": Gap(gap="77")}),
        _line(account | {"TKX0890000000001": "12345"}),
        _line(account | {"TKX0890000000007": f"ヤマダ {number}"}),
        _line(account, addressee=number),
        _line(account, layout=1),
        _line(account, kind="TM00000000000099"),
        _line(account, period="2026"),
        _line(account | {"TKX0890000000006": Gap(gap="01")}, addressee="A2"),
    ]
    results = await office.copies.register(office.agency, Copies(lines=lines), fresh())
    assert _states(results) == [
        (0, "done", None),
        (1, "refused", "missing_reason_code"),
        (2, "refused", "unknown_item"),
        (3, "refused", "missing_reason_code"),
        (4, "refused", "unauthorised_gap_code"),
        (5, "refused", "invalid_field"),
        (6, "refused", "individual_number_present"),
        (7, "refused", "individual_number_present"),
        (8, "refused", "unknown_layout"),
        (9, "refused", "unknown_kind"),
        (10, "refused", "invalid_field"),
        (11, "done", None),
    ]
    problem = results.lines[6].problem
    assert (problem.line, problem.pointer) == (7, "/lines/6/items/TKX0890000000007")
    assert number not in str(results)
    assert len(await office.rows("copies")) == 2


async def test_a_layout_of_next_year_may_come_ahead_with_its_own_day(
    office: Any, fresh: Any, account: Any, law: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dt.date] = []
    real = law.layout_for

    def layout_for(kind: str, version: int, day: dt.date) -> Any:
        asked.append(day)
        if day < dt.date(2027, 4, 1):
            raise Problem("unknown_layout", pointer="/layout")
        return real(kind, version, day)

    monkeypatch.setattr(law, "layout_for", layout_for)
    ahead = _line(account, effective_from=dt.date(2027, 4, 1))
    late = _line(account, effective_from=dt.date(2026, 4, 1))
    results = await office.copies.register(office.agency, Copies(lines=[ahead, late]), fresh())
    assert _states(results) == [(0, "done", None), (1, "refused", "unknown_layout")]


@pytest.mark.requirement("TXR-03")
async def test_a_late_repeat_does_not_bring_old_values_back(office: Any, fresh: Any, account: Any) -> None:
    old = Copies(lines=[_line(account), _line({}, addressee="A2")])
    new = Copies(lines=[_line(account | {"TKX0890000000006": "1111111"})])
    first = await office.copies.register(office.agency, old, fresh("key-number-1", b"old"))
    await office.copies.register(office.agency, new, fresh("key-number-2", b"new"))
    repeat = await office.copies.register(office.agency, old, fresh("key-number-1", b"old"))
    assert _states(repeat) == _states(first)
    found = await office.copies.search(office.agency, CopySearch(keys=[CopyKey(addressee="A1")]))
    assert found.copies[0].items["TKX0890000000006"] == "1111111"


async def test_a_key_with_other_content_is_refused_and_does_nothing(office: Any, fresh: Any, account: Any) -> None:
    await office.copies.register(office.agency, Copies(lines=[_line(account)]), fresh("key-number-1", b"one"))
    with pytest.raises(Problem, match="idempotency_key_reused"):
        await office.copies.delete(
            office.agency, CopyDelete(keys=[CopyKey(addressee="A1")]), fresh("key-number-1", b"another")
        )
    assert len(await office.rows("copies")) == 1


@pytest.mark.requirement("REP-08")
async def test_deleting_says_what_was_there(office: Any, fresh: Any, account: Any) -> None:
    await office.copies.register(office.agency, Copies(lines=[_line(account)]), fresh())
    body = CopyDelete(keys=[CopyKey(addressee="A1", kind=KIND), CopyKey(addressee="A9")])
    first = await office.copies.delete(office.agency, body, fresh("key-number-1"))
    assert _states(first) == [(0, "done", None), (1, "unchanged", None)]
    assert await office.rows("copies") == []
    await office.copies.register(office.agency, Copies(lines=[_line(account)]), fresh())
    await office.copies.delete(office.agency, body, fresh("key-number-1"))
    assert len(await office.rows("copies")) == 1


@pytest.mark.requirement("REP-04")
async def test_an_export_goes_through_all_copies_of_a_kind(office: Any, fresh: Any, account: Any) -> None:
    lines = [_line(account, addressee=f"A{number}") for number in range(7)]
    await office.copies.register(office.agency, Copies(lines=lines), fresh())
    seen: list[str] = []
    after = None
    for _ in range(10):
        page = await office.copies.export(office.agency, CopyExport(kind=KIND, after=after, limit=3))
        seen += [copy.addressee for copy in page.copies]
        after = page.next
        if after is None:
            break
    assert sorted(seen) == [f"A{number}" for number in range(7)]
    with pytest.raises(Problem, match="unknown_kind"):
        await office.copies.export(office.agency, CopyExport(kind="TM00000000000099"))


@pytest.mark.requirement("PRV-05")
async def test_holds_are_set_and_lifted(office: Any, fresh: Any) -> None:
    await office.copies.hold(
        office.agency, Holds(lines=[HoldLine(addressee="A1"), HoldLine(kind=KIND), HoldLine(addressee="A2")]), fresh()
    )
    assert len(await office.rows("holds")) == 3
    await office.copies.hold(office.agency, Holds(lines=[HoldLine(addressee="A1", held=False)]), fresh())
    assert len(await office.rows("holds")) == 2
    for line, code in ((HoldLine(), "invalid_field"), (HoldLine(kind="TM00000000000099"), "unknown_kind")):
        with pytest.raises(Problem, match=code) as raised:
            await office.copies.hold(office.agency, Holds(lines=[HoldLine(addressee="A1"), line]), fresh())
        assert raised.value.line == 2


OWN: Any = {"flag": "own_information"}


async def test_flags_of_own_information_stand_beside_holds(office: Any, fresh: Any) -> None:
    of_copy = HoldLine(addressee="A1", kind=KIND, period="2026", effective_from=dt.date(2026, 6, 1), **OWN)
    lines = [HoldLine(addressee="A1", **OWN), HoldLine(kind=KIND, **OWN), of_copy, HoldLine(addressee="A1")]
    await office.copies.hold(office.agency, Holds(lines=lines), fresh())
    assert (len(await office.rows("holds")), len(await office.rows("own_information_flags"))) == (1, 3)
    again = [msgspec.structs.replace(of_copy, held=False), HoldLine(kind=KIND, **OWN), HoldLine(kind=KIND, **OWN)]
    await office.copies.hold(office.agency, Holds(lines=again), fresh())
    assert (len(await office.rows("holds")), len(await office.rows("own_information_flags"))) == (1, 2)
    wrong = [
        HoldLine(**OWN), HoldLine(addressee="A1", period="2026", **OWN), HoldLine(kind=KIND, period="2026", **OWN),
        HoldLine(addressee="A1", kind=KIND, period="2026"),
    ]  # fmt: skip
    for line in wrong:
        with pytest.raises(Problem, match="invalid_field") as raised:
            await office.copies.hold(office.agency, Holds(lines=[HoldLine(addressee="A2", **OWN), line]), fresh())
        assert raised.value.line == 2
    assert len(await office.rows("own_information_flags")) == 2, "all lines or none"


async def test_a_cell_that_this_exchange_does_not_know_has_no_primary(office: Any) -> None:
    elsewhere = AgencyRow(number=1, code="0" * 16, body="131016", name="x", cell="north", generation=1)
    with pytest.raises(Problem, match="no_primary"):
        office.door(elsewhere)
