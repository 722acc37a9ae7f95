"""Queries: accepted durably, answered when final, waited for, collected, taken back."""

import asyncio
import uuid
from typing import Any

import pytest

from chukan.platform.admission import Limits

CITY, TOWN = "1310100000000001", "2710000000000003"


async def _post(served: Any, body: Any, headers: Any, **given: Any) -> tuple[int, Any, Any]:
    async with (
        served.client(given.pop("name", "tax")) as client,
        client.post(served.url("/queries"), json=body, headers=headers) as answer,
    ):
        return answer.status, answer.headers, await answer.json(content_type=None)


@pytest.mark.requirement("INQ-01", "INQ-12")
async def test_a_list_is_accepted_and_says_where_to_look(served: Any, line: Any, headers: Any, key: str) -> None:
    status, fields, batch = await _post(served, {"lines": [line(), line(addressee="A2")]}, headers)
    assert status == 202
    assert fields["Location"] == f"/v1/agencies/{CITY}/queries/{batch['batch']}"
    assert [each["state"] for each in batch["lines"]] == ["accepted", "accepted"]
    assert served.exchange.calls == [("accept", CITY, "tax", key, 2)]
    async with served.client() as client, client.get(served.url(f"/queries/{batch['batch']}")) as answer:
        assert (await answer.json())["batch"] == batch["batch"]


@pytest.mark.requirement("INQ-01")
@pytest.mark.parametrize("field", ["addressee", "kind", "provider", "affair", "procedure", "department"])
async def test_a_line_without_what_the_law_demands_is_refused(served: Any, line: Any, headers: Any, field: str) -> None:
    short = line()
    del short[field]
    status, _, problem = await _post(served, {"lines": [short]}, headers)
    assert (status, problem["code"], problem["pointer"]) == (422, "invalid_field", f"/lines/0/{field}")
    assert served.exchange.calls == []


async def test_prefer_wait_brings_the_answer_in_the_reply(served: Any, line: Any, headers: Any) -> None:
    body = {"lines": [line()], "collect": True}
    posting = asyncio.ensure_future(_post(served, body, headers | {"Prefer": "respond-async, wait=20"}))
    await served.exchange.inquiries.waiting.wait()
    served.exchange.inquiries.answer()
    status, fields, batch = await posting
    assert (status, fields["Preference-Applied"]) == (200, "wait=20")
    assert batch["lines"][0]["state"] == "collected"
    assert batch["lines"][0]["content"] == {"kind": "TM00000000000002", "copies": []}


async def test_a_wait_that_ends_without_an_answer_is_a_202(served: Any, line: Any, headers: Any) -> None:
    status, fields, _ = await _post(served, {"lines": [line()]}, headers | {"Prefer": "wait=0"})
    assert (status, fields["Preference-Applied"]) == (202, "wait=0")


async def test_a_wait_is_at_most_sixty_seconds(served: Any, line: Any, headers: Any) -> None:
    posting = asyncio.ensure_future(_post(served, {"lines": [line()]}, headers | {"Prefer": 'wait="600"'}))
    await served.exchange.inquiries.waiting.wait()
    assert served.exchange.inquiries.calls[-1] == ("wait", CITY, 60.0)
    served.exchange.inquiries.answer()
    assert (await posting)[1]["Preference-Applied"] == "wait=60"


@pytest.mark.parametrize("preference", ["wait", "wait=", "wait=-1", "wait=soon", "return=minimal", "", ",", 'wait="'])
async def test_a_preference_that_is_not_understood_is_ignored(
    served: Any, line: Any, headers: Any, preference: str
) -> None:
    status, fields, _ = await _post(served, {"lines": [line()]}, headers | {"Prefer": preference})
    assert status == 202
    assert "Preference-Applied" not in fields
    assert [call[0] for call in served.exchange.calls] == ["accept"]


async def test_lines_refused_before_acceptance_stay_in_the_reply_after_waiting(
    served: Any, line: Any, headers: Any
) -> None:
    served.exchange.inquiries.refuse_lines = {1}
    body = {"lines": [line(), line(), line()], "collect": True}
    posting = asyncio.ensure_future(_post(served, body, headers | {"Prefer": "wait=20"}))
    await served.exchange.inquiries.waiting.wait()
    served.exchange.inquiries.answer()
    _, _, batch = await posting
    states = [each["state"] for each in batch["lines"]]
    assert states == ["collected", "refused_before_acceptance", "collected"]


async def test_a_list_of_refused_lines_only_is_final_at_once(served: Any, line: Any, headers: Any) -> None:
    served.exchange.inquiries.refuse_lines = {0}
    status, fields, _ = await _post(served, {"lines": [line()]}, headers | {"Prefer": "wait=5"})
    assert (status, fields["Preference-Applied"]) == (200, "wait=5")
    assert [call[0] for call in served.exchange.calls] == ["accept"]


async def test_a_long_poll_returns_when_the_line_is_final(served: Any, line: Any, headers: Any) -> None:
    _, _, batch = await _post(served, {"lines": [line()]}, headers)
    async with served.client() as client:
        polling = asyncio.ensure_future(client.get(served.url(f"/queries/{batch['batch']}?wait=30")))
        await served.exchange.inquiries.waiting.wait()
        served.exchange.inquiries.answer()
        async with await polling as answer:
            assert (await answer.json())["lines"][0]["outcome"] == "provided"


async def test_who_cannot_wait_is_answered_at_once(serve: Any, line: Any, headers: Any) -> None:
    served = await serve(limits=Limits(parked_per_agency=0))
    status, fields, batch = await _post(served, {"lines": [line()]}, headers | {"Prefer": "wait=30"})
    assert status == 202
    assert "Preference-Applied" not in fields
    async with (
        served.client() as client,
        client.get(served.url(f"/queries/{batch['batch']}?wait=30")) as answer,
    ):
        assert answer.status == 200
    assert "wait" not in [call[0] for call in served.exchange.calls]


async def test_who_waits_holds_no_place(serve: Any, line: Any, headers: Any) -> None:
    served = await serve(limits=Limits(in_flight_max=1, queue_wait_s=0.05))
    posting = asyncio.ensure_future(_post(served, {"lines": [line()]}, headers | {"Prefer": "wait=30"}))
    await served.exchange.inquiries.waiting.wait()
    assert served.services.admission.at_work == 0
    async with served.client() as client, client.get(served.url("/queries")) as answer:
        assert answer.status == 200
    served.exchange.inquiries.answer()
    assert (await posting)[0] == 200


async def test_a_drain_ends_every_wait(served: Any, line: Any, headers: Any) -> None:
    posting = asyncio.ensure_future(_post(served, {"lines": [line()]}, headers | {"Prefer": "wait=60"}))
    await served.exchange.inquiries.waiting.wait()
    served.services.drain.begin()
    async with served.client() as client, client.get(served.url("/queries")) as answer:
        # Notice is given, and everybody is still served: who waits goes on waiting.
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert not posting.done()
    served.services.drain.close()
    async with asyncio.timeout(5):
        status, fields, _ = await posting
    assert (status, fields["Connection"]) == (202, "close")


async def test_collecting_hands_out_content_until_there_is_none(served: Any, line: Any, headers: Any) -> None:
    _, _, batch = await _post(served, {"lines": [line()]}, headers)
    url = served.url(f"/queries/{batch['batch']}/collect")
    async with served.client() as client:
        async with client.post(url, headers=headers) as answer:
            assert (await answer.json())["code"] == "not_collectable"
        served.exchange.inquiries.answer()
        for _ in range(2):
            async with client.post(url, headers=headers, json={}) as answer:
                assert (await answer.json())["lines"][0]["state"] == "collected"
        async with client.post(url, headers=headers, json={"lines": []}) as answer:
            assert (await answer.json())["code"] == "invalid_field"


async def test_cancelling_is_done_for_the_caller(served: Any, line: Any, headers: Any) -> None:
    _, _, batch = await _post(served, {"lines": [line()]}, headers)
    async with (
        served.client() as client,
        client.post(served.url(f"/queries/{batch['batch']}/cancel"), headers=headers) as answer,
    ):
        assert answer.status == 200
    assert served.exchange.calls[-1] == ("cancel", CITY, "tax")


async def test_a_list_by_state_is_asked_for_with_its_cursor(served: Any) -> None:
    url = served.url("/queries?state=permitted&after=abc&limit=7")
    async with served.client() as client, client.get(url) as answer:
        assert answer.status == 200
    assert served.exchange.calls == [("page", CITY, "permitted", "abc", 7)]


@pytest.mark.requirement("TEN-01")
async def test_a_batch_of_another_agency_is_not_found(served: Any, line: Any, headers: Any) -> None:
    _, _, batch = await _post(served, {"lines": [line()]}, headers)
    paths = [f"/queries/{batch['batch']}", f"/queries/{uuid.uuid4()}"]
    async with served.client("town") as client:
        answers = []
        for path in paths:
            async with client.get(served.url(path, TOWN)) as answer:
                document = await answer.json()
                answers.append((answer.status, {k: v for k, v in document.items() if k != "instance"}))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
