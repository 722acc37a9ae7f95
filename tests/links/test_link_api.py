"""What a body's own systems and officers see of its links and do to them, by the agency API and in the database."""

import hashlib
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.platform.exchange.links import BodyLinks
from chukan.tenants.directory import AgencyRow, ClientRow
from chukan.tenants.link_plan import prefixes
from chukan.tenants.links import Seen
from chukan.tenants.sets import CellSets
from chukan.tests.http.conftest import CITY, SCHOOLS, TOWN, authority, certificates, contexts, serve, server_tls
from chukan.tests.support.link_desk import CELL, LinkDesk

__all__ = ["authority", "certificates", "contexts", "serve", "server_tls"]

pytestmark = pytest.mark.requirement("TEN-03")
OWN = "/links/131016-1"
WHY = {"reason": "装置の入替えのため"}


# ---------------------------------------------------------------- who may, over HTTP


@pytest.fixture
async def served(serve: Callable[..., Any]) -> Any:
    return await serve()


async def _send(
    served: Any, name: str, path: str, body: Any = None, *, agency: str = CITY, key: str | None = None
) -> Any:
    method = "GET" if path == "/links" else "POST"
    headers = {"Idempotency-Key": key or str(uuid.uuid4())} if method == "POST" else {}
    async with (
        served.client(name) as client,
        client.request(method, served.url(path, agency), json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def test_a_system_and_an_officer_see_the_body_s_links(served: Any) -> None:
    for name in ("tax", "tanaka"):
        status, views = await _send(served, name, "/links")
        assert status == 200
        assert [(each["link"], each["state"]) for each in views["links"]] == [("131016-1", "active")]
    assert (await _send(served, "suzuki", "/links"))[1]["code"] == "function_not_granted"


async def test_an_officer_acts_and_a_system_does_not(served: Any) -> None:
    for act, state in (("suspend", "suspended"), ("resume", "active"), ("revoke", "revoked")):
        status, view = await _send(served, "tanaka", f"{OWN}/{act}", WHY, key=f"the-key-of-{act}")
        assert (status, view["state"]) == (200, state)
    assert served.exchange.links.calls == [
        (act, CITY, "tanaka", "131016-1", WHY["reason"], f"the-key-of-{act}") for act in ("suspend", "resume", "revoke")
    ]
    served.exchange.links.calls.clear()
    for name in ("tax", "eager"):
        for act in ("suspend", "resume", "revoke"):
            assert (await _send(served, name, f"{OWN}/{act}", WHY))[1]["code"] == "officer_required"
    assert (await _send(served, "suzuki", f"{OWN}/suspend", WHY))[1]["code"] == "function_not_granted"
    assert served.exchange.links.calls == []


async def test_a_link_of_another_body_is_not_found_before_anybody_looks(served: Any) -> None:
    for link in ("271004-1", "131016-0", "131016-64", "131016-01", "131024-1", "nonsense", str(uuid.uuid4())):
        status, problem = await _send(served, "tanaka", f"/links/{link}/suspend", WHY)
        assert (status, problem["code"]) == (404, "not_found")
    assert (await _send(served, "tanaka", f"{OWN}/suspend", WHY, agency=TOWN))[1]["code"] == "wrong_agency"
    assert (await _send(served, "tanaka", f"{OWN}/suspend", WHY, agency=SCHOOLS))[1]["code"] == "wrong_agency"
    assert served.exchange.links.calls == []


async def test_a_reason_holds_nobody_s_number(served: Any) -> None:
    status, problem = await _send(served, "tanaka", f"{OWN}/suspend", {"reason": "本人 123456789018 の申出"})
    assert (status, problem["code"], problem["pointer"]) == (422, "individual_number_present", "/reason")
    assert (await _send(served, "tanaka", f"{OWN}/suspend", {"reason": "x" * 201}))[1]["code"] == "invalid_field"
    assert (await _send(served, "tanaka", f"{OWN}/suspend", {"why": "x"}))[1]["code"] == "unknown_field"
    assert served.exchange.links.calls == []


async def test_an_act_needs_an_idempotency_key(served: Any) -> None:
    async with served.client("tanaka") as client, client.post(served.url(f"{OWN}/suspend"), json=WHY) as answer:
        assert (await answer.json())["code"] == "idempotency_key_missing"


# ---------------------------------------------------------------- what becomes of it, in the database


def _officer(name: str, body: str) -> ClientRow:
    return ClientRow(id=name, body=body, kind="officer", name=name, agencies=[], functions=["order"])


class Town:
    """The links of one body as its agencies' officers reach them: the exchange's own service on the broker's login."""

    def __init__(self, desk: LinkDesk) -> None:
        self.desk = desk
        self.body = desk.body()
        self.sets = CellSets(desk.cells.primary(CELL).broker)
        keys = SimpleNamespace(digest=lambda domain, value: hashlib.sha256(domain.encode() + value).digest())
        context = SimpleNamespace(
            sets={CELL: self.sets}, settings=SimpleNamespace(links_cell=CELL), keys=lambda _agency: keys
        )
        self.service = BodyLinks(context)  # type: ignore[arg-type]
        self.agency = AgencyRow(number=7, code=CITY, body=self.body, name="a", cell="elsewhere", generation=1)

    async def act(self, link: str, act: Any, officer: str, *, key: str | None = None, reason: str = "わけ") -> Any:
        content = f"{act} {link} {reason}".encode()
        return await self.service.act(
            self.agency, _officer(officer, self.body), link, act, reason, key=key or str(uuid.uuid4()), content=content
        )

    async def refused(self, *given: Any, **more: Any) -> str:
        with pytest.raises(Problem) as refusal:
            await self.act(*given, **more)
        return refusal.value.code

    async def acts(self, link: str) -> list[tuple[str, str, str | None]]:
        return [(each.act, each.who, each.second) for each in reversed(await self.desk.steward.history(link))]


@pytest.fixture
def town(desk: LinkDesk) -> Town:
    return Town(desk)


async def test_a_body_sees_its_own_links_without_keys_or_outer_addresses(town: Town) -> None:
    link = await town.desk.active(town.body)
    other = await town.desk.active()
    views = (await town.service.list(town.agency)).links
    assert [view.link for view in views] == [link]
    view = views[0]
    assert (view.state, view.addresses, view.suspended_by) == ("active", [*prefixes(link)], None)
    assert [(end.centre, end.last_handshake) for end in view.ends] == [("east", None), ("west", None)]
    at = SystemClock().now().replace(microsecond=0)
    await town.desk.controller.seen("west", [Seen(link=link, endpoint="198.51.100.7:51820", handshake_at=at)])
    text = msgspec.json.encode(await town.service.list(town.agency)).decode()
    assert "198.51.100.7" not in text
    assert other not in text
    assert {end.centre: end.last_handshake for end in (await town.service.list(town.agency)).links[0].ends} == {
        "east": None,
        "west": at,
    }


async def test_one_officer_suspends_and_only_another_resumes(town: Town) -> None:
    link = await town.desk.active(town.body)
    view = await town.act(link, "suspend", "suzuki")
    assert (view.state, view.suspended_by) == ("suspended", "officer")
    assert await town.refused(link, "resume", "suzuki") == "second_officer_required"
    assert (await town.desk.steward.show(link)).state == "suspended"
    assert (await town.act(link, "resume", "tanaka")).state == "active"
    assert (await town.acts(link))[-2:] == [
        ("suspend", "officer:suzuki", None),
        ("resume", "officer:suzuki", "officer:tanaka"),
    ]


async def test_what_an_operator_suspended_officers_do_not_resume(town: Town) -> None:
    link = await town.desk.active(town.body)
    await town.desk.steward.suspend(link, who="anna", reason="as a test")
    view = (await town.service.list(town.agency)).links[0]
    assert (view.state, view.suspended_by) == ("suspended", "operator")
    assert await town.refused(link, "resume", "tanaka") == "link_of_operator"
    # Whoever calls himself like the operator is still an officer.
    assert await town.refused(link, "resume", "anna") == "link_of_operator"
    assert (await town.act(link, "revoke", "tanaka")).state == "revoked"


async def test_an_operator_takes_over_what_an_officer_suspended(town: Town) -> None:
    link = await town.desk.active(town.body)
    await town.act(link, "suspend", "suzuki")
    assert await town.refused(link, "suspend", "tanaka") == "link_state"
    await town.desk.steward.suspend(link, who="anna", reason="as a test")
    assert (await town.service.list(town.agency)).links[0].suspended_by == "operator"
    assert await town.refused(link, "resume", "tanaka") == "link_of_operator"
    with pytest.raises(Problem) as again:
        await town.desk.steward.suspend(link, who="berta", reason="as a test")
    assert again.value.code == "link_state"
    await town.desk.steward.resume(link, second="berta", reason="as a test")
    assert (await town.acts(link))[-3:] == [
        ("suspend", "officer:suzuki", None),
        ("suspend", "anna", None),
        ("resume", "anna", "berta"),
    ]


async def test_one_officer_revokes_for_ever(town: Town) -> None:
    link = await town.desk.active(town.body)
    assert (await town.act(link, "revoke", "suzuki")).state == "revoked"
    for act in ("suspend", "resume", "revoke"):
        assert await town.refused(link, act, "tanaka") == "link_state"
    assert (await town.desk.desired("east", link)).state == "revoked"


async def test_a_link_of_another_body_is_out_of_reach(town: Town) -> None:
    other = await town.desk.active()
    before = await town.desk.steward.show(other)
    for act in ("suspend", "revoke", "resume"):
        assert await town.refused(other, act, "tanaka") == "not_found"
    assert await town.desk.steward.show(other) == before


async def test_a_repeated_request_has_no_second_effect(town: Town) -> None:
    link = await town.desk.active(town.body)
    await town.act(link, "suspend", "suzuki", key="once")
    await town.act(link, "resume", "tanaka", key="twice")
    # A late retry of the first request does not suspend it again.
    assert (await town.act(link, "suspend", "suzuki", key="once")).state == "active"
    assert len([act for act, *_ in await town.acts(link) if act == "suspend"]) == 1
    assert await town.refused(link, "suspend", "suzuki", key="once", reason="another") == "idempotency_key_reused"
    assert (await town.desk.steward.show(link)).state == "active"


async def test_a_refused_request_leaves_nothing_and_may_be_made_again(town: Town) -> None:
    link = await town.desk.active(town.body)
    assert await town.refused(link, "resume", "tanaka", key="again") == "link_state"
    await town.act(link, "suspend", "suzuki")
    assert (await town.act(link, "resume", "tanaka", key="again")).state == "active"


async def test_an_exchange_s_login_decides_on_links_by_these_functions_alone(town: Town) -> None:
    link = await town.desk.requested(town.body)
    async with town.desk.cells.primary(CELL).broker.acquire() as broker:
        granted = await broker.fetch(
            "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'chukan'::regnamespace"
            " AND has_function_privilege(p.oid, 'EXECUTE') AND p.proname ~ 'link'"
        )
        assert {row["proname"] for row in granted} == {"body_link_act", "body_links"}
        for sql in (
            f"SELECT chukan.link_approve('{link}', '{{east,west}}', '{{a,b}}', NULL, NULL, 'anna', 'berta')",
            "SELECT * FROM chukan.link_rows(NULL, NULL, 10)",
            "SELECT * FROM chukan.links",
            "SELECT * FROM chukan.link_asked",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await broker.fetch(sql)
