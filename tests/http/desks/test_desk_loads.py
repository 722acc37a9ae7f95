"""The desk for load sessions: every refused line is told, the declared mode decides, held loads wait for an officer."""

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from chukan.errors import Problem
from chukan.platform.http.desks import loads as desk
from chukan.platform.http.parts import CSV, ReceivedPart
from chukan.platform.wire.agency import CopyKey, CopySearch, LoadCommit, LoadOpen
from chukan.tenants.directory import ClientRow
from chukan.tenants.loads import digest_of_parts

KIND = "TM00000000000089"
OFFICER = ClientRow(id="tanaka", body="131016", kind="officer", name="x", agencies=[], functions=["order"])


def _part(account: dict[str, str], people: Iterator[str] | list[str]) -> ReceivedPart:
    header = ["addressee", "effective_from", *account]
    rows = [[person, "2026-04-01", *account.values()] for person in people]
    part = ReceivedPart(CSV, "utf-8")
    part.add("".join(",".join(row) + "\r\n" for row in [header, *rows]).encode())
    return part


def _commit(*parts: ReceivedPart) -> LoadCommit:
    return LoadCommit(digest=digest_of_parts(part.digest for part in parts).hex())


def _open(expected: int, **changes: Any) -> LoadOpen:
    given: dict[str, Any] = {"kind": KIND, "layout": 202506, "mode": "full", "expected": expected}
    return LoadOpen(**(given | changes))


async def _people(office: Any, *people: str) -> list[str]:
    keys = [CopyKey(addressee=person) for person in people]
    return [copy.addressee for copy in (await office.copies.search(office.agency, CopySearch(keys=keys))).copies]


@pytest.mark.requirement("REP-03", "CON-03")
async def test_a_load_comes_into_force_at_its_commit(office: Any, fresh: Any, account: Any) -> None:
    load = await office.loads.open(office.agency, _open(4), fresh("key-number-1"))
    assert (await office.loads.open(office.agency, _open(4), fresh("key-number-1"))).id == load.id
    first, second = _part(account, ["A1", "A2"]), _part(account, ["A3", "A4"])
    await office.loads.part(office.agency, load.id, 1, first)
    staged = await office.loads.part(office.agency, load.id, 2, second)
    assert (staged.staged, staged.parts, staged.state) == (4, [1, 2], "open")
    assert (await office.loads.part(office.agency, load.id, 2, second)).staged == 4
    assert await _people(office, "A1") == []
    merged = await office.loads.commit(office.agency, load.id, _commit(first, second))
    assert (merged.state, merged.inserted) == ("committed", 4)
    assert await _people(office, "A1", "A4") == ["A1", "A4"]
    assert (await office.loads.commit(office.agency, load.id, _commit(first, second))).inserted == 4
    text = office.metrics.render().decode()
    assert 'chukan_load_lines_total{outcome="taken"}' in text


async def test_a_part_under_the_same_number_with_other_bytes_is_refused(office: Any, fresh: Any, account: Any) -> None:
    load = await office.loads.open(office.agency, _open(2), fresh())
    await office.loads.part(office.agency, load.id, 1, _part(account, ["A1"]))
    with pytest.raises(Problem, match="part_conflict"):
        await office.loads.part(office.agency, load.id, 1, _part(account, ["A2"]))


@pytest.mark.requirement("REP-02")
@pytest.mark.parametrize("mode", ["reject_line", "reject_file"])
async def test_refused_lines_are_told_by_part_number_and_reason(
    office: Any, fresh: Any, account: Any, mode: str
) -> None:
    load = await office.loads.open(office.agency, _open(4, on_error=mode), fresh())
    bad = _part(account | {"TKX0890000000006": "NOT-AN-ACCOUNT"}, ["A2"])
    part = ReceivedPart(CSV, "utf-8")
    lines = _part(account, ["A1", "A-", "A3"])
    for each in (lines, bad):
        data = b"".join(each._pieces)
        part.add(data if each is lines else data.split(b"\r\n", 1)[1])
    staged = await office.loads.part(office.agency, load.id, 7, part)
    assert (staged.staged, staged.refused) == (2, 2)
    assert [(problem.line, problem.pointer, problem.code) for problem in staged.problems] == [
        (3, "/parts/7", "invalid_field"),
        (5, "/parts/7", "invalid_field"),
    ]
    if mode == "reject_file":
        with pytest.raises(Problem, match="invalid_field") as raised:
            await office.loads.commit(office.agency, load.id, _commit(part))
        assert raised.value.line == 3
        assert await _people(office, "A1") == []
    else:
        assert (await office.loads.commit(office.agency, load.id, _commit(part))).inserted == 2
        assert await _people(office, "A1", "A2", "A3") == ["A1", "A3"]


async def test_a_part_that_cannot_be_read_leaves_nothing(office: Any, fresh: Any) -> None:
    load = await office.loads.open(office.agency, _open(2), fresh())
    part = ReceivedPart(CSV, "utf-8")
    part.add(b"no,header\r\nof,ours\r\n")
    with pytest.raises(Problem, match="bad_line"):
        await office.loads.part(office.agency, load.id, 1, part)
    assert (await office.loads.get(office.agency, load.id)).parts == []


async def test_a_load_that_would_drop_many_persons_waits_for_an_officer(office: Any, fresh: Any, account: Any) -> None:
    first = await office.loads.open(office.agency, _open(20), fresh())
    everybody = _part(account, [f"A{number}" for number in range(20)])
    await office.loads.part(office.agency, first.id, 1, everybody)
    await office.loads.commit(office.agency, first.id, _commit(everybody))
    second = await office.loads.open(office.agency, _open(1), fresh())
    few = _part(account, ["A0"])
    await office.loads.part(office.agency, second.id, 1, few)
    with pytest.raises(Problem, match="load_held_for_officer"):
        await office.loads.commit(office.agency, second.id, _commit(few))
    assert (await office.loads.get(office.agency, second.id)).state == "held"
    assert len(await office.rows("copies")) == 20
    with pytest.raises(Problem, match="load_digest_mismatch"):
        await office.loads.release(office.agency, OFFICER, second.id, _commit(everybody))
    released = await office.loads.release(office.agency, OFFICER, second.id, _commit(few))
    assert (released.state, released.deleted, released.unchanged) == ("committed", 19, 1)


async def test_what_is_no_kind_layout_or_period_opens_nothing(office: Any, fresh: Any) -> None:
    for changes, code in (
        ({"kind": "TM00000000000099"}, "unknown_kind"),
        ({"layout": 1}, "unknown_layout"),
        ({"period": "2026"}, "invalid_field"),
    ):
        with pytest.raises(Problem, match=code):
            await office.loads.open(office.agency, _open(1, **changes), fresh())
    assert await office.rows("loads") == []


async def test_an_aborted_load_and_one_that_never_was(office: Any, fresh: Any, account: Any) -> None:
    load = await office.loads.open(office.agency, _open(1), fresh())
    assert (await office.loads.abort(office.agency, load.id)).state == "aborted"
    with pytest.raises(Problem, match="load_not_open"):
        await office.loads.part(office.agency, load.id, 1, _part(account, ["A1"]))
    with pytest.raises(Problem, match="not_found"):
        await office.loads.get(office.agency, uuid.uuid4())


@pytest.mark.requirement("TEN-04")
async def test_bulk_work_takes_turns_and_leaves_the_counters_a_connection(
    office: Any, fresh: Any, account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "BULK_WAIT_S", 0.1)
    load = await office.loads.open(office.agency, _open(2), fresh())
    gate = asyncio.Event()
    inside = asyncio.Event()

    async def hold() -> None:
        async with office.loads._bulky(office.agency, 5.0):
            inside.set()
            await gate.wait()

    holders = [asyncio.ensure_future(hold()) for _ in range(desk.BULK_MAX)]
    await inside.wait()
    with pytest.raises(Problem, match="busy"):
        await office.loads.part(office.agency, load.id, 1, _part(account, ["A1"]))
    assert await _people(office, "A1") == []
    gate.set()
    await asyncio.gather(*holders)
    assert (await office.loads.part(office.agency, load.id, 1, _part(account, ["A1"]))).staged == 1


def test_the_digest_to_announce_is_that_of_the_parts() -> None:
    part = ReceivedPart(CSV, None)
    part.add(b"x")
    digest = hashlib.sha256(hashlib.sha256(b"x").digest()).hexdigest()
    assert _commit(part).digest == digest
