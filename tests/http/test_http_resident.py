"""The call for a resident's own records: what it takes, and who may make it."""

from typing import Any

import pytest

from chukan.platform.http.routes import ROUTES
from chukan.platform.wire.resident import PERSONS_MAX
from chukan.tenants.directory import FUNCTIONS, OFFICER_FUNCTIONS

CITY = "1310100000000001"


async def ask(served: Any, name: str, body: Any) -> tuple[int, Any]:
    async with served.client(name) as client, client.post(served.url("/resident/records"), json=body) as answer:
        return answer.status, await answer.json()


@pytest.mark.requirement("REC-03")
async def test_a_person_is_named_by_numbers_or_codes(served: Any) -> None:
    for body in ({"addressees": ["A1", "A2"]}, {"codes": ["AAAA"]}, {"addressees": ["A1"], "deny_existence": True}):
        status, said = await ask(served, "tax", body)
        assert (status, said["shows"]) == (200, "nothing")
    assert [call[0] for call in served.exchange.desk.calls] == ["resident"] * 3


async def test_what_names_nobody_or_too_many_is_refused(served: Any) -> None:
    for body in ({}, {"addressees": ["A1"] * (PERSONS_MAX + 1)}, {"codes": [""]}, {"addressees": ["A 1"]}):
        status, said = await ask(served, "tax", body)
        assert (status, said["code"] != "") == (422, True)
    assert served.exchange.desk.calls == []


async def test_who_may_not_read_records_may_not_ask(served: Any) -> None:
    status, said = await ask(served, "counter", {"addressees": ["A1"]})
    assert (status, said["code"]) == (403, "function_not_granted")


def test_the_portals_function_opens_this_call_alone() -> None:
    assert "residents" in FUNCTIONS - OFFICER_FUNCTIONS
    assert [route.name for route in ROUTES if "residents" in route.right.functions] == ["residentRecords"]
