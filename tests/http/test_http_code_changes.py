"""Repair of links and requests to acquire over HTTP: whose act each is, and no number or fact in a refusal."""

from typing import Any

import pytest

from chukan.tenants.numbers import synthetic_individual_number, synthetic_resident_code

CITY = "1310100000000001"
ID = "0199d8d4-0000-7000-8000-000000000001"
KEY = {"Idempotency-Key": "repair-0001-0001"}
FACTS = {"name": "見本 花子", "birth_date": "1980-04-01", "sex": "female", "address": "見本県見本市一丁目一番"}
RELINK = {"addressee": "A1", "to": "A2", "reason": "点検"}
MERGE = {"addressee": "A1", "into": "A2", "reason": "二重登録"}
CONFIRM = {"change": ID, "decision": "apply"}


@pytest.mark.requirement("SYM-09", "AUT-05")
@pytest.mark.parametrize(
    ("path", "body", "officer", "other"),
    [
        ("/codes/relink", {"lines": [RELINK]}, "suzuki", "tanaka"),
        ("/codes/merge", {"lines": [MERGE]}, "suzuki", "tanaka"),
        ("/codes/confirm", {"lines": [CONFIRM]}, "tanaka", "suzuki"),
        ("/codes/history", {"addressee": "A1"}, "tanaka", None),
    ],
)
async def test_links_are_repaired_by_officers_who_have_the_right_for_it(
    served: Any, path: str, body: Any, officer: str, other: str | None
) -> None:
    for caller, code in (("eager", "officer_required"), (other, "function_not_granted")):
        if caller is None:
            continue
        async with served.client(caller) as client, client.post(served.url(path), json=body, headers=KEY) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, code)
    assert served.exchange.calls == []
    async with served.client(officer) as client, client.post(served.url(path), json=body, headers=KEY) as answer:
        assert answer.status == 200
    ((word, agency, *_),) = served.exchange.calls
    assert (path.endswith(word), agency) == (True, CITY)


@pytest.mark.requirement("SYM-01")
@pytest.mark.parametrize("field", ["addressee", "to", "reason"])
async def test_a_forbidden_number_in_a_repair_is_refused_by_its_line(served: Any, field: str) -> None:
    number = synthetic_resident_code(5) if field != "reason" else f"番号 {synthetic_individual_number(5)}"
    body = {"lines": [RELINK, {**RELINK, field: number}]}
    url = served.url("/codes/relink")
    async with served.client("suzuki") as client, client.post(url, json=body, headers=KEY) as answer:
        text = await answer.text()
        assert (answer.status, (await answer.json())["line"]) == (422, 2)
    assert number not in text
    assert served.exchange.calls == []


@pytest.mark.requirement("INQ-04")
async def test_facts_travel_in_bodies_and_a_number_among_them_is_refused(served: Any) -> None:
    url = served.url(f"/queries/{ID}/request-acquisition")
    async with served.client() as client, client.post(url, json=FACTS, headers=KEY) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "requested")
    number = synthetic_individual_number(6)
    bad = {**FACTS, "address": f"見本県 {number}"}
    async with served.client() as client, client.post(url, json=bad, headers=KEY) as answer:
        text = await answer.text()
        assert (answer.status, (await answer.json())["code"]) == (422, "individual_number_present")
    assert number not in text
    for missing in FACTS:
        body = {name: value for name, value in FACTS.items() if name != missing}
        async with served.client() as client, client.post(url, json=body, headers=KEY) as answer:
            assert answer.status == 422
    assert len(served.exchange.calls) == 1


@pytest.mark.requirement("INQ-04")
async def test_a_provider_lists_requests_and_fulfils_or_declines(served: Any) -> None:
    async with served.client() as client:
        async with client.get(served.url("/acquisition-requests")) as answer:
            (request,) = (await answer.json())["requests"]
            assert request["facts"] == FACTS
        for body, status in (({"addressee": "A1"}, "fulfilled"), ({}, "declined")):
            url = served.url(f"/acquisition-requests/{ID}/fulfil")
            async with client.post(url, json=body, headers=KEY) as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, status)
    async with served.client("counter") as client, client.get(served.url("/acquisition-requests")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "function_not_granted")
