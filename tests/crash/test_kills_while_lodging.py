"""kill -9 of exchanges and databases while agencies lodge copies and acquire linkage codes.

What was acknowledged is there, once: every load that was committed, every code that was acquired, as the agencies' own
exports tell afterwards. The moment of a kill is "so many more copies are lodged" or "so many more codes acquired".
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import pytest_asyncio

from chukan.ops.demo.bring_up import EXCHANGES
from chukan.ops.demo.databases import CELLS
from chukan.ops.demo.lodging import Lodging
from chukan.tests.crash.logs import complaints, named
from chukan.tests.crash.town import DATABASES, Town, bare_town

KILLS: Final = 6
DEADLINE_S: Final = 600.0
VICTIMS: Final = (*EXCHANGES, *DATABASES)
Work = Callable[[Callable[[int], None]], Awaitable[None]]
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def empty() -> Any:
    """A town in which nothing is lodged yet."""
    async with bare_town() as built:
        yield built


class Counted:
    """Counts what is done, and lets a kill wait for a number of it."""

    def __init__(self) -> None:
        self.done = 0
        self._news = asyncio.Event()

    def advance(self, number: int) -> None:
        """So much more is done."""
        self.done += number
        self._news.set()

    async def reach(self, number: int) -> None:
        """Wait until so much is done."""
        async with asyncio.timeout(DEADLINE_S):
            while self.done < number:
                self._news.clear()
                await self._news.wait()


async def _disturbed(town: Town, work: Work, total: int, moments: Any) -> None:
    """Do some work, again and again, until all victims were killed; each is started again at once."""
    counted = Counted()

    async def kill() -> None:
        for _ in range(KILLS):
            await counted.reach(counted.done + moments.number(1, total // 3))
            victim = moments.one_of(VICTIMS)
            sys.stderr.write(f"    kill -9 {victim} at {counted.done}, {total} in a round\n")
            await town.kill(victim)
            await town.again(victim)

    killing = asyncio.create_task(kill())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await work(counted.advance)
            while not killing.done():
                # What is there already is registered again, unchanged.
                await work(counted.advance)
            await killing
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    assert counted.done % total == 0


@pytest.mark.requirement("TXR-03")
async def test_copies_and_codes_survive_every_kill(empty: Town, moments: Any) -> None:
    lodging = Lodging(empty, empty.systems)
    await _disturbed(empty, lodging.lodge, lodging.expected(), moments)
    await _disturbed(empty, lodging.acquire, lodging.people(), moments)
    assert await lodging.count_copies() == lodging.expected()
    assert await lodging.count_codes() == lodging.people()
    for cell in CELLS:
        admin = await empty.databases.admin(cell)
        for (agency,) in await admin.fetch("SELECT agency FROM chukan.agencies"):
            schema = f"a{agency:05d}"
            # An acquired code has left no number behind (SYM-06), and nothing waits in the stage of a finished load.
            assert await admin.fetchval(f"SELECT count(*) FROM {schema}.codes WHERE number IS NOT NULL") == 0
            assert await admin.fetchval(f"SELECT count(*) FROM {schema}.stage") == 0
        await admin.close()
    assert named(empty) == []
    assert complaints(empty) == []
