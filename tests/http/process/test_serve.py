"""``chukan exchange``: a process that serves, says how it is, and goes out of service without losing anybody."""

import asyncio
import signal
import uuid
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from chukan.clock import SystemClock
from chukan.ops.certificates import Authority

CITY = "1310100000000001"
COPY = {
    "addressee": "A1",
    "kind": "TM00000000000089",
    "layout": 202506,
    "effective_from": "2026-04-01",
    "items": {
        "TKX0890000000001": "0001",
        "TKX0890000000002": "みどり銀行",
        "TKX0890000000003": "101",
        "TKX0890000000004": "本店",
        "TKX0890000000005": "1",
        "TKX0890000000006": {"gap": "01"},
        "TKX0890000000007": "ヤマダ　ハナコ",
        "TKX0890000000008": "2026-04-01",
    },
}
QUERY = {
    "addressee": "A1",
    "kind": "TM00000000000002",
    "provider": "2710000000000003",
    "affair": "JM01000000121000",
    "procedure": "JT01010000000214",
    "department": "福祉課",
}


async def _ready(running: Any) -> dict[str, Any]:
    """Look at /readyz until it says 200; there is nothing to wait for in another process."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        await running.listening.wait()
        while True:
            async with client.get(f"http://127.0.0.1:{running.ports['health']}/readyz") as answer:
                detail: dict[str, Any] = await answer.json()
                if answer.status == 200:
                    return detail
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.Event().wait()


@pytest.mark.requirement("CON-01", "OPS-02")
async def test_an_exchange_serves_and_ends_with_zero(site: Any) -> None:
    async with site.running(site.settings()) as running:
        detail = await _ready(running)
        assert (detail["exchange"], detail["centre"], detail["common_data"]["number"]) == ("x1", "east", 3)
        assert detail["cells"]["here"]["ok"]
        connector = aiohttp.TCPConnector(ssl=site.client)
        base = f"https://localhost:{running.ports['agency']}/v1/agencies/{CITY}"
        async with aiohttp.ClientSession(connector=connector) as client:

            async def post(path: str, body: Any) -> tuple[int, Any]:
                key = {"Idempotency-Key": str(uuid.uuid4())}
                async with client.post(base + path, json=body, headers=key) as answer:
                    return answer.status, await answer.json(content_type=None)

            assert await post("/copies", {"lines": [COPY]}) == (200, {"lines": [{"line": 0, "status": "done"}]})
            status, page = await post("/copies/search", {"keys": [{"addressee": "A1"}]})
            assert (status, page["copies"][0]["items"]) == (200, COPY["items"])
            status, batch = await post("/queries", {"lines": [QUERY | {"affair": "X" * 16}, QUERY]})
            assert status == 200
            assert {line["state"] for line in batch["lines"]} <= {
                "refused_before_acceptance",
                "no_code",
                "not_permitted",
            }
            async with client.get(f"{base}/records") as answer:
                assert answer.status == 200
            async with client.get(f"http://127.0.0.1:{running.ports['health']}/metrics") as answer:
                text = await answer.text()
            assert 'route="/v1/agencies/{agency}/copies"' in text
            assert "chukan_certificate_expiry_timestamp_seconds" in text
            running.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(40):
                # Notice is given with answers and by /readyz, not by breaking a connection; whoever comes all the same
                # is served until it is over.
                told: list[bool] = []
                with suppress(aiohttp.ClientConnectionError):
                    while True:
                        async with client.get(f"{base}/records") as answer:
                            assert answer.status == 200
                            told.append(answer.headers.get("Connection") == "close")
                        if told == [True]:
                            ready = f"http://127.0.0.1:{running.ports['health']}/readyz"
                            async with client.get(ready) as answer:
                                assert answer.status == 503
                assert told.count(True) > 1
                assert told == sorted(told)
                assert await running.process.wait() == 0
    events = [line["event"] for line in running.lines]
    assert events[-1] == "out of service"
    assert not [line for line in running.lines if line["level"] in {"error", "critical"}]
    assert len(running.lines) == len(running.raw)
    assert CITY not in "".join(running.raw)
    admin = await site.cell.admin()
    assert await admin.fetchval("SELECT count(*) FROM chukan.leases WHERE until > now()") == 0
    await admin.close()


async def test_a_signal_while_starting_ends_it_too(site: Any, tmp_path: Any) -> None:
    async with site.running(site.settings(host=str(tmp_path))) as running:
        async with asyncio.timeout(60):
            while "health" not in running.ports:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await asyncio.Event().wait()
            async with aiohttp.ClientSession() as client:
                base = f"http://127.0.0.1:{running.ports['health']}"
                async with client.get(f"{base}/healthz") as answer:
                    assert answer.status == 200
                async with client.get(f"{base}/readyz") as answer:
                    assert answer.status == 503
                    assert "no_primary" in (await answer.json())["faults"]
            running.process.send_signal(signal.SIGTERM)
            assert await running.process.wait() == 0


async def _ended(running: Any, status: int, *words: str) -> None:
    async with asyncio.timeout(60):
        assert await running.process.wait() == status
    assert all(word in "".join(running.raw) for word in words)
    assert "agency" not in running.ports


@pytest.mark.requirement("TEN-03")
async def test_inside_the_links_everybody_is_asked_whose_tunnel_it_is(site: Any) -> None:
    inside = "127.0.0.5"
    async with site.running(site.settings(address_check=True, link_hosts=[inside])) as running:
        await _ready(running)
        port, health = running.ports["agency"], running.ports["health"]
        connector = aiohttp.TCPConnector(ssl=site.client)
        async with aiohttp.ClientSession(connector=connector) as client:
            for host in ("127.0.0.1", inside):
                # Nobody comes through a tunnel here, and no word of the caller's makes it one.
                url = f"https://{host}:{port}/v1/agencies/{CITY}/records"
                forged = {"X-Forwarded-For": "10.76.203.65"}
                async with client.get(url, headers=forged, server_hostname="localhost") as answer:
                    assert (answer.status, (await answer.json(content_type=None))["code"]) == (403, "outside_links")
            async with client.get(f"http://{inside}:{health}/readyz") as answer:
                assert (answer.status, await answer.json()) == (200, {"ready": True, "centre": "east"})
            async with client.get(f"http://{inside}:{health}/metrics") as answer:
                assert answer.status == 404
            async with client.get(f"http://127.0.0.1:{health}/metrics") as answer:
                assert 'chukan_access_refused_total{code="outside_links"} 2.0' in await answer.text()
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.get(f"https://{inside}:{running.ports['network']}/")
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(40):
            assert await running.process.wait() == 0
    refused = [line for line in running.lines if line["event"] == "access refused"]
    assert [(line["code"], line["body"]) for line in refused] == [("outside_links", "131016")] * 2


async def test_an_address_inside_the_links_that_is_not_this_host_s_ends_the_start(site: Any) -> None:
    async with site.running(site.settings(link_hosts=["192.0.2.77"])) as running:
        await _ended(running, 2, "setting_invalid", "/exchange/link_hosts")


async def test_without_the_check_of_addresses_there_is_a_sandbox_only(site: Any) -> None:
    async with site.running(site.settings(address_check=False, sandbox=False)) as running:
        await _ended(running, 2, "setting_forbidden", "/site/address_check")
    # And production has roots of its own.
    roots = Authority.create(site.folder / "real", "test", SystemClock()).trusted
    async with site.running(site.settings(address_check=True, roots=roots)) as running:
        await _ended(running, 2, "other_environment")


async def test_an_exchange_starts_and_seals_without_the_other_centres_key_store(site: Any) -> None:
    away = site.folder / "keys-west"
    away.rename(site.folder / "unreachable")
    try:
        async with site.running(site.settings()) as running:
            await _ready(running)
            connector = aiohttp.TCPConnector(ssl=site.client)
            url = f"https://localhost:{running.ports['agency']}/v1/agencies/{CITY}/copies"
            async with aiohttp.ClientSession(connector=connector) as client:
                key = {"Idempotency-Key": str(uuid.uuid4())}
                line = COPY | {"addressee": "A2"}
                async with client.post(url, json={"lines": [line]}, headers=key) as answer:
                    assert (answer.status, await answer.json()) == (200, {"lines": [{"line": 0, "status": "done"}]})
                key = {"Idempotency-Key": str(uuid.uuid4())}
                async with client.post(f"{url}/search", json={"keys": [{"addressee": "A2"}]}, headers=key) as answer:
                    assert (await answer.json())["copies"][0]["items"] == COPY["items"]
    finally:
        (site.folder / "unreachable").rename(away)
