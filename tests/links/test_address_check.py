"""Whose tunnel a call came through: what does not agree is refused by a code of its own, counted and written down."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chukan import log, settings
from chukan.errors import Problem
from chukan.platform.http.auth import LinkAddresses
from chukan.platform.http.link_health import link_application
from chukan.platform.http.listener import Listener
from chukan.platform.metrics import ACCESS_CODES, Metrics
from chukan.tenants.link_plan import inner_v4, inner_v6
from chukan.tests.http.conftest import CITY, TOWN, authority, certificates, contexts, serve, server_tls

__all__ = ["authority", "certificates", "contexts", "serve", "server_tls"]

pytestmark = pytest.mark.requirement("TEN-03", "CON-01")
BODY, OTHER = "131016", "271004"


class Behind(LinkAddresses):
    """What an exchange sees whose callers all come from one inner address; the sockets of a test have none."""

    def __init__(self, address: str) -> None:
        self.address = address

    def allows(self, address: str, body: str) -> bool:
        return super().allows(self.address, body)

    def tunnel(self, address: str) -> str | None:
        return super().tunnel(self.address)


@pytest.fixture
def lines() -> Any:
    stream = io.StringIO()
    log.configure("debug", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.configure()


async def _get(served: Any, name: str, agency: str = CITY, **given: Any) -> tuple[int, Any]:
    async with served.client(name) as client, client.get(served.url("/queries", agency), **given) as answer:
        return answer.status, await answer.json(content_type=None)


def _counted(served: Any) -> dict[str, float]:
    found = {
        code: served.services.metrics.registry.get_sample_value("chukan_access_refused_total", {"code": code})
        for code in ACCESS_CODES
    }
    return {code: count for code, count in found.items() if count}


def test_an_address_is_its_body_s_and_nobody_else_s() -> None:
    check = LinkAddresses()
    for serial in (1, 2, 63):
        for address in (inner_v4(f"{BODY}-{serial}"), inner_v6(f"{BODY}-{serial}")):
            assert check.allows(address, BODY)
            assert not check.allows(address, OTHER)
            assert check.tunnel(address) == BODY
    assert check.allows(f"::ffff:{inner_v4(f'{BODY}-1')}", BODY)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.255.0.1", "10.63.255.255", "10.128.0.1", "fd6b:7574::1", "", "nonsense", "10.64.0.0"],
)
def test_an_address_of_no_link_is_nobody_s(address: str) -> None:
    check = LinkAddresses()
    assert check.tunnel(address) is None
    assert not check.allows(address, BODY)
    # Not even of a body whose code could be made of nothing.
    assert not check.allows(address, "")


async def test_the_body_s_own_tunnel_is_let_in(serve: Any) -> None:
    for address in (inner_v4(f"{BODY}-1"), inner_v6(f"{BODY}-2")):
        served = await serve(addresses=Behind(address))
        assert (await _get(served, "tax"))[0] == 200
        assert _counted(served) == {}


async def test_a_copied_certificate_through_another_s_tunnel_is_refused(serve: Any, lines: Callable[[], Any]) -> None:
    served = await serve(addresses=Behind(inner_v4(f"{OTHER}-1")))
    status, problem = await _get(served, "tax")
    assert (status, problem["code"]) == (403, "wrong_address")
    # Nor does anybody learn through it what the certificate may do elsewhere.
    assert (await _get(served, "tax", agency=TOWN))[1]["code"] == "wrong_address"
    assert served.exchange.calls == []
    assert _counted(served) == {"wrong_address": 2}
    refused = [line for line in lines() if line["event"] == "access refused"]
    assert {(line["peer"], line["code"], line["body"], line["tunnel"]) for line in refused} == {
        ("tax", "wrong_address", BODY, OTHER)
    }


async def test_another_body_s_path_through_the_right_tunnel_is_refused(serve: Any, lines: Callable[[], Any]) -> None:
    served = await serve(addresses=Behind(inner_v4(f"{OTHER}-1")))
    assert (await _get(served, "town", agency=TOWN))[0] == 200
    status, problem = await _get(served, "town", agency=CITY)
    assert (status, problem["code"]) == (403, "wrong_agency")
    assert _counted(served) == {"wrong_agency": 1}
    refused = [line for line in lines() if line["event"] == "access refused"]
    assert [(line["code"], line["body"], line["tunnel"]) for line in refused] == [("wrong_agency", OTHER, OTHER)]


async def test_an_address_outside_all_links_is_refused_whatever_it_says_of_itself(
    serve: Any, lines: Callable[[], Any]
) -> None:
    served = await serve(addresses=LinkAddresses())
    own = inner_v4(f"{BODY}-1")
    forged = {"X-Forwarded-For": own, "Forwarded": f"for={own}", "X-Real-IP": own}
    given: dict[str, Any]
    for given in ({}, {"headers": forged}):
        status, problem = await _get(served, "tax", **given)
        assert (status, problem["code"]) == (403, "outside_links")
    assert served.exchange.calls == []
    assert _counted(served) == {"outside_links": 2}
    refused = [line for line in lines() if line["event"] == "access refused"]
    assert {(line["code"], line["body"], line.get("tunnel")) for line in refused} == {("outside_links", BODY, None)}


async def test_an_unregistered_certificate_is_told_apart_in_any_tunnel(serve: Any) -> None:
    served = await serve(addresses=Behind(inner_v4(f"{BODY}-1")))
    assert (await _get(served, "stranger"))[1]["code"] == "unregistered_system"
    assert (await _get(served, "exchange"))[1]["code"] == "unauthenticated"
    assert _counted(served) == {"unregistered_system": 1, "unauthenticated": 1}


def test_refusals_are_counted_under_known_codes_only() -> None:
    metrics = Metrics()
    metrics.access_refused("314159265358")
    text = metrics.render().decode()
    assert 'chukan_access_refused_total{code="other"} 1.0' in text
    assert 'chukan_access_refused_total{code="wrong_address"} 0.0' in text
    assert "314159265358" not in text


# ---------------------------------------------------------------- listening inside the links


async def test_a_listener_has_one_port_at_all_its_addresses(serve: Any, contexts: Any) -> None:
    served = await serve()
    listener = Listener(
        served.listener._runner.app, "127.0.0.1", 0, None, more_hosts=("127.0.0.2", "127.0.0.3"), connections_max=10
    )
    port = await listener.start()
    try:
        async with aiohttp.ClientSession() as client:
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                async with client.get(f"http://{host}:{port}/nowhere") as answer:
                    assert (await answer.json(content_type=None))["code"] == "unauthenticated"
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.get(f"http://127.0.0.4:{port}/nowhere")
    finally:
        await listener.close(0.2)
    async with aiohttp.ClientSession() as client:
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.get(f"http://{host}:{port}/nowhere")


class _Health:
    """As much of ``Health`` as a link sees."""

    ready = True

    def ready_for(self, cell: str | None) -> bool:
        if cell not in (None, "east"):
            raise Problem("not_found")
        return self.ready and cell != "east"


async def test_health_inside_a_link_says_yes_or_no_and_nothing_else() -> None:
    health = _Health()
    listener = Listener(link_application(health, "east"), "127.0.0.1", 0)  # type: ignore[arg-type]
    port = await listener.start()
    seen: list[tuple[int, Any]] = []
    try:
        async with aiohttp.ClientSession() as client:
            for path in ("/readyz", "/readyz?cell=east", "/readyz?cell=north", "/metrics", "/healthz"):
                async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                    seen.append((answer.status, await answer.json(content_type=None)))
            health.ready = False
            async with client.get(f"http://127.0.0.1:{port}/readyz") as answer:
                seen.append((answer.status, await answer.json()))
    finally:
        await listener.close(0.2)
    yes, no = {"ready": True, "centre": "east"}, {"ready": False, "centre": "east"}
    assert [seen[0], seen[1], seen[4], seen[5]] == [(200, yes), (503, no), (200, {"ok": True}), (503, no)]
    assert [(status, document["code"]) for status, document in seen[2:4]] == [(404, "not_found")] * 2


def _exchange(**changes: Any) -> settings.Exchange:
    keys = ("tls_certificate_file", "tls_key_file", "tls_ca_file", "signing_key_file", "directory_key_file")
    return settings.Exchange(**{"name": "x1", "agency_host": "192.0.2.1", **dict.fromkeys(keys, Path("x")), **changes})


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"link_hosts": ["10.255.0.1", "10.255.0.1"]}, "/exchange/link_hosts/1"),
        ({"link_hosts": ["exchange.example"]}, "/exchange/link_hosts/0"),
        ({"link_hosts": ["::"]}, "/exchange/link_hosts/0"),
        ({"link_hosts": ["192.0.2.1"]}, "/exchange/link_hosts/0"),
        ({"link_hosts": ["10.255.0.1"], "health_host": "::"}, "/exchange/health_host"),
        ({"link_hosts": ["10.255.0.1"], "network_host": "::"}, "/exchange/network_host"),
    ],
)
def test_the_addresses_inside_the_links_are_their_own(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Problem) as refused:
        settings.check_link_hosts(_exchange(**changes))
    assert (refused.value.code, refused.value.as_dict()["pointer"]) == ("setting_invalid", pointer)
    settings.check_link_hosts(_exchange(link_hosts=["10.255.0.1", "10.255.255.1"]))
