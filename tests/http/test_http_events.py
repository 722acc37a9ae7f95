"""Events over HTTP: written as they come, resumable, ended by a drain, by a lost right and by a reader who is gone."""

import asyncio
import datetime as dt
import uuid
from typing import Any

import aiohttp
import pytest

from chukan.errors import Problem
from chukan.platform.wire.events import EventPage, LineEvent

CITY = "1310100000000001"
AT = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)


def event(n: int) -> LineEvent:
    return LineEvent(n=n, id=uuid.UUID(int=n), side="inquirer", state="answered", before="permitted", at=AT)


async def read(answer: Any, end: bytes = b"\n\n") -> str:
    async with asyncio.timeout(10):
        return (await answer.content.readuntil(end)).decode()


@pytest.mark.requirement("INQ-12")
async def test_events_are_written_as_they_come_and_the_last_of_a_page_bears_the_id(served: Any) -> None:
    async with (
        served.client() as client,
        client.get(served.url("/events"), headers={"Last-Event-ID": "c9"}) as answer,
    ):
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert await read(answer) == "retry: 2000\n\n"
        assert await read(answer) == ": \nid: c0\n\n"
        served.exchange.events.pages.put_nowait(EventPage(cursor="c1", events=[event(1), event(2)]))
        first, second = await read(answer), await read(answer)
        assert first.startswith('event: line\ndata: {"n":1,')
        assert "id: " not in first
        assert second.startswith('event: line\ndata: {"n":2,')
        assert second.endswith("\nid: c1\n\n")
        served.exchange.events.pages.put_nowait(EventPage(cursor="c2", events=[], reset=True))
        assert await read(answer) == "event: reset\ndata: {}\nid: c2\n\n"
        assert served.services.admission.at_work == 0
        served.exchange.events.pages.put_nowait(None)
        assert await answer.read() == b""
    assert served.exchange.calls == [("follow", CITY, "c9")]
    assert served.exchange.events.open == 0


@pytest.mark.parametrize("problem", [Problem("invalid_field"), Problem("rate_limited", retry_after_s=5, limit=4)])
async def test_a_stream_that_cannot_begin_is_refused_by_its_problem(served: Any, problem: Problem) -> None:
    served.exchange.events.fails_with = problem
    async with served.client() as client, client.get(served.url("/events")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (problem.status, problem.code)


async def test_the_end_of_the_exchange_ends_streams_in_order(served: Any) -> None:
    async with served.client() as client, client.get(served.url("/events")) as answer:
        await read(answer)
        served.services.drain.close()
        async with asyncio.timeout(10):
            assert await answer.read() == b": \nid: c0\n\n"
    assert served.exchange.events.open == 0


@pytest.mark.requirement("TEN-01")
async def test_a_right_that_is_taken_away_cuts_the_stream_before_the_next_page(served: Any) -> None:
    async with served.client() as client, client.get(served.url("/events")) as answer:
        await read(answer, b"id: c0\n\n")
        served.exchange.directory._clients.pop("tax")
        served.exchange.events.pages.put_nowait(EventPage(cursor="c1", events=[event(1)]))
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert served.exchange.events.open == 0


async def test_a_reader_who_is_gone_is_found_out_by_the_next_page(served: Any) -> None:
    async with served.client() as client:
        answer = await client.get(served.url("/events"))
        await read(answer)
        answer.close()
    for n in range(3):
        served.exchange.events.pages.put_nowait(EventPage(cursor=f"h{n}", events=[]))
    async with asyncio.timeout(10):
        while served.exchange.events.open:
            await asyncio.sleep(0)
            served.exchange.events.pages.put_nowait(EventPage(cursor="h", events=[]))
