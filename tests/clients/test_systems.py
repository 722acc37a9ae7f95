"""The addressee system acquires codes through the registry network; the business system asks, collects, journals."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.clients import AddresseeSystem, BusinessSystem, ClientError, Entry, Journal
from chukan.ops.sandbox.systems import merge
from chukan.platform.wire import agency as wire

from .conftest import AGENCY, Site

BATCH = uuid.UUID("018f0000-0000-7000-8000-0000000000bb")


def _id(number: int) -> uuid.UUID:
    return uuid.UUID(int=BATCH.int + 1 + number)


def _line(number: int, state: str, **more: Any) -> wire.QueryLineView:
    return wire.QueryLineView(line=number, state=state, id=_id(number), **more)


def _batch(*lines: wire.QueryLineView) -> wire.Batch:
    return wire.Batch(batch=BATCH, lines=list(lines))


def _asks(count: int) -> list[wire.QueryLine]:
    return [
        wire.QueryLine(
            addressee=f"A{number}", kind="TM00000000000002", provider="9901131016000001", affair="JM01000000121000",
            procedure="JT01010000000214", department="税務課",
        )
        for number in range(count)
    ]  # fmt: skip


class Registry:
    """Plays the registry network: remembers who was handed over, and lets the codes arrive."""

    def __init__(self, *, trouble: bool = False) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.trouble = trouble

    async def hand_over(self, pairs: Sequence[tuple[str, str]], *, deadline_s: float = 60.0) -> int:
        if self.trouble:
            raise Problem("network_unavailable")
        self.pairs += pairs
        return len(pairs)


class Links:
    """What an exchange would know of links: they are active two looks after their number was handed over."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.looks = 0

    def ask(self, heard: Any) -> wire.CodeStatuses:
        return wire.CodeStatuses(
            lines=[
                wire.CodeStatus(line=n, status="active")
                if line.addressee == "A0"
                else wire.CodeStatus(line=n, status="requested", acquisition_number=f"N-{line.addressee}")
                for n, line in enumerate(heard.body.lines)
            ]
        )

    def search(self, heard: Any) -> wire.CodeStatuses:
        self.looks += 1
        handed = {number for number, _ in self.registry.pairs}
        return wire.CodeStatuses(
            lines=[
                wire.CodeStatus(
                    line=n,
                    status="active"
                    if line.addressee == "A0" or (f"N-{line.addressee}" in handed and self.looks > 2)
                    else "requested",
                )
                for n, line in enumerate(heard.body.lines)
            ]
        )


@pytest.mark.requirement("SYM-03", "TST-03")
async def test_numbers_and_resident_codes_go_to_the_registry_and_no_resident_code_to_an_exchange(site: Site) -> None:
    registry = Registry()
    links = Links(registry)
    site.set("askCodes", links.ask)
    site.set("searchCodes", links.search)
    people = {f"A{number}": f"{number:011d}" for number in range(4)}
    statuses = await AddresseeSystem(site.client(), registry).acquire(people, timeout_s=20)  # type: ignore[arg-type]

    assert [status.status for status in statuses] == ["active"] * 4
    assert registry.pairs == [(f"N-A{number}", f"{number:011d}") for number in (1, 2, 3)]
    assert links.looks == 3
    assert all(code.encode() not in heard.raw for heard in site.east.heard for code in people.values())


async def test_more_than_a_thousand_people_are_acquired_in_lists(site: Site) -> None:
    registry = Registry()
    links = Links(registry)
    links.looks = 5
    site.set("askCodes", links.ask)
    site.set("searchCodes", links.search)
    people = {f"A{number}": f"{number:011d}" for number in range(1500)}

    assert len(await AddresseeSystem(site.client(), registry).acquire(people)) == 1500  # type: ignore[arg-type]
    assert [len(heard.body.lines) for heard in site.east.heard] == [1000, 1000, 500, 500]


async def test_a_registry_that_is_away_and_an_acquisition_that_stays_open_are_told(site: Site) -> None:
    registry = Registry()
    links = Links(registry)
    links.looks = -(10**6)
    site.set("askCodes", links.ask)
    site.set("searchCodes", links.search)

    with pytest.raises(TimeoutError):
        await AddresseeSystem(site.client(), registry).acquire({"A1": "0" * 11}, timeout_s=0.3)  # type: ignore[arg-type]
    with pytest.raises(Problem, match="network_unavailable"):
        await AddresseeSystem(site.client(), Registry(trouble=True)).acquire({"A1": "0" * 11})  # type: ignore[arg-type]


@pytest.mark.requirement("TST-03")
async def test_a_batch_is_waited_for_and_collected_and_every_line_is_in_the_journal(site: Site, tmp_path: Path) -> None:
    content = wire.AnswerContent(kind="TM00000000000002", copies=[])
    refused = wire.QueryLineView(line=2, state="refused")
    site.set("postQueries", _batch(_line(0, "accepted"), _line(1, "accepted"), refused))
    site.set(
        "getQuery",
        [_batch(_line(0, "answered"), _line(1, "permitted")), _batch(_line(0, "answered"), _line(1, "no_code"))],
    )
    site.set(
        "collectQuery",
        _batch(_line(0, "collected", outcome="provided", content=content), _line(1, "no_code", outcome="no_code")),
    )
    journal = Journal(tmp_path / "journal.ndjson")
    system = BusinessSystem(site.client(), journal)
    batch = await system.collect(await system.settle(await system.ask_batch(_asks(3))))
    entries = journal.read()

    assert [line.state for line in batch.lines] == ["collected", "no_code", "refused"]
    assert batch.lines[0].content == content
    assert [(entry.event, entry.line) for entry in entries] == [
        ("accepted", _id(0)), ("accepted", _id(1)), ("collected", _id(0))
    ]  # fmt: skip
    assert entries[-1].outcome == "provided"
    assert {entry.agency for entry in entries} == {AGENCY}
    text = (tmp_path / "journal.ndjson").read_text()
    assert "A0" not in text
    assert "TM00000000000002" not in text


async def test_a_counter_query_is_one_call_with_its_content(site: Site, tmp_path: Path) -> None:
    site.set("postQueries", _batch(_line(0, "collected", outcome="provided")))
    journal = Journal(tmp_path / "j")
    view = await BusinessSystem(site.client(), journal).ask(_asks(1)[0], wait_s=5)

    assert view.state == "collected"
    assert site.east.heard[0].body.collect
    assert site.east.heard[0].headers["Prefer"] == "wait=5"
    assert [entry.event for entry in journal.read()] == ["accepted", "collected"]


async def test_what_was_refused_is_not_in_the_journal(site: Site, tmp_path: Path) -> None:
    site.set("postQueries", Problem("no_primary", retry_after_s=1))
    journal = Journal(tmp_path / "j")

    with pytest.raises(ClientError):
        await BusinessSystem(site.client(), journal).ask_batch(_asks(1))
    assert journal.read() == []


async def test_waiting_ends_with_the_time_and_shows_how_things_stand(site: Site) -> None:
    site.set("getQuery", _batch(_line(0, "held")))
    batch = await BusinessSystem(site.client()).settle(_batch(_line(0, "accepted")), timeout_s=0)

    assert batch.lines[0].state == "accepted"
    assert site.east.heard == []


async def test_nothing_is_collected_where_nothing_was_answered(site: Site) -> None:
    batch = _batch(_line(0, "no_code"))

    assert await BusinessSystem(site.client()).collect(batch) == batch
    assert site.east.heard == []


def test_a_journal_that_a_crash_cut_off_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    assert journal.read() == []
    journal.write([])
    entries = [
        msgspec.convert(
            {"event": "accepted", "at": "x", "agency": AGENCY, "batch": str(BATCH), "line": str(_id(n))}, Entry
        )
        for n in range(3)
    ]
    journal.write(entries)
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole[:-5])

    assert journal.read() == entries[:2]
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_what_is_journalled_is_on_disk_when_its_caller_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bytes] = []
    path = tmp_path / "j"
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(path.read_bytes()))
    entry = Entry(event="accepted", at="x", agency=AGENCY, batch=BATCH, line=_id(1))
    Journal(path).write([entry])

    assert flushed == [msgspec.json.encode(entry) + b"\n"]


def test_later_states_replace_earlier_ones_line_by_line() -> None:
    first = _batch(_line(0, "accepted"), wire.QueryLineView(line=1, state="refused"))
    later = _batch(_line(0, "answered"))

    assert [line.state for line in merge(first, later).lines] == ["answered", "refused"]
