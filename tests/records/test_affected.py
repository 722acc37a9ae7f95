"""Incidents on a real cell: an operator counts without keys, the agency alone finds out who the persons are."""

import datetime as dt
from typing import Any

import asyncpg
import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.client_affected import in_parts, joined, without_people
from chukan.ops.sandbox.clients import ClientError
from chukan.platform.http.desks.records import PartitionRecords
from chukan.platform.wire.agency import ProblemBody
from chukan.platform.wire.incidents import Affected, AffectedSearch
from chukan.tenants import affected, copies
from chukan.tenants.affected import Scope, find_affected
from chukan.tenants.directory import AgencyRow
from chukan.tenants.incidents import Facts, count_affected, enter, read_incidents
from chukan.tenants.records import RecordError
from chukan.tests.records.bending import CHANCE
from chukan.tests.records.conftest import AT

DAY = dt.timedelta(days=1)
NIGHT = Scope(AT - DAY, AT + DAY)


async def link(shelf: Any, addressee: str) -> None:
    person = shelf.person(addressee)
    await shelf.admin.execute(
        f"INSERT INTO {shelf.schema}.codes (person, status, addressee) VALUES ($1, 1, $2)",
        person, shelf.keys.seal("addressee", person, addressee.encode()),
    )  # fmt: skip


async def lodge(shelf: Any, addressee: str) -> None:
    copy = copies.Copy(addressee, "TM00000000000002", 1, dt.date(2026, 4, 1), "2026", b'{"TM1":"1"}')
    async with shelf.open() as partition:
        await copies.register(partition, shelf.keys, [copy], source="tests", at=AT)


async def as_of(shelf: Any, at: dt.datetime) -> None:
    """Let all records and leaves be of an instant, as those are that were made then."""
    await shelf.bend(f"UPDATE {shelf.schema}.records SET at = $1", at)
    await shelf.admin.execute(f"UPDATE {shelf.schema}.log SET at = $1", at)


@pytest.mark.requirement("BRE-02")
async def test_the_agency_finds_each_person_once_by_its_own_number(shelf: Any) -> None:
    await link(shelf, "A1")
    await lodge(shelf, "A2")
    await shelf.record("A1")
    await shelf.record("A1", kind="TM00000000000009", items=["TM7"], closed_at=AT + dt.timedelta(hours=2))
    await shelf.record("A2", inquirer="9901141003000009")
    await shelf.record("A3")
    await shelf.record("A4", closed_at=AT + 3 * DAY)
    await shelf.sequence()
    await as_of(shelf, AT)
    found = await find_affected(shelf.open, shelf.keys, NIGHT)
    assert (found.looked_at, found.records) == (5, 4)
    by_number = {each.addressee: each for each in found.persons.values()}
    assert set(by_number) == {"A1", "A2", None}
    assert (by_number["A1"].records, by_number["A1"].last) == (2, AT + dt.timedelta(hours=2))
    assert found.persons[shelf.keys.label(shelf.person("A3"))].addressee is None
    assert found.items == {"TM00000000000002": {"TM1"}, "TM00000000000009": {"TM7"}}
    assert found.counterparts == {"9901131016000001", "9901141003000009"}
    kinds = await find_affected(shelf.open, shelf.keys, NIGHT._replace(kinds={"TM00000000000009"}))
    assert [each.addressee for each in kinds.persons.values()] == ["A1"]
    others = await find_affected(shelf.open, shelf.keys, NIGHT._replace(counterparts={"9901141003000009"}))
    assert [each.addressee for each in others.persons.values()] == ["A2"]


@pytest.mark.requirement("BRE-02")
async def test_only_the_period_is_looked_at_and_no_more_than_the_bound(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affected, "PAGE", 10)
    await shelf.records(40)
    await shelf.sequence()
    # Leaves of ten days, four a day.
    await shelf.admin.execute(
        f"UPDATE {shelf.schema}.log SET at = $1::timestamptz + make_interval(days => ((seq - 1) / 4)::int)", AT
    )
    assert await affected._last_before(shelf.open, AT + 5 * DAY - dt.timedelta(hours=1)) == 20
    assert await affected._last_before(shelf.open, AT - DAY) == 0
    assert await affected._last_before(shelf.open, AT + 99 * DAY) == 40
    late = Scope(AT + 8 * DAY, AT + 9 * DAY)
    assert (await find_affected(shelf.open, shelf.keys, late)).looked_at == 8
    monkeypatch.setattr(affected, "RECORDS_MAX", 5)
    with pytest.raises(Problem) as caught:
        await find_affected(shelf.open, shelf.keys, late)
    assert caught.value.code == "too_many_lines"
    monkeypatch.setattr(affected, "RECORDS_MAX", 500)
    monkeypatch.setattr(affected, "PERSONS_MAX", 2)
    with pytest.raises(Problem):
        await find_affected(shelf.open, shelf.keys, NIGHT)


async def test_a_record_that_got_its_place_late_is_found_and_one_without_is_waited_for(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affected, "PAGE", 2)
    for n in range(6):
        await shelf.record(f"A{n}", closed_at=AT)
    await shelf.sequence()
    await as_of(shelf, AT)
    # All but the first got their places days later, as after a move that took long.
    await shelf.admin.execute(f"UPDATE {shelf.schema}.log SET at = $1 WHERE seq > 1", AT + 4 * DAY)
    assert (await find_affected(shelf.open, shelf.keys, NIGHT)).records == 6
    await shelf.record("A9")
    await shelf.bend(f"UPDATE {shelf.schema}.records SET at = $1", AT)
    with pytest.raises(Problem) as caught:
        await find_affected(shelf.open, shelf.keys, NIGHT)
    assert caught.value.code == "proof_pending"


async def test_nobody_is_left_out_silently(shelf: Any) -> None:
    ids = [await shelf.record(f"A{n}") for n in range(3)]
    await shelf.sequence()
    await as_of(shelf, AT)
    await shelf.bend(f"DELETE FROM {shelf.schema}.records WHERE id = $1", ids[1])
    with pytest.raises(RecordError):
        await find_affected(shelf.open, shelf.keys, NIGHT)


@pytest.mark.requirement("BRE-02")
async def test_an_operator_counts_an_upper_bound_and_learns_no_more(shelf: Any) -> None:
    for addressee in ("A1", "A1", "A2"):
        await shelf.record(addressee)
    await shelf.bend(f"UPDATE {shelf.schema}.records SET at = $1", AT)
    count = await count_affected(shelf.cells, "here", shelf.agency, AT, AT + DAY)
    assert count == (shelf.agency, 3, 2)
    assert (await count_affected(shelf.cells, "here", shelf.agency, AT + DAY, AT + 2 * DAY))[1:] == (0, 0)
    for table in (f"{shelf.schema}.records", f"{shelf.schema}.codes", "chukan.incidents"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with shelf.cells.steward("here") as connection:
                await connection.fetch(f"SELECT * FROM {table}")


async def test_steps_of_an_incident_are_entered_once_in_order_and_as_acts(shelf: Any) -> None:
    incident = CHANCE.uuid7()

    async def step(word: Any, **facts: Any) -> None:
        await enter(shelf.cells, "here", incident, word, "operator-1", Facts(**facts))

    async def refused(word: Any, code: str, **facts: Any) -> None:
        with pytest.raises(Problem) as caught:
            await step(word, **facts)
        assert caught.value.code == code

    await refused("amend", "not_found", cause="不明")
    await step("open", title="夜間の接続", known_at=AT, wrongful=False, since=AT, until=AT + DAY)
    await refused("open", "incident_state", title="もう一度", known_at=AT)
    await step("amend", cause="鍵の失効漏れ", wrongful=True)
    await step("reported", report="preliminary")
    await refused("amend", "individual_number_present", other="本人は 123456789018 である")
    await refused("amend", "invalid_field", since=AT, until=AT)
    await step("close")
    await refused("amend", "incident_state", cause="後から")
    found = next(each for each in await read_incidents(shelf.cells, "here") if each.id == incident)
    assert found.closed
    assert [each.step for each in found.steps] == ["open", "amend", "reported", "close"]
    facts = found.facts
    assert (facts.title, facts.cause, facts.wrongful, facts.until) == ("夜間の接続", "鍵の失効漏れ", True, AT + DAY)
    acts = await shelf.admin.fetch(
        "SELECT convert_from(substr(body, 33), 'UTF8')::jsonb AS said FROM chukan_operators.operations ORDER BY at"
    )
    said = [row["said"] for row in acts if str(incident) in row["said"]]
    assert [word in text for word, text in zip(("open", "amend", "reported", "close"), said, strict=True)] == [True] * 4
    assert not any("夜間" in text for text in said)


async def test_the_desk_tells_the_agency_alone_and_its_summary_names_nobody(shelf: Any) -> None:
    await link(shelf, "A1")
    await shelf.record("A1")
    await shelf.record("A3", closed_at=AT + dt.timedelta(minutes=10))
    await shelf.record("A3", closed_at=AT + dt.timedelta(minutes=40))
    await shelf.sequence()
    await as_of(shelf, AT)
    row = AgencyRow(number=shelf.agency, code="9901131016000001", body="131016", name="市長", cell="here", generation=1)
    desk = PartitionRecords(lambda _agency, **_: shelf.open(), lambda _number: shelf.keys)
    body = AffectedSearch(since=AT - DAY, until=AT + DAY)
    whole = await desk.affected(row, body)
    assert (whole.persons, whole.records, whole.unnamed, whole.looked_at) == (2, 3, 1, 3)
    assert [(each.addressee, each.records) for each in whole.people] == [(None, 2), ("A1", 1)]
    # The same in parts, each of which the client asks for by itself: nobody is counted twice.
    middle = AT + dt.timedelta(minutes=30)
    parts = [
        await desk.affected(row, msgspec.structs.replace(body, until=middle)),
        await desk.affected(row, msgspec.structs.replace(body, since=middle)),
    ]
    assert [part.records for part in parts] == [2, 1]
    together = joined(body, parts)
    assert msgspec.structs.replace(together, looked_at=3) == whole
    assert b"A1" not in msgspec.json.encode(without_people(together))


async def test_a_period_with_too_much_is_asked_for_in_halves() -> None:
    asked = []

    class Exchange:
        async def affected(self, body: AffectedSearch) -> Affected:
            asked.append(body.until - body.since)
            if asked[-1] > dt.timedelta(hours=7):
                problem = ProblemBody(
                    type="", title="", title_en="", status=422, code="too_many_lines", side="agency", retryable=False,
                    action="", action_en="",
                )  # fmt: skip
                raise ClientError(problem, 422)
            return Affected(
                agency="9901131016000001",
                since=body.since,
                until=body.until,
                looked_at=1,
                records=0,
                persons=0,
                unnamed=0,
                kinds=[],
                counterparts=[],
            )

    client: Any = Exchange()
    parts = await in_parts(client, AffectedSearch(since=AT, until=AT + DAY))
    edges = sorted((part.since, part.until) for part in parts)
    assert [until for _, until in edges[:-1]] == [since for since, _ in edges[1:]]
    assert (edges[0][0], edges[-1][1], len(parts)) == (AT, AT + DAY, 4)
