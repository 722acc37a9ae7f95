"""The listener: kept connections, a cap, deadlines, and an end in which nobody is lost."""

import asyncio
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from aiohttp import web

from chukan.platform.http import listener

CITY = "1310100000000001"


def _get(path: str = "/queries") -> bytes:
    return f"GET /v1/agencies/{CITY}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1]), head


async def test_a_connection_serves_many_requests(served: Any) -> None:
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        for _ in range(5):
            writer.write(_get())
            status, head = await _answer(reader)
            assert status == 200
            assert b"connection: close" not in head.lower()


async def test_an_idle_connection_is_closed(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "KEEPALIVE_S", 0.1)
    async with served.socket() as (reader, _), asyncio.timeout(10):
        assert await reader.read() == b""


async def test_a_head_that_dawdles_is_cut_off(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "KEEPALIVE_S", 0.2)
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(_get()[:20])
        assert await reader.read() == b""


async def test_connections_beyond_the_cap_are_closed(serve: Any) -> None:
    served = await serve(connections_max=1)
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(_get())
        assert (await _answer(reader))[0] == 200
        async with served.socket() as (other, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await other.readexactly(1)
        writer.write(_get())
        assert (await _answer(reader))[0] == 200


async def test_a_drain_finishes_what_is_at_work_and_takes_nothing_new(served: Any, line: Any) -> None:
    body = json.dumps({"lines": [line()]}).encode()
    head = (
        f"POST /v1/agencies/{CITY}/queries HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: abcdefgh\r\nPrefer: wait=60\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(head + body)
        await served.exchange.inquiries.waiting.wait()
        served.services.drain.close()
        closing = asyncio.ensure_future(served.listener.close(4.0))
        status, answered = await _answer(reader)
        assert status == 202
        assert b"connection: close" in answered.lower()
        assert await reader.read() == b""
        await closing
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("localhost", served.port)


async def test_a_drain_does_not_wait_for_a_client_that_stays_and_asks_nothing(served: Any) -> None:
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(_get())
        await _answer(reader)
        served.services.drain.close()
        # Far longer than the test may take: only what is at work is waited for.
        await served.listener.close(60.0)
        assert await reader.read() == b""


async def test_a_drain_ends_although_a_request_does_not(served: Any, line: Any) -> None:
    body = json.dumps({"lines": [line()]}).encode()
    head = (
        f"POST /v1/agencies/{CITY}/queries HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: abcdefgh\r\nPrefer: wait=60\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(head + body)
        await served.exchange.inquiries.waiting.wait()
        # Begun and not closed: this request goes on waiting, past the deadline.
        served.services.drain.begin()
        await served.listener.close(0.2)
        assert await reader.read() == b""


async def test_an_open_connection_learns_of_the_drain_with_its_next_answer(served: Any) -> None:
    async with served.socket() as (reader, writer), asyncio.timeout(10):
        writer.write(_get())
        await _answer(reader)
        served.services.drain.begin()
        served.listener.stop_listening()
        writer.write(_get())
        status, head = await _answer(reader)
        assert status == 200
        assert b"connection: close" in head.lower()
        assert await reader.read() == b""


async def test_a_connection_whose_handshake_ends_after_the_listener_is_closed_unread(served: Any) -> None:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("localhost", served.port)
        # Connections are taken in their turn: once a later one is served, this one waits for its handshake only.
        async with served.socket() as (other, asking):
            asking.write(_get())
            assert (await _answer(other))[0] == 200
        await served.listener.close(1.0)
        with suppress(ConnectionError):
            await writer.start_tls(served.contexts("tax"), server_hostname="localhost")
            writer.write(_get())
            assert await reader.read() == b""
        writer.close()


async def _in_its_last_moment(tls: ssl.SSLContext, client: ssl.SSLContext) -> list[bytes]:
    """What two connections read: one beyond the cap, and one whose handshake ends after the listener."""
    asked = []

    async def answer(_request: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(text="served")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    listening = listener.Listener(app, "localhost", 0, tls, connections_max=1)
    port = await listening.start()
    read = []
    late_reader, late = await asyncio.open_connection("localhost", port)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=client)
    writer.write(_get())
    await _answer(reader)
    with suppress(ConnectionError):
        beyond, other = await asyncio.open_connection("localhost", port, ssl=client)
        other.write(_get())
        read.append(await beyond.read())
    writer.close()
    await listening.close(1.0)
    with suppress(ConnectionError):
        await late.start_tls(client, server_hostname="localhost")
        late.write(_get())
        read.append(await late_reader.read())
    assert asked == [1]
    return read


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_nobody_is_served_beyond_the_cap_or_the_end_on_either_loop(
    loop: Callable[[], asyncio.AbstractEventLoop], server_tls: Any, contexts: Any
) -> None:
    async def bounded() -> list[bytes]:
        async with asyncio.timeout(10):
            return await _in_its_last_moment(server_tls, contexts("tax"))

    with asyncio.Runner(loop_factory=loop) as runner:
        assert set(runner.run(bounded())) <= {b""}
