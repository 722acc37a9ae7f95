"""Look-up of holders over HTTP: a list in, providers or a reason per line out, no value in a refusal."""

from typing import Any

import pytest

from chukan.tenants.numbers import synthetic_individual_number

CITY = "1310100000000001"
LINE = {"addressee": "A1", "affair": "JM01000000121000", "procedure": "JT01010000000214", "kind": "TM00000000000002"}


@pytest.mark.requirement("INQ-03")
async def test_a_look_up_is_answered_line_by_line(served: Any) -> None:
    async with (
        served.client() as client,
        client.post(served.url("/holders"), json={"lines": [LINE, LINE]}) as answer,
    ):
        assert answer.status == 200
        assert [line["providers"] for line in (await answer.json())["lines"]] == [["1" * 16]] * 2
    ((_, agency, body),) = served.exchange.calls
    assert (agency, len(body.lines)) == (CITY, 2)


async def test_an_individual_number_never_reaches_the_network(served: Any) -> None:
    number = synthetic_individual_number(5)
    body = {"lines": [LINE, {**LINE, "addressee": number}]}
    async with served.client() as client, client.post(served.url("/holders"), json=body) as answer:
        text = await answer.text()
        assert (answer.status, (await answer.json())["line"]) == (422, 2)
    assert number not in text
    assert served.exchange.calls == []
