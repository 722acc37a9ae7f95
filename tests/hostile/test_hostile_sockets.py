"""Bytes on a real TLS connection that are no honest HTTP (smuggled, cut off, slow): one answer at most, and the end."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio

from chukan.platform.http import bodies, listener
from chukan.tests.support.nation import ASKS, WAIT_S

from .conftest import Api, digests, problems_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = f"/v1/agencies/{ASKS}/queries"
HIDDEN = f"GET /v1/agencies/{ASKS}/records HTTP/1.1\r\nHost: x\r\n\r\n"
KEY = "Idempotency-Key: abcdefgh\r\nContent-Type: application/json\r\nHost: localhost\r\n"


def post(*lines: str, body: str = "", path: str = PATH) -> bytes:
    return (f"POST {path} HTTP/1.1\r\n{KEY}" + "".join(f"{line}\r\n" for line in lines) + f"\r\n{body}").encode(
        "latin-1"
    )


SIZE = len(HIDDEN) + 5
SMUGGLED: dict[str, bytes] = {
    "both lengths": post(f"Content-Length: {SIZE}", "Transfer-Encoding: chunked", body="0\r\n\r\n" + HIDDEN),
    "both lengths, turned": post("Transfer-Encoding: chunked", "Content-Length: 4", body="5c\r\n" + HIDDEN),
    "two lengths": post("Content-Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    "two lengths in one": post(f"Content-Length: 0, {len(HIDDEN)}", body=HIDDEN),
    "a length with a sign": post("Content-Length: +0", body=HIDDEN),
    "a length in hexadecimal": post("Content-Length: 0x0", body=HIDDEN),
    "a length with a space": post("Content-Length: 0 0", body=HIDDEN),
    "a length below zero": post("Content-Length: -1", body=HIDDEN),
    "a length without end": post("Content-Length: " + "9" * 40, body=HIDDEN),
    "two codings": post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body="0\r\n\r\n" + HIDDEN),
    "codings in a list": post("Transfer-Encoding: chunked, identity", body="0\r\n\r\n" + HIDDEN),
    "a coding that nobody knows": post("Transfer-Encoding: xchunked", body="0\r\n\r\n" + HIDDEN),
    "a coding in a quiet dress": post("Transfer-Encoding:\x0bchunked", body="0\r\n\r\n" + HIDDEN),
    "a name with a space": post("Transfer-Encoding : chunked", body="0\r\n\r\n" + HIDDEN),
    "a name with a tab": post("Content-Length\t: 0", body=HIDDEN),
    "a folded line": post("X: a", " Content-Length: 0", body=HIDDEN),
    "a bare line feed in a field": post("X: a\nTransfer-Encoding: chunked", body="0\r\n\r\n" + HIDDEN),
    "a bare return in a field": post("X: a\rContent-Length: 0", body=HIDDEN),
    "a zero in a field": post("X: a\0b", "Content-Length: 0", body=HIDDEN),
    "a size below zero": post("Transfer-Encoding: chunked", body="-1\r\n" + HIDDEN),
    "a size without end": post("Transfer-Encoding: chunked", body="F" * 40 + "\r\n" + HIDDEN),
    "a size that is none": post("Transfer-Encoding: chunked", body="g\r\n" + HIDDEN),
    "a size with a prefix": post("Transfer-Encoding: chunked", body="0x0\r\n\r\n" + HIDDEN),
    "a chunk longer than it says": post("Transfer-Encoding: chunked", body="2\r\n{}{}\r\n0\r\n\r\n" + HIDDEN),
    "no host": f"GET {PATH} HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n{HIDDEN}".encode(),
    "a version that is none": f"GET {PATH} HTTP/1.1x\r\nHost: x\r\n\r\n{HIDDEN}".encode(),
    "no version": f"GET {PATH}\r\n{HIDDEN}".encode(),
    "a space too many": f"GET  {PATH}  HTTP/1.1 \r\nHost: x\r\n\r\n{HIDDEN}".encode(),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN.encode(),
    "another protocol": b"\x16\x03\x01\x00\xa5" + bytes(160),
    "line feeds only": f"GET {PATH} HTTP/1.1\nHost: x\nContent-Length: {len(HIDDEN)}\n\n{HIDDEN}".encode(),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module", autouse=True)
async def unchanged(api: Api) -> Any:
    before = await digests(api.world)
    yield
    assert await digests(api.world) == before
    assert problems_of(api.world, "internal") == 0


async def said(api: Api, text: bytes, *, ends: bool = True) -> list[tuple[int, bytes]]:
    """Send bytes; the status and head of every answer until the server closes the connection."""
    reader, writer = await asyncio.open_connection("localhost", api.port, ssl=api.context(f"system-{ASKS}"))
    try:
        async with asyncio.timeout(10):
            writer.write(text)
            if ends:
                await writer.drain()
            whole = await reader.read(1 << 20)
            while more := await reader.read(1 << 20):
                whole += more
    finally:
        writer.transport.abort()
    found = []
    while whole:
        head, _, rest = whole.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append((int(head.split()[1]), head + rest[:length]))
        whole = rest[length:]
    return found


@pytest.mark.requirement("CON-01", "TEN-01")
@pytest.mark.parametrize("shape", SMUGGLED)
async def test_a_hidden_request_is_never_answered(api: Api, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "KEEPALIVE_S", 0.5)
    monkeypatch.setattr(bodies, "BODY_DEADLINE_S", 0.5)
    answers = await said(api, SMUGGLED[shape])
    assert [status for status, _ in answers] in ([], [400], [408]), answers
    for _, text in answers:
        assert b"application/problem+json" in text
        assert b"records" not in text


# ---------------------------------------------------------------- slow, and cut off


async def dribble(api: Api, text: bytes, *, after: bytes = b"", every_s: float = 0.02) -> float:
    """Send what goes before at once and the text byte by byte until the server ends it; how long that took."""
    reader, writer = await asyncio.open_connection("localhost", api.port, ssl=api.context(f"system-{ASKS}"))
    started = time.monotonic()
    try:
        async with asyncio.timeout(WAIT_S):
            ended = asyncio.ensure_future(reader.read())
            writer.write(after)
            for place in range(len(text)):
                writer.write(text[place : place + 1])
                done, _ = await asyncio.wait([ended], timeout=every_s)
                if done:
                    break
            await ended
    finally:
        writer.transport.abort()
    return time.monotonic() - started


@pytest.mark.requirement("CON-01")
async def test_a_head_that_comes_in_byte_by_byte_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "KEEPALIVE_S", 0.5)
    head = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n" + "".join(f"X-{n}: {'y' * 40}\r\n" for n in range(50))
    assert await dribble(api, head.encode()) < 5


@pytest.mark.requirement("CON-01")
async def test_a_body_that_comes_in_byte_by_byte_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_DEADLINE_S", 0.5)
    monkeypatch.setattr(listener, "LINGER_S", 0.5)
    assert await dribble(api, b" " * 2000, after=post("Content-Length: 5000")) < 5
    assert await dribble(api, b"1\r\n \r\n" * 500, after=post("Transfer-Encoding: chunked")) < 5


async def test_others_are_served_while_many_dawdle(api: Api) -> None:
    connections = [
        await asyncio.open_connection("localhost", api.port, ssl=api.context(f"system-{ASKS}")) for _ in range(30)
    ]
    try:
        for number, (_, writer) in enumerate(connections):
            writer.write(post("Content-Length: 100", body="{")[: 20 + number * 10])
        started = time.monotonic()
        assert (await api.send("GET", "/queries"))[0] == 200
        assert time.monotonic() - started < 5
    finally:
        for _, writer in connections:
            writer.transport.abort()


CUT: dict[str, Callable[[], bytes]] = {
    "in the middle of a body": lambda: post("Content-Length: 1000", body='{"lines": ['),
    "in the middle of a chunk": lambda: post("Transfer-Encoding: chunked", body='ff\r\n{"lines": ['),
    "before the last chunk": lambda: post("Transfer-Encoding: chunked", body="2\r\n{}\r\n"),
    "in the middle of a head": lambda: post("Content-Length: 1000")[:80],
}


@pytest.mark.requirement("TXR-03")
@pytest.mark.parametrize("place", CUT)
async def test_a_request_that_is_cut_off_has_no_effect(api: Api, place: str) -> None:
    for _ in range(5):
        _, writer = await asyncio.open_connection("localhost", api.port, ssl=api.context(f"system-{ASKS}"))
        writer.write(CUT[place]())
        await writer.drain()
        writer.transport.abort()
    assert (await api.send("GET", "/queries"))[0] == 200
