"""Officers' acts at the front door: delegations and resending are refused to systems, whatever these may do else."""

from typing import Any

import msgspec
import pytest

from chukan.platform.http.delegations import ROUTES
from chukan.platform.wire.corrections import RecordCorrection

ID = "0199d8d4-0000-7000-8000-000000000001"
PROPOSAL = ROUTES[1].examples[0].value


@pytest.mark.requirement("INQ-08", "INQ-10")
@pytest.mark.parametrize(
    "path",
    [
        f"/queries/{ID}/resend",
        "/delegations",
        f"/delegations/{ID}/approve",
        f"/delegations/{ID}/end",
        f"/records/{ID}/correct",
    ],
)
async def test_a_system_is_not_an_officer(served: Any, headers: Any, path: str) -> None:
    bodies = {"/delegations": PROPOSAL, f"/records/{ID}/correct": RecordCorrection(withheld=True)}
    body = msgspec.json.encode(bodies[path]) if path in bodies else None
    async with (
        served.client("tax") as client,
        client.post(served.url(path), data=body, headers=headers | {"Content-Type": "application/json"}) as answer,
    ):
        assert (answer.status, (await answer.json())["code"]) == (403, "officer_required")
    assert served.exchange.calls == []


@pytest.mark.requirement("INQ-08")
async def test_a_proposal_comes_to_the_service_with_its_key_and_all_that_goes_with_it(
    served: Any, headers: Any
) -> None:
    body = msgspec.json.encode(PROPOSAL)
    async with (
        served.client("tanaka") as client,
        client.post(
            served.url("/delegations"), data=body, headers=headers | {"Content-Type": "application/json"}
        ) as answer,
    ):
        document = await answer.json()
    assert (answer.status, document["state"], document["proposed_by"]) == (200, "proposed", "tanaka")
    ((_, _, officer, key, content),) = served.exchange.delegations.calls
    assert officer == "tanaka"
    assert key in headers.values()
    assert body in content


@pytest.mark.requirement("INQ-10")
async def test_an_officer_who_may_ask_may_send_again(served: Any, headers: Any) -> None:
    async with (
        served.client("sato") as client,
        client.post(served.url(f"/queries/{ID}/resend"), headers=headers) as got,
    ):
        assert (got.status, (await got.json())["code"]) == (404, "not_found")
    assert [call[0] for call in served.exchange.calls] == ["resend"]
