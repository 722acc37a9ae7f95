"""A load comes in parts, is merged at once, and is never taken, nor lost, in silence."""

import asyncio
import datetime as dt
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.tenants import copies, loads
from chukan.tenants.copies import Copy
from chukan.tenants.loads import Load, LoadSpec, Refused, RefusedLine, digest_of_parts

AT = dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC)
KIND, OTHER = "TM00000000000002", "TM00000000000003"
Make = Callable[..., Copy]


def sha(word: object) -> bytes:
    return hashlib.sha256(str(word).encode()).digest()


def spec(expected: int, **fields: Any) -> LoadSpec:
    given: dict[str, Any] = {"kind": KIND, "layout": 1, "mode": "difference", "expected": expected, "period": "2026"}
    return LoadSpec(**{**given, **fields})


class Session:
    """One load of an agency, each call in a transaction of its own."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk
        self.id = uuid.UUID(bytes=os.urandom(16), version=4)
        self.digests: dict[int, bytes] = {}

    async def open(self, announced: LoadSpec) -> Load:
        async with self.desk.open() as partition:
            return await loads.open_load(partition, announced, load=self.id, at=AT)

    async def part(self, n: int, lines: Any, digest: bytes | None = None, refused: Sequence[Refused] = ()) -> Load:
        digest = digest or sha(n)
        async with self.desk.open() as partition:
            load = await loads.put_part(partition, self.desk.keys, self.id, n, lines, digest=digest, refused=refused)
        self.digests[n] = digest
        return load

    async def commit(self, digest: bytes | None = None, *, released: bool = False) -> Load:
        total = digest_of_parts(self.digests[n] for n in sorted(self.digests))
        async with self.desk.open() as partition:
            return await loads.commit(partition, self.id, digest=digest or total, at=AT, officer_released=released)

    async def abort(self) -> Load:
        async with self.desk.open() as partition:
            return await loads.abort(partition, self.id)

    async def get(self) -> Load:
        async with self.desk.open() as partition:
            return await loads.get(partition, self.id)


async def loaded(desk: Any, lines: Sequence[Copy], **fields: Any) -> Load:
    """Open, fill in one part, and commit."""
    session = Session(desk)
    await session.open(spec(len(lines), **fields))
    await session.part(0, lines)
    return await session.commit()


async def people(desk: Any) -> dict[str, bytes]:
    async with desk.open() as partition:
        page = await copies.export(partition, desk.keys, KIND)
    return {each.addressee: each.items for each in page.copies}


def counts(load: Load) -> tuple[int, int, int, int]:
    return load.inserted, load.updated, load.unchanged, load.deleted


def some(copy: Make, count: int, **fields: Any) -> list[Copy]:
    return [copy(f"A{n}", **fields) for n in range(count)]


@pytest.mark.requirement("REP-03", "REP-05")
async def test_parts_become_copies_at_the_commit(desk: Any, copy: Make) -> None:
    session = Session(desk)
    opened = await session.open(spec(5, source="tax file"))
    assert (opened.state, opened.parts, opened.staged) == ("open", [], 0)
    await session.part(1, some(copy, 5)[3:])
    load = await session.part(0, some(copy, 5)[:3])
    assert (load.state, load.parts, load.staged) == ("open", [0, 1], 5)
    assert await people(desk) == {}
    load = await session.commit()
    assert (load.state, counts(load)) == ("committed", (5, 0, 0, 0))
    assert set(await people(desk)) == {"A0", "A1", "A2", "A3", "A4"}
    stored = await desk.rows("copies")
    assert {(row["source"], row["registered_at"], row["load"]) for row in stored} == {("tax file", AT, session.id)}
    assert await desk.rows("stage") == []


@pytest.mark.requirement("REP-03")
async def test_a_difference_changes_only_what_it_names_and_only_what_differs(desk: Any, copy: Make) -> None:
    await loaded(desk, some(copy, 4))
    before = {row["id"]: row["body"] for row in await desk.rows("copies")}
    load = await loaded(desk, [copy("A0"), copy("A1", items=b'{"TM1":"9"}'), copy("A9")])
    assert counts(load) == (1, 1, 1, 0)
    assert set(await people(desk)) == {"A0", "A1", "A2", "A3", "A9"}
    after = {row["id"]: row["body"] for row in await desk.rows("copies")}
    assert sum(after.get(row) != body for row, body in before.items()) == 1


@pytest.mark.requirement("REP-03")
async def test_a_full_load_deletes_what_it_does_not_hold_in_its_own_scope_only(desk: Any, copy: Make) -> None:
    await loaded(desk, some(copy, 40))
    others = [copy("C1", period="2025"), copy("C2", kind=OTHER), copy("C3", layout=2)]
    async with desk.open() as partition:
        await copies.register(partition, desk.keys, others, source="api", at=AT)
    load = await loaded(desk, [*some(copy, 39), copy("B1")], mode="full")
    assert counts(load) == (1, 0, 39, 1)
    assert "A39" not in await people(desk)
    kept = {(row["period"], row["kind"], row["layout"]) for row in await desk.rows("copies")}
    assert {("2025", KIND, 1), ("2026", OTHER, 1), ("2026", KIND, 2)} < kept


@pytest.mark.requirement("REP-03")
async def test_a_full_load_replaces_a_persons_old_dates(desk: Any, copy: Make) -> None:
    await loaded(desk, [copy("A1", effective_from=dt.date(2026, 1, 1)), copy("A2")])
    load = await loaded(desk, [copy("A1", effective_from=dt.date(2026, 6, 1)), copy("A2")], mode="full")
    assert counts(load) == (1, 0, 1, 1)


async def test_a_full_load_that_drops_many_persons_waits_for_an_officer(desk: Any, copy: Make) -> None:
    await loaded(desk, some(copy, 40))
    session = Session(desk)
    await session.open(spec(37, mode="full"))
    await session.part(0, some(copy, 37))
    for _ in range(2):
        load = await session.commit()
        assert (load.state, counts(load)) == ("held", (0, 0, 0, 0))
    assert len(await people(desk)) == 40
    with pytest.raises(Problem, match="load_not_open"):
        await session.part(1, [])
    load = await session.commit(released=True)
    assert (load.state, counts(load)) == ("committed", (0, 0, 37, 3))
    assert len(await people(desk)) == 37


@pytest.mark.parametrize(("kept", "state"), [(38, "committed"), (37, "held"), (0, "held")])
async def test_the_share_is_five_percent_of_persons(desk: Any, copy: Make, kept: int, state: str) -> None:
    """A person with two dates counts once, and 2 of 40 are exactly 5%."""
    await loaded(desk, [*some(copy, 40), *some(copy, 40, effective_from=dt.date(2025, 4, 1))])
    assert (await loaded(desk, some(copy, kept), mode="full")).state == state


async def test_a_first_full_load_waits_for_nobody(desk: Any, copy: Make) -> None:
    assert (await loaded(desk, some(copy, 3), mode="full")).state == "committed"


async def test_a_held_load_can_be_given_up(desk: Any, copy: Make) -> None:
    await loaded(desk, some(copy, 40))
    session = Session(desk)
    await session.open(spec(1, mode="full"))
    await session.part(0, some(copy, 1))
    assert (await session.commit()).state == "held"
    assert (await session.abort()).state == "aborted"
    assert len(await people(desk)) == 40
    with pytest.raises(Problem, match="load_not_open"):
        await session.commit(released=True)


async def test_the_same_part_again_has_no_effect_and_another_under_its_number_is_refused(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(4))
    first = await session.part(0, some(copy, 2))
    assert await session.part(0, some(copy, 2)) == first
    # The lines are not even read: the digest says that they are the same.
    assert await session.part(0, []) == first
    with pytest.raises(Problem, match="part_conflict"):
        await session.part(0, some(copy, 2), digest=sha("other"))
    assert len(await desk.rows("stage")) == 2


@pytest.mark.parametrize(("error", "raised"), [(ConnectionResetError, Problem), (KeyError, KeyError)])
async def test_a_part_that_breaks_off_leaves_nothing_and_is_sent_again(
    desk: Any, copy: Make, error: type[Exception], raised: type[Exception]
) -> None:
    session = Session(desk)
    await session.open(spec(6))
    await session.part(0, some(copy, 3))

    async def broken() -> AsyncIterator[Copy]:
        yield copy("A3")
        yield copy("A4")
        raise error

    with pytest.raises(raised) as caught:
        await session.part(1, broken())
    assert str(caught.value) in ("truncated_body", "")
    assert (await session.get()).parts == [0]
    assert len(await desk.rows("stage")) == 3
    await session.part(1, some(copy, 6)[3:])
    assert counts(await session.commit()) == (6, 0, 0, 0)


async def test_parts_arrive_as_streams_and_at_the_same_time(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(400))

    async def stream(n: int) -> AsyncIterator[Copy]:
        for each in some(copy, 400)[n * 100 : n * 100 + 100]:
            yield each

    await asyncio.gather(*(session.part(n, stream(n)) for n in range(4)))
    assert counts(await session.commit()) == (400, 0, 0, 0)


async def test_opening_again_finds_the_same_load_and_another_announcement_is_refused(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(2))
    load = await session.part(0, some(copy, 2))
    assert await session.open(spec(2)) == load
    for other in (spec(3), spec(2, mode="full"), spec(2, source="x"), spec(2, on_error="reject_line")):
        with pytest.raises(Problem, match="idempotency_key_reused"):
            await session.open(other)


@pytest.mark.requirement("CON-04")
async def test_more_lines_than_the_limit_are_refused_with_the_limit(
    desk: Any, copy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Problem, match="too_many_lines") as caught:
        await Session(desk).open(spec(loads.EXPECTED_MAX + 1))
    assert caught.value.limit == 5_000_000
    monkeypatch.setattr(loads, "PART_LINES_MAX", 10)
    session = Session(desk)
    await session.open(spec(100))

    async def stream() -> AsyncIterator[Copy]:
        for each in some(copy, 11):
            yield each

    for lines in (some(copy, 11), stream()):
        with pytest.raises(Problem, match="too_many_lines") as caught:
            await session.part(0, lines)
        assert caught.value.limit == 10
    with pytest.raises(Problem, match="too_many_lines"):
        await session.part(loads.PARTS_MAX, some(copy, 1))
    assert (await session.get()).parts == []
    await session.part(0, some(copy, 10))


@pytest.mark.requirement("CON-04")
async def test_a_file_of_201000_lines_is_refused_with_the_limit(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(201_000))
    with pytest.raises(Problem, match="too_many_lines") as caught:
        await session.part(0, [copy()] * 201_000)
    assert caught.value.limit == 50_000


@pytest.mark.full
@pytest.mark.requirement("CON-04")
async def test_a_load_of_201000_lines_is_taken_in_parts_whole(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(201_000))
    lines = some(copy, 201_000, items=b"{}")
    for n in range(5):
        await session.part(n, lines[n * 50_000 : n * 50_000 + 50_000])
    assert counts(await session.commit()) == (201_000, 0, 0, 0)
    assert await desk.admin.fetchval(f"SELECT count(*) FROM {desk.schema}.copies") == 201_000


@pytest.mark.requirement("CON-04")
async def test_a_load_that_lacks_rows_or_has_too_many_says_so(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(4))
    await session.part(0, some(copy, 3))
    with pytest.raises(Problem, match="load_count_mismatch"):
        await session.commit()
    with pytest.raises(Problem, match="load_count_mismatch") as caught:
        await session.part(1, some(copy, 2))
    assert caught.value.limit == 4
    session.digests.pop(1, None)
    await session.part(1, some(copy, 1))
    assert (await session.commit()).state == "committed"


async def test_a_load_with_another_digest_is_not_committed(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(2))
    await session.part(0, some(copy, 1))
    await session.part(1, some(copy, 2)[1:])
    for wrong in (digest_of_parts([sha(1), sha(0)]), digest_of_parts([sha(0)]), sha(0)):
        with pytest.raises(Problem, match="load_digest_mismatch"):
            await session.commit(wrong)
    assert await people(desk) == {}
    assert (await session.commit()).state == "committed"


async def test_committing_again_gives_the_same_outcome(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(2))
    await session.part(0, some(copy, 2))
    first = await session.commit()
    assert await session.commit() == first
    with pytest.raises(Problem, match="load_digest_mismatch"):
        await session.commit(sha("other"))
    for late in (session.abort(), session.part(1, [])):
        with pytest.raises(Problem, match="load_not_open"):
            await late


async def test_an_aborted_load_leaves_nothing_and_stays_aborted(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(2))
    await session.part(0, some(copy, 2))
    assert (await session.abort()).state == "aborted"
    assert await desk.rows("stage") == []
    assert (await session.abort()).state == "aborted"
    for late in (session.commit(), session.part(1, [])):
        with pytest.raises(Problem, match="load_not_open"):
            await late
    assert await people(desk) == {}


async def test_a_load_that_was_never_opened_is_not_found(desk: Any, neighbour: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(1))
    session.desk = neighbour
    for late in (session.get(), session.commit(), session.abort(), session.part(0, some(copy, 1))):
        with pytest.raises(Problem, match="not_found"):
            await late


async def test_others_see_the_old_set_until_the_commit(desk: Any, copy: Make) -> None:
    await loaded(desk, some(copy, 2))
    session = Session(desk)
    await session.open(spec(2, mode="full"))
    await session.part(0, some(copy, 2, items=b'{"TM1":"new"}'))
    async with desk.open() as partition:
        await loads.commit(partition, session.id, digest=digest_of_parts([sha(0)]), at=AT)
        assert set((await people(desk)).values()) == {copy().items}
    assert set((await people(desk)).values()) == {b'{"TM1":"new"}'}


async def test_one_commit_at_a_time_while_parts_of_other_loads_go_on(cell: Any, desk: Any, copy: Make) -> None:
    # The mark of the kind is there already, so that only the loads themselves can make each other wait.
    await loaded(desk, [copy("A9")])
    one, two = Session(desk), Session(desk)
    for session in (one, two):
        await session.open(spec(1))
    await one.part(0, some(copy, 1))
    await desk.admin.execute(f"ALTER ROLE chukan_app IN DATABASE {cell.settings.database} SET lock_timeout = '200ms'")
    try:
        async with desk.open() as partition:
            await loads.commit(partition, one.id, digest=digest_of_parts([sha(0)]), at=AT)
            # Connections made from now on give up soon.
            await desk.cells.primary("here").app.expire_connections()
            await two.part(0, some(copy, 2)[1:])
            with pytest.raises(Problem, match="busy"):
                await two.commit()
        assert (await two.commit()).state == "committed"
    finally:
        await desk.admin.execute(f"ALTER ROLE chukan_app IN DATABASE {cell.settings.database} RESET lock_timeout")
    assert set(await people(desk)) == {"A0", "A1", "A9"}


async def test_of_a_key_that_comes_twice_the_later_part_and_line_counts(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(4))
    await session.part(1, [copy(items=b'{"n":"2"}'), copy(items=b'{"n":"3"}')])
    await session.part(0, [copy(items=b'{"n":"1"}'), copy("A2")])
    assert counts(await session.commit()) == (2, 0, 0, 0)
    assert (await people(desk))["A1"] == b'{"n":"3"}'


@pytest.mark.parametrize("change", [{"kind": OTHER}, {"layout": 2}, {"period": "2025"}])
async def test_a_line_of_another_kind_layout_or_period_is_refused(
    desk: Any, copy: Make, change: dict[str, Any]
) -> None:
    session = Session(desk)
    await session.open(spec(3))
    with pytest.raises(Problem, match="invalid_field") as caught:
        await session.part(0, [copy("A1"), copy("A2", **change), copy("A3")])
    assert caught.value.line == 2
    assert (await session.get()).parts == []


async def test_refused_lines_refuse_the_file_by_number_and_code(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(5))
    await session.part(1, some(copy, 1), refused=[Refused(2, "unknown_item"), Refused(7, "bad_line")])
    load = await session.part(0, some(copy, 1), refused=[Refused(9, "individual_number_present")])
    assert (load.staged, load.refused) == (2, 3)
    assert load.problems == [
        RefusedLine(0, 9, "individual_number_present"),
        RefusedLine(1, 2, "unknown_item"),
        RefusedLine(1, 7, "bad_line"),
    ]
    with pytest.raises(Problem, match="individual_number_present") as caught:
        await session.commit()
    assert caught.value.line == 9
    assert (await session.get()).state == "open"


async def test_refused_lines_are_left_out_where_that_was_declared(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(3, on_error="reject_line"))
    await session.part(0, some(copy, 2), refused=[Refused(3, "unknown_item")])
    load = await session.commit()
    assert (load.state, counts(load), load.refused) == ("committed", (2, 0, 0, 0), 1)


async def test_a_thousand_refusals_are_remembered_and_all_are_counted(desk: Any, copy: Make) -> None:
    session = Session(desk)
    await session.open(spec(2001))
    refused = [Refused(line, "bad_line") for line in range(1, 801)]
    await session.part(3, [], refused=refused)
    await session.part(1, [], refused=refused)
    load = await session.part(0, [copy()], refused=refused[:400])
    assert (load.refused, len(load.problems)) == (2000, 1000)
    with pytest.raises(Problem, match="bad_line") as caught:
        await session.commit()
    assert caught.value.line == 1


async def test_an_agency_has_a_bounded_number_of_open_loads(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "OPEN_MAX", 2)
    sessions = [Session(desk) for _ in range(3)]
    for session in sessions[:2]:
        await session.open(spec(0))
    with pytest.raises(Problem, match="rate_limited") as caught:
        await sessions[2].open(spec(0))
    assert caught.value.limit == 2
    await sessions[0].open(spec(0))
    await sessions[0].abort()
    await sessions[2].open(spec(0))


async def test_an_empty_difference_commits_and_an_empty_full_load_is_held(desk: Any, copy: Make) -> None:
    await loaded(desk, some(copy, 1))
    for mode, state in (("difference", "committed"), ("full", "held")):
        session = Session(desk)
        await session.open(spec(0, mode=mode))
        assert (await session.commit()).state == state


@pytest.mark.parametrize("expected", [-1, 5_000_001])
async def test_an_announcement_out_of_bounds_is_refused(desk: Any, expected: int) -> None:
    with pytest.raises(Problem, match="too_many_lines"):
        await Session(desk).open(spec(expected))


async def test_a_part_without_a_proper_digest_or_with_an_unknown_code_is_a_mistake_of_ours(desk: Any) -> None:
    session = Session(desk)
    await session.open(spec(1))
    with pytest.raises(ValueError, match="digest"):
        await session.part(0, [], digest=b"short")
    with pytest.raises(ValueError, match="registered"):
        await session.part(0, [], refused=[Refused(1, "no_such_code")])
