"""Calls of later stages: documented, refused by a registered problem, and for those only who might use them."""

from typing import Any

import pytest

from chukan.platform.http.later import ROUTES

ID = "0199d8d4-0000-7000-8000-000000000001"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_a_call_of_a_later_stage_says_so_whatever_is_sent(served: Any, route: Any) -> None:
    url = served.url(route.path.replace("{record}", ID))
    for body in (None, b"{}", b"no json at all" * 1000):
        async with (
            served.client() as client,
            client.request(route.method, url, data=body if route.streams else None) as answer,
        ):
            assert (answer.status, (await answer.json())["code"]) == (404, "not_in_service")
    assert served.exchange.calls == []
    assert served.services.admission.at_work == 0


async def test_who_may_not_use_it_is_not_told_whether_it_is_there(served: Any) -> None:
    async with served.client("counter") as client, client.post(served.url("/resident/records")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "function_not_granted")
