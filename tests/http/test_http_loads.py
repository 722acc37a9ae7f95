"""Load sessions over HTTP: parts stream in, arrive whole or not at all, and are bounded."""

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from chukan.platform.admission import Limits
from chukan.platform.http import bodies, parts

CITY = "1310100000000001"
CSV = "text/csv; charset=utf-8; header=present"
DATA = b"addressee,effective_from,TKX0020000000001\r\nA1,2026-06-01,2026\r\nA-,2026-06-01,2026\r\n"


async def _put(served: Any, data: Any, number: str = "1", load: str | None = None, **headers: str) -> tuple[int, Any]:
    url = served.url(f"/loads/{load or served.exchange.desk.load_id}/parts/{number}")
    given = {"Content-Type": CSV} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.client() as client, client.put(url, data=data, headers=given) as answer:
        return answer.status, await answer.json()


def _digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_a_session_is_opened_filled_and_committed(served: Any, headers: Any, key: str) -> None:
    desk = served.exchange.desk
    async with served.client() as client:
        body = {"kind": "TM00000000000002", "layout": 202506, "mode": "full", "expected": 2, "period": "2026"}
        async with client.post(served.url("/loads"), json=body, headers=headers) as answer:
            assert answer.status == 201
            assert answer.headers["Location"] == f"/v1/agencies/{CITY}/loads/{desk.load_id}"
        assert (await _put(served, DATA))[1]["parts"] == [1]
        url = served.url(f"/loads/{desk.load_id}")
        async with client.post(f"{url}/commit", json={"digest": "a" * 64}, headers=headers) as answer:
            assert (await answer.json())["state"] == "committed"
        async with client.get(url) as answer:
            assert answer.status == 200
        async with client.post(f"{url}/abort", headers=headers) as answer:
            assert (await answer.json())["state"] == "aborted"
    assert [call[0] for call in desk.calls] == ["open", "part", "commit", "get", "abort"]
    assert desk.calls[1] == ("part", CITY, 1, hashlib.sha256(DATA).hexdigest())


@pytest.mark.requirement("REP-02")
async def test_the_desk_gets_every_line_with_its_number(served: Any) -> None:
    await _put(served, DATA)
    lines = served.exchange.desk.parts[1]
    assert [(line.number, line.problem and line.problem.code) for line in lines] == [(2, None), (3, "invalid_field")]


async def test_an_officer_releases_a_held_session(served: Any, headers: Any) -> None:
    url = served.url(f"/loads/{served.exchange.desk.load_id}/release")
    async with (
        served.client("tanaka") as client,
        client.post(url, json={"digest": "a" * 64}, headers=headers) as answer,
    ):
        assert answer.status == 200
    assert served.exchange.calls == [("release", CITY, "tanaka")]


async def test_a_part_that_was_damaged_on_its_way_is_refused(served: Any) -> None:
    assert (await _put(served, DATA, Content_Digest=_digest(DATA)))[0] == 200
    status, problem = await _put(served, DATA, "2", Content_Digest=_digest(DATA + b"x"))
    assert (status, problem["code"]) == (400, "truncated_body")
    assert (await _put(served, DATA, "3", Content_Digest="sha-256=:?:"))[0] == 200  # not a digest: nothing announced
    assert (await _put(served, DATA, "4", Content_Digest="sha-256=:AAA:"))[1]["code"] == "malformed_request"
    assert sorted(served.exchange.desk.parts) == [1, 3]


@pytest.mark.parametrize("number", ["-1", "01", "10000", "1e3", "x", "1234567"])
async def test_a_part_has_a_number(served: Any, number: str) -> None:
    assert (await _put(served, DATA, number))[1]["code"] == "not_found"
    assert served.exchange.calls == []


async def test_part_numbers_end_where_the_limit_says(served: Any) -> None:
    assert (await _put(served, DATA, "9999"))[0] == 200
    assert (await _put(served, DATA, "0"))[0] == 200


async def test_what_is_no_file_of_ours_is_refused(served: Any) -> None:
    for kind, code in (("application/json", "unsupported_media_type"), ("text/csv; charset=x", "unsupported_encoding")):
        assert (await _put(served, DATA, Content_Type=kind))[1]["code"] == code
    assert (await _put(served, b"", Content_Type="application/x-ndjson"))[0] == 200
    assert (await _put(served, DATA, load="1"))[1]["code"] == "not_found"


@pytest.mark.requirement("CON-04")
async def test_a_part_over_the_limit_is_refused_with_the_limit(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BYTES_MAX", 100_000)
    status, problem = await _put(served, b"x" * 100_001)
    assert (status, problem["code"], problem["limit"]) == (413, "too_large", 100_000)

    async def endless() -> Any:
        while True:
            yield b"x" * 10_000

    assert (await _put(served, endless()))[1]["code"] == "too_large"
    assert served.exchange.calls == []


async def test_a_part_whose_bytes_stop_coming_ends_at_its_deadline(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "CHUNK_DEADLINE_S", 0.1)
    never = asyncio.Event()

    async def stalled() -> Any:
        yield DATA
        await never.wait()

    async with asyncio.timeout(10):
        assert (await _put(served, stalled()))[1]["code"] == "body_timeout"
    assert served.exchange.calls == []


async def test_bodies_share_one_budget_of_memory(serve: Any) -> None:
    served = await serve(limits=Limits(reading_bytes_max=100, reading_wait_s=0.1))
    going_on = asyncio.Event()

    async def slow() -> Any:
        yield DATA
        await going_on.wait()

    first = asyncio.ensure_future(_put(served, slow()))
    async with asyncio.timeout(10):
        while (await _put(served, DATA, "2"))[0] != 503:
            assert not first.done()
        going_on.set()
        assert (await first)[0] == 200
        assert (await _put(served, DATA, "2"))[0] == 200


async def test_a_part_waits_for_memory_instead_of_being_refused_at_once(serve: Any) -> None:
    served = await serve(limits=Limits(reading_bytes_max=100))
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        yield DATA
        begun.set()
        await going_on.wait()

    first = asyncio.ensure_future(_put(served, slow()))
    async with asyncio.timeout(10):
        await begun.wait()
        others = [asyncio.ensure_future(_put(served, DATA, str(n))) for n in (2, 3, 4)]
        done, _ = await asyncio.wait(others, timeout=0.3)
        assert not done
        going_on.set()
        assert [status for status, _ in await asyncio.gather(first, *others)] == [200] * 4
