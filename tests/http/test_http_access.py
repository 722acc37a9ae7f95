"""Who may call: certificate, registration, tunnel, agency, function, and officers' own credentials."""

import io
import json
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from chukan import log
from chukan.clock import SystemClock
from chukan.ops.certificates import Authority
from chukan.platform.http.auth import NoAddressCheck
from chukan.platform.tls import client_context

CITY, SCHOOLS, TOWN, CLOSED = "1310100000000001", "1310100000000002", "2710000000000003", "1310100000000009"


@pytest.fixture
def lines() -> Any:
    stream = io.StringIO()
    log.configure("debug", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.configure()


async def _get(served: Any, name: str, path: str = "/queries", agency: str = CITY, **given: Any) -> tuple[int, Any]:
    async with served.client(name) as client, client.get(served.url(path, agency), **given) as answer:
        return answer.status, await answer.json(content_type=None)


@pytest.mark.requirement("CON-01")
async def test_a_registered_system_is_let_in(served: Any) -> None:
    assert await _get(served, "tax") == (200, {"lines": []})
    assert served.exchange.calls == [("page", CITY, None, None, 100)]


@pytest.mark.requirement("CON-01")
async def test_an_unregistered_system_is_refused_and_logged(served: Any, lines: Callable[[], Any]) -> None:
    status, problem = await _get(served, "stranger")
    assert (status, problem["code"]) == (403, "unregistered_system")
    refusals = [line for line in lines() if line["event"] == "access refused"]
    assert [(line["peer"], line["code"]) for line in refusals] == [("stranger", "unregistered_system")]
    assert served.exchange.calls == []


@pytest.mark.requirement("CON-01")
async def test_an_unregistered_system_learns_nothing_of_the_paths(served: Any) -> None:
    for path in ("/queries", "/nowhere"):
        status, problem = await _get(served, "stranger", path)
        assert (status, problem["code"]) == (403, "unregistered_system")
    async with served.client("stranger") as client:
        for path in ("/", "/openapi.json"):
            async with client.get(f"https://localhost:{served.port}{path}") as answer:
                assert answer.status == 403


async def test_without_a_certificate_there_is_no_connection(served: Any, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.trusted))
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get(served.url("/queries"), ssl=context)
    assert served.exchange.calls == []


async def test_a_certificate_of_another_authority_does_not_connect(
    served: Any, authority: Authority, tmp_path: Any
) -> None:
    foreign = Authority.create(tmp_path / "foreign", "foreign", SystemClock())
    issued = foreign.issue_client("tax")
    context = client_context(issued.certificate, issued.key, authority.trusted)
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get(served.url("/queries"), ssl=context)


async def test_tls_1_2_is_not_spoken(served: Any, contexts: Any) -> None:
    context = contexts("tax")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get(served.url("/queries"), ssl=old)


async def test_a_peer_certificate_is_no_client(served: Any, contexts: Any) -> None:
    status, problem = await _get(served, "exchange")
    assert (status, problem["code"]) == (401, "unauthenticated")


@pytest.mark.requirement("TEN-01")
async def test_a_client_may_not_act_for_another_body_s_agency(served: Any) -> None:
    assert (await _get(served, "tax", agency=TOWN))[1]["code"] == "wrong_agency"
    assert (await _get(served, "town", agency=CITY))[1]["code"] == "wrong_agency"
    assert served.exchange.calls == []


async def test_an_agency_that_does_not_exist_looks_like_another_s(served: Any) -> None:
    for agency in ("9" * 16, "nonsense", "1310100000000001x"):
        status, problem = await _get(served, "tax", agency=agency)
        assert (status, problem["code"]) == (403, "wrong_agency")


async def test_one_system_serves_two_agencies_of_its_body(served: Any) -> None:
    assert (await _get(served, "tax", agency=SCHOOLS))[0] == 200
    assert served.exchange.calls[0][1] == SCHOOLS


async def test_a_closed_agency_is_gone(served: Any) -> None:
    status, problem = await _get(served, "tax", agency=CLOSED)
    assert (status, problem["code"]) == (410, "agency_closed")


async def test_a_function_that_was_not_granted_is_refused(served: Any) -> None:
    assert (await _get(served, "counter"))[0] == 200
    assert (await _get(served, "counter", "/records"))[1]["code"] == "function_not_granted"


async def test_a_system_cannot_do_an_officer_s_act_whatever_it_was_granted(served: Any, headers: Any) -> None:
    review = "/reviews/0199d8d4-0000-7000-8000-000000000001"
    async with served.client("eager") as client:
        async with client.get(served.url("/reviews")) as answer:
            assert (await answer.json())["code"] == "officer_required"
        async with client.post(served.url(f"{review}/approve"), json={}, headers=headers) as answer:
            assert (await answer.json())["code"] == "officer_required"
        load = f"/loads/{served.exchange.desk.load_id}/release"
        async with client.post(served.url(load), json={"digest": "0" * 64}, headers=headers) as answer:
            assert (await answer.json())["code"] == "officer_required"
    assert served.exchange.calls == []


async def test_officers_act_with_their_own_credential(served: Any, headers: Any) -> None:
    review = "/reviews/0199d8d4-0000-7000-8000-000000000001"
    async with served.client("suzuki") as client:
        async with client.get(served.url("/reviews")) as answer:
            assert answer.status == 200
        body = {"decision": "provide", "note": "確認済み"}
        async with client.post(served.url(f"{review}/prepare"), json=body, headers=headers) as answer:
            assert answer.status == 200
        async with client.post(served.url(f"{review}/approve"), json={}, headers=headers) as answer:
            assert (await answer.json())["code"] == "function_not_granted"
    async with served.client("tanaka") as client:
        async with client.post(served.url(f"{review}/approve"), json={}, headers=headers) as answer:
            assert answer.status == 200
        async with client.post(served.url(f"{review}/refuse"), json={"note": "x"}, headers=headers) as answer:
            assert answer.status == 200
    assert served.exchange.calls == [
        ("list", CITY),
        ("prepare", CITY, "suzuki", "provide"),
        ("approve", CITY, "tanaka"),
        ("refuse", CITY, "tanaka"),
    ]


async def test_forwarded_headers_are_ignored(served: Any) -> None:
    forged = {"X-Forwarded-For": "10.64.0.9", "Forwarded": "for=10.64.0.9", "X-Real-IP": "10.64.0.9"}
    assert (await _get(served, "tax", headers=forged))[0] == 200
    assert {address for address, _ in served.addresses.asked} <= {"127.0.0.1", "::1"}


def test_no_check_says_so(lines: Callable[[], Any]) -> None:
    assert NoAddressCheck().allows("10.0.0.1", "131016")
    assert [line["level"] for line in lines()] == ["warning"]
