"""A restored cell over HTTP: reading works, everything else is 503 cell_restored, before its body is looked at."""

from typing import Any

import pytest

from chukan.errors import Problem

CITY = "1310100000000001"


async def closed(cell: str) -> None:
    """Let nothing pass to the cell that was restored."""
    if cell == "east":
        raise Problem("cell_restored", retry_after_s=30)


@pytest.mark.requirement("INQ-12")
async def test_a_closed_cell_answers_503_with_a_time_to_come_back_and_goes_on_reading(
    serve: Any, line: Any, headers: Any
) -> None:
    served = await serve(admit=closed)
    async with served.client() as client:
        async with client.post(served.url("/queries"), json={"lines": [line()]}, headers=headers) as answer:
            problem = await answer.json(content_type=None)
            assert (answer.status, problem["code"], answer.headers["Retry-After"]) == (503, "cell_restored", "30")
            assert problem["retryable"]
        async with client.post(served.url("/copies"), data=b"not even JSON", headers=headers) as answer:
            assert (await answer.json(content_type=None))["code"] == "cell_restored"
        async with client.get(served.url("/statistics?from=2026-01&to=2026-02")) as answer:
            assert (await answer.json(content_type=None)).get("code") != "cell_restored"
    assert [call for call in served.exchange.calls if call[0] != "statistics"] == []


async def test_the_cell_of_another_agency_is_asked_for_it_and_not_this_one(serve: Any, line: Any, headers: Any) -> None:
    asked: list[str] = []

    async def admit(cell: str) -> None:
        asked.append(cell)

    served = await serve(admit=admit)
    async with served.client() as client:
        async with client.post(served.url("/queries"), json={"lines": [line()]}, headers=headers) as answer:
            assert answer.status == 202
        async with client.get(served.url("/statistics?from=2026-01&to=2026-02")):
            pass
    assert asked == ["east"]
