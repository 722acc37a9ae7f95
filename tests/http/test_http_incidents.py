"""The search for affected persons: what is no period of our time is refused before anybody looks."""

from typing import Any

import pytest


@pytest.mark.requirement("BRE-01")
@pytest.mark.parametrize(
    ("since", "until", "pointer"),
    [
        ("0001-01-01T00:00:00+14:00", "0001-01-02T00:00:00+14:00", "/since"),
        ("9999-12-31T00:00:00-14:00", "9999-12-31T23:59:59-14:00", "/since"),
        ("2026-11-23T00:00:00Z", "2026-11-22T00:00:00Z", "/until"),
        ("2001-11-23T00:00:00Z", "2026-11-22T00:00:00Z", "/until"),
    ],
)
async def test_a_period_that_cannot_be_looked_for_is_refused(served: Any, since: str, until: str, pointer: str) -> None:
    async with (
        served.client() as client,
        client.post(served.url("/incidents/affected"), json={"since": since, "until": until}) as answer,
    ):
        said = await answer.json(content_type=None)
        assert (answer.status, said["code"], said["pointer"]) == (422, "invalid_field", pointer)
    assert served.exchange.calls == []
