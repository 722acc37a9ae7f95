"""The admin endpoint: it steers the network from this machine only, and shows its records page by page."""

import aiohttp
import msgspec
import pytest

from chukan.errors import Problem
from chukan.ops.sandbox.admin import NetworkRecords, State
from chukan.ops.sandbox.network_app import check_loopback
from chukan.platform.wire.agency import ProblemBody

from .conftest import KIND, NATION, Pair


async def _call(pair: Pair, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    url = f"http://127.0.0.1:{pair.world.config.admin_port}{path}"
    data = None if body is None else msgspec.json.encode(body)
    async with aiohttp.ClientSession() as session, session.request(method, url, data=data) as response:
        return response.status, await response.read()


@pytest.mark.requirement("REC-05")
async def test_records_come_in_pages_and_none_is_missed(pair: Pair) -> None:
    for _ in range(5):
        await pair.ask()
    seen, after = [], 0
    for _ in range(10):
        status, body = await _call(pair, "GET", f"/admin/records?after={after}&limit=2")
        page = msgspec.json.decode(body, type=NetworkRecords)
        assert status == 200
        seen += [record.position for record in page.records]
        if page.next is None:
            break
        after = page.next

    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.requirement("INQ-05")
async def test_flags_stops_and_agencies_are_set_over_http(pair: Pair) -> None:
    assert (await _call(pair, "PUT", "/admin/pia", {"flags": [{"agency": NATION, "published": False}]}))[0] == 200
    _, unpublished = await pair.ask()
    await _call(pair, "PUT", "/admin/pia", {"flags": [{"agency": NATION, "published": True}]})
    await _call(pair, "PUT", "/admin/stops", {"stops": [{"kind": KIND}]})
    _, stopped = await pair.ask()
    await _call(pair, "PUT", "/admin/stops", {"stops": []})
    new = {"code": "9901131016000009", "name": "新", "route": "platform"}
    status, reply = await _call(pair, "PUT", "/admin/agencies", {"agencies": [new]})
    _, known = await pair.ask(provider=new["code"])

    assert (unpublished.reason, stopped.reason, known.reason) == (
        "pia_unpublished", "kind_stopped", "provider_has_no_code"
    )  # fmt: skip
    assert (status, msgspec.json.decode(reply)) == (200, {"count": 1})


async def test_the_state_counts(pair: Pair) -> None:
    await pair.send(pair.world.answer(await pair.notice()))
    await pair.ask(procedure="JTX0000000000001")
    await pair.world.until_empty()
    status, body = await _call(pair, "GET", "/admin/state")
    state = msgspec.json.decode(body, type=State)

    assert status == 200
    assert (state.name, state.agencies, state.codes, state.open_acquisitions) == ("network", 4, 2, 0)
    assert state.exchanges == {"provided": 1, "not_permitted": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/admin/nothing", None, "not_found"),
        ("POST", "/admin/state", None, "method_not_allowed"),
        ("PUT", "/admin/pia", {"flags": [{"agency": "1", "published": True}]}, "invalid_field"),
        ("GET", "/admin/records?after=-1", None, "invalid_field"),
        ("GET", f"/admin/records?after={'9' * 40}", None, "invalid_field"),
    ],
)
async def test_what_does_not_fit_gets_a_problem_document(
    pair: Pair, method: str, path: str, body: object, code: str
) -> None:
    status, answer = await _call(pair, method, path, body)
    problem = msgspec.json.decode(answer, type=ProblemBody)

    assert (problem.code, problem.status) == (code, status)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "localhost", ""])  # noqa: S104 - that is what must be refused
def test_the_admin_endpoint_is_bound_to_this_machine_only(host: str) -> None:
    check_loopback("127.0.0.1")
    check_loopback("::1")
    with pytest.raises(Problem, match="setting_forbidden"):
        check_loopback(host)


async def test_the_networks_own_listener_has_no_admin_calls_and_wants_a_certificate(pair: Pair) -> None:
    context = pair.east.peer._tls
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{pair.world.network_url}/admin/state", ssl=context) as response:
            assert response.status == 404
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{pair.world.network_url}/admin/state")


async def test_settings_of_an_administrator_outlive_a_restart(pair: Pair) -> None:
    await _call(pair, "PUT", "/admin/pia", {"flags": [{"agency": NATION, "published": False}]})
    await pair.world.stop()
    await pair.world.start()
    _, reply = await pair.ask()

    assert reply.reason == "pia_unpublished"
