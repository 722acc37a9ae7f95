"""A difference is registered copy by copy: what is new, what changed, what is the same; each in its own place."""

import asyncio
import datetime as dt
import os
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chukan.errors import Problem
from chukan.tenants import copies
from chukan.tenants.copies import Copy, CopyPlace, copy_id, open_body, seal_copy
from chukan.tenants.sealing import AgencyKeys, KeySet

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
LATER = AT + dt.timedelta(hours=1)
KEYS = AgencyKeys(KeySet(42, {1: b"\x01" * 32}, b"\x02" * 32, {1: b"\x03" * 32}), os.urandom)
Make = Callable[..., Copy]


async def register(desk: Any, *given: Copy, at: dt.datetime = AT, source: str = "api") -> list[str]:
    async with desk.open() as partition:
        return list(await copies.register(partition, desk.keys, given, source=source, at=at))


async def found(desk: Any, *names: tuple[str, str | None]) -> list[copies.StoredCopy]:
    async with desk.open() as partition:
        return await copies.search(partition, desk.keys, names or [("A1", None)])


@pytest.mark.requirement("REP-03")
async def test_new_changed_and_same_copies_are_told_apart(desk: Any, copy: Make) -> None:
    assert await register(desk, copy("A1"), copy("A2")) == ["inserted", "inserted"]
    changed = copy("A1", items=b'{"TM1":"2000"}')
    assert await register(desk, changed, copy("A2"), copy("A3")) == ["updated", "unchanged", "inserted"]
    assert [each.items for each in await found(desk)] == [b'{"TM1":"2000"}']


async def test_a_changed_review_flag_alone_is_a_change(desk: Any, copy: Make) -> None:
    await register(desk, copy())
    assert await register(desk, copy(review=True)) == ["updated"]
    assert (await found(desk))[0].review


@pytest.mark.requirement("REP-03")
async def test_years_dates_layouts_and_kinds_stand_side_by_side(desk: Any, copy: Make) -> None:
    given = [
        copy(),
        copy(period="2025"),
        copy(layout=2),
        copy(effective_from=dt.date(2027, 4, 1)),
        copy(kind="TM00000000000003"),
    ]
    assert await register(desk, *given) == ["inserted"] * 5
    stored = await found(desk)
    places = {(each.kind, each.period, each.effective_from, each.layout) for each in stored}
    assert places == {(each.kind, each.period, each.effective_from, each.layout) for each in given}


@pytest.mark.requirement("REP-05")
async def test_instant_and_source_are_kept_and_an_unchanged_copy_keeps_its_own(desk: Any, copy: Make) -> None:
    await register(desk, copy("A1"), copy("A2"), source="tax system")
    await register(desk, copy("A1"), copy("A2", items=b"{}"), at=LATER, source="night file")
    first, second = (await found(desk, ("A1", None), ("A2", None)))[:2]
    assert (first.registered_at, first.source) == (AT, "tax system")
    assert (second.registered_at, second.source) == (LATER, "night file")


async def test_an_update_keeps_the_row_id_and_stays_readable(desk: Any, copy: Make) -> None:
    await register(desk, copy())
    before = (await desk.rows("copies"))[0]
    await register(desk, copy(items=b'{"TM1":"9"}'))
    (after,) = await desk.rows("copies")
    assert before["id"] == after["id"]
    assert before["body"] != after["body"]
    assert (await found(desk))[0].items == b'{"TM1":"9"}'


async def test_two_registrations_of_one_new_copy_at_once_leave_one_that_opens(desk: Any, copy: Make) -> None:
    given = [copy(f"A{n}", items=b'{"n":"%d"}' % n) for n in range(20)]
    results = await asyncio.gather(*(register(desk, *given) for _ in range(4)))
    assert sorted(word for result in results for word in result) == ["inserted"] * 20 + ["unchanged"] * 60
    assert len(await found(desk, *((f"A{n}", None) for n in range(20)))) == 20


async def test_of_a_key_that_comes_twice_the_last_counts(desk: Any, copy: Make) -> None:
    assert await register(desk, copy(items=b'{"a":"1"}'), copy("A2"), copy(items=b'{"a":"2"}')) == [
        "unchanged",
        "inserted",
        "inserted",
    ]
    assert (await found(desk))[0].items == b'{"a":"2"}'


async def test_a_call_that_changes_nothing_still_commits_something(desk: Any, copy: Make) -> None:
    await register(desk, copy())
    async with desk.open() as partition:
        assert await copies.register(partition, desk.keys, [copy()], source="api", at=AT) == ["unchanged"]
        assert await partition.fetchval("SELECT pg_current_xact_id_if_assigned()") is not None
    async with desk.open() as partition:
        assert await copies.delete(partition, desk.keys, [("A9", None)]) == [0]
        assert await partition.fetchval("SELECT pg_current_xact_id_if_assigned()") is not None


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_list_has_one_to_a_thousand_lines(desk: Any, copy: Make, count: int) -> None:
    with pytest.raises(Problem, match="too_many_lines") as caught:
        await register(desk, *(copy(f"A{n}") for n in range(count)))
    assert caught.value.limit == 1000


async def test_a_thousand_lines_are_taken(desk: Any, copy: Make) -> None:
    assert await register(desk, *(copy(f"A{n}") for n in range(1000))) == ["inserted"] * 1000


@given(
    addressee=st.text("0123456789ABCxyz", min_size=1, max_size=15),
    kind=st.text("TM0123456789", min_size=1, max_size=16),
    period=st.text("0123456789", max_size=4),
    layout=st.integers(0, 2**31 - 1),
    day=st.dates(),
    review=st.booleans(),
    value=st.text(max_size=50),
)
def test_a_sealed_copy_opens_as_it_was_given(
    addressee: str,
    kind: str,
    period: str,
    layout: int,
    day: dt.date,
    review: bool,  # noqa: FBT001
    value: str,
) -> None:
    items = msgspec.json.encode({"TM1": value})
    given = Copy(addressee, kind, layout, day, period, items, review)
    sealed = seal_copy(KEYS, given)
    opened = open_body(KEYS, sealed.id, sealed.body)
    assert (opened.addressee, opened.items, opened.review) == (addressee, items, review)
    assert sealed.id.version == 8
    assert sealed.id.variant == uuid.RFC_4122


def test_equal_items_of_two_years_or_persons_do_not_show_as_equal(copy: Make) -> None:
    given = [copy(), copy("A2"), copy(period="2025"), copy(layout=2), copy(effective_from=dt.date(2025, 4, 1))]
    assert len({seal_copy(KEYS, each).content for each in given}) == len(given)


@given(st.data())
def test_two_places_never_share_an_id(data: st.DataObject) -> None:
    texts = st.text("TM01", max_size=3)
    place = st.builds(
        CopyPlace, st.sampled_from([b"\x01" * 32, b"\x02" * 32]), texts, texts, st.dates(), st.integers(0, 3)
    )
    one, two = data.draw(place), data.draw(place)
    assert (copy_id(KEYS, one) == copy_id(KEYS, two)) == (one == two)


@pytest.mark.parametrize(
    "items", [b"", b"[]", b"1", b"{", b"{}x", b' {"a":"1"}', b'{},"review":false', b'{}}\n{"a":{}']
)
def test_items_that_are_no_json_object_are_refused(items: bytes, copy: Make) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        seal_copy(KEYS, copy(items=items))
