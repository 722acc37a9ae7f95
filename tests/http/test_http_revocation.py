"""A revoked certificate is nobody's from the moment its list comes in: new connections, kept ones, and waiting ones."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chukan.chance import SystemChance
from chukan.clock import SystemClock
from chukan.ops import certificate_life as life
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.platform.http.api import AgencyApi
from chukan.platform.http.listener import Listener
from chukan.platform.http.routes import ROUTES
from chukan.platform.metrics import Metrics
from chukan.platform.revocation_watch import RevocationLists
from chukan.platform.tls import client_context
from chukan.tests.support.fake_addresses import AnyAddress

CITY = "1310100000000001"
GET = f"GET /v1/agencies/{CITY}/queries HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
ENDED = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)


class Stand(NamedTuple):
    """A served API that honours the authority's list, and a way to new certificates of the system ``tax``."""

    served: Any
    lists: RevocationLists
    metrics: Metrics
    authority: Authority
    folder: Path

    def issue(self) -> Issued:
        return self.authority.issue_client("tax", self.folder / f"tax-{len(list(self.folder.iterdir()))}")

    async def connect(self, issued: Issued) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = client_context(issued.certificate, issued.key, self.authority.trusted)
        return await asyncio.open_connection("localhost", self.served.port, ssl=context)

    async def revoke(self, issued: Issued) -> None:
        serial = read_certificates(issued.certificate)[0].serial_number
        life.revoke(self.authority, [f"{serial:x}"], "keyCompromise")
        life.write_list(self.authority)
        await self.lists.look()

    def refused(self) -> float:
        told = self.metrics.registry.get_sample_value("chukan_access_refused_total", {"code": "certificate_revoked"})
        assert told is not None
        return told


@pytest.fixture
async def stand(served: Any, server_tls: ssl.SSLContext, authority: Authority, tmp_path: Path) -> AsyncIterator[Stand]:
    """The API of ``served`` at another port, where the list is honoured."""
    life.write_list(authority)
    metrics, clock = Metrics(), SystemClock()
    file = authority.folder / life.REVOCATION_FILE
    lists = RevocationLists({"ours": file}, read_certificates(authority.trusted), clock, metrics)
    app = AgencyApi(served.services, ROUTES, AnyAddress(), SystemChance(clock), ()).application()
    listener = Listener(app, "localhost", 0, server_tls, revoked=lists)
    yield Stand(replace(served, port=await listener.start()), lists, metrics, authority, tmp_path)
    await listener.close(0.2)


async def _ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
    reader, writer = connection
    async with asyncio.timeout(10):
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split()[1])


@pytest.mark.requirement("CON-01")
async def test_a_revoked_system_is_refused_at_its_next_connection_and_another_goes_on(stand: Stand) -> None:
    revoked, other = stand.issue(), stand.issue()
    assert await _ask(await stand.connect(revoked)) == 200
    await stand.revoke(revoked)
    before, calls = stand.refused(), len(stand.served.exchange.calls)
    with pytest.raises(ENDED):
        await _ask(await stand.connect(revoked))
    async with asyncio.timeout(5):  # also who asks nothing is not let stand
        with pytest.raises(ENDED):
            await (await stand.connect(revoked))[0].readexactly(1)
    assert stand.refused() == before + 2
    assert len(stand.served.exchange.calls) == calls
    assert await _ask(await stand.connect(other)) == 200


async def test_an_idle_kept_connection_is_ended_when_the_list_comes_in(stand: Stand) -> None:
    revoked, other = stand.issue(), stand.issue()
    kept, staying = await stand.connect(revoked), await stand.connect(other)
    assert [await _ask(kept), await _ask(staying)] == [200, 200]
    await stand.revoke(revoked)
    async with asyncio.timeout(5):
        with pytest.raises(ENDED):
            await kept[0].readexactly(1)
    assert stand.refused() == 1
    assert await _ask(staying) == 200


async def test_every_request_asks_again_also_where_nobody_was_told(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = stand.issue()
    kept = await stand.connect(revoked)
    assert await _ask(kept) == 200
    monkeypatch.setattr(stand.lists, "_followers", [])
    await stand.revoke(revoked)
    calls = len(stand.served.exchange.calls)
    with pytest.raises(ENDED):
        await _ask(kept)
    assert len(stand.served.exchange.calls) == calls
    assert stand.refused() == 1


async def test_renewed_works_beside_the_old_one_until_that_is_revoked(stand: Stand) -> None:
    old = stand.issue()
    serial = f"{read_certificates(old.certificate)[0].serial_number:x}"
    new = life.renew(stand.authority, stand.authority.register.read().entries[serial], stand.folder / "new").issued
    assert [await _ask(await stand.connect(each)) for each in (old, new)] == [200, 200]
    await stand.revoke(old)
    with pytest.raises(ENDED):
        await _ask(await stand.connect(old))
    assert await _ask(await stand.connect(new)) == 200
