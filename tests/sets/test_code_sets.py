"""Acquisition and codes: one open acquisition a person, the number deleted with the code's arrival."""

import asyncio
import dataclasses

import pytest

from chukan.errors import Problem
from chukan.tenants.rows import CodeNumber, CodeOpen, CodePut
from chukan.tenants.states import LinkStatus


def opening(make, agency=1, **fields):
    given = {
        "agency": agency,
        "generation": 1,
        "person": make.digest(),
        "addressee": b"sealed addressee",
        "request": make.id(),
    }
    return CodeOpen(**{**given, **fields})


def numbered(make, opened, **fields):
    given = {
        "agency": opened.agency,
        "person": opened.person,
        "request": opened.request,
        "number_digest": make.digest(),
        "number": b"sealed number",
    }
    return CodeNumber(**{**given, **fields})


def arriving(make, number, **fields):
    given = {
        "agency": number.agency,
        "inbox": make.id(),
        "number_digest": number.number_digest,
        "code_digest": make.digest(),
        "code": b"sealed code",
    }
    return CodePut(**{**given, **fields})


async def acquire(bench, make, agency=1):
    """Open an acquisition and give it its number."""
    opened = opening(make, agency)
    await bench.sets.open_codes([opened])
    number = numbered(make, opened)
    await bench.sets.set_numbers([number])
    return opened, number


async def link(bench, agency, person):
    (row,) = await bench.sets.find_codes([(agency, person)])
    return row


@pytest.mark.requirement("SYM-02")
async def test_two_acquisitions_at_once_give_one_open_number(bench, make):
    first = opening(make)
    openings = [dataclasses.replace(first, request=make.id()) for _ in range(8)]
    answers = await asyncio.gather(*(bench.sets.open_codes([each]) for each in openings))
    assert len({row.request for (row,) in answers}) == 1
    (winner,) = {row.request for (row,) in answers}
    opened = next(each for each in openings if each.request == winner)
    numbers = [numbered(make, opened, number=bytes([n])) for n in range(8)]
    rows = await asyncio.gather(*(bench.sets.set_numbers([each]) for each in numbers))
    assert len({row.number for (row,) in rows}) == 1
    assert (await link(bench, 1, first.person)).status is LinkStatus.REQUESTED


async def test_the_same_person_twice_in_a_call_is_opened_once(bench, make):
    first = opening(make, 42)
    second = dataclasses.replace(first, request=make.id())
    other = opening(make, 1)
    rows = await bench.sets.open_codes([first, other, second])
    assert [row.request for row in rows] == [first.request, other.request, first.request]
    assert [row.person for row in rows] == [first.person, other.person, first.person]


async def test_the_same_person_digest_at_another_agency_is_another_link(bench, make):
    first = opening(make, 1)
    second = dataclasses.replace(first, agency=2, request=make.id())
    rows = await bench.sets.open_codes([first, second])
    assert [row.request for row in rows] == [first.request, second.request]


async def test_a_code_arrives_and_its_number_is_gone(bench, make):
    opened, number = await acquire(bench, make, 42)
    put = arriving(make, number)
    assert await bench.sets.put_codes([put]) == ["applied"]
    row = await link(bench, 42, opened.person)
    assert (row.status, row.code, row.code_digest) == (LinkStatus.ACTIVE, put.code, put.code_digest)
    assert (row.number, row.request, row.version) == (None, None, 2)
    assert await bench.rows(42, "codes", number.number_digest, by="number_digest") == []


@pytest.mark.requirement("TXR-03")
async def test_the_same_arrival_again_is_a_repeat(bench, make):
    opened, number = await acquire(bench, make)
    put = arriving(make, number)
    assert await bench.sets.put_codes([put, put]) == ["applied", "repeat"]
    assert await bench.fenced(bench.sets.put_codes([put])) == ["repeat"]
    assert (await link(bench, 1, opened.person)).version == 2


async def test_an_unknown_number_leaves_nothing(bench, make):
    opened = opening(make)
    put = arriving(make, numbered(make, opened))
    assert await bench.sets.put_codes([put]) == ["unknown"]
    assert await bench.rows(1, "inbox", put.inbox) == []


async def test_a_number_means_nothing_at_another_agency(bench, make):
    opened, number = await acquire(bench, make, 1)
    assert await bench.sets.put_codes([arriving(make, number, agency=2)]) == ["unknown"]
    assert (await link(bench, 1, opened.person)).status is LinkStatus.REQUESTED


async def test_already_acquired_without_a_code_here_is_a_duplicate(bench, make):
    opened, number = await acquire(bench, make)
    assert await bench.sets.put_codes([arriving(make, number, code=None, code_digest=None)]) == ["duplicate"]
    row = await link(bench, 1, opened.person)
    assert (row.status, row.number, row.code) == (LinkStatus.DUPLICATE, None, None)


async def test_already_acquired_keeps_an_active_link(bench, make):
    opened, number = await acquire(bench, make)
    put = arriving(make, number)
    await bench.sets.put_codes([put])
    again = make.digest()
    await bench.admin.execute(
        "UPDATE a00001.codes SET number_digest = $1, number = 'n' WHERE person = $2", again, opened.person
    )
    word = await bench.sets.put_codes([arriving(make, number, number_digest=again, code=None, code_digest=None)])
    assert word == ["applied"]
    row = await link(bench, 1, opened.person)
    assert (row.status, row.code, row.number) == (LinkStatus.ACTIVE, put.code, None)


async def test_one_code_for_two_persons_makes_the_second_a_duplicate(bench, make):
    first, first_number = await acquire(bench, make)
    second, second_number = await acquire(bench, make)
    third, third_number = await acquire(bench, make)
    put = arriving(make, first_number)
    same = arriving(make, second_number, code_digest=put.code_digest)
    assert await bench.sets.put_codes([put, same]) == ["applied", "duplicate"]
    late = arriving(make, third_number, code_digest=put.code_digest)
    assert await bench.sets.put_codes([late]) == ["duplicate"]
    states = [(await link(bench, 1, each.person)).status for each in (first, second, third)]
    assert states == [LinkStatus.ACTIVE, LinkStatus.DUPLICATE, LinkStatus.DUPLICATE]


async def test_asking_again_for_an_active_link_opens_nothing(bench, make):
    opened, number = await acquire(bench, make)
    await bench.sets.put_codes([arriving(make, number)])
    (row,) = await bench.sets.open_codes([dataclasses.replace(opened, request=make.id())])
    assert (row.status, row.request) == (LinkStatus.ACTIVE, None)
    (row,) = await bench.sets.set_numbers([numbered(make, opened)])
    assert row.number is None


async def test_a_number_of_another_request_is_not_kept(bench, make):
    opened = opening(make)
    await bench.sets.open_codes([opened])
    (row,) = await bench.sets.set_numbers([numbered(make, opened, request=make.id())])
    assert row.number is None
    with pytest.raises(Problem, match="not_found"):
        await bench.sets.set_numbers([numbered(make, opening(make))])


async def test_links_are_found_in_the_order_asked_for(bench, make):
    one, two = opening(make, 1), opening(make, 99999)
    await bench.sets.open_codes([one, two])
    rows = await bench.sets.find_codes([(99999, two.person), (1, two.person), (1, one.person), (1, one.person)])
    assert [None if row is None else row.person for row in rows] == [two.person, None, one.person, one.person]


async def test_a_stale_generation_or_a_strange_agency_is_refused(bench, make):
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.open_codes([opening(make, generation=2)])
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.find_codes([(77, make.digest())])
    with pytest.raises(Problem, match="agency_moved"):
        await bench.sets.put_codes([arriving(make, numbered(make, opening(make, 77)))])
