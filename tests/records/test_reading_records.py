"""Records are read in the log's order, by person, with what the person must not see left out, and never if altered."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.tenants import records
from chukan.tenants.records import RecordError, StoredRecord, make_record
from chukan.tenants.rows import AcceptBatch, AcceptLine
from chukan.tenants.sealing import SealError
from chukan.tenants.sequencer import Sequencer
from chukan.tenants.states import InquiryState, Outcome

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)


async def page(shelf: Any, after: str | None = None, limit: int = 1000) -> records.RecordPage:
    async with shelf.open() as partition:
        return await records.list_records(partition, shelf.keys, after=after, limit=limit)


async def of_person(shelf: Any, addressee: str = "A1", *, for_person: bool = False) -> list[StoredRecord]:
    async with shelf.open() as partition:
        return await records.by_person(partition, shelf.keys, shelf.person(addressee), for_person=for_person)


def ids(found: list[StoredRecord]) -> list[uuid.UUID]:
    return [each.fields.id for each in found]


def positions(found: list[StoredRecord]) -> list[int | None]:
    return [each.position for each in found]


async def test_records_come_in_the_order_of_the_log_and_those_without_a_place_last(shelf: Any) -> None:
    first = [await shelf.record(f"A{n % 3}") for n in range(5)]
    await shelf.sequence()
    later = [await shelf.record() for _ in range(2)]
    found = await page(shelf)
    assert found.next is None
    assert sorted(ids(found.records)[:5]) == sorted(first)
    numbered = [place for place in positions(found.records) if place is not None]
    assert numbered == sorted(set(numbered))
    assert len(numbered) == 5
    assert ids(found.records)[5:] == later
    assert positions(found.records)[5:] == [None, None]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_bring_every_record_also_while_they_get_their_places(shelf: Any, limit: int) -> None:
    given = {await shelf.record() for _ in range(4)}
    await shelf.sequence()
    given |= {await shelf.record() for _ in range(4)}
    found: list[uuid.UUID] = []
    after: str | None = None
    for turn in range(20):
        each = await page(shelf, after, limit)
        assert len(each.records) <= limit
        found += ids(each.records)
        if turn == 3:
            await shelf.sequence()
        if each.next is None:
            break
        after = each.next
    assert after is None or each.next is None
    assert set(found) == given


@pytest.mark.parametrize("limit", [1, 3, 6, 7])
async def test_pages_end_also_where_no_record_has_a_place(shelf: Any, limit: int) -> None:
    given = [await shelf.record() for _ in range(6)]
    found: list[uuid.UUID] = []
    after: str | None = None
    for _ in range(7):
        each = await page(shelf, after, limit)
        found += ids(each.records)
        after = each.next
        if after is None:
            break
    assert after is None
    assert found == given


@pytest.mark.parametrize("after", ["", "x", "é", "AAAA", "gA==", "k///////"])
async def test_a_cursor_that_is_none_of_ours_is_refused(shelf: Any, after: str) -> None:
    with pytest.raises(Problem, match="invalid_field"):
        await page(shelf, after)


@pytest.mark.parametrize("limit", [0, 1001])
async def test_a_page_has_one_to_a_thousand_records(shelf: Any, limit: int) -> None:
    with pytest.raises(Problem, match="too_many_lines"):
        await page(shelf, limit=limit)


@pytest.mark.requirement("REC-03")
async def test_all_records_about_a_person_are_found_and_nobody_elses(shelf: Any) -> None:
    mine = [await shelf.record("A1", side=side) for side in ("inquirer", "provider", "provider")]
    await shelf.record("A2")
    await shelf.sequence()
    waiting = await shelf.record("A1")
    found = await of_person(shelf)
    assert ids(found) == [*mine, waiting]
    assert positions(found)[-1] is None
    assert await of_person(shelf, "A3") == []


@pytest.mark.requirement("REC-03")
async def test_a_person_does_not_see_withheld_records_nor_what_amends_them(shelf: Any) -> None:
    shown = await shelf.record()
    hidden = await shelf.record(withheld=True)
    await shelf.record(amends=hidden)
    later_hidden = await shelf.record()
    await shelf.record(amends=later_hidden, withheld=True)
    amendment = await shelf.record(amends=shown)
    await shelf.sequence()
    assert ids(await of_person(shelf, for_person=True)) == [shown, amendment]
    assert len(await of_person(shelf)) == 6


@pytest.mark.requirement("REC-01")
@pytest.mark.parametrize("outcome", [outcome.word for outcome in Outcome if outcome is not Outcome.NONE])
async def test_every_outcome_is_recorded_in_full(shelf: Any, outcome: str) -> None:
    given = shelf.fields(
        outcome=outcome, side="inquirer", reason="pia_unpublished", pia_refusal=True, withheld=True, reference="ref"
    )
    await shelf.record(**{name: getattr(given, name) for name in given.__struct_fields__})
    await shelf.sequence()
    (found,) = await of_person(shelf)
    assert found.fields == given
    assert found.position is not None


@pytest.mark.requirement("TEN-01")
async def test_a_neighbour_finds_nothing(shelf: Any, neighbour: Any) -> None:
    await shelf.record()
    await shelf.sequence()
    assert (await page(neighbour)).records == []
    assert await of_person(neighbour) == []
    with pytest.raises(Problem):
        async with neighbour.open() as partition:
            await partition.fetch(f"SELECT * FROM {shelf.schema}.records")


@pytest.mark.requirement("REC-06")
async def test_the_person_rests_as_a_label_only(shelf: Any) -> None:
    await shelf.record("A1")
    (row,) = await shelf.admin.fetch(f"SELECT * FROM {shelf.schema}.records")
    assert row["label"] == shelf.keys.label(shelf.person("A1"))
    kept = b"".join(value for value in row.values() if isinstance(value, bytes))
    assert shelf.person("A1") not in kept
    assert b"A1" not in kept


@pytest.mark.parametrize(
    "change",
    [
        "commitment = sha256('x')",
        "sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 1)",
        "month = '2020-01-01'",
        "label = sha256('x')",
        "amends = '00000000-0000-0000-0000-000000000001'",
    ],
)
async def test_an_altered_record_is_not_shown(shelf: Any, change: str) -> None:
    await shelf.record()
    await shelf.sequence()
    await shelf.bend(f"UPDATE {shelf.schema}.records SET {change}")
    with pytest.raises((RecordError, SealError)):
        await page(shelf)


async def test_a_record_put_in_the_place_of_another_is_not_shown(shelf: Any) -> None:
    line = await shelf.record()
    await shelf.sequence()
    other = make_record(
        shelf.keys, SystemChance(SystemClock()), shelf.fields(id=line, outcome="refused"), person=shelf.person("A1")
    )
    # Row and commitment fit each other and open under the agency's keys; only the log knows what was there.
    await shelf.bend(f"UPDATE {shelf.schema}.records SET sealed = $1, commitment = $2", other.sealed, other.commitment)
    for read in (page(shelf), of_person(shelf)):
        with pytest.raises(RecordError) as caught:
            await read
        assert caught.value.position is not None
        assert str(caught.value) == "a provision record does not match its commitment"


async def test_a_person_with_too_many_records_is_told_so(shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PERSON_MAX", 2)
    for _ in range(2):
        await shelf.record()
    assert len(await of_person(shelf)) == 2
    await shelf.record()
    with pytest.raises(Problem, match="too_many_lines"):
        await of_person(shelf)


@pytest.mark.requirement("REC-01")
async def test_a_line_that_closes_at_once_is_recorded_and_numbered_by_the_driver(shelf: Any) -> None:
    keys, chance = shelf.keys, SystemChance(SystemClock())
    line, person = chance.uuid7(), shelf.person("A1")
    fields = shelf.fields(id=line, side="inquirer", outcome="not_permitted")
    batch = AcceptBatch(shelf.agency, 1, keys.digest("key", b"k"), keys.digest("body", b"b"), chance.uuid7())
    accepted = AcceptLine(
        agency=shelf.agency, batch=batch.batch, id=line, ordinal=0, state=InquiryState.NOT_PERMITTED,
        outcome=Outcome.NOT_PERMITTED, reason=None, due=AT, deadline=AT, person=person,
        request=keys.seal("request", line.bytes, b"{}"), outbox=None,
        record=make_record(keys, chance, fields, person=person),
    )  # fmt: skip
    await shelf.sets.accept([batch], [accepted])
    numbered = Numbered(shelf.sets)
    driver = Sequencer(numbered, "tests", SystemClock(), lambda _: None)
    numbered.done = driver.stop
    await driver.run()
    (found,) = await of_person(shelf)
    assert found.fields == fields
    assert found.position is not None


class Numbered:
    """The cell's set functions; says when nothing waits any more."""

    def __init__(self, sets: Any) -> None:
        self._sets = sets
        self.done: Callable[[], None] = lambda: None

    async def sequence(self, owner: str, limit: int) -> int:
        count = int(await self._sets.sequence(owner, limit))
        if await self._sets.sequencer_age() == 0:
            self.done()
        return count

    async def sequencer_age(self) -> float:
        return float(await self._sets.sequencer_age())
