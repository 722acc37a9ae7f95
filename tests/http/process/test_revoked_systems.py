"""A real exchange and revoked certificates, on both of its listeners; and what its listeners speak and demand (TLS)."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from chukan.clock import SystemClock
from chukan.ops import certificate_life as life
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.platform.tls import client_context
from chukan.tests.support import tls_scan

CITY = "1310100000000001"
GET = f"GET /v1/agencies/{CITY}/copies HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
PUSH = b"POST /exchange/v1/notices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
LISTENERS: Final = {"agency": GET, "network": PUSH}
WITHIN_S: Final = 5.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class World:
    """The exchange's authority with a revocation list, and systems that it certifies."""

    def __init__(self, site: Any, folder: Path) -> None:
        self.authority = Authority(site.folder / "ca", SystemClock())
        self.site, self.folder = site, folder
        self.file, _ = life.write_list(self.authority)

    def settings(self) -> Path:
        path: Path = self.site.settings()
        text = path.read_text("utf-8")
        path.write_text(f'{text}\n[exchange.crl_files]\nours = "{self.file}"\n', "utf-8")
        return path

    def issue(self, side: str, name: str) -> Issued:
        into = self.folder / f"{side}-{name}"
        if side == "agency":
            return self.authority.issue_client("tax", into)
        return self.authority.issue_peer("network", into)

    def context(self, issued: Issued) -> ssl.SSLContext:
        return client_context(issued.certificate, issued.key, self.authority.trusted)

    def revoke(self, issued: Issued) -> None:
        serial = read_certificates(issued.certificate)[0].serial_number
        life.revoke(self.authority, [f"{serial:x}"], "keyCompromise")
        life.write_list(self.authority)


@pytest.fixture
def world(site: Any, tmp_path: Path) -> World:
    return World(site, tmp_path)


@asynccontextmanager
async def _started(world: World) -> AsyncIterator[Any]:
    async with world.site.running(world.settings()) as running:
        async with asyncio.timeout(60):
            await running.listening.wait()
        yield running


async def _ask(connection: Connection, request: bytes) -> int:
    reader, writer = connection
    async with asyncio.timeout(10):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split()[1])


async def _ended_after_s(connection: Connection) -> float:
    began = time.monotonic()
    async with asyncio.timeout(30):
        with suppress(ConnectionError, ssl.SSLError):
            assert await connection[0].read(1) == b""
    return time.monotonic() - began


async def _told(running: Any, name: str) -> dict[str, float]:
    """Return the values of a metric by its last label's value."""
    url = f"http://127.0.0.1:{running.ports['health']}/metrics"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        lines = (await answer.text()).splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith(f"{name}{{")]
    return {labels.split('"')[-2]: float(value) for labels, _, value in found}


@pytest.mark.requirement("CON-01", "OPS-02")
async def test_a_revoked_certificate_is_shut_out_of_a_running_exchange_within_seconds(world: World) -> None:
    async with _started(world) as running:

        async def connect(side: str, issued: Issued) -> Connection:
            return await asyncio.open_connection("localhost", running.ports[side], ssl=world.context(issued))

        for count, (side, request) in enumerate(LISTENERS.items(), start=1):
            bad, good = world.issue(side, "bad"), world.issue(side, "good")
            kept, staying = await connect(side, bad), await connect(side, good)
            before = await _ask(staying, request)
            assert (await _ask(kept, request), before) == (before, before)
            assert before != 401
            world.revoke(bad)
            assert await _ended_after_s(kept) < WITHIN_S
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)):
                await _ask(await connect(side, bad), request)
            assert await _ask(staying, request) == before
            assert await _ask(await connect(side, good), request) == before
            refused = await _told(running, "chukan_access_refused_total")
            assert refused["certificate_revoked"] == 2 * count
        assert (await _told(running, "chukan_crl_usable"), await _told(running, "chukan_crl_revoked")) == (
            {"ours": 1.0}, {"ours": 2.0},
        )  # fmt: skip
        ends = (await _told(running, "chukan_crl_next_update_timestamp_seconds"))["ours"]
        assert ends - (await _told(running, "chukan_crl_this_update_timestamp_seconds"))["ours"] == 7 * 86400


# ---------------------------------------------------------------- a scan of what is spoken


@pytest.mark.requirement("CON-01")
async def test_a_scan_finds_tls_1_3_alone_and_a_client_certificate_demanded_on_both_listeners(
    world: World, tmp_path: Path
) -> None:
    elsewhere = Authority.create(tmp_path / "elsewhere", "elsewhere", SystemClock())
    stranger = world.context(elsewhere.issue_client("tax"))
    async with _started(world) as running:
        for side, request in LISTENERS.items():
            door = tls_scan.Door(running.ports[side], (request,))
            assert await asyncio.to_thread(tls_scan.scan, door, stranger) == [], side
            known = world.context(world.issue(side, "known"))
            assert (await asyncio.to_thread(tls_scan.told, door, known, request))[:8] == b"HTTP/1.1"
