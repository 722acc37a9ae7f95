"""A whole exchange writes down whom it refused: by itself while it runs, and what is left when it goes."""

import asyncio
from typing import Any

import pytest

from chukan.ops.sandbox.endpoints import pause
from chukan.platform.http.refusals import EVERY_S
from chukan.tests.support.nation import ASKS, GIVES, WAIT_S

pytestmark = [pytest.mark.requirement("TEN-03", "CON-01"), pytest.mark.asyncio(loop_scope="module")]


async def _rows(api: Any) -> list[tuple[str, str, str, int]]:
    admin = await api.world.admin(api.world.databases["east"])
    try:
        found = await admin.fetch("SELECT peer, body, code, times FROM chukan.access_refused ORDER BY until")
    finally:
        await admin.close()
    return [tuple(row) for row in found]


async def test_refused_callers_are_rows_while_it_runs_and_after_it_stopped(api: Any) -> None:
    line = (f"system-{ASKS}", ASKS[4:10], "wrong_agency")
    status, _, problem = await api.send("GET", "/queries", agency=GIVES, by=f"system-{ASKS}")
    assert (status, problem["code"]) == (403, "wrong_agency")
    async with asyncio.timeout(EVERY_S + WAIT_S):
        while not await _rows(api):
            await pause(0.1, asyncio.Event())
    assert await _rows(api) == [(*line, 1)]
    for _ in range(2):
        await api.send("GET", "/queries", agency=GIVES, by=f"system-{ASKS}")
    await api.world.sites.pop("east").stop()
    rows = await _rows(api)
    assert {row[:3] for row in rows} == {line}
    assert sum(row[3] for row in rows) == 3
